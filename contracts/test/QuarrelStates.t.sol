// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IAccusations} from "../src/interfaces/IAccusations.sol";
import {IClaims} from "../src/interfaces/IClaims.sol";
import {ICourt} from "../src/interfaces/ICourt.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Lease, Order, Tally} from "../src/generated/Messages.sol";
import {Quarrel} from "./Quarrel.sol";

/// @notice Every call in every state by everybody, as tables; and from every state the way out that strangers alone can go.
contract QuarrelStatesTest is Quarrel {
    bytes4 private constant OK = 0;

    // ---------------------------------------------------------------- claims

    /// @dev States that differ in what may be done, in the order of a claim's life.
    uint256 private constant CLAIM_STATES = 12;

    function reachClaim(uint256 state) private returns (bytes32 id) {
        if (state == 0) return keccak256("no claim");
        id = claimed(0, 50);
        if (state == 1) return id; // Pending
        blocks(5);
        if (state == 2) return id; // Pending, the seed is there
        if (state == 3) { // Pending, the seed is gone
            blocks(300);
            return id;
        }
        claims.capture(id);
        if (state == 4) return id; // Sampling
        if (state == 5) { // Sampling, nobody committed, no commitments any more
            later(3 * COMMIT);
            return id;
        }
        commitAll(id);
        if (state == 6) return id; // Sampling, all committed
        if (state == 7) { // Sampling, too late
            later(3 * COMMIT + OPENING + 1);
            return id;
        }
        claims.open(id, openingsOf(id));
        if (state == 8) return id; // Revealing
        if (state == 9) { // Revealing, too late
            later(REVEAL + 1);
            return id;
        }
        if (state == 10) { // Revealing, before the Court
            for (uint8 s = 0; s < 2; ++s) commitTwice(id, s);
            return id;
        }
        revealAll(id);
        claims.conclude(lease, id); // Challengeable
    }

    /// @dev A lie is revealed: what the auditor committed to is read as the start that it found.
    function commitTwice(bytes32 id, uint8 s) private {
        IClaims.Finding memory finding = findingOf(id, s, rightFields(indexOf(id, s)).end, 1);
        finding.start = keccak256("another start");
        vm.prank(claims.sampleOf(id, s).auditor);
        claims.reveal(id, s, finding);
    }

    /// @dev Calls: capture, commit, open, reveal, rule, conclude, claim. Roles: the drawn auditor of sample 0, the worker, the payer,
    /// a stranger.
    function claimTable(uint256 state) private pure returns (bytes4[7] memory auditor, bytes4[7] memory other) {
        bytes4 w = IClaims.WrongState.selector;
        bytes4 s = IClaims.BadSample.selector;
        bytes4 e = IClaims.TooEarly.selector;
        bytes4 l = IClaims.TooLate.selector;
        bytes4 d = IClaims.NotDrawn.selector;
        bytes4 y = IClaims.NotYours.selector;
        bytes4 c = IClaims.ClaimLive.selector;
        bytes4 x = IClaims.WrongLease.selector;
        if (state == 0) auditor = [w, w, w, w, x, x, OK];
        if (state == 1) auditor = [e, w, w, w, s, e, c];
        if (state == 2) auditor = [OK, w, w, w, s, e, c];
        if (state == 3) auditor = [l, w, w, w, s, OK, c];
        if (state == 4) auditor = [w, OK, e, w, s, e, c];
        if (state == 5) auditor = [w, l, OK, w, s, e, c];
        if (state == 6) auditor = [w, s, OK, w, s, e, c];
        if (state == 7) auditor = [w, l, l, w, s, OK, c];
        if (state == 8) auditor = [w, w, w, OK, s, e, c];
        if (state == 9) auditor = [w, w, w, l, s, OK, c];
        if (state == 10) auditor = [w, w, w, y, ICourt.NotRuled.selector, e, c];
        if (state == 11) auditor = [w, w, w, w, s, e, c];
        for (uint256 i = 0; i < 7; ++i) other[i] = auditor[i];
        if (state == 4) other[1] = d;
        if (state == 8) other[3] = y;
    }

    function claimCall(bytes32 id, uint256 call_) private view returns (bytes memory) {
        if (call_ == 0) return abi.encodeCall(IClaims.capture, (id));
        if (call_ == 1) {
            (, uint16 attempt) = claims.auditorAt(id, 0, 0);
            return abi.encodeCall(IClaims.commit, (id, 0, 0, attempt, keccak256("c")));
        }
        bool drawn = claims.claimOf(id).seed != 0;
        if (call_ == 2) {
            IClaims.Opening[] memory openings = new IClaims.Opening[](0);
            return abi.encodeCall(IClaims.open, (id, drawn ? openingsOf(id) : openings));
        }
        if (call_ == 3) {
            IClaims.Finding memory finding;
            if (drawn) finding = findingOf(id, 0, rightFields(indexOf(id, 0)).end, 1);
            return abi.encodeCall(IClaims.reveal, (id, 0, finding));
        }
        if (call_ == 4) return abi.encodeCall(IClaims.rule, (lease, id, 0));
        if (call_ == 5) return abi.encodeCall(IClaims.conclude, (lease, id));
        return abi.encodeCall(IClaims.claim, (order, lease, aTally(0, 50), none, witnesses));
    }

    function test_every_call_in_every_state_of_a_claim_by_every_role() public {
        for (uint256 state = 0; state < CLAIM_STATES; ++state) {
            uint256 mark = vm.snapshotState();
            bytes32 id = reachClaim(state);
            address drawn = who(FIRST_AUDITOR);
            if (claims.claimOf(id).seed != 0) (drawn,) = claims.auditorAt(id, 0, 0);
            (bytes4[7] memory auditor, bytes4[7] memory other) = claimTable(state);
            for (uint256 call_ = 0; call_ < 7; ++call_) {
                bytes memory data = claimCall(id, call_);
                string memory where = string.concat("claim ", vm.toString(state), ".", vm.toString(call_));
                bytes4 notMine = IClaims.BadSignature.selector; // `claim` is the worker's, or who has its signature
                check(address(claims), data, drawn, call_ == 6 ? notMine : auditor[call_], where);
                check(address(claims), data, who(WORKER), other[call_], where);
                check(address(claims), data, who(PAYER), call_ == 6 ? notMine : other[call_], where);
                check(address(claims), data, who(STRANGER), call_ == 6 ? notMine : other[call_], where);
            }
            vm.revertToState(mark);
        }
    }

    function check(address to, bytes memory data, address by, bytes4 expected, string memory where) private {
        uint256 mark = vm.snapshotState();
        vm.prank(by);
        (bool ok, bytes memory answer) = to.call(data);
        bytes4 found = ok ? OK : bytes4(answer);
        vm.assertEq(bytes32(found), bytes32(expected), where);
        vm.revertToState(mark);
    }

    // ---------------------------------------------------------------- cases

    uint256 private constant CASE_STATES = 13;

    function reachCase(uint256 state) private returns (bytes32 id) {
        if (state == 0) return keccak256("no case");
        id = accused(state < 4 || state > 10 ? 8 : 1);
        if (state == 1) return id; // Posting
        if (state > 10) {
            vm.prank(who(WORKER));
            court.post(id, keccak256("m"));
            if (state == 11) { // Posting again, too late
                vm.prank(who(PAYER));
                court.answer(id, keccak256("n"));
            }
            later(MOVE + 1); // 12: Answering, too late
            return id;
        }
        if (state == 2) { // Posting, too late
            later(MOVE + 1);
            return id;
        }
        if (state == 3) { // Answering
            vm.prank(who(WORKER));
            court.post(id, keccak256("m"));
            return id;
        }
        if (state == 4) return id; // Drawing
        drawPanel(id);
        if (state == 5) return id; // Voting
        bytes32 right = court.caseOf(id).accuserValue;
        commitVotes(id, 0, 7, right);
        if (state == 6) return id; // Voting, all committed
        if (state == 7) { // Voting, all over, nobody revealed
            later(VOTE + VOTES_OPEN + 1);
            return id;
        }
        revealVotes(id, 0, 7, right);
        court.advance(id);
        if (state == 8) return id; // Appealable
        later(APPEAL + 1);
        if (state == 9) return id; // Appealable, too late
        court.advance(id); // Ruled
    }

    /// @dev Calls: post, answer, commit, reveal, appeal, advance. Roles: accused, accuser, member 0, a stranger.
    function caseTable(uint256 state) private pure returns (bytes4[4][6] memory table) {
        bytes4 w = ICourt.WrongState.selector;
        bytes4 p = ICourt.NotParty.selector;
        bytes4 e = ICourt.TooEarly.selector;
        bytes4 l = ICourt.TooLate.selector;
        bytes4 d = ICourt.NotDrawn.selector;
        bytes4 n = ICourt.NotCommitted.selector;
        for (uint256 i = 0; i < 6; ++i) table[i] = [w, w, w, w];
        if (state == 1) table[0] = [OK, p, p, p];
        if (state == 2) table[0] = [l, p, p, p];
        if (state == 3) table[1] = [p, OK, p, p];
        if (state == 1 || state == 3 || state == 4) table[5] = [e, e, e, e];
        if (state == 11) table[0] = [l, p, p, p];
        if (state == 12) table[1] = [p, l, p, p];
        if (state == 2 || state > 10) table[5] = [OK, OK, OK, OK];
        if (state == 5) (table[2], table[3], table[5]) = ([d, d, OK, d], [n, n, n, n], [e, e, e, e]);
        bytes4 a = ICourt.AlreadyCommitted.selector;
        if (state == 6) (table[2], table[3], table[5]) = ([a, a, a, a], [n, n, OK, n], [e, e, e, e]);
        if (state == 7) (table[2], table[3], table[5]) = ([l, l, l, l], [n, n, l, n], [OK, OK, OK, OK]);
        if (state == 8) (table[4], table[5]) = ([OK, OK, p, p], [e, e, e, e]);
        if (state == 9) (table[4], table[5]) = ([l, l, p, p], [OK, OK, OK, OK]);
    }

    function caseCall(bytes32 id, uint256 call_) private view returns (bytes memory) {
        if (call_ == 0) return abi.encodeCall(ICourt.post, (id, keccak256("m")));
        if (call_ == 1) return abi.encodeCall(ICourt.answer, (id, keccak256("n")));
        (, uint16 attempt) = court.memberAt(id, 0);
        if (call_ == 2) return abi.encodeCall(ICourt.commit, (id, 0, attempt, keccak256("v")));
        bytes32 value = court.caseOf(id).accuserValue;
        if (call_ == 3) return abi.encodeCall(ICourt.reveal, (id, 0, value, keccak256("a vote's salt")));
        if (call_ == 4) return abi.encodeCall(ICourt.appeal, (id));
        return abi.encodeCall(ICourt.advance, (id));
    }

    function test_every_call_in_every_state_of_a_case_by_every_role() public {
        for (uint256 state = 0; state < CASE_STATES; ++state) {
            uint256 mark = vm.snapshotState();
            bytes32 id = reachCase(state);
            (address member,) = court.memberAt(id, 0);
            if (member == address(0)) member = who(FIRST_AUDITOR);
            address[4] memory roles = [who(WORKER), who(PAYER), member, who(STRANGER)];
            bytes4[4][6] memory table = caseTable(state);
            for (uint256 call_ = 0; call_ < 6; ++call_) {
                bytes memory data = caseCall(id, call_);
                for (uint256 role = 0; role < 4; ++role) {
                    string memory where = string.concat("case ", vm.toString(state), ".", vm.toString(call_));
                    where = string.concat(where, ".", vm.toString(role));
                    check(address(court), data, roles[role], table[call_][role], where);
                }
            }
            vm.revertToState(mark);
        }
    }

    function test_every_call_in_every_state_of_an_accusation_by_every_role() public {
        address[3] memory roles = [who(WORKER), who(PAYER), who(STRANGER)];
        bytes4[3] memory expected = [ICourt.NotRuled.selector, OK, IAccusations.NoSuchAccusation.selector];
        bytes32 id = accused(1);
        for (uint256 state = 0; state < 3; ++state) {
            if (state == 1) (vote_(id), 0);
            if (state == 2) accusations.acquitOrConvict(lease, id);
            bytes memory data = abi.encodeCall(IAccusations.acquitOrConvict, (lease, id));
            for (uint256 role = 0; role < 3; ++role) {
                check(address(accusations), data, roles[role], expected[state], "accusation");
            }
        }
    }

    function vote_(bytes32 id) private returns (bool) {
        vote(id, 7, 7);
        unappealed(id);
        return true;
    }

    // ---------------------------------------------------------------- the way out

    function test_from_every_state_of_a_claim_strangers_free_all_funds() public {
        for (uint256 state = 1; state < CLAIM_STATES; ++state) {
            uint256 mark = vm.snapshotState();
            bytes32 id = reachClaim(state);
            leaveBehind(id, 0);
            vm.assertTrue(uint256(claims.claimOf(id).state) >= uint256(IClaims.State.Paid), "the claim has ended");
            vm.revertToState(mark);
        }
    }

    function test_from_every_state_of_a_case_strangers_free_all_funds() public {
        for (uint256 state = 1; state < CASE_STATES; ++state) {
            uint256 mark = vm.snapshotState();
            bytes32 id = reachCase(state);
            leaveBehind(0, id);
            vm.assertTrue(accusations.accusationOf(id).ended, "the accusation has ended");
            vm.revertToState(mark);
        }
    }

    function test_a_claim_with_an_accusation_beside_it_strangers_free_all_funds() public {
        bytes32 id = challengeable(50);
        wrongEnd[60] = keccak256("garbage");
        leaveBehind(id, accusedBy(PAYER, 60, 8));
    }

    /// @dev Worker, payer, signer, auditors and members are gone for good.
    function leaveBehind(bytes32 claim, bytes32 accusation) private {
        vm.startPrank(who(STRANGER));
        for (uint256 day = 0; day < 12; ++day) {
            blocks(300);
            later(1 days);
            nudge(address(court), abi.encodeCall(ICourt.advance, (accusation)));
            nudge(address(accusations), abi.encodeCall(IAccusations.acquitOrConvict, (lease, accusation)));
            nudge(address(claims), abi.encodeCall(IClaims.conclude, (lease, claim)));
            for (uint8 s = 0; s < 2; ++s) {
                nudge(address(court), abi.encodeCall(ICourt.advance, (caseOf(claim, s))));
                nudge(address(claims), abi.encodeCall(IClaims.rule, (lease, claim, s)));
            }
        }
        vm.assertEq(escrow.seatOf(seat).cases, 0, "no case is left");
        escrow.expire(order, list(lease));
        later(LOCK_TAIL);
        escrow.unlock(list(lease));
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Unlocked, "the lock has ended");
        later(order.evidenceWindow);
        escrow.refund(order);
        nudge(address(escrow), abi.encodeCall(IJobEscrow.burnFees, ()));
        address[] memory all = actors();
        for (uint256 i = 0; i < all.length; ++i) {
            nudge(address(escrow), abi.encodeCall(IJobEscrow.withdraw, (all[i])));
            nudge(address(claims), abi.encodeCall(IClaims.withdraw, (all[i])));
            nudge(address(accusations), abi.encodeCall(IAccusations.withdraw, (all[i])));
            nudge(address(court), abi.encodeCall(ICourt.withdraw, (all[i])));
        }
        nudge(address(escrow), abi.encodeCall(IJobEscrow.withdraw, (address(court))));
        nudge(address(court), abi.encodeCall(ICourt.burnPool, ()));
        vm.stopPrank();
        vm.assertEq(token.balanceOf(address(escrow)), 0, "escrow");
        vm.assertEq(token.balanceOf(address(claims)), 0, "claims");
        vm.assertEq(token.balanceOf(address(accusations)), 0, "accusations");
        vm.assertEq(token.balanceOf(address(court)), 0, "court");
        vm.assertEq(token.balanceOf(address(registry)), held(), "registry");
    }

    function held() private view returns (uint256 sum) {
        address[] memory all = actors();
        for (uint256 i = 0; i < all.length; ++i) {
            (uint96 free, uint96 locked, uint96 unbonding) = registry.stakeOf(all[i]);
            sum += uint256(free) + locked + unbonding;
            vm.assertEq(locked, 0, "locked");
        }
    }

    function nudge(address to, bytes memory data) private {
        (bool done,) = to.call(data);
        done;
    }
}
