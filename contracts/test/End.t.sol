// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Accept, Lease, Messages, Order, Release} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Base} from "./Base.sol";

/// @notice How seats and jobs end: `close`, `expire`, `unlock`, `refund`, `finish`, `withdraw`, `burnFees`.
contract EndTest is Base {
    function expectCloseRefused(IJobEscrow.Closing[] memory items, IJobEscrow.Refusal why) private {
        IJobEscrow.SeatState before = stateOf(items[0].lease);
        uint96 free = escrow.jobOf(items[0].lease.job).free;
        expectRefused(items[0].lease, why);
        vm.assertEq(escrow.close(items), 0, "closed");
        vm.assertTrue(stateOf(items[0].lease) == before, "state");
        vm.assertEq(escrow.jobOf(items[0].lease.job).free, free, "free");
    }

    function expire(Order memory order, Lease memory lease) private returns (uint256) {
        return escrow.expire(order, list(lease));
    }

    // ---------------------------------------------------------------- close

    function test_a_Release_before_the_pay_closes_nothing() public {
        (, Lease memory lease) = seated();
        escrow.settle(settlement(lease, 10));
        expectCloseRefused(closing(lease, 11, WORKER), IJobEscrow.Refusal.NotPaidYet);
    }

    function test_a_Release_of_another_seat_or_by_another_key_closes_nothing() public {
        (Order memory order, Lease memory lease) = seated();
        Lease memory other = aLease(order, WORKER, 2);
        escrow.seat(order, seating(other, WORKER));
        IJobEscrow.Closing[] memory items = closing(other, 0, WORKER);
        items[0].lease = lease;
        expectCloseRefused(items, IJobEscrow.Refusal.WrongSeat);
        expectCloseRefused(closing(lease, 0, SIGNER), IJobEscrow.Refusal.BadSignature);
        expectCloseRefused(closing(lease, 0, PAYER), IJobEscrow.Refusal.BadSignature);
        items = closing(lease, 5, WORKER);
        items[0].release.units = 0;
        expectCloseRefused(items, IJobEscrow.Refusal.BadSignature);
    }

    function test_a_seat_closes_once() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Closing[] memory items = closing(lease, 0, WORKER);
        escrow.close(items);
        expectCloseRefused(items, IJobEscrow.Refusal.NotOpen);
    }

    function test_a_Release_returns_the_unpaid_part() public {
        (Order memory order, Lease memory lease) = seated();
        escrow.settle(settlement(lease, 30));
        vm.warp(START + 9);
        IJobEscrow.Closing[] memory items = closing(lease, 30, WORKER);
        vm.expectEmit(address(escrow));
        emit IJobEscrow.SeatClosed(items[0].release.seat, lease.job, 30, 70 * PRICE);
        vm.prank(who(STRANGER)); // anyone
        vm.assertEq(escrow.close(items), 1, "closed");
        vm.assertEq(escrow.jobOf(lease.job).free, order.wages - 30 * PRICE, "free");
        vm.assertEq(escrow.jobOf(lease.job).lastClosed, START + 9, "lastClosed");
        vm.assertEq(escrow.seatOf(escrow.seatIdOf(lease)).until, START + 9, "when");
    }

    function test_the_worker_itself_needs_no_signature() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Closing[] memory items = closing(lease, 0, STRANGER);
        vm.prank(who(WORKER));
        vm.assertEq(escrow.close(items), 1, "closed");
    }

    // ---------------------------------------------------------------- expire

    function test_a_seat_does_not_expire_within_the_claim_window() public {
        (Order memory order, Lease memory lease) = seated();
        vm.warp(uint256(lease.until) + order.claimWindow);
        expectRefused(lease, IJobEscrow.Refusal.TooEarly);
        vm.assertEq(expire(order, lease), 0, "expired");
        vm.warp(block.timestamp + 1);
        vm.prank(who(STRANGER)); // anyone
        vm.assertEq(expire(order, lease), 1, "expired");
        vm.assertEq(escrow.jobOf(lease.job).free, order.wages, "free");
        expectRefused(lease, IJobEscrow.Refusal.NotOpen);
        vm.assertEq(expire(order, lease), 0, "twice");
    }

    function test_a_seat_expires_by_its_own_jobs_window_alone() public {
        (, Lease memory lease) = seated();
        Order memory other = anOrder();
        other.salt = keccak256("other");
        other.claimWindow = WINDOW_MIN;
        vm.prank(who(PAYER));
        escrow.open(other, new IJobEscrow.Seating[](0));
        vm.warp(uint256(lease.until) + WINDOW_MIN + 1);
        expectRefused(lease, IJobEscrow.Refusal.WrongJob);
        vm.assertEq(expire(other, lease), 0, "expired");
        other.salt = keccak256("never opened");
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NoSuchJob.selector, escrow.jobIdOf(other)));
        escrow.expire(other, list(lease));
    }

    // ---------------------------------------------------------------- unlock

    function test_a_lock_outlives_its_seat_by_the_tail_and_ends_once() public {
        (, Lease memory lease) = seated();
        expectRefused(lease, IJobEscrow.Refusal.NotOpen);
        escrow.unlock(list(lease)); // open: not closed yet
        vm.warp(START + 10);
        escrow.close(closing(lease, 0, WORKER));
        vm.warp(START + 10 + LOCK_TAIL - 1);
        expectRefused(lease, IJobEscrow.Refusal.TooEarly);
        vm.assertEq(escrow.unlock(list(lease)), 0, "too early");
        vm.warp(START + 10 + LOCK_TAIL);
        vm.expectEmit(address(escrow));
        emit IJobEscrow.LockEnded(escrow.seatIdOf(lease), who(WORKER), lease.lock);
        vm.assertEq(escrow.unlock(list(lease)), 1, "unlocked");
        (, uint96 locked,) = registry.stakeOf(who(WORKER));
        vm.assertEq(locked, 0, "locked");
        expectRefused(lease, IJobEscrow.Refusal.NotOpen);
        vm.assertEq(escrow.unlock(list(lease)), 0, "twice");
    }

    function test_a_lock_ends_for_its_own_seat_only() public {
        (Order memory order, Lease memory lease) = seated();
        Lease memory open_ = aLease(order, WORKER, 2);
        escrow.seat(order, seating(open_, WORKER));
        escrow.close(closing(lease, 0, WORKER));
        vm.warp(START + LOCK_TAIL);
        Lease memory forged = aLease(order, WORKER, 1);
        forged.lock += 1;
        expectRefused(forged, IJobEscrow.Refusal.NotOpen);
        vm.assertEq(escrow.unlock(list(forged)), 0, "another amount");
        escrow.unlock(list(lease));
        (, uint96 locked,) = registry.stakeOf(who(WORKER));
        vm.assertEq(locked, open_.lock, "the open seat's lock");
    }

    // ---------------------------------------------------------------- refund

    function test_a_stranger_cannot_starve_a_job_by_a_refund() public {
        (Order memory order, Lease memory lease) = seated();
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NotRefundable.selector, who(STRANGER)));
        vm.prank(who(STRANGER));
        escrow.refund(order);
        // after the deadline a seat that is still open may yet return wages: one refund then is enough
        vm.warp(order.deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NotRefundable.selector, who(STRANGER)));
        vm.prank(who(STRANGER));
        escrow.refund(order);
        expire(order, lease);
        vm.prank(who(STRANGER));
        escrow.refund(order);
        vm.assertEq(escrow.creditOf(who(PAYER)), order.wages, "to the payer");
        vm.assertEq(escrow.creditOf(who(STRANGER)), 0, "not to the caller");
    }

    function test_a_refund_leaves_what_open_seats_and_the_reserve_hold() public {
        (Order memory order, Lease memory lease) = seated();
        vm.expectEmit(address(escrow));
        emit IJobEscrow.Refunded(lease.job, who(PAYER), order.wages - CAP, 0);
        vm.prank(who(PAYER));
        escrow.refund(order);
        vm.assertEq(escrow.creditOf(who(PAYER)), order.wages - CAP, "credit");
        vm.assertEq(escrow.jobOf(lease.job).reserve, order.auditReserve, "reserve");
        escrow.settle(settlement(lease, UNITS));
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(CAP), "the seat is whole");
        vm.prank(who(PAYER));
        (uint96 wages, uint96 reserve) = escrow.refund(order);
        vm.assertEq(wages + reserve, 0, "nothing twice");
    }

    function test_the_reserve_waits_for_the_evidence_window() public {
        (Order memory order, Lease memory lease) = seated();
        vm.warp(START + 100);
        escrow.close(closing(lease, 0, WORKER));
        vm.warp(START + 100 + order.evidenceWindow - 1);
        (, uint96 reserve) = escrow.refundable(order);
        vm.assertEq(reserve, 0, "refundable");
        vm.prank(who(PAYER));
        (, reserve) = escrow.refund(order);
        vm.assertEq(reserve, 0, "too early");
        vm.warp(START + 100 + order.evidenceWindow);
        vm.prank(who(SIGNER)); // the signer may ask too; the payer is paid
        (, reserve) = escrow.refund(order);
        vm.assertEq(reserve, order.auditReserve, "the rest");
        vm.assertEq(escrow.creditOf(who(PAYER)), order.wages + order.auditReserve, "credit");
        IJobEscrow.Job memory job = escrow.jobOf(lease.job);
        vm.assertEq(uint256(job.free) + job.reserve, 0, "the job holds nothing");
    }

    function test_the_reserve_of_a_job_that_never_had_a_seat_comes_back_at_once() public {
        Order memory order = opened();
        vm.prank(who(PAYER));
        (uint96 wages, uint96 reserve) = escrow.refund(order);
        vm.assertEq(wages, order.wages, "wages");
        vm.assertEq(reserve, order.auditReserve, "reserve");
    }

    function test_an_order_of_nobody_refunds_nothing() public {
        Order memory order = anOrder();
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NoSuchJob.selector, escrow.jobIdOf(order)));
        vm.prank(who(PAYER));
        escrow.refund(order);
    }

    // ---------------------------------------------------------------- withdraw, burnFees

    function test_there_is_nothing_to_withdraw_or_burn_at_first() public {
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NothingToWithdraw.selector, who(WORKER)));
        escrow.withdraw(who(WORKER));
        vm.expectRevert(IJobEscrow.NothingToBurn.selector);
        escrow.burnFees();
    }

    function test_a_credit_is_paid_out_once_to_the_accounts_owner() public {
        (, Lease memory lease) = seated();
        escrow.settle(settlement(lease, 50));
        vm.prank(who(WORKER));
        registry.proposeOwner(who(WORKER), who(STRANGER));
        vm.prank(who(STRANGER));
        registry.acceptOwner(who(WORKER));
        uint256 owed = escrow.creditOf(who(WORKER));
        vm.expectEmit(address(escrow));
        emit IJobEscrow.CreditWithdrawn(who(WORKER), who(STRANGER), owed);
        vm.assertEq(escrow.withdraw(who(WORKER)), owed, "amount"); // anyone
        vm.assertEq(token.balanceOf(who(STRANGER)), owed, "paid");
        vm.assertEq(escrow.creditOf(who(WORKER)), 0, "credit");
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NothingToWithdraw.selector, who(WORKER)));
        escrow.withdraw(who(WORKER));
        escrow.settle(settlement(lease, 51));
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(51 * PRICE) - netOf(50 * PRICE), "it starts from zero again");
    }

    function test_half_of_the_fees_is_burned_and_the_other_half_is_the_courts() public {
        (, Lease memory lease) = seated();
        escrow.settle(settlement(lease, 50));
        uint256 half = halfOf(50 * uint256(PRICE));
        uint256 supply = token.totalSupply();
        uint256 held = token.balanceOf(address(escrow));
        vm.expectEmit(address(escrow));
        emit IJobEscrow.FeesBurned(half);
        vm.assertEq(escrow.burnFees(), half, "amount");
        vm.assertEq(token.totalSupply(), supply - half, "supply");
        vm.assertEq(token.balanceOf(address(escrow)), held - half, "held");
        vm.assertEq(escrow.creditOf(COURT), half, "the court");
        vm.assertEq(escrow.feesToBurn(), 0, "feesToBurn");
        vm.expectRevert(IJobEscrow.NothingToBurn.selector);
        escrow.burnFees();
    }

    // ---------------------------------------------------------------- finish

    function ending(Lease memory lease, uint40 units, bool released)
        private
        view
        returns (IJobEscrow.SeatEnd[] memory ends)
    {
        ends = new IJobEscrow.SeatEnd[](1);
        IJobEscrow.Settlement memory pay = settlement(lease, units)[0];
        ends[0].lease = lease;
        ends[0].accept = pay.accept;
        ends[0].acceptSignature = pay.signature;
        if (!released) return ends;
        IJobEscrow.Closing memory end = closing(lease, units, WORKER)[0];
        ends[0].release = end.release;
        ends[0].releaseSignature = end.signature;
    }

    function test_finish_of_a_job_that_was_never_opened_is_refused() public {
        Order memory order = anOrder();
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NoSuchJob.selector, escrow.jobIdOf(order)));
        escrow.finish(order, new IJobEscrow.SeatEnd[](0));
    }

    function test_finish_does_all_in_one_call() public {
        (Order memory order, Lease memory lease) = seated();
        IJobEscrow.SeatEnd[] memory ends = ending(lease, 60, true);
        ends[0].audits = list(audit(anAuditOrder(lease, 1, 0, 0, AUDITOR), Messages.RESULT_MATCH, AUDITOR));
        vm.prank(who(PAYER));
        escrow.finish(order, ends);
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Closed, "closed");
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(60 * PRICE), "worker");
        vm.assertEq(escrow.creditOf(who(AUDITOR)), PRICE * 11 / 10, "auditor");
        vm.assertEq(escrow.creditOf(who(PAYER)), order.wages - 60 * PRICE, "payer");
    }

    function test_a_stranger_finishes_for_others_but_refunds_nothing() public {
        (Order memory order, Lease memory lease) = seated();
        IJobEscrow.SeatEnd[] memory ends = ending(lease, 60, true);
        vm.prank(who(STRANGER));
        escrow.finish(order, ends);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(60 * PRICE), "worker");
        vm.assertEq(escrow.jobOf(lease.job).free, order.wages - 60 * PRICE, "the wages wait for the payer");
    }

    function test_payer_and_signer_need_no_signature_in_finish_and_a_stranger_does() public {
        (Order memory order, Lease memory lease) = seated();
        IJobEscrow.SeatEnd[] memory ends = ending(lease, 10, false);
        ends[0].acceptSignature = none;
        ends[0].audits = list(audit(anAuditOrder(lease, 1, 0, 0, AUDITOR), Messages.RESULT_MATCH, AUDITOR));
        ends[0].audits[0].orderSignature = none;
        vm.prank(who(STRANGER));
        escrow.finish(order, ends);
        vm.assertEq(escrow.creditOf(who(WORKER)) + escrow.creditOf(who(AUDITOR)), 0, "a stranger");
        vm.prank(who(PAYER));
        escrow.finish(order, ends);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(10 * PRICE), "the payer");
        vm.assertEq(escrow.creditOf(who(AUDITOR)), PRICE * 11 / 10, "the payer's auditor");
        ends[0].accept.units = 20;
        vm.prank(who(SIGNER));
        escrow.finish(order, ends);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(20 * PRICE), "the signer");
    }

    function test_the_payer_of_one_job_cannot_finish_the_seat_of_another() public {
        (, Lease memory lease) = seated();
        fund(STRANGER, 100 ether);
        Order memory order = anOrder();
        order.payer = who(STRANGER);
        order.signer = who(STRANGER);
        vm.prank(who(STRANGER));
        escrow.open(order, new IJobEscrow.Seating[](0));
        IJobEscrow.SeatEnd[] memory ends = ending(lease, UNITS, true);
        ends[0].acceptSignature = none;
        expectRefused(lease, IJobEscrow.Refusal.WrongJob);
        vm.prank(who(STRANGER));
        escrow.finish(order, ends);
        vm.assertEq(paidUnits(lease), 0, "paid");
        // nor by a lease that claims to be of its own job
        ends[0].lease.job = escrow.jobIdOf(order);
        expectRefused(ends[0].lease, IJobEscrow.Refusal.NotOpen);
        vm.prank(who(STRANGER));
        escrow.finish(order, ends);
        vm.assertEq(escrow.creditOf(who(WORKER)), 0, "credit");
    }

    function test_finish_expires_a_seat_whose_time_has_come() public {
        (Order memory order, Lease memory lease) = seated();
        IJobEscrow.SeatEnd[] memory ends = new IJobEscrow.SeatEnd[](1);
        ends[0].lease = lease;
        vm.prank(who(PAYER));
        escrow.finish(order, ends);
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Open, "too early");
        vm.warp(uint256(lease.until) + order.claimWindow + 1);
        vm.prank(who(PAYER));
        escrow.finish(order, ends);
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Closed, "expired");
        vm.assertEq(escrow.creditOf(who(PAYER)), order.wages, "wages");
    }

    function test_a_Release_for_more_than_finish_pays_leaves_the_seat_open() public {
        (Order memory order, Lease memory lease) = seated();
        IJobEscrow.SeatEnd[] memory ends = ending(lease, 60, true);
        ends[0].accept = anAccept(lease, 59);
        expectRefused(lease, IJobEscrow.Refusal.NotPaidYet);
        vm.prank(who(PAYER));
        escrow.finish(order, ends);
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Open, "open");
        vm.assertEq(escrow.jobOf(lease.job).openSeats, 1, "openSeats");
    }

    // ---------------------------------------------------------------- a whole life

    /// @notice From every state the job can be in, calls that anybody can make free all funds, to the wei.
    function testFuzz_strangers_can_free_all_funds(uint40 units, bool refundEarly, uint96 odd) public {
        stake(WORKER, 1);
        Order memory order = anOrder();
        order.wages += odd % 1 ether;
        Lease memory lease = aLease(order, WORKER, 1);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        vm.prank(who(PAYER));
        escrow.open(order, items);
        escrow.settle(settlement(lease, units % UNITS));
        if (refundEarly) {
            vm.prank(who(PAYER));
            escrow.refund(order);
        }
        vm.warp(uint256(lease.until) + order.claimWindow + order.evidenceWindow + 365 days);
        vm.startPrank(who(STRANGER));
        expire(order, lease);
        escrow.refund(order); // the wages
        vm.warp(block.timestamp + order.evidenceWindow);
        escrow.refund(order); // the reserve
        escrow.unlock(list(lease));
        escrow.withdraw(who(PAYER));
        if (units % UNITS != 0) {
            escrow.withdraw(who(WORKER));
            if (escrow.feesToBurn() != 0) {
                escrow.burnFees();
                escrow.withdraw(COURT);
            }
        }
        vm.stopPrank();
        vm.assertEq(token.balanceOf(address(escrow)), 0, "nothing is left");
    }
}
