// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Lease, Order} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Base} from "./Base.sol";
import {Handler} from "./Handler.sol";

/// @notice The properties of docs/PROTOCOL.md section 6, each a sentence, checked after every act of everybody.
contract InvariantsTest is Base {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler private handler;

    function setUp() public override {
        super.setUp();
        fund(103, 1_000_000 ether);
        fund(203, 10_000 ether);
        handler = new Handler(token, registry, escrow);
        // a world in motion, so that few acts find nothing to do
        for (uint256 i = 0; i < 6; ++i) handler.buySlot(i);
        for (uint256 i = 0; i < 3; ++i) handler.openJob(6 + 16 + 64 + i);
        for (uint256 i = 0; i < 6; ++i) handler.takeSeat(1 + i * 9 + 64 * 30 + 1024 * (i * 20_000));
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[19] memory all = [
            Handler.openJob.selector,
            Handler.takeSeat.selector,
            Handler.takeSeat.selector, // twice as often
            Handler.signAccept.selector,
            Handler.signAccept.selector,
            Handler.refund.selector,
            Handler.finish.selector,
            Handler.settleAnyAccept.selector,
            Handler.settleManyAtOnce.selector,
            Handler.releaseSeat.selector,
            Handler.unlockSeat.selector,
            Handler.payAudit.selector,
            Handler.expireSeat.selector,
            Handler.forge.selector,
            Handler.withdraw.selector,
            Handler.burnFees.selector,
            Handler.wait.selector,
            Handler.wait.selector,
            Handler.buySlot.selector
        ];
        bytes4[] memory selectors = new bytes4[](22);
        for (uint256 i = 0; i < 19; ++i) selectors[i] = all[i];
        selectors[19] = Handler.releaseSlot.selector;
        selectors[20] = Handler.withdrawStake.selector;
        selectors[21] = Handler.changeOwner.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), selectors);
    }

    // ---------------------------------------------------------------- money

    function invariant_the_balance_is_what_jobs_hold_plus_credits_plus_fees_to_burn() public view {
        uint256 owed = 2 * escrow.feesToBurn() + escrow.creditOf(COURT);
        for (uint256 job = 0; job < handler.jobs(); ++job) owed += heldBy(job);
        address[] memory accounts = handler.accounts();
        for (uint256 i = 0; i < accounts.length; ++i) owed += escrow.creditOf(accounts[i]);
        vm.assertEq(token.balanceOf(address(escrow)), owed, "escrow");
    }

    function invariant_a_job_holds_what_it_was_given_less_what_it_paid() public view {
        for (uint256 job = 0; job < handler.jobs(); ++job) {
            Handler.Books memory books = handler.booksOf(job);
            uint256 given = books.funded - books.audited - books.refunded - paidBy(job);
            vm.assertEq(heldBy(job), given, "job");
        }
    }

    function invariant_a_seat_never_pays_more_than_was_accepted_or_than_its_cap() public view {
        for (uint256 i = 0; i < handler.seats(); ++i) {
            Handler.Held memory held = handler.heldOf(i);
            vm.assertLe(paidUnits(held.lease), held.accepted, "accepted");
            vm.assertLe(held.accepted, held.lease.positions, "cap");
        }
    }

    /// @notice Whoever did whatever before: while a seat is open its highest Accept pays all of it to the wei, and a seat
    /// closed under an unpaid Accept only when the worker let a whole claim window pass.
    function invariant_an_honest_worker_with_an_Accept_is_paid() public {
        for (uint256 i = 0; i < handler.seats(); ++i) {
            Handler.Held memory held = handler.heldOf(i);
            IJobEscrow.Seat memory seat = escrow.seatOf(escrow.seatIdOf(held.lease));
            if (seat.state == IJobEscrow.SeatState.Open) {
                uint256 due = netOf(uint256(held.accepted) * held.lease.price);
                uint256 had = netOf(uint256(seat.paidUnits) * held.lease.price);
                vm.assertEq(handler.wouldPay(i), due - had, "due");
            } else if (seat.paidUnits != held.accepted && seat.state == IJobEscrow.SeatState.Closed) {
                uint256 end = uint256(held.lease.until) + handler.orderOf(held.job).claimWindow;
                vm.assertTrue(seat.until > end, "closed under an unpaid Accept");
            }
        }
    }

    // ---------------------------------------------------------------- stake

    function invariant_locks_are_those_of_the_seats_that_were_not_unlocked() public view {
        for (uint256 w = 0; w < 3; ++w) {
            address worker = who(handler.workers(w));
            uint256 expected;
            for (uint256 i = 0; i < handler.seats(); ++i) {
                Lease memory lease = handler.heldOf(i).lease;
                if (lease.worker == worker && stateOf(lease) != IJobEscrow.SeatState.Unlocked) expected += lease.lock;
            }
            (, uint96 locked,) = registry.stakeOf(worker);
            vm.assertEq(locked, expected, "locked");
        }
    }

    function invariant_the_registry_holds_free_plus_locked_plus_unbonding_stake_of_everybody() public view {
        uint256 held;
        for (uint256 w = 0; w < 3; ++w) {
            (uint96 free, uint96 locked, uint96 unbonding) = registry.stakeOf(who(handler.workers(w)));
            held += uint256(free) + locked + unbonding;
        }
        vm.assertEq(token.balanceOf(address(registry)), held, "registry");
    }

    // ---------------------------------------------------------------- the test itself

    function invariant_acts_fail_rarely_and_only_for_the_reasons_that_they_name() public view {
        vm.assertLe(handler.failed() * 10, handler.acts() * 4, "more than 40 % of the acts failed");
    }

    // ---------------------------------------------------------------- sums

    /// @dev free + reserve + the unpaid parts of open seats.
    function heldBy(uint256 job) private view returns (uint256 held) {
        IJobEscrow.Job memory found = escrow.jobOf(escrow.jobIdOf(handler.orderOf(job)));
        held = uint256(found.free) + found.reserve;
        uint256 open_;
        for (uint256 i = 0; i < handler.seats(); ++i) {
            Handler.Held memory one = handler.heldOf(i);
            if (one.job != job || stateOf(one.lease) != IJobEscrow.SeatState.Open) continue;
            held += uint256(one.lease.positions - paidUnits(one.lease)) * one.lease.price;
            ++open_;
        }
        vm.assertEq(found.openSeats, open_, "openSeats");
    }

    function paidBy(uint256 job) private view returns (uint256 paid) {
        for (uint256 i = 0; i < handler.seats(); ++i) {
            Handler.Held memory one = handler.heldOf(i);
            if (one.job == job) paid += uint256(paidUnits(one.lease)) * one.lease.price;
        }
    }
}
