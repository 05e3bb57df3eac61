// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {Lease, Order} from "../src/generated/Messages.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Permit} from "../src/interfaces/Types.sol";
import {Base} from "./Base.sol";

/// @notice `open`, `openWithPermit` and `seat`.
contract OpenTest is Base {
    IJobEscrow.Seating[] private nobody;

    function expectSeatRefused(Order memory order, IJobEscrow.Seating[] memory items, IJobEscrow.Refusal why) private {
        uint256 free = escrow.jobOf(escrow.jobIdOf(order)).free;
        (, uint96 locked,) = registry.stakeOf(items[0].lease.worker);
        bytes32 id = escrow.seatIdOf(items[0].lease);
        IJobEscrow.Seat memory before = escrow.seatOf(id);
        expectRefused(id, why);
        vm.assertEq(escrow.seat(order, items), 0, "seated");
        vm.assertEq(escrow.jobOf(escrow.jobIdOf(order)).free, free, "free wages changed");
        vm.assertEq(keccak256(abi.encode(escrow.seatOf(id))), keccak256(abi.encode(before)), "the seat changed");
        (, uint96 now_,) = registry.stakeOf(items[0].lease.worker);
        vm.assertEq(now_, locked, "a lock stayed behind");
    }

    function ready() private returns (Order memory order, Lease memory lease) {
        stake(WORKER, 1);
        order = opened();
        lease = aLease(order, WORKER, 1);
    }

    // ---------------------------------------------------------------- deployment

    function test_deployment_with_parameters_that_cannot_be_is_refused() public {
        address[5] memory all = [address(token), address(registry), CLAIMS, ACCUSATIONS, COURT];
        bytes memory rest = abi.encode(FEE_BP, LEASE_MAX, LOCK_TAIL, WINDOW_MIN, WINDOW_MAX, PERIOD);
        for (uint256 i = 0; i < 5; ++i) {
            address kept = all[i];
            all[i] = address(0);
            refused(
                "JobEscrow", bytes.concat(abi.encode(all), rest), abi.encodePacked(IJobEscrow.ZeroAddress.selector)
            );
            all[i] = kept;
        }
        expectBad("feeBp", abi.encode(all), abi.encode(10_000, LEASE_MAX, LOCK_TAIL, 1, 2, PERIOD));
        expectBad("leaseMax", abi.encode(all), abi.encode(FEE_BP, 0, LOCK_TAIL, 1, 2, PERIOD));
        expectBad("windowMin", abi.encode(all), abi.encode(FEE_BP, LEASE_MAX, LOCK_TAIL, 2, 1, PERIOD));
        expectBad("periodLength", abi.encode(all), abi.encode(FEE_BP, LEASE_MAX, LOCK_TAIL, 1, 2, 0));
    }

    function expectBad(bytes32 name, bytes memory addresses, bytes memory rest) private {
        refused(
            "JobEscrow", bytes.concat(addresses, rest), abi.encodeWithSelector(IJobEscrow.BadParameter.selector, name)
        );
    }

    // ---------------------------------------------------------------- open: refusals

    function test_only_the_payer_opens() public {
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NotPayer.selector, who(STRANGER), who(PAYER)));
        vm.prank(who(STRANGER));
        escrow.open(anOrder(), nobody);
    }

    function test_a_job_without_a_signer_is_refused() public {
        Order memory order = anOrder();
        order.signer = address(0);
        vm.expectRevert(IJobEscrow.ZeroAddress.selector);
        vm.prank(who(PAYER));
        escrow.open(order, nobody);
    }

    function test_a_job_after_its_deadline_is_refused() public {
        Order memory order = anOrder();
        order.deadline = uint40(START - 1);
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.DeadlinePassed.selector, order.deadline));
        vm.prank(who(PAYER));
        escrow.open(order, nobody);
    }

    function test_windows_out_of_bounds_are_refused() public {
        uint40[2] memory wrong = [WINDOW_MIN - 1, WINDOW_MAX + 1];
        for (uint256 i = 0; i < 2; ++i) {
            bytes memory reason =
                abi.encodeWithSelector(IJobEscrow.WindowOutOfBounds.selector, wrong[i], WINDOW_MIN, WINDOW_MAX);
            Order memory order = anOrder();
            order.claimWindow = wrong[i];
            vm.expectRevert(reason);
            vm.prank(who(PAYER));
            escrow.open(order, nobody);
            order = anOrder();
            order.evidenceWindow = wrong[i];
            vm.expectRevert(reason);
            vm.prank(who(PAYER));
            escrow.open(order, nobody);
        }
    }

    function test_a_job_is_opened_once() public {
        Order memory order = opened();
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.JobExists.selector, escrow.jobIdOf(order)));
        vm.prank(who(PAYER));
        escrow.open(order, nobody);
        // not even after everything went back
        vm.prank(who(PAYER));
        escrow.refund(order);
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.JobExists.selector, escrow.jobIdOf(order)));
        vm.prank(who(PAYER));
        escrow.open(order, nobody);
    }

    function test_a_job_without_funds_is_refused_whole() public {
        stake(WORKER, 1);
        Order memory order = anOrder();
        Lease memory lease = aLease(order, WORKER, 1);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        vm.prank(who(PAYER));
        token.approve(address(escrow), order.wages); // not the reserve
        vm.expectRevert(
            abi.encodeWithSelector(
                IERC20Errors.ERC20InsufficientAllowance.selector,
                address(escrow),
                order.wages,
                order.wages + order.auditReserve
            )
        );
        vm.prank(who(PAYER));
        escrow.open(order, items);
        vm.assertEq(escrow.jobOf(escrow.jobIdOf(order)).signer, address(0), "the job is there");
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.None, "the seat is there");
    }

    // ---------------------------------------------------------------- open

    function test_open_takes_wages_and_reserve_and_the_first_seats() public {
        stake(WORKER, 1);
        Order memory order = anOrder();
        Lease memory lease = aLease(order, WORKER, 1);
        bytes32 id = escrow.seatIdOf(lease);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        uint256 before = token.balanceOf(who(PAYER));

        vm.expectEmit(address(escrow));
        emit IJobEscrow.JobOpened(
            escrow.jobIdOf(order), who(PAYER), who(SIGNER), order.wages, order.auditReserve
        );
        vm.expectEmit(address(escrow));
        emit IJobEscrow.SeatOpened(id, lease.job, who(WORKER), PRICE, UNITS, lease.lock, lease.until);
        vm.prank(who(PAYER));
        (bytes32 job, uint256 count) = escrow.open(order, items);

        vm.assertEq(job, lease.job, "the id was known before");
        vm.assertEq(count, 1, "seated");
        vm.assertEq(token.balanceOf(who(PAYER)), before - order.wages - order.auditReserve, "paid");
        IJobEscrow.Job memory held = escrow.jobOf(job);
        vm.assertEq(held.signer, who(SIGNER), "signer");
        vm.assertEq(held.free, order.wages - CAP, "free");
        vm.assertEq(held.reserve, order.auditReserve, "reserve");
        vm.assertEq(held.openSeats, 1, "openSeats");
        vm.assertEq(held.signerSeated, 0, "the payer's own seats do not count");
        IJobEscrow.Seat memory taken = escrow.seatOf(id);
        vm.assertEq(taken.bond, 0, "bond");
        vm.assertEq(taken.units, UNITS, "units");
        vm.assertEq(taken.paidUnits, 0, "paidUnits");
        vm.assertEq(taken.until, lease.until, "until");
        (, uint96 locked,) = registry.stakeOf(who(WORKER));
        vm.assertEq(locked, lease.lock, "locked");
    }

    function test_the_job_id_is_what_the_protocol_says() public view {
        Order memory order = anOrder();
        bytes32 typeHash = keccak256(
            "Order(address payer,address signer,bytes32 template,bytes32 numericProfile,uint16 cores,uint32 memoryMib,"
            "uint32 diskMib,uint16 gpus,uint96 priceMax,uint96 wages,uint96 auditReserve,uint96 lockPerSeat,"
            "uint96 claimBond,uint16 auditRateBp,uint16 tallyUnits,uint40 claimWindow,uint40 evidenceWindow,"
            "uint8 auditors,bytes32 auditorsRoot,uint96 signerSeatMax,bool newcomers,uint40 deadline,bytes32 salt)"
        );
        bytes32 orderHash = keccak256(abi.encode(typeHash, order));
        bytes32 expected = keccak256(
            abi.encode(
                keccak256("tallymesh.job.1"), block.chainid, address(escrow), order.payer, orderHash, order.salt
            )
        );
        vm.assertEq(escrow.jobIdOf(order), expected, "job id");
    }

    function test_a_permit_opens_in_one_call_and_one_used_before_is_no_error() public {
        Order memory order = anOrder();
        uint256 needed = uint256(order.wages) + order.auditReserve;
        vm.startPrank(who(PAYER));
        token.approve(address(escrow), 0);
        Permit memory permit = permitOf(PAYER, address(escrow), needed);
        vm.stopPrank();
        // somebody saw the permit and carried it first
        token.permit(who(PAYER), address(escrow), needed, permit.deadline, permit.v, permit.r, permit.s);
        vm.prank(who(PAYER));
        escrow.openWithPermit(order, nobody, permit);
        vm.assertEq(token.allowance(who(PAYER), address(escrow)), 0, "used up");
        vm.assertEq(token.balanceOf(address(escrow)), needed, "held");
    }

    // ---------------------------------------------------------------- seat: refusals

    function test_a_seat_of_a_job_that_was_never_opened_is_refused() public {
        Order memory order = anOrder();
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NoSuchJob.selector, escrow.jobIdOf(order)));
        escrow.seat(order, nobody);
    }

    function test_an_order_that_was_changed_afterwards_is_another_job() public {
        (Order memory order, Lease memory lease) = ready();
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        order.signerSeatMax = type(uint96).max;
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NoSuchJob.selector, escrow.jobIdOf(order)));
        escrow.seat(order, items);
    }

    function test_a_lease_of_another_job_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        lease.job = keccak256("other");
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.WrongJob);
    }

    function test_a_seat_after_seatBy_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        vm.warp(lease.seatBy + 1);
        expectSeatRefused(order, items, IJobEscrow.Refusal.TooLate);
        vm.warp(lease.seatBy);
        vm.assertEq(escrow.seat(order, items), 1, "in time");
    }

    function test_a_seat_after_the_deadline_of_the_order_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        vm.warp(order.deadline + 1);
        lease.seatBy = uint40(block.timestamp + 1);
        lease.until = uint40(block.timestamp + 1 hours);
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.TooLate);
    }

    function test_a_lease_that_ended_or_is_too_long_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        lease.until = uint40(START);
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.BadTerm);
        lease.until = uint40(START + LEASE_MAX + 1);
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.BadTerm);
        lease.until = uint40(START + LEASE_MAX);
        vm.assertEq(escrow.seat(order, seating(lease, WORKER)), 1, "the longest");
    }

    function test_a_lease_without_units_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        lease.positions = 0;
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.NoUnits);
    }

    function test_a_lock_below_what_the_order_asks_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        lease.lock = order.lockPerSeat - 1;
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.LockTooSmall);
        lease.lock = order.lockPerSeat;
        vm.assertEq(escrow.seat(order, seating(lease, WORKER)), 1, "exactly");
    }

    function test_a_price_above_the_ceiling_is_refused_and_one_rounded_up_is_not() public {
        (Order memory order, Lease memory lease) = ready();
        lease.workMs = 333; // the ceiling is 3.33e15 exactly; one wei more would still be a rounding
        lease.price = uint96(uint256(order.priceMax) * 333 / 1000) + 1;
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.PriceTooHigh);
        lease.price -= 1;
        vm.assertEq(escrow.seat(order, seating(lease, WORKER)), 1, "the ceiling");
    }

    function test_more_than_the_free_wages_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        lease.positions = 3 * UNITS + 1;
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.OverBudget);
        lease.positions = type(uint40).max;
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.OverBudget);
    }

    function test_leases_together_never_take_more_than_the_wages() public {
        stake(WORKER, 5);
        Order memory order = opened();
        IJobEscrow.Seating[] memory items = new IJobEscrow.Seating[](4);
        for (uint64 i = 0; i < 4; ++i) items[i] = seating(aLease(order, WORKER, i), WORKER)[0];
        expectRefused(items[3].lease, IJobEscrow.Refusal.OverBudget);
        vm.prank(who(PAYER));
        vm.assertEq(escrow.seat(order, items), 3, "three fit");
        vm.assertEq(escrow.jobOf(escrow.jobIdOf(order)).free, 0, "nothing is free");
    }

    function test_a_lease_is_seated_once_for_ever() public {
        (Order memory order, Lease memory lease) = seated();
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.AlreadySeated);
        escrow.settle(settlement(lease, UNITS)); // closes it
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.AlreadySeated);
        lease.nonce += 1;
        vm.assertEq(escrow.seat(order, seating(lease, WORKER)), 1, "one that differs in its nonce alone is another");
    }

    function test_a_lease_that_the_worker_did_not_sign_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        expectSeatRefused(order, seating(lease, STRANGER), IJobEscrow.Refusal.BadSignature);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        items[0].worker = none;
        expectSeatRefused(order, items, IJobEscrow.Refusal.BadSignature);
        lease.worker = address(0);
        items = seating(lease, WORKER);
        items[0].worker = none;
        expectSeatRefused(order, items, IJobEscrow.Refusal.BadSignature);
    }

    function test_a_lease_that_neither_signer_nor_payer_signed_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        items[0].signer = sign(WORKER, escrow.seatIdOf(lease));
        expectSeatRefused(order, items, IJobEscrow.Refusal.BadSignature);
        items[0].signer = none;
        expectSeatRefused(order, items, IJobEscrow.Refusal.BadSignature);
    }

    function test_a_worker_without_stake_or_with_too_little_is_refused() public {
        Order memory order = opened();
        Lease memory lease = aLease(order, WORKER, 1);
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.NoStake);
        stake(WORKER, 1);
        lease.lock = SLOT + 1;
        expectSeatRefused(order, seating(lease, WORKER), IJobEscrow.Refusal.NoStake);
    }

    function test_500_leases_on_one_stake_lock_no_more_than_it_holds() public {
        stake(WORKER, 1);
        Order memory order = opened();
        uint256 count;
        for (uint64 i = 0; i < 500; ++i) {
            Lease memory lease = aLease(order, WORKER, i);
            lease.positions = 1;
            count += escrow.seat(order, seating(lease, WORKER));
        }
        vm.assertEq(count, SLOT / 100 ether, "seats");
        (uint96 free, uint96 locked,) = registry.stakeOf(who(WORKER));
        vm.assertEq(free, 0, "free");
        vm.assertEq(locked, SLOT, "locked");
    }

    // ---------------------------------------------------------------- seat: the signer's bound

    function test_the_signer_seats_up_to_its_bound_and_the_payers_key_beyond() public {
        stake(WORKER, 5);
        Order memory order = opened();
        escrow.seat(order, seating(aLease(order, WORKER, 1), WORKER));
        escrow.seat(order, seating(aLease(order, WORKER, 2), WORKER));
        IJobEscrow.Seating[] memory third = seating(aLease(order, WORKER, 3), WORKER);
        expectSeatRefused(order, third, IJobEscrow.Refusal.NeedsPayer);
        // by the payer's signature, whoever carries it
        third[0].signer = sign(PAYER, escrow.seatIdOf(third[0].lease));
        vm.assertEq(escrow.seat(order, third), 1, "with the payer's key");
        vm.assertEq(escrow.jobOf(escrow.jobIdOf(order)).signerSeated, 2 * CAP, "signerSeated");
    }

    function test_the_signer_cannot_pass_its_bound_by_calling_itself() public {
        stake(WORKER, 5);
        Order memory order = anOrder();
        order.signerSeatMax = CAP - 1;
        vm.prank(who(PAYER));
        escrow.open(order, nobody);
        IJobEscrow.Seating[] memory items = seating(aLease(order, WORKER, 1), WORKER);
        items[0].signer = none;
        expectRefused(items[0].lease, IJobEscrow.Refusal.NeedsPayer);
        vm.prank(who(SIGNER));
        vm.assertEq(escrow.seat(order, items), 0, "seated");
    }

    function test_what_a_seat_gives_back_the_signer_may_seat_again() public {
        (Order memory order, Lease memory lease) = ready();
        escrow.seat(order, seating(lease, WORKER));
        escrow.settle(settlement(lease, 40));
        escrow.close(closing(lease, 40, WORKER));
        vm.assertEq(escrow.jobOf(lease.job).signerSeated, 40 * PRICE, "what was paid stays counted");
    }

    function test_a_signer_that_drains_seats_to_a_sybil_is_bounded() public {
        stake(WORKER, 5);
        Order memory order = opened();
        uint256 drained;
        for (uint64 i = 0; i < 5; ++i) {
            Lease memory lease = aLease(order, WORKER, i);
            if (escrow.seat(order, seating(lease, WORKER)) == 0) continue;
            escrow.settle(settlement(lease, UNITS));
            drained += CAP;
        }
        vm.assertEq(drained, order.signerSeatMax, "drained");
        vm.assertEq(escrow.jobOf(escrow.jobIdOf(order)).free, order.wages - order.signerSeatMax, "the rest is safe");
    }

    // ---------------------------------------------------------------- seat: who may leave a signature out

    function test_signer_payer_and_worker_need_no_signature_of_their_own() public {
        stake(WORKER, 5);
        Order memory order = opened();
        IJobEscrow.Seating[] memory items = seating(aLease(order, WORKER, 1), WORKER);
        items[0].signer = none;
        vm.prank(who(SIGNER));
        vm.assertEq(escrow.seat(order, items), 1, "the signer");
        items = seating(aLease(order, WORKER, 2), WORKER);
        items[0].signer = none;
        vm.prank(who(PAYER));
        vm.assertEq(escrow.seat(order, items), 1, "the payer");
        items = seating(aLease(order, WORKER, 3), WORKER);
        items[0].worker = none;
        vm.prank(who(WORKER));
        vm.assertEq(escrow.seat(order, items), 1, "the worker");
    }

    function test_a_lease_signed_for_another_chain_or_contract_is_refused() public {
        (Order memory order, Lease memory lease) = ready();
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        bytes32 foreign = keccak256(abi.encodePacked(hex"1901", registry.domainSeparator(), escrow.seatIdOf(lease)));
        items[0].worker = sign(WORKER, foreign);
        expectSeatRefused(order, items, IJobEscrow.Refusal.BadSignature);
        items = seating(lease, WORKER);
        bytes32 here = escrow.seatIdOf(lease);
        bytes32 separator = escrow.domainSeparator();
        address elsewhere = address(0xe15e);
        vm.etch(elsewhere, address(escrow).code);
        vm.assertTrue(IJobEscrow(elsewhere).domainSeparator() != separator, "what was kept counts for its address");
        vm.chainId(block.chainid + 1);
        vm.assertTrue(escrow.domainSeparator() != separator, "and on the chain that it was made on");
        vm.assertTrue(escrow.seatIdOf(lease) != here, "the id does not depend on the chain");
        vm.expectRevert(abi.encodeWithSelector(IJobEscrow.NoSuchJob.selector, escrow.jobIdOf(order)));
        escrow.seat(order, items);
    }

    // ---------------------------------------------------------------- fuzz

    /// @notice Whatever leases are offered, caps of open seats + free = wages, and no seat is larger than its lease.
    function testFuzz_seats_split_the_wages_and_never_exceed_them(uint40[6] memory positions, uint96 price) public {
        stake(WORKER, 5);
        Order memory order = opened();
        uint256 reserved;
        for (uint64 i = 0; i < 6; ++i) {
            Lease memory lease = aLease(order, WORKER, i);
            lease.positions = positions[i] % (2 * UNITS);
            lease.price = price % (PRICE + 1);
            IJobEscrow.Seating[] memory items = seating(lease, WORKER);
            vm.prank(who(PAYER));
            if (escrow.seat(order, items) == 1) reserved += uint256(lease.price) * lease.positions;
        }
        vm.assertEq(escrow.jobOf(escrow.jobIdOf(order)).free + reserved, order.wages, "wages");
    }
}
