// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {AuditOrder, Lease, Messages, Order} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Base} from "./Base.sol";

/// @notice `payAudits`: auditors are paid from the reserve, for any verdict, once.
contract AuditsTest is Base {
    uint96 private constant FEE = uint96(uint256(PRICE) * 11 / 10);

    function expectAuditRefused(Lease memory lease, IJobEscrow.Audit memory item, IJobEscrow.Refusal why) private {
        uint96 reserve = escrow.jobOf(lease.job).reserve;
        uint256 credit = escrow.creditOf(item.order.auditor);
        expectRefused(digestOf(Messages.hash(item.order)), why);
        vm.assertEq(escrow.payAudits(lease, list(item)), 0, "paid");
        vm.assertEq(escrow.jobOf(lease.job).reserve, reserve, "reserve");
        vm.assertEq(escrow.creditOf(item.order.auditor), credit, "credit");
    }

    function usual(Lease memory lease, uint40 position) private view returns (IJobEscrow.Audit memory) {
        return audit(anAuditOrder(lease, position, 0, 0, AUDITOR), Messages.RESULT_MATCH, AUDITOR);
    }

    // ---------------------------------------------------------------- refusals

    function test_an_audit_of_another_seat_is_refused() public {
        (Order memory order, Lease memory lease) = seated();
        Lease memory other = aLease(order, WORKER, 2);
        escrow.seat(order, seating(other, WORKER));
        expectAuditRefused(lease, usual(other, 1), IJobEscrow.Refusal.WrongSeat);
    }

    function test_an_audit_of_a_seat_that_was_never_taken_is_refused() public {
        Order memory order = opened();
        Lease memory lease = aLease(order, WORKER, 1);
        expectAuditRefused(lease, usual(lease, 1), IJobEscrow.Refusal.NotOpen);
    }

    function test_a_position_or_a_draw_that_cannot_be_is_refused() public {
        (, Lease memory lease) = seated();
        expectAuditRefused(lease, usual(lease, UNITS), IJobEscrow.Refusal.BadAudit);
        AuditOrder memory order = anAuditOrder(lease, 1, 3, 0, AUDITOR);
        expectAuditRefused(lease, audit(order, Messages.RESULT_MATCH, AUDITOR), IJobEscrow.Refusal.BadAudit);
    }

    function test_a_result_that_cannot_be_is_refused() public {
        (, Lease memory lease) = seated();
        AuditOrder memory order = anAuditOrder(lease, 1, 0, 0, AUDITOR);
        expectAuditRefused(lease, audit(order, 0, AUDITOR), IJobEscrow.Refusal.BadAudit);
        expectAuditRefused(lease, audit(order, 4, AUDITOR), IJobEscrow.Refusal.BadAudit);
    }

    function test_a_verdict_on_another_order_is_refused() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Audit memory item = usual(lease, 1);
        IJobEscrow.Audit memory other = usual(lease, 2);
        item.verdict = other.verdict;
        item.verdictSignature = other.verdictSignature;
        expectAuditRefused(lease, item, IJobEscrow.Refusal.BadAudit);
    }

    function test_a_fee_above_the_bound_is_refused() public {
        (, Lease memory lease) = seated();
        AuditOrder memory order = anAuditOrder(lease, 1, 0, 0, AUDITOR);
        order.fee = FEE + 1;
        expectAuditRefused(lease, audit(order, Messages.RESULT_MATCH, AUDITOR), IJobEscrow.Refusal.PriceTooHigh);
    }

    function test_worker_and_signer_are_no_auditors() public {
        (, Lease memory lease) = seated();
        AuditOrder memory order = anAuditOrder(lease, 1, 0, 0, WORKER);
        expectAuditRefused(lease, audit(order, Messages.RESULT_MATCH, WORKER), IJobEscrow.Refusal.BadAudit);
        order = anAuditOrder(lease, 1, 0, 0, SIGNER);
        expectAuditRefused(lease, audit(order, Messages.RESULT_MATCH, SIGNER), IJobEscrow.Refusal.BadAudit);
    }

    function test_an_order_that_the_signer_did_not_sign_is_refused() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Audit memory item = usual(lease, 1);
        item.orderSignature = sign(AUDITOR, item.verdict.auditOrder);
        expectAuditRefused(lease, item, IJobEscrow.Refusal.BadSignature);
        item.orderSignature = none;
        expectAuditRefused(lease, item, IJobEscrow.Refusal.BadSignature);
    }

    function test_a_verdict_that_the_auditor_did_not_sign_is_refused() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Audit memory item = usual(lease, 1);
        item.verdictSignature = sign(SIGNER, digestOf(Messages.hash(item.verdict)));
        expectAuditRefused(lease, item, IJobEscrow.Refusal.BadSignature);
        item = usual(lease, 1);
        item.verdict.result = Messages.RESULT_MISMATCH;
        expectAuditRefused(lease, item, IJobEscrow.Refusal.BadSignature);
        AuditOrder memory order = anAuditOrder(lease, 1, 0, 0, AUDITOR);
        order.auditor = address(0);
        item = audit(order, Messages.RESULT_MATCH, AUDITOR);
        item.verdictSignature = none;
        expectAuditRefused(lease, item, IJobEscrow.Refusal.BadSignature);
    }

    function test_a_reserve_that_is_spent_pays_nothing_more() public {
        stake(WORKER, 1);
        Order memory order = anOrder();
        order.auditReserve = FEE + FEE - 1;
        Lease memory lease = aLease(order, WORKER, 1);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        vm.prank(who(PAYER));
        escrow.open(order, items);
        vm.assertEq(escrow.payAudits(lease, list(usual(lease, 1))), 1, "the first");
        expectAuditRefused(lease, usual(lease, 2), IJobEscrow.Refusal.OverBudget);
    }

    // ---------------------------------------------------------------- pay

    function test_match_and_mismatch_earn_the_fee_and_wages_are_untouched() public {
        (, Lease memory lease) = seated();
        uint96 free = escrow.jobOf(lease.job).free;
        uint96 reserve = escrow.jobOf(lease.job).reserve;
        IJobEscrow.Audit memory item = usual(lease, 7);
        vm.expectEmit(address(escrow));
        emit IJobEscrow.AuditPaid(
            item.verdict.auditOrder, item.order.seat, who(AUDITOR), 7, Messages.RESULT_MATCH, FEE
        );
        vm.prank(who(STRANGER)); // anyone
        escrow.payAudits(lease, list(item));
        AuditOrder memory order = anAuditOrder(lease, 7, 1, 0, AUDITOR_2);
        escrow.payAudits(lease, list(audit(order, Messages.RESULT_MISMATCH, AUDITOR_2)));
        vm.assertEq(escrow.creditOf(who(AUDITOR)), FEE, "match");
        vm.assertEq(escrow.creditOf(who(AUDITOR_2)), FEE, "mismatch");
        vm.assertEq(escrow.jobOf(lease.job).reserve, reserve - 2 * FEE, "reserve");
        vm.assertEq(escrow.jobOf(lease.job).free, free, "free");
        vm.assertEq(escrow.feesToBurn(), 0, "auditors pay no fee");
    }

    function test_unavailable_earns_a_tenth_and_the_next_attempt_the_fee() public {
        (, Lease memory lease) = seated();
        AuditOrder memory first = anAuditOrder(lease, 7, 0, 0, AUDITOR);
        AuditOrder memory second = anAuditOrder(lease, 7, 0, 1, AUDITOR_2);
        IJobEscrow.Audit memory silent = audit(first, Messages.RESULT_UNAVAILABLE, AUDITOR);
        escrow.payAudits(lease, list(silent));
        vm.assertEq(escrow.creditOf(who(AUDITOR)), FEE / 10, "a tenth");
        expectAuditRefused(lease, silent, IJobEscrow.Refusal.AlreadyPaid);
        vm.assertEq(escrow.payAudits(lease, list(audit(second, Messages.RESULT_MATCH, AUDITOR_2))), 1, "the next");
        vm.assertEq(escrow.creditOf(who(AUDITOR_2)), FEE, "the fee");
    }

    function test_each_verdict_is_paid_once() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Audit memory item = usual(lease, 1);
        IJobEscrow.Audit[] memory twice = new IJobEscrow.Audit[](2);
        twice[0] = twice[1] = item;
        expectRefused(item.verdict.auditOrder, IJobEscrow.Refusal.AlreadyPaid);
        vm.assertEq(escrow.payAudits(lease, twice), 1, "in one call");
        expectAuditRefused(lease, item, IJobEscrow.Refusal.AlreadyPaid);
    }

    function test_an_auditor_that_signs_two_verdicts_on_one_order_is_paid_for_one() public {
        (, Lease memory lease) = seated();
        AuditOrder memory order = anAuditOrder(lease, 1, 0, 0, AUDITOR);
        escrow.payAudits(lease, list(audit(order, Messages.RESULT_UNAVAILABLE, AUDITOR)));
        expectAuditRefused(
            lease, audit(order, Messages.RESULT_MATCH, AUDITOR), IJobEscrow.Refusal.AlreadyPaid
        );
        order = anAuditOrder(lease, 2, 0, 0, AUDITOR);
        escrow.payAudits(lease, list(audit(order, Messages.RESULT_MATCH, AUDITOR)));
        expectAuditRefused(
            lease, audit(order, Messages.RESULT_MISMATCH, AUDITOR), IJobEscrow.Refusal.AlreadyPaid
        );
        expectAuditRefused(
            lease, audit(order, Messages.RESULT_UNAVAILABLE, AUDITOR), IJobEscrow.Refusal.AlreadyPaid
        );
    }

    function test_a_draw_is_paid_in_full_once_whoever_was_called() public {
        (, Lease memory lease) = seated();
        escrow.payAudits(lease, list(usual(lease, 1)));
        AuditOrder memory order = anAuditOrder(lease, 1, 0, 5, AUDITOR_2);
        expectAuditRefused(
            lease, audit(order, Messages.RESULT_MATCH, AUDITOR_2), IJobEscrow.Refusal.AlreadyPaid
        );
    }

    function test_positions_that_share_a_word_do_not_share_their_payment() public {
        (, Lease memory lease) = seated();
        for (uint40 position = 0; position < UNITS; ++position) {
            for (uint8 draw = 0; draw < (position < 2 || position == 63 || position == 64 ? 3 : 0); ++draw) {
                AuditOrder memory order = anAuditOrder(lease, position, draw, 0, AUDITOR);
                IJobEscrow.Audit[] memory items = list(audit(order, Messages.RESULT_MATCH, AUDITOR));
                vm.assertEq(escrow.payAudits(lease, items), 1, "first time");
                vm.assertEq(escrow.payAudits(lease, items), 0, "second time");
            }
        }
    }

    function test_auditors_are_paid_after_the_seat_closed_too() public {
        (, Lease memory lease) = seated();
        escrow.settle(settlement(lease, UNITS));
        vm.assertEq(escrow.payAudits(lease, list(usual(lease, 1))), 1, "closed");
        vm.warp(START + LOCK_TAIL);
        escrow.unlock(list(lease));
        vm.assertEq(escrow.payAudits(lease, list(usual(lease, 2))), 1, "unlocked");
    }

    function test_signer_and_auditor_themselves_need_no_signature() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Audit memory item = usual(lease, 1);
        item.orderSignature = none;
        vm.prank(who(SIGNER));
        vm.assertEq(escrow.payAudits(lease, list(item)), 1, "the signer");
        item = usual(lease, 2);
        item.verdictSignature = none;
        vm.prank(who(AUDITOR));
        vm.assertEq(escrow.payAudits(lease, list(item)), 1, "the auditor");
    }

    // ---------------------------------------------------------------- fuzz

    /// @notice Whatever is asked for in whatever order: each (position, draw) costs at most one fee and its tenths, each
    /// order is paid at most once, and the reserve pays all of it.
    function testFuzz_the_reserve_pays_each_draw_once(uint8[12] memory picks) public {
        (Order memory job, Lease memory lease) = seated();
        bool[2][3][4] memory orderPaid;
        bool[3][4] memory inFull;
        uint256 expected;
        for (uint256 i = 0; i < 12; ++i) {
            uint8 position = picks[i] % 4;
            uint8 draw = picks[i] / 4 % 3;
            uint8 attempt = picks[i] / 12 % 2;
            uint8 result = picks[i] / 24 % 3 + 1;
            AuditOrder memory order = anAuditOrder(lease, position, draw, attempt, AUDITOR);
            uint256 paid = escrow.payAudits(lease, list(audit(order, result, AUDITOR)));
            bool due = !inFull[position][draw] && !orderPaid[position][draw][attempt];
            vm.assertEq(paid, due ? 1 : 0, "paid");
            if (!due) continue;
            orderPaid[position][draw][attempt] = true;
            if (result != Messages.RESULT_UNAVAILABLE) inFull[position][draw] = true;
            expected += result == Messages.RESULT_UNAVAILABLE ? FEE / 10 : FEE;
        }
        vm.assertEq(escrow.creditOf(who(AUDITOR)), expected, "credit");
        vm.assertEq(escrow.jobOf(lease.job).reserve, job.auditReserve - expected, "reserve");
    }
}
