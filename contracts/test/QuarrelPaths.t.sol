// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Lease, Messages} from "../src/generated/Messages.sol";
import {IAccusations} from "../src/interfaces/IAccusations.sol";
import {IClaims} from "../src/interfaces/IClaims.sol";
import {ICourt} from "../src/interfaces/ICourt.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Quarrel} from "./Quarrel.sol";

/// @notice Claims, accusations and cases side by side, pushed about at random: after every move the bonds add up.
contract QuarrelPathsTest is Quarrel {
    Lease[2] private _leases;
    bytes32[] private _claims;
    mapping(bytes32 claim => uint256 which) private _seatOfClaim;
    bytes32[] private _accusations;
    mapping(bytes32 accusation => uint256 which) private _seatOfAccusation;
    bytes32[] private _cases; // before the Court
    mapping(bytes32 claim => mapping(uint8 sample => bytes32)) private _ends;
    mapping(bytes32 courtCase => mapping(uint256 round => mapping(uint8 member => bytes32))) private _votes;
    mapping(bytes32 claim => uint256 state) private _endOf; // of claims that have ended
    mapping(bytes32 courtCase => uint256 ruling) private _rulingOf; // of cases that were ruled
    uint256 private _moves;
    uint256 private _refused;

    function setUp() public override {
        super.setUp();
        _leases[0] = lease;
        _leases[1] = aLease(order, WORKER, 2);
        escrow.seat(order, seating(_leases[1], WORKER));
        for (uint256 p = 0; p < 100; p += 3) wrongEnd[p] = keccak256(abi.encode("garbage", p));
    }

    /// @notice After every move all bonds, fees and credits add up; at the end whoever holds an Accept on an open seat is paid it, and
    /// a stranger alone frees all that is left. Few moves are refused, and only for reasons that the move names.
    /// hardhat-config: fuzz.runs = 80
    function test_bonds_are_conserved_in_every_path(uint256 seed) public {
        for (uint256 i = 0; i < 120; ++i) {
            seed = uint256(keccak256(abi.encode(seed, i)));
            choose(seed >> 8 & 1);
            move(seed % 16, seed >> 16);
            bondsAddUp();
            endsAreFinal();
        }
        vm.assertLe(_refused * 10, _moves * 4, "more than 40 % of the moves were refused");
        acceptsArePaid();
        strangersFreeAllFunds();
    }

    function choose(uint256 which) private {
        lease = _leases[which];
        seat = escrow.seatIdOf(lease);
    }

    function move(uint256 kind, uint256 r) private {
        if (kind == 0) tryClaim(r);
        else if (kind == 1) tryCapture(r);
        else if (kind < 4) tryCommit(r);
        else if (kind == 4) tryOpen(r);
        else if (kind < 7) tryReveal(r);
        else if (kind == 7) tryRule(r);
        else if (kind == 8) tryConclude(r);
        else if (kind == 9) tryAccuse(r);
        else if (kind < 13) tryCase(r);
        else if (kind == 13) tryEnd(r);
        else if (kind == 14) later(r % 9 hours);
        else tryOther(r);
    }

    /// @param reasons For which it may be refused, four bytes each.
    function attempt(address by, address to, bytes memory data, bytes memory reasons)
        private
        returns (bool ok, bytes memory answer)
    {
        vm.prank(by);
        (ok, answer) = to.call(data);
        ++_moves;
        if (ok) return (ok, answer);
        ++_refused;
        bytes4 why = bytes4(answer);
        for (uint256 i = 0; i < reasons.length; i += 4) {
            bytes4 one = bytes4(bytes.concat(reasons[i], reasons[i + 1], reasons[i + 2], reasons[i + 3]));
            if (one == why) return (ok, answer);
        }
        vm.assertEq(bytes32(why), bytes32(bytes4(data)), "refused for another reason than this call names");
    }

    /// @dev Mostly; now and then a move is tried where nothing can come of it.
    function idle(uint256 r) private pure returns (bool) {
        return r >> 200 & 15 != 0;
    }

    function aClaim(uint256 r) private returns (bytes32 id) {
        if (_claims.length == 0) return 0;
        id = _claims[r % _claims.length];
        choose(_seatOfClaim[id]);
    }

    function tryClaim(uint256 r) private {
        IJobEscrow.Seat memory found = escrow.seatOf(seat);
        IClaims.Quarrels memory before = claims.quarrelsOf(seat);
        uint40 from = found.paidUnits;
        if (r >> 8 & 1 == 0 && from > before.claimedTo) from = before.claimedTo; // what was paid is sampled, too
        uint40 count = from == found.paidUnits ? uint40(1 + r % 40) : uint40(found.paidUnits - from + 1 + r % 20);
        if (from + count > UNITS) return;
        bool possible = found.state == IJobEscrow.SeatState.Open && found.bond >= BOND && before.claim == 0
            && from >= before.claimedTo && block.timestamp <= found.until + order.claimWindow;
        if (!possible && idle(r)) return;
        bytes memory data = abi.encodeCall(IClaims.claim, (order, lease, aTally(from, count), none, witnesses));
        bytes memory reasons = bytes.concat(
            IClaims.SeatNotOpen.selector, IClaims.BondTooSmall.selector, IClaims.ClaimLive.selector,
            IClaims.AlreadyClaimed.selector, IClaims.TooLate.selector, IJobEscrow.NotHeld.selector
        );
        (bool ok, bytes memory id) = attempt(who(WORKER), address(claims), data, reasons);
        if (!ok) return;
        _claims.push(bytes32(id));
        _seatOfClaim[bytes32(id)] = seat == escrow.seatIdOf(_leases[0]) ? 0 : 1;
    }

    function tryCapture(uint256 r) private {
        bytes32 id = aClaim(r);
        if (claims.claimOf(id).state != IClaims.State.Pending && idle(r)) return;
        blocks(r >> 8 & 31 == 0 ? 270 : 5);
        bytes memory reasons = bytes.concat(IClaims.WrongState.selector, IClaims.TooLate.selector);
        attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.capture, (id)), reasons);
    }

    function tryCommit(uint256 r) private {
        bytes32 id = aClaim(r);
        IClaims.Claim memory found = claims.claimOf(id);
        if (id == 0 || found.state != IClaims.State.Sampling) return;
        uint8 sample = uint8(r >> 8) % found.k;
        uint8 rank = uint8(r >> 16) % 3;
        uint256 due = found.sampledAt + rank * COMMIT;
        if (block.timestamp < due && idle(r)) vm.warp(due);
        bool late = found.opened != 0 || block.timestamp >= found.sampledAt + 3 * COMMIT;
        if ((late || claims.sampleOf(id, sample).auditor != address(0)) && idle(r)) return;
        (address auditor, uint16 at_) = claims.auditorAt(id, sample, rank);
        bytes32 end = rightFields(indexOf(id, sample)).end;
        if (r >> 24 & 7 == 0) end = 0;
        if (r >> 24 & 7 == 1) end = keccak256("a lie");
        bytes memory data =
            abi.encodeCall(IClaims.commit, (id, sample, rank, at_, commitmentOf(end, auditor)));
        bytes memory reasons =
            bytes.concat(IClaims.TooLate.selector, IClaims.BadSample.selector, IClaims.TooEarly.selector);
        (bool ok,) = attempt(auditor, address(claims), data, reasons);
        if (ok) _ends[id][sample] = end;
    }

    function tryOpen(uint256 r) private {
        bytes32 id = aClaim(r);
        IClaims.Claim memory found = claims.claimOf(id);
        if (id == 0 || found.state != IClaims.State.Sampling) return;
        uint256 due = found.sampledAt + 3 * COMMIT;
        if (found.committed < found.k && block.timestamp < due) {
            if (r >> 8 & 1 == 0 && idle(r)) return;
            if (idle(r)) vm.warp(due);
        }
        bytes memory reasons = bytes.concat(IClaims.TooEarly.selector, IClaims.TooLate.selector);
        attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.open, (id, openingsOf(id))), reasons);
    }

    function tryReveal(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id == 0 || claims.claimOf(id).state != IClaims.State.Revealing) return;
        uint8 sample = uint8(r >> 8) % claims.claimOf(id).k;
        if (claims.sampleOf(id, sample).heard != IClaims.Heard.Committed && idle(r)) return;
        IClaims.Finding memory finding = findingOf(id, sample, _ends[id][sample], uint32(1 + (r >> 16) % 5));
        address auditor = claims.sampleOf(id, sample).auditor;
        bytes memory data = abi.encodeCall(IClaims.reveal, (id, sample, finding));
        bytes memory reasons = bytes.concat(IClaims.NotYours.selector, IClaims.TooLate.selector);
        (bool ok,) = attempt(auditor, address(claims), data, reasons);
        if (ok && claims.sampleOf(id, sample).heard == IClaims.Heard.Disputed) _cases.push(caseOf(id, sample));
    }

    function tryRule(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id == 0) return;
        for (uint8 s = 0; s < claims.claimOf(id).k; ++s) {
            if (claims.sampleOf(id, s).heard != IClaims.Heard.Disputed) continue;
            if (court.caseOf(caseOf(id, s)).state != ICourt.State.Ruled && idle(r)) continue;
            bytes memory data = abi.encodeCall(IClaims.rule, (lease, id, s));
            attempt(who(STRANGER), address(claims), data, bytes.concat(ICourt.NotRuled.selector));
        }
    }

    function tryConclude(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id == 0) return;
        IClaims.Claim memory found = claims.claimOf(id);
        bool over = uint256(found.state) >= uint256(IClaims.State.Paid);
        bool waits = found.state == IClaims.State.Pending || block.timestamp <= found.deadline || found.inCourt != 0
            || accusations.blocking(found.seat) != 0;
        if ((over || waits) && idle(r)) return;
        bytes memory reasons = bytes.concat(IClaims.WrongState.selector, IClaims.TooEarly.selector);
        attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.conclude, (lease, id)), reasons);
    }

    function tryAccuse(uint256 r) private {
        uint256 accuser = r & 1 == 0 ? PAYER : STRANGER;
        IAccusations.Charge memory charge = aCharge((r >> 8) % 100, uint32(1 + (r >> 16) % 9));
        if (wrongEnd[charge.position] == 0) charge.ownEnd = keccak256("a false charge");
        bytes memory data = abi.encodeCall(IAccusations.accuse, (order, lease, charge, witnesses));
        bytes memory reasons = bytes.concat(ICourt.CaseExists.selector, IJobEscrow.NotHeld.selector);
        (bool ok, bytes memory id) = attempt(who(accuser), address(accusations), data, reasons);
        if (!ok) return;
        _accusations.push(bytes32(id));
        _cases.push(bytes32(id));
        _seatOfAccusation[bytes32(id)] = seat == escrow.seatIdOf(_leases[0]) ? 0 : 1;
    }

    function tryCase(uint256 r) private {
        if (_cases.length == 0) return;
        bytes32 id = _cases[r % _cases.length];
        r >>= 16;
        ICourt.Case memory found = court.caseOf(id);
        ICourt.Parties memory parties = court.partiesOf(id);
        bytes memory late = bytes.concat(ICourt.TooLate.selector);
        if (r & 7 == 0) later(3 hours);
        if (found.state == ICourt.State.Posting) {
            bytes memory data = abi.encodeCall(ICourt.post, (id, keccak256(abi.encode(r & 8))));
            if (block.timestamp <= found.deadline || !idle(r)) attempt(parties.accused, address(court), data, late);
        } else if (found.state == ICourt.State.Answering) {
            bytes memory data = abi.encodeCall(ICourt.answer, (id, keccak256(abi.encode(r & 16))));
            if (block.timestamp <= found.deadline || !idle(r)) attempt(parties.accuser, address(court), data, late);
        } else if (found.state == ICourt.State.Drawing) {
            blocks(5);
        } else if (found.state == ICourt.State.Voting) {
            votes(id, found, r >> 8);
        } else if (found.state == ICourt.State.Appealable && r & 32 == 0 && block.timestamp <= found.deadline) {
            address by = r & 64 == 0 ? parties.accused : parties.accuser;
            attempt(by, address(court), abi.encodeCall(ICourt.appeal, (id)), late);
        }
        found = court.caseOf(id);
        bool told = found.revealed == found.committed || block.timestamp > found.revealUntil;
        bool due = found.state == ICourt.State.Drawing
            || (block.timestamp > found.deadline && (found.state != ICourt.State.Voting || told));
        if (found.state == ICourt.State.None || found.state == ICourt.State.Ruled || (!due && idle(r))) return;
        bytes memory early = bytes.concat(ICourt.TooEarly.selector);
        attempt(who(STRANGER), address(court), abi.encodeCall(ICourt.advance, (id)), early);
    }

    function votes(bytes32 id, ICourt.Case memory found, uint256 r) private {
        uint8 size = found.appealed ? 31 : 7;
        bytes memory late = bytes.concat(ICourt.TooLate.selector);
        bytes32[4] memory values = [found.accusedValue, found.accuserValue, keccak256("other"), bytes32(0)];
        if (found.committed == 0) {
            if (block.timestamp > found.deadline && idle(r)) return;
            for (uint8 m = 0; m < size; ++m) {
                if (r >> m & 7 == 0) continue; // does not come
                (address member, uint16 at_) = court.memberAt(id, m);
                bytes32 value = values[(r >> 64 + 2 * m & 3) % (r >> 190 & 1 == 0 ? 4 : 2)];
                _votes[id][found.round][m] = value;
                bytes memory data = abi.encodeCall(ICourt.commit, (id, m, at_, ballot(member, value)));
                attempt(member, address(court), data, late);
            }
            return;
        }
        if (block.timestamp <= found.deadline) vm.warp(uint256(found.deadline) + 1);
        if (block.timestamp > found.revealUntil && idle(r)) return;
        for (uint8 m = 0; m < size; ++m) {
            ICourt.Ballot memory one = court.ballotOf(id, found.round, m);
            if (one.member == address(0) || r >> m & 15 == 0) continue;
            if (one.vote != ICourt.Vote.None && idle(r)) continue;
            bytes memory data =
                abi.encodeCall(ICourt.reveal, (id, m, _votes[id][found.round][m], keccak256("a vote's salt")));
            attempt(one.member, address(court), data, bytes.concat(late, ICourt.NotCommitted.selector));
        }
    }

    function tryEnd(uint256 r) private {
        if (_accusations.length == 0) return;
        bytes32 id = _accusations[r % _accusations.length];
        choose(_seatOfAccusation[id]);
        bool ended = accusations.accusationOf(id).ended || court.caseOf(id).state != ICourt.State.Ruled;
        if (ended && idle(r)) return;
        bytes memory data = abi.encodeCall(IAccusations.acquitOrConvict, (lease, id));
        bytes memory reasons = bytes.concat(IAccusations.NoSuchAccusation.selector, ICourt.NotRuled.selector);
        attempt(who(STRANGER), address(accusations), data, reasons);
    }

    function tryOther(uint256 r) private {
        if (r % 5 == 0) {
            escrow.settle(settlement(lease, uint40(r >> 8) % 30));
        } else if (r % 5 == 1) {
            if (escrow.lockLeft(lease) == 0 && idle(r)) return;
            IAccusations.Statement memory a = receiptOf(7, keccak256("one"));
            IAccusations.Statement memory b = receiptOf(7, keccak256("another"));
            bytes memory data = abi.encodeCall(IAccusations.fraud, (order, lease, 7, a, b));
            bytes memory reasons = bytes.concat(IAccusations.NothingToSlash.selector, IJobEscrow.NotHeld.selector);
            attempt(who(STRANGER), address(accusations), data, reasons);
        } else if (r % 5 == 2) {
            if (court.pool() == 0 && idle(r)) return;
            bytes memory reasons = bytes.concat(ICourt.NothingToBurn.selector);
            attempt(who(STRANGER), address(court), abi.encodeCall(ICourt.burnPool, ()), reasons);
        } else {
            address[] memory all = actors();
            address account = all[(r >> 8) % all.length];
            address[3] memory holders = [address(claims), address(accusations), address(court)];
            bytes memory data = abi.encodeCall(IClaims.withdraw, (account)); // of all three alike
            bytes memory reasons = bytes.concat(IClaims.NothingToWithdraw.selector);
            for (uint256 i = 0; i < 3; ++i) {
                if (IClaims(holders[i]).creditOf(account) == 0 && idle(r)) continue;
                attempt(who(STRANGER), holders[i], data, reasons);
            }
        }
    }

    // ---------------------------------------------------------------- the end

    /// @dev Whatever was claimed, accused and ruled before: a seat that is open pays its Accept to the wei.
    function acceptsArePaid() private {
        for (uint256 i = 0; i < 2; ++i) {
            choose(i);
            IJobEscrow.Seat memory found = escrow.seatOf(seat);
            if (found.state != IJobEscrow.SeatState.Open) continue;
            uint256 before = escrow.creditOf(who(WORKER));
            uint40 units = found.paidUnits + (UNITS - found.paidUnits) / 2 + 1;
            escrow.settle(settlement(lease, units));
            uint256 due = netOf(uint256(units) * PRICE) - netOf(uint256(found.paidUnits) * PRICE);
            vm.assertEq(escrow.creditOf(who(WORKER)) - before, due, "an Accept was not paid");
        }
    }

    /// @dev Everybody else is gone for good.
    function strangersFreeAllFunds() private {
        vm.startPrank(who(STRANGER));
        for (uint256 day = 0; day < 12; ++day) {
            blocks(300);
            later(1 days);
            for (uint256 i = 0; i < _cases.length; ++i) {
                nudge(address(court), abi.encodeCall(ICourt.advance, (_cases[i])));
            }
            for (uint256 i = 0; i < _accusations.length; ++i) {
                choose(_seatOfAccusation[_accusations[i]]);
                nudge(address(accusations), abi.encodeCall(IAccusations.acquitOrConvict, (lease, _accusations[i])));
            }
            for (uint256 i = 0; i < _claims.length; ++i) {
                choose(_seatOfClaim[_claims[i]]);
                for (uint8 s = 0; s < claims.claimOf(_claims[i]).k; ++s) {
                    nudge(address(claims), abi.encodeCall(IClaims.rule, (lease, _claims[i], s)));
                }
                nudge(address(claims), abi.encodeCall(IClaims.conclude, (lease, _claims[i])));
            }
        }
        Lease[] memory both = new Lease[](2);
        (both[0], both[1]) = (_leases[0], _leases[1]);
        escrow.expire(order, both);
        later(LOCK_TAIL + order.evidenceWindow);
        escrow.unlock(both);
        escrow.refund(order);
        nudge(address(escrow), abi.encodeCall(IJobEscrow.burnFees, ()));
        nudge(address(escrow), abi.encodeCall(IJobEscrow.withdraw, (address(court))));
        address[] memory all = actors();
        address[4] memory holders = [address(escrow), address(claims), address(accusations), address(court)];
        for (uint256 i = 0; i < all.length; ++i) {
            bytes memory data = abi.encodeCall(IClaims.withdraw, (all[i])); // of all four alike
            for (uint256 h = 0; h < 4; ++h) nudge(holders[h], data);
        }
        nudge(address(court), abi.encodeCall(ICourt.burnPool, ()));
        vm.stopPrank();
        for (uint256 h = 0; h < 4; ++h) vm.assertEq(token.balanceOf(holders[h]), 0, "something is stuck");
        for (uint256 i = 0; i < 2; ++i) {
            vm.assertTrue(stateOf(_leases[i]) == IJobEscrow.SeatState.Unlocked, "a lock has not ended");
        }
    }

    function nudge(address to, bytes memory data) private {
        (bool done,) = to.call(data);
        done;
    }

    // ---------------------------------------------------------------- sums

    function endsAreFinal() private {
        for (uint256 i = 0; i < _claims.length; ++i) {
            uint256 state = uint256(claims.claimOf(_claims[i]).state);
            if (_endOf[_claims[i]] != 0) vm.assertEq(state, _endOf[_claims[i]], "a claim ended twice");
            if (state >= uint256(IClaims.State.Paid)) _endOf[_claims[i]] = state;
        }
        for (uint256 i = 0; i < _cases.length; ++i) {
            ICourt.Case memory found = court.caseOf(_cases[i]);
            bool ruled = found.state == ICourt.State.Ruled;
            if (_rulingOf[_cases[i]] != 0) {
                vm.assertTrue(ruled && uint256(found.ruling) == _rulingOf[_cases[i]], "a case was ruled twice");
            }
            if (ruled) _rulingOf[_cases[i]] = uint256(found.ruling);
        }
    }

    function bondsAddUp() private view {
        uint256 bonds;
        for (uint256 i = 0; i < _claims.length; ++i) {
            IClaims.Claim memory found = claims.claimOf(_claims[i]);
            bool ended = uint256(found.state) >= uint256(IClaims.State.Paid);
            bonds += found.left;
            vm.assertTrue(!ended || found.left == 0, "an ended claim holds a bond");
            bool counted = found.state == IClaims.State.Challengeable || ended; // the silent ones were forfeited
            for (uint8 s = 0; s < found.k; ++s) {
                IClaims.Heard heard = claims.sampleOf(_claims[i], s).heard;
                if (heard == IClaims.Heard.Committed && !counted) bonds += found.bond;
                if (heard == IClaims.Heard.Disputed) bonds += found.bond - FEE;
            }
        }
        vm.assertEq(token.balanceOf(address(claims)), bonds + creditsIn(address(claims)), "claims");

        bonds = 0;
        for (uint256 i = 0; i < _accusations.length; ++i) {
            IAccusations.Accusation memory found = accusations.accusationOf(_accusations[i]);
            if (!found.ended) bonds += found.bond;
        }
        vm.assertEq(token.balanceOf(address(accusations)), bonds + creditsIn(address(accusations)), "accusations");

        uint256 fees;
        for (uint256 i = 0; i < _cases.length; ++i) {
            ICourt.Case memory found = court.caseOf(_cases[i]);
            fees += uint256(found.fee) + found.appealFee;
        }
        vm.assertEq(court.owed(), fees + creditsIn(address(court)), "court");
        vm.assertLe(court.owed(), token.balanceOf(address(court)), "the court is solvent");
    }
}
