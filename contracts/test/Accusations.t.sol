// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {Lease, Messages, Tally} from "../src/generated/Messages.sol";
import {IAccusations} from "../src/interfaces/IAccusations.sol";
import {IClaims} from "../src/interfaces/IClaims.sol";
import {ICourt} from "../src/interfaces/ICourt.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Quarrel} from "./Quarrel.sol";

/// @notice A worker that cheated: who may say so, by what, and what it costs whom.
contract AccusationsTest is Quarrel {
    uint96 private constant DEPOSIT = FEE + BOND;

    function emptyHanded() private view {
        address holder = address(accusations);
        vm.assertEq(token.balanceOf(holder), creditsIn(holder), "only credits are left in Accusations");
    }

    function end(bytes32 id) private {
        unappealed(id);
        vm.prank(who(STRANGER));
        accusations.acquitOrConvict(lease, id);
    }

    function expire() private {
        vm.warp(uint256(lease.until) + order.claimWindow + 1);
        Lease[] memory leases = list(lease);
        escrow.expire(order, leases);
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Closed, "closed");
    }

    // ---------------------------------------------------------------- refusals

    function refused(IAccusations.Charge memory charge, bytes4 why) private {
        vm.expectPartialRevert(why);
        vm.prank(who(PAYER));
        accusations.accuse(order, lease, charge, witnesses);
    }

    function test_a_charge_names_a_signed_leaf_its_fields_its_Assign_and_something_else_instead() public {
        wrongEnd[3] = keccak256("garbage");
        for (uint256 change = 0; change < 11; ++change) {
            IAccusations.Charge memory charge = aCharge(3, 1);
            if (change == 0) charge.position = 4;
            if (change == 1) charge.statement.leaf = keccak256("x");
            if (change == 2) charge.statement.signature = sign(PAYER, digestOf(keccak256("x")));
            if (change < 3) refused(charge, IAccusations.BadStatement.selector);
            if (change == 3) charge.unitId = keccak256("x");
            if (change == 4) charge.start = keccak256("x");
            if (change == 5) charge.end = keccak256("x");
            if (change == 6) charge.salt = keccak256("x");
            if (change == 7) charge.aux = keccak256("x");
            if (change == 8) charge.assign = none;
            if (change == 9) charge.assign = assigned(4);
            if (change == 10) (charge.ownStart, charge.ownEnd) = (charge.start, charge.end);
            if (change >= 3) refused(charge, IAccusations.BadCharge.selector);
        }
        order.auditors = Messages.AUDITORS_GROUP;
        refused(aCharge(3, 1), IAccusations.NotOpenToAll.selector);
    }

    function test_a_tally_or_a_claimed_root_binds_as_a_Receipt_does() public {
        bytes32 claim = claimed(0, 10);
        wrongEnd[3] = keccak256("garbage");
        IAccusations.Charge memory charge = aCharge(3, 1);
        charge.statement = underTally(3, leavesOf(0, 10));
        vm.prank(who(PAYER));
        bytes32 id = accusations.accuse(order, lease, charge, witnesses);
        vm.assertEq(accusations.accusationOf(id).accuser, who(PAYER), "by a tally");
        charge.statement.path[1] = keccak256("x");
        refused(charge, IAccusations.BadStatement.selector);
        charge.statement = underTally(3, leavesOf(0, 10));
        charge.statement.signature = sign(SIGNER, digestOf(Messages.hash(charge.statement.tally)));
        refused(charge, IAccusations.BadStatement.selector); // the signer's tally, in the worker's place, does not bind it
        wrongEnd[3] = 0;
        charge = aCharge(3, 1);
        charge.statement = underClaim(claim, 3);
        charge.ownEnd = keccak256("the payer lies");
        vm.prank(who(PAYER));
        accusations.accuse(order, lease, charge, witnesses);
        charge.position = 4;
        refused(charge, IAccusations.BadStatement.selector);
    }

    function test_one_accuser_accuses_one_leaf_once() public {
        accused(1);
        refused(aCharge(3, 1), ICourt.CaseExists.selector);
        accusedBy(STRANGER, 3, 1); // another may
    }

    function test_nobody_is_accused_once_the_lock_has_ended() public {
        expire();
        vm.warp(block.timestamp + LOCK_TAIL - 1);
        wrongEnd[3] = keccak256("garbage");
        uint256 mark = vm.snapshotState();
        accusedBy(PAYER, 3, 1); // the last second
        vm.revertToState(mark);
        vm.warp(block.timestamp + 1);
        refused(aCharge(3, 1), IJobEscrow.NotHeld.selector); // the lock may be taken back now, so it is over
        escrow.unlock(list(lease));
        refused(aCharge(3, 1), IJobEscrow.NotHeld.selector);
    }

    function test_accusations_leave_one_case_for_the_claim_and_one_for_proofs() public {
        vm.startPrank(address(accusations)); // friends, or the payer, as often as they can
        for (uint256 i = 0; i < 252; ++i) escrow.hold(order, lease);
        vm.stopPrank();
        wrongEnd[3] = keccak256("garbage");
        accusedBy(PAYER, 3, 1);
        wrongEnd[4] = keccak256("garbage");
        refused(aCharge(4, 1), IJobEscrow.TooManyCases.selector);
        claimed(0, 50);
        proveFraud(5, receiptOf(5, leafOf(5)), receiptOf(5, keccak256("another")));
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        vm.startPrank(address(claims));
        escrow.hold(order, lease);
        vm.expectPartialRevert(IJobEscrow.TooManyCases.selector);
        escrow.hold(order, lease);
        vm.stopPrank();
    }

    function test_who_cannot_pay_the_deposit_accuses_nobody() public {
        wrongEnd[3] = keccak256("garbage");
        IAccusations.Charge memory charge = aCharge(3, 1);
        vm.expectPartialRevert(IERC20Errors.ERC20InsufficientAllowance.selector);
        vm.prank(who(WORKER_2)); // approved nothing
        accusations.accuse(order, lease, charge, witnesses);
    }

    function test_an_accusation_ends_once_after_the_ruling_with_its_own_lease() public {
        bytes32 id = accused(1);
        vm.expectRevert(abi.encodeWithSelector(ICourt.NotRuled.selector, id));
        accusations.acquitOrConvict(lease, id);
        vote(id, 7, 2);
        unappealed(id);
        Lease memory other = lease;
        other.nonce += 1;
        vm.expectRevert(abi.encodeWithSelector(IAccusations.WrongLease.selector));
        accusations.acquitOrConvict(other, id);
        accusations.acquitOrConvict(lease, id);
        vm.expectRevert(abi.encodeWithSelector(IAccusations.NoSuchAccusation.selector, id));
        accusations.acquitOrConvict(lease, id);
        vm.expectRevert(abi.encodeWithSelector(IAccusations.NoSuchAccusation.selector, bytes32(0)));
        accusations.acquitOrConvict(lease, 0);
    }

    // ---------------------------------------------------------------- rulings, to the wei

    function test_a_convicted_worker_loses_lock_and_seat_but_no_credit() public {
        escrow.settle(settlement(lease, 20));
        uint256 credit = escrow.creditOf(who(WORKER));
        uint256 before = token.balanceOf(who(PAYER));
        uint96 free = escrow.jobOf(lease.job).free;
        bytes32 id = accused(1);
        vote(id, 7, 1);
        end(id);
        vm.assertEq(escrow.creditOf(who(WORKER)), credit, "credits are never touched");
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        vm.assertEq(escrow.creditOf(who(PAYER)), LOCK * 60 / 100, "40 % as payer, 20 % as prover");
        vm.assertEq(accusations.creditOf(who(PAYER)), DEPOSIT, "deposit and fee: the court's share covers the fee");
        vm.assertEq(token.balanceOf(who(PAYER)), before - DEPOSIT, "paid in before");
        vm.assertEq(escrow.jobOf(lease.job).free, free + 80 * PRICE + BOND, "the unpaid part and the bond are wages again");
        vm.assertEq(court.pool(), LOCK * 15 / 100 - FEE + FEE - FEE / 6 * 6, "the rest of its share");
        emptyHanded();
    }

    function test_the_courts_share_repays_no_more_fee_than_this_slash_brought() public {
        // a farmer's own lock of almost nothing
        order.lockPerSeat = 0;
        order.salt = keccak256("farm");
        lease = aLease(order, WORKER, 5);
        lease.lock = 1 ether;
        seat = escrow.seatIdOf(lease);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        vm.prank(who(PAYER));
        escrow.open(order, items);
        vm.prank(BANK);
        token.transfer(address(court), 50 ether); // a full pool
        bytes32 id = accused(1);
        vote(id, 7, 0);
        end(id);
        vm.assertEq(accusations.creditOf(who(PAYER)), BOND + 0.15 ether, "the share and no more");
        vm.assertLe(50 ether, court.pool(), "the pool lost nothing");
        emptyHanded();
    }

    function test_an_acquitted_worker_gets_the_deposit_less_what_the_members_earned() public {
        bytes32 id = accused(1);
        vote(id, 7, 6);
        end(id);
        vm.assertEq(accusations.creditOf(who(WORKER)), BOND, "the worker's");
        vm.assertEq(accusations.creditOf(who(PAYER)), 0, "the accuser's");
        vm.assertEq(escrow.lockLeft(lease), LOCK, "lock");
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Open, "seat");
        emptyHanded();
    }

    function test_an_accuser_that_serves_nothing_loses() public {
        bytes32 id = accused(1);
        voteAll(id, 0);
        vm.assertEq(uint256(rulingOf(id)), uint256(ICourt.Ruling.Unserved), "unserved");
        end(id);
        vm.assertEq(accusations.creditOf(who(WORKER)), BOND, "the worker's");
        emptyHanded();
    }

    function test_a_void_farmer_gains_nothing() public {
        uint256 members;
        bytes32 id = accused(1);
        voteAll(id, keccak256("a program that says something else each time"));
        end(id);
        for (uint256 i = 0; i < AUDITORS; ++i) members += court.creditOf(who(FIRST_AUDITOR + i));
        vm.assertEq(accusations.creditOf(who(PAYER)), BOND, "the accuser paid the fee itself");
        vm.assertLe(members, FEE, "members got what the accuser paid");
        vm.assertEq(escrow.lockLeft(lease), LOCK, "nobody is slashed");
        vm.assertEq(escrow.seatOf(seat).bond, BOND, "the payer's bond is whole");
        emptyHanded();
    }

    function test_no_quorum_gives_the_whole_deposit_back() public {
        bytes32 id = accused(1);
        for (uint256 i = 0; i < 4; ++i) {
            drawPanel(id);
            later(VOTE + VOTES_OPEN + 1);
            court.advance(id);
        }
        accusations.acquitOrConvict(lease, id);
        vm.assertEq(accusations.creditOf(who(PAYER)), DEPOSIT, "all of it");
        vm.assertEq(escrow.lockLeft(lease), LOCK, "nobody is slashed");
        emptyHanded();
    }

    function test_a_silence_after_the_first_move_convicts_and_costs_no_fee() public {
        bytes32 id = accused(8);
        vm.prank(who(WORKER));
        court.post(id, keccak256("middle"));
        vm.prank(who(PAYER));
        court.answer(id, keccak256("another"));
        later(MOVE + 1);
        court.advance(id); // the accused was silent
        vm.assertEq(uint256(rulingOf(id)), uint256(ICourt.Ruling.ForAccuser), "convicted");
        accusations.acquitOrConvict(lease, id);
        vm.assertEq(accusations.creditOf(who(PAYER)), DEPOSIT, "the accuser's");
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        emptyHanded();
    }

    function test_a_worker_that_was_off_for_its_first_move_is_judged_by_the_whole_unit() public {
        for (uint8 forAccused = 0; forAccused < 8; forAccused += 7) {
            uint256 mark = vm.snapshotState();
            bytes32 id = accused(8);
            ICourt.Case memory found = court.caseOf(id);
            vm.expectPartialRevert(ICourt.TooEarly.selector);
            court.advance(id);
            vm.warp(found.deadline + 1);
            court.advance(id);
            found = court.caseOf(id);
            vm.assertEq(uint256(found.state), uint256(ICourt.State.Drawing), "a panel, and no conviction");
            vm.assertEq(found.lo, 0, "from the start");
            vm.assertEq(found.hi, 8, "to the end");
            vote(id, 7, forAccused);
            end(id);
            vm.assertEq(escrow.lockLeft(lease), forAccused == 7 ? LOCK : 0, "an honest one keeps its lock");
            emptyHanded();
            vm.revertToState(mark);
        }
    }

    // ---------------------------------------------------------------- shields

    function test_a_shield_accusation_by_a_sybil_stops_no_other_accuser() public {
        wrongEnd[3] = keccak256("garbage");
        bytes32 shield = accusedBy(STRANGER, 3, 8); // the worker's friend: it will be silent and lose
        bytes32 honest = accusedBy(PAYER, 3, 1);
        vm.prank(who(WORKER));
        court.post(shield, keccak256("middle"));
        later(MOVE + 1);
        court.advance(shield);
        accusations.acquitOrConvict(lease, shield);
        vm.assertEq(accusations.creditOf(who(WORKER)), BOND, "the friend's bond, and not its fee");
        vm.assertEq(court.pool(), FEE, "which nobody gets");
        vm.assertEq(escrow.lockLeft(lease), LOCK, "and nothing else");
        vote(honest, 7, 0);
        end(honest);
        vm.assertEq(escrow.lockLeft(lease), 0, "the honest accuser takes the lock all the same");
        emptyHanded();
    }

    function test_a_claim_waits_for_accusations_of_its_challenge_window_and_for_no_later_ones() public {
        bytes32 claim = challengeable(50);
        wrongEnd[60] = keccak256("garbage");
        bytes32 within = accusedBy(PAYER, 60, 8);
        later(CHALLENGE + 1);
        vm.assertTrue(claims.unchallenged(seat), "the window is over");
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, 0));
        claims.conclude(lease, claim);
        wrongEnd[61] = keccak256("garbage");
        bytes32 afterwards = accusedBy(PAYER, 61, 8);
        vm.assertTrue(accusations.accusationOf(within).blocking, "within");
        vm.assertTrue(!accusations.accusationOf(afterwards).blocking, "afterwards");
        court.advance(within);
        vote(within, 7, 0); // it never moved: a panel is called at once
        unappealed(within);
        accusations.acquitOrConvict(lease, within);
        claims.conclude(lease, claim);
        vm.assertEq(uint256(claims.claimOf(claim).state), uint256(IClaims.State.Failed), "failed");
        vm.assertEq(escrow.creditOf(who(WORKER)), 0, "a convicted worker is paid nothing more");
    }

    function test_a_late_accusation_holds_no_pay_up() public {
        bytes32 claim = challengeable(50);
        later(CHALLENGE + 1);
        wrongEnd[61] = keccak256("garbage");
        accusedBy(STRANGER, 61, 8);
        claims.conclude(lease, claim);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(50 * uint256(PRICE)), "paid");
    }

    // ---------------------------------------------------------------- fraud by proof

    function proveFraud(uint40 position, IAccusations.Statement memory a, IAccusations.Statement memory b) private {
        vm.prank(who(STRANGER));
        accusations.fraud(order, lease, position, a, b);
    }

    function slashedByProof() private view {
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        vm.assertEq(escrow.creditOf(who(PAYER)), LOCK * 40 / 100, "the payer's");
        vm.assertEq(escrow.creditOf(who(STRANGER)), LOCK * 20 / 100, "the prover's");
        vm.assertEq(escrow.creditOf(address(court)), 0, "there was no court");
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Open, "no more than the lock");
        vm.assertEq(escrow.seatOf(seat).cases, 0, "no case is left");
    }

    function test_two_Receipts_with_different_leaves_for_one_position_cost_the_lock() public {
        proveFraud(3, receiptOf(3, leafOf(3)), receiptOf(3, keccak256("another")));
        slashedByProof();
    }

    function test_a_Receipt_against_a_Tally_costs_the_lock() public {
        proveFraud(3, receiptOf(3, keccak256("what it gave")), underTally(3, leavesOf(0, 10)));
        slashedByProof();
    }

    function test_two_Tallies_cost_the_lock() public {
        bytes32[] memory other = leavesOf(0, 7);
        other[3] = keccak256("another");
        proveFraud(3, underTally(3, other), underTally(3, leavesOf(0, 10)));
        slashedByProof();
    }

    function test_a_cheat_that_repairs_its_root_and_claims_loses_lock_and_claim() public {
        // it gave the payer garbage for unit 3, and claims with a root in which unit 3 is right
        IAccusations.Statement memory given = receiptOf(3, keccak256("garbage"));
        bytes32 claim = challengeable(50);
        proveFraud(3, given, underClaim(claim, 3));
        slashedByProofWith(claim);
        later(CHALLENGE + 1);
        claims.conclude(lease, claim);
        vm.assertEq(uint256(claims.claimOf(claim).state), uint256(IClaims.State.Failed), "failed");
        vm.assertEq(escrow.creditOf(who(WORKER)), 0, "paid nothing");
        vm.assertEq(claims.creditOf(who(WORKER)), 0, "its bond is gone");
    }

    function slashedByProofWith(bytes32 claim) private view {
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        vm.assertTrue(claims.claimOf(claim).refuted, "refuted");
        vm.assertEq(escrow.seatOf(seat).cases, 1, "the claim is still there");
    }

    function test_a_second_contradicted_claim_fails_though_no_lock_is_left() public {
        bytes32 claim = challengeable(50);
        proveFraud(60, receiptOf(60, leafOf(60)), receiptOf(60, keccak256("another"))); // a friend takes the lock
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        uint256 credit = escrow.creditOf(who(STRANGER));
        proveFraud(3, receiptOf(3, keccak256("garbage")), underClaim(claim, 3));
        slashedByProofWith(claim);
        vm.assertEq(escrow.creditOf(who(STRANGER)), credit, "there was nothing to share");
    }

    function test_one_leaf_twice_another_position_or_anothers_word_is_no_fraud() public {
        IAccusations.Statement memory a = receiptOf(3, leafOf(3));
        vm.expectRevert(abi.encodeWithSelector(IAccusations.SameLeaf.selector));
        accusations.fraud(order, lease, 3, a, a);
        IAccusations.Statement memory b = receiptOf(4, leafOf(4));
        vm.expectRevert(abi.encodeWithSelector(IAccusations.BadStatement.selector));
        accusations.fraud(order, lease, 3, a, b);
        b = receiptOf(3, leafOf(4));
        b.signature = sign(PAYER, digestOf(keccak256("x")));
        vm.expectRevert(abi.encodeWithSelector(IAccusations.BadStatement.selector));
        accusations.fraud(order, lease, 3, a, b);
        b = underTally(3, leavesOf(0, 10));
        b.tally.start = 1; // another place of the same tree
        b.leaf = leafOf(4);
        vm.expectRevert(abi.encodeWithSelector(IAccusations.BadStatement.selector));
        accusations.fraud(order, lease, 3, a, b);
        order.auditors = Messages.AUDITORS_PAYER;
        b = receiptOf(3, keccak256("x"));
        vm.expectRevert(abi.encodeWithSelector(IAccusations.NotOpenToAll.selector));
        accusations.fraud(order, lease, 3, a, b);
    }

    function test_a_lock_is_slashed_by_proof_once() public {
        IAccusations.Statement memory a = receiptOf(3, leafOf(3));
        IAccusations.Statement memory b = receiptOf(3, keccak256("another"));
        proveFraud(3, a, b);
        vm.expectRevert(abi.encodeWithSelector(IAccusations.NothingToSlash.selector));
        accusations.fraud(order, lease, 3, a, b);
    }

    function test_fraud_is_proved_until_the_lock_ends() public {
        IAccusations.Statement memory a = receiptOf(3, leafOf(3));
        IAccusations.Statement memory b = receiptOf(3, keccak256("another"));
        expire();
        vm.warp(block.timestamp + LOCK_TAIL);
        vm.expectPartialRevert(IJobEscrow.NotHeld.selector);
        accusations.fraud(order, lease, 3, a, b);
        vm.warp(block.timestamp - 1);
        accusations.fraud(order, lease, 3, a, b);
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
    }

    function test_credits_are_paid_out_to_the_owner_once() public {
        bytes32 id = accused(1);
        vote(id, 7, 7);
        end(id);
        uint256 before = token.balanceOf(who(WORKER));
        accusations.withdraw(who(WORKER));
        vm.assertEq(token.balanceOf(who(WORKER)), before + BOND, "paid");
        vm.expectRevert(abi.encodeWithSelector(IAccusations.NothingToWithdraw.selector, who(WORKER)));
        accusations.withdraw(who(WORKER));
    }
}
