// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Accept, Lease, Messages, Order} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Base} from "./Base.sol";

/// @notice `settle`: the only way to pay a worker.
contract SettleTest is Base {
    function expectSettleRefused(IJobEscrow.Settlement[] memory items, IJobEscrow.Refusal why) private {
        bytes32 id = escrow.seatIdOf(items[0].lease);
        bytes32 before = keccak256(abi.encode(escrow.seatOf(id), escrow.jobOf(items[0].lease.job)));
        uint256 credit = escrow.creditOf(items[0].lease.worker);
        expectRefused(id, why);
        vm.assertEq(escrow.settle(items), 0, "settled");
        bytes32 afterwards = keccak256(abi.encode(escrow.seatOf(id), escrow.jobOf(items[0].lease.job)));
        vm.assertEq(afterwards, before, "something changed");
        vm.assertEq(escrow.creditOf(items[0].lease.worker), credit, "credit");
    }

    // ---------------------------------------------------------------- refusals

    function test_a_seat_that_was_never_taken_pays_nothing() public {
        Order memory order = opened();
        expectSettleRefused(settlement(aLease(order, WORKER, 1), 1), IJobEscrow.Refusal.NotOpen);
    }

    function test_a_closed_seat_pays_nothing() public {
        (, Lease memory lease) = seated();
        escrow.settle(settlement(lease, 10));
        escrow.close(closing(lease, 10, WORKER));
        expectSettleRefused(settlement(lease, 20), IJobEscrow.Refusal.NotOpen);
    }

    function test_an_Accept_of_another_seat_pays_nothing_here() public {
        (Order memory order, Lease memory lease) = seated();
        Lease memory other = aLease(order, WORKER, 2);
        escrow.seat(order, seating(other, WORKER));
        IJobEscrow.Settlement[] memory items = settlement(other, 50);
        items[0].lease = lease;
        expectSettleRefused(items, IJobEscrow.Refusal.WrongSeat);
    }

    function test_a_lease_with_another_worker_is_another_seat() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Settlement[] memory items = settlement(lease, 50);
        items[0].lease.worker = who(STRANGER);
        expectSettleRefused(items, IJobEscrow.Refusal.NotOpen);
        items[0].lease.worker = lease.worker;
        items[0].lease.price += 1;
        expectSettleRefused(items, IJobEscrow.Refusal.NotOpen);
    }

    function test_an_Accept_that_the_signer_did_not_sign_pays_nothing() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Settlement[] memory items = settlement(lease, 50);
        items[0].accept.units = 60;
        expectSettleRefused(items, IJobEscrow.Refusal.BadSignature);
        items = settlement(lease, 50);
        items[0].signature = sign(WORKER, digestOf(Messages.hash(items[0].accept)));
        expectSettleRefused(items, IJobEscrow.Refusal.BadSignature);
        // not even the payer's key: the order names one signer
        items[0].signature = sign(PAYER, digestOf(Messages.hash(items[0].accept)));
        expectSettleRefused(items, IJobEscrow.Refusal.BadSignature);
        items[0].signature = none;
        expectSettleRefused(items, IJobEscrow.Refusal.BadSignature);
    }

    function test_the_signer_of_one_job_cannot_settle_in_another() public {
        (Order memory order, Lease memory lease) = seated();
        order.signer = who(STRANGER);
        order.salt = keccak256("another");
        vm.prank(who(PAYER));
        escrow.open(order, new IJobEscrow.Seating[](0));
        IJobEscrow.Settlement[] memory items = settlement(lease, 50);
        items[0].signature = sign(STRANGER, digestOf(Messages.hash(items[0].accept)));
        expectSettleRefused(items, IJobEscrow.Refusal.BadSignature);
    }

    function test_a_repeated_or_older_Accept_pays_nothing() public {
        (, Lease memory lease) = seated();
        escrow.settle(settlement(lease, 50));
        expectSettleRefused(settlement(lease, 50), IJobEscrow.Refusal.NothingNew);
        expectSettleRefused(settlement(lease, 49), IJobEscrow.Refusal.NothingNew);
        expectSettleRefused(settlement(lease, 0), IJobEscrow.Refusal.NothingNew);
    }

    function test_an_empty_settle_does_nothing() public {
        vm.assertEq(escrow.settle(new IJobEscrow.Settlement[](0)), 0, "settled");
    }

    // ---------------------------------------------------------------- pay

    function test_a_worker_is_paid_for_accepted_units_less_the_fee() public {
        (, Lease memory lease) = seated();
        uint256 amount = 50 * uint256(PRICE);
        uint256 fee = 2 * halfOf(amount);
        IJobEscrow.Settlement[] memory items = settlement(lease, 50);
        bytes32 id = escrow.seatIdOf(lease);
        vm.expectEmit(address(escrow));
        emit IJobEscrow.Settled(id, who(WORKER), 1, 50, uint96(amount), uint96(fee), keccak256("chain"));
        vm.prank(who(STRANGER));
        vm.assertEq(escrow.settle(items), 1, "settled"); // by anyone
        vm.assertEq(escrow.creditOf(who(WORKER)), amount - fee, "credit");
        vm.assertEq(escrow.feesToBurn(), fee / 2, "fees");
        vm.assertEq(paidUnits(lease), 50, "paidUnits");
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Open, "still open");
    }

    function test_an_Accept_above_the_seats_units_pays_the_cap_and_no_more() public {
        (Order memory order, Lease memory lease) = seated();
        escrow.settle(settlement(lease, type(uint40).max));
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(CAP), "credit");
        vm.assertEq(paidUnits(lease), UNITS, "paidUnits");
        vm.assertEq(escrow.jobOf(lease.job).free, order.wages - CAP, "the other wages are untouched");
    }

    function test_a_seat_that_is_paid_in_full_closes() public {
        (, Lease memory lease) = seated();
        vm.warp(START + 5);
        vm.expectEmit(address(escrow));
        emit IJobEscrow.SeatClosed(escrow.seatIdOf(lease), lease.job, UNITS, 0);
        escrow.settle(settlement(lease, UNITS));
        IJobEscrow.Seat memory found = escrow.seatOf(escrow.seatIdOf(lease));
        vm.assertTrue(found.state == IJobEscrow.SeatState.Closed, "closed");
        vm.assertEq(found.until, START + 5, "when");
        vm.assertEq(escrow.jobOf(lease.job).openSeats, 0, "openSeats");
        vm.assertEq(escrow.jobOf(lease.job).lastClosed, START + 5, "lastClosed");
    }

    function test_one_call_settles_many_workers_and_jobs_and_leaves_out_what_fails() public {
        (Order memory order, Lease memory lease) = seated();
        stake(WORKER_2, 1);
        Lease memory second = aLease(order, WORKER_2, 2);
        escrow.seat(order, seating(second, WORKER_2));
        Order memory another = anOrder();
        another.salt = keccak256("another");
        Lease memory third = aLease(another, WORKER, 3);
        IJobEscrow.Seating[] memory seatings = seating(third, WORKER);
        vm.prank(who(PAYER));
        escrow.open(another, seatings);

        IJobEscrow.Settlement[] memory items = new IJobEscrow.Settlement[](4);
        items[0] = settlement(lease, 10)[0];
        items[1] = settlement(aLease(order, WORKER, 99), 10)[0]; // never seated
        items[2] = settlement(second, 20)[0];
        items[3] = settlement(third, 30)[0];
        expectRefused(items[1].lease, IJobEscrow.Refusal.NotOpen);
        vm.assertEq(escrow.settle(items), 3, "settled");
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(10 * PRICE) + netOf(30 * PRICE), "worker");
        vm.assertEq(escrow.creditOf(who(WORKER_2)), netOf(20 * PRICE), "second worker");
    }

    function test_the_signer_itself_needs_no_signature() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Settlement[] memory items = settlement(lease, 50);
        items[0].signature = none;
        vm.prank(who(SIGNER));
        vm.assertEq(escrow.settle(items), 1, "settled");
    }

    function test_a_worker_with_an_Accept_is_paid_long_after_the_lease_while_nobody_expired_the_seat() public {
        (, Lease memory lease) = seated();
        IJobEscrow.Settlement[] memory items = settlement(lease, 50);
        vm.warp(lease.until + 365 days);
        vm.assertEq(escrow.settle(items), 1, "settled");
    }

    // ---------------------------------------------------------------- fuzz

    /// @notice Any Accepts in any order, repeated or not, in one call or in many, pay exactly what the highest one says.
    function testFuzz_settling_is_cumulative_and_idempotent_in_any_order(uint40[5] memory units, uint256 split) public {
        (, Lease memory lease) = seated();
        uint40 highest;
        IJobEscrow.Settlement[] memory batch = new IJobEscrow.Settlement[](5);
        uint256 filled;
        for (uint256 i = 0; i < 5; ++i) {
            uint40 accepted = units[i] % (2 * UNITS);
            if (accepted > highest) highest = accepted;
            if (split >> i & 1 == 1) escrow.settle(settlement(lease, accepted));
            else batch[filled++] = settlement(lease, accepted)[0];
        }
        IJobEscrow.Settlement[] memory rest = new IJobEscrow.Settlement[](filled);
        for (uint256 i = 0; i < filled; ++i) rest[i] = batch[i];
        escrow.settle(rest);
        escrow.settle(rest);

        uint40 paid = highest < UNITS ? highest : UNITS;
        vm.assertEq(paidUnits(lease), paid, "paidUnits");
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(uint256(paid) * PRICE), "credit");
        vm.assertEq(escrow.feesToBurn(), halfOf(uint256(paid) * PRICE), "fees");
    }

    /// @notice The fee is rounded down over the whole seat: parts that would each round differently do not change it.
    function testFuzz_the_fee_does_not_depend_on_the_parts(uint96 price, uint40 first, uint40 second) public {
        stake(WORKER, 1);
        Order memory order = opened();
        Lease memory lease = aLease(order, WORKER, 1);
        lease.price = price % 100_000; // small prices round the most
        escrow.seat(order, seating(lease, WORKER));
        escrow.settle(settlement(lease, first % UNITS));
        escrow.settle(settlement(lease, second % UNITS));
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(uint256(paidUnits(lease)) * lease.price), "credit");
    }

    /// @notice Nothing that a forger writes into an item pays anybody.
    function testFuzz_an_item_with_any_other_signature_pays_nothing(bytes32 r, bytes32 vs, uint40 units) public {
        (, Lease memory lease) = seated();
        IJobEscrow.Settlement[] memory items = settlement(lease, 1);
        items[0].accept.units = units;
        items[0].signature.r = r;
        items[0].signature.vs = vs;
        vm.assertEq(escrow.settle(items), 0, "settled");
        vm.assertEq(escrow.creditOf(who(WORKER)), 0, "credit");
    }
}
