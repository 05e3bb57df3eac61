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
    uint256 private _done;
    uint256 private _moves;

    function setUp() public override {
        super.setUp();
        _leases[0] = lease;
        _leases[1] = aLease(order, WORKER, 2);
        escrow.seat(order, seating(_leases[1], WORKER));
        for (uint256 p = 0; p < 100; p += 3) wrongEnd[p] = keccak256(abi.encode("garbage", p));
    }

    function test_bonds_are_conserved_in_every_path(uint256 seed) public {
        for (uint256 i = 0; i < 120; ++i) {
            seed = uint256(keccak256(abi.encode(seed, i)));
            choose(seed >> 8 & 1);
            move(seed % 16, seed >> 16);
            bondsAddUp();
        }
        vm.assertLe(_moves, _done * 10, "hardly anything was done");
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

    /// @dev A refusal is none of a path; a panic, or a token that is not there, is a fault.
    function attempt(address by, address to, bytes memory data) private returns (bool ok, bytes memory answer) {
        vm.prank(by);
        (ok, answer) = to.call(data);
        ++_moves;
        if (ok) ++_done;
        bytes4 why = ok ? bytes4(0) : bytes4(answer);
        vm.assertTrue(why != 0x4e487b71 && why != 0x08c379a0 && (ok || answer.length >= 4), "a panic");
        vm.assertTrue(why != bytes4(keccak256("ERC20InsufficientBalance(address,uint256,uint256)")), "unfunded");
    }

    function aClaim(uint256 r) private returns (bytes32 id) {
        if (_claims.length == 0) return 0;
        id = _claims[r % _claims.length];
        choose(_seatOfClaim[id]);
    }

    function tryClaim(uint256 r) private {
        uint40 from = escrow.seatOf(seat).paidUnits;
        uint40 count = uint40(1 + r % 40);
        if (from + count > UNITS) return;
        bytes memory data = abi.encodeCall(IClaims.claim, (order, lease, aTally(from, count), none, witnesses));
        (bool ok, bytes memory id) = attempt(who(WORKER), address(claims), data);
        if (!ok) return;
        _claims.push(bytes32(id));
        _seatOfClaim[bytes32(id)] = seat == escrow.seatIdOf(_leases[0]) ? 0 : 1;
    }

    function tryCapture(uint256 r) private {
        bytes32 id = aClaim(r);
        blocks(r >> 8 & 31 == 0 ? 270 : 5);
        attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.capture, (id)));
    }

    function tryCommit(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id == 0 || claims.claimOf(id).state != IClaims.State.Sampling) return;
        uint8 sample = uint8(r >> 8) % claims.claimOf(id).k;
        uint8 rank = uint8(r >> 16) % 3;
        (address auditor, uint16 at_) = claims.auditorAt(id, sample, rank);
        bytes32 end = rightFields(indexOf(id, sample)).end;
        if (r >> 24 & 7 == 0) end = 0;
        if (r >> 24 & 7 == 1) end = keccak256("a lie");
        bytes memory data =
            abi.encodeCall(IClaims.commit, (id, sample, rank, at_, commitmentOf(end, auditor)));
        (bool ok,) = attempt(auditor, address(claims), data);
        if (ok) _ends[id][sample] = end;
    }

    function tryOpen(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id == 0 || claims.claimOf(id).state != IClaims.State.Sampling) return;
        attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.open, (id, openingsOf(id))));
    }

    function tryReveal(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id == 0 || claims.claimOf(id).state != IClaims.State.Revealing) return;
        uint8 sample = uint8(r >> 8) % claims.claimOf(id).k;
        IClaims.Finding memory finding = findingOf(id, sample, _ends[id][sample], uint32(1 + (r >> 16) % 5));
        address auditor = claims.sampleOf(id, sample).auditor;
        (bool ok,) = attempt(auditor, address(claims), abi.encodeCall(IClaims.reveal, (id, sample, finding)));
        if (ok && claims.sampleOf(id, sample).heard == IClaims.Heard.Disputed) _cases.push(caseOf(id, sample));
    }

    function tryRule(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id == 0) return;
        for (uint8 s = 0; s < claims.claimOf(id).k; ++s) {
            if (claims.sampleOf(id, s).heard != IClaims.Heard.Disputed) continue;
            attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.rule, (lease, id, s)));
        }
    }

    function tryConclude(uint256 r) private {
        bytes32 id = aClaim(r);
        if (id != 0) attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.conclude, (lease, id)));
    }

    function tryAccuse(uint256 r) private {
        uint256 accuser = r & 1 == 0 ? PAYER : STRANGER;
        IAccusations.Charge memory charge = aCharge((r >> 8) % 100, uint32(1 + (r >> 16) % 9));
        if (wrongEnd[charge.position] == 0) charge.ownEnd = keccak256("a false charge");
        bytes memory data = abi.encodeCall(IAccusations.accuse, (order, lease, charge, witnesses));
        (bool ok, bytes memory id) = attempt(who(accuser), address(accusations), data);
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
        if (r & 7 == 0) later(3 hours);
        if (found.state == ICourt.State.Posting) {
            attempt(parties.accused, address(court), abi.encodeCall(ICourt.post, (id, keccak256(abi.encode(r & 8)))));
        } else if (found.state == ICourt.State.Answering) {
            bytes memory data = abi.encodeCall(ICourt.answer, (id, keccak256(abi.encode(r & 16))));
            attempt(parties.accuser, address(court), data);
        } else if (found.state == ICourt.State.Drawing) {
            blocks(5);
        } else if (found.state == ICourt.State.Voting) {
            votes(id, found, r >> 8);
        } else if (found.state == ICourt.State.Appealable && r & 32 == 0) {
            address by = r & 64 == 0 ? parties.accused : parties.accuser;
            attempt(by, address(court), abi.encodeCall(ICourt.appeal, (id)));
        }
        if (found.state != ICourt.State.None && found.state != ICourt.State.Ruled) {
            attempt(who(STRANGER), address(court), abi.encodeCall(ICourt.advance, (id)));
        }
    }

    function votes(bytes32 id, ICourt.Case memory found, uint256 r) private {
        uint8 size = found.appealed ? 31 : 7;
        bytes32[4] memory values = [found.accusedValue, found.accuserValue, keccak256("other"), bytes32(0)];
        if (found.committed == 0) {
            for (uint8 m = 0; m < size; ++m) {
                if (r >> m & 7 == 0) continue; // does not come
                (address member, uint16 at_) = court.memberAt(id, m);
                bytes32 value = values[(r >> 64 + 2 * m & 3) % (r >> 250 & 1 == 0 ? 4 : 2)];
                _votes[id][found.round][m] = value;
                attempt(member, address(court), abi.encodeCall(ICourt.commit, (id, m, at_, ballot(member, value))));
            }
            return;
        }
        vm.warp(uint256(found.deadline) + 1);
        for (uint8 m = 0; m < size; ++m) {
            address member = court.ballotOf(id, found.round, m).member;
            if (member == address(0) || r >> m & 15 == 0) continue;
            bytes memory data =
                abi.encodeCall(ICourt.reveal, (id, m, _votes[id][found.round][m], keccak256("a vote's salt")));
            attempt(member, address(court), data);
        }
    }

    function tryEnd(uint256 r) private {
        if (_accusations.length == 0) return;
        bytes32 id = _accusations[r % _accusations.length];
        choose(_seatOfAccusation[id]);
        attempt(who(STRANGER), address(accusations), abi.encodeCall(IAccusations.acquitOrConvict, (lease, id)));
    }

    function tryOther(uint256 r) private {
        if (r % 4 == 0) {
            escrow.settle(settlement(lease, uint40(r >> 8) % 30));
        } else if (r % 4 == 1) {
            IAccusations.Statement memory a = receiptOf(7, keccak256("one"));
            IAccusations.Statement memory b = receiptOf(7, keccak256("another"));
            attempt(who(STRANGER), address(accusations), abi.encodeCall(IAccusations.fraud, (order, lease, 7, a, b)));
        } else {
            address[] memory all = actors();
            address account = all[(r >> 8) % all.length];
            attempt(who(STRANGER), address(claims), abi.encodeCall(IClaims.withdraw, (account)));
            attempt(who(STRANGER), address(accusations), abi.encodeCall(IAccusations.withdraw, (account)));
            attempt(who(STRANGER), address(court), abi.encodeCall(ICourt.withdraw, (account)));
        }
    }

    // ---------------------------------------------------------------- sums

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
