// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {BlockhashRandomness} from "../src/BlockhashRandomness.sol";
import {Lease, Messages, Order, Tally} from "../src/generated/Messages.sol";
import {IClaims} from "../src/interfaces/IClaims.sol";
import {ICourt} from "../src/interfaces/ICourt.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {Signature} from "../src/interfaces/Types.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Quarrel} from "./Quarrel.sol";

/// @notice A worker that was not paid: what it may claim, who audits it, and what becomes of the money.
contract ClaimsTest is Quarrel {
    uint256 private constant BEFORE = 10_000 ether;

    function auditFee(uint256 k) private pure returns (uint256) {
        uint256 usual = uint256(PRICE) * 11 / 10;
        return usual < BOND / k ? usual : BOND / k;
    }

    function stateIs(bytes32 id, IClaims.State state) private view {
        vm.assertEq(uint256(claims.claimOf(id).state), uint256(state), "state of the claim");
    }

    function heard(bytes32 id, uint8 sample) private view returns (IClaims.Heard) {
        return claims.sampleOf(id, sample).heard;
    }

    function toEnd(bytes32 id) private {
        later(CHALLENGE + 1);
        claims.conclude(lease, id);
    }

    function emptyHanded() private view {
        vm.assertEq(token.balanceOf(address(claims)), creditsIn(address(claims)), "only credits are left in Claims");
    }

    // ---------------------------------------------------------------- refusals of `claim`

    function refused(Tally memory tally, bytes memory error_) private {
        vm.expectRevert(error_);
        vm.prank(who(WORKER));
        claims.claim(order, lease, tally, none, witnesses);
    }

    function test_orders_whose_auditors_are_a_group_or_the_payer_have_no_claims() public {
        for (uint8 kind = 1; kind <= 2; ++kind) {
            order.auditors = kind;
            refused(aTally(0, 50), abi.encodeWithSelector(IClaims.NotOpenToAll.selector));
        }
    }

    function test_an_order_without_a_claim_bond_that_covers_the_court_has_no_claims() public {
        order.claimBond = FEE - 1;
        refused(aTally(0, 50), abi.encodeWithSelector(IClaims.BondTooSmall.selector, FEE - 1, FEE));
    }

    function test_another_order_or_a_seat_that_was_never_taken_has_no_claims() public {
        order.priceMax += 1;
        vm.expectPartialRevert(IJobEscrow.NoSuchJob.selector);
        vm.prank(who(WORKER));
        claims.claim(order, lease, aTally(0, 50), none, witnesses);
        order.priceMax -= 1;
        lease.nonce = 9;
        vm.expectPartialRevert(IJobEscrow.NotHeld.selector);
        vm.prank(who(WORKER));
        claims.claim(order, lease, aTally(0, 50), none, witnesses);
    }

    function test_a_closed_seat_has_no_claims() public {
        escrow.close(closing(lease, 0, WORKER));
        refused(aTally(0, 50), abi.encodeWithSelector(IClaims.SeatNotOpen.selector, seat));
    }

    function test_only_the_worker_binds_itself_and_only_by_a_tally_of_the_claims_own_number() public {
        Tally memory tally = aTally(0, 50);
        Signature memory ordinary = sign(WORKER, digestOf(Messages.hash(tally)));
        Signature memory byPayer = sign(PAYER, digestOf(Messages.hash(tally)));
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadSignature.selector, who(WORKER)));
        vm.prank(who(PAYER));
        claims.claim(order, lease, tally, none, witnesses);
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadSignature.selector, who(WORKER)));
        vm.prank(who(PAYER));
        claims.claim(order, lease, tally, byPayer, witnesses);
        tally.number = 2; // one of the tallies that every payer has: it may not burn the worker's one claim with it
        refused(tally, abi.encodeWithSelector(IClaims.BadTally.selector));
        tally.number = type(uint32).max;
        tally.seat = keccak256("another");
        refused(tally, abi.encodeWithSelector(IClaims.BadTally.selector));
        tally.seat = seat;
        vm.prank(who(STRANGER)); // by anyone who has the signature, with the caller's bond
        bytes32 id = claims.claim(order, lease, tally, ordinary, witnesses);
        vm.assertEq(claims.claimOf(id).claimer, who(STRANGER), "claimer");
        vm.assertEq(token.balanceOf(who(STRANGER)), BEFORE - BOND, "the stranger's bond");
    }

    function test_a_claim_covers_the_first_unpaid_unit_and_at_most_two_tallies() public {
        escrow.settle(settlement(lease, 10));
        refused(aTally(0, 10), abi.encodeWithSelector(IClaims.BadRange.selector)); // what was paid
        refused(aTally(11, 50), abi.encodeWithSelector(IClaims.BadRange.selector)); // what comes later
        uint256 mark = vm.snapshotState();
        claimed(0, 11);
        vm.revertToState(mark);
        Tally memory tally = aTally(10, 50);
        tally.count = 0;
        refused(tally, abi.encodeWithSelector(IClaims.BadRange.selector));
        tally.count = 91; // of a hundred units in all
        refused(tally, abi.encodeWithSelector(IClaims.BadRange.selector));
        order.tallyUnits = 20;
        (order, lease) = reopened(order);
        refused(aTally(0, 41), abi.encodeWithSelector(IClaims.BadRange.selector));
        claimed(0, 40);
    }

    function reopened(Order memory changed) private returns (Order memory, Lease memory opened_) {
        opened_ = aLease(changed, WORKER, 2);
        IJobEscrow.Seating[] memory items = seating(opened_, WORKER);
        vm.prank(who(PAYER));
        escrow.open(changed, items);
        seat = escrow.seatIdOf(opened_);
        return (changed, opened_);
    }

    function test_a_unit_paid_in_front_of_a_claim_neither_stops_it_nor_is_paid_twice() public {
        escrow.settle(settlement(lease, 1)); // the payer saw the claim coming
        toEnd(challengeable(50));
        vm.assertEq(escrow.seatOf(seat).paidUnits, 50, "units");
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(50 * uint256(PRICE)), "each of them once");
    }

    function test_a_claim_of_what_was_paid_is_refused_and_one_that_is_paid_meanwhile_pays_nothing_more() public {
        bytes32 id = challengeable(50);
        escrow.settle(settlement(lease, 50)); // the payer woke up
        uint256 credit = escrow.creditOf(who(WORKER));
        toEnd(id);
        stateIs(id, IClaims.State.Paid);
        vm.assertEq(escrow.creditOf(who(WORKER)), credit, "paid twice");
    }

    function test_a_claim_comes_within_the_claim_window() public {
        vm.warp(uint256(lease.until) + order.claimWindow + 1);
        refused(
            aTally(0, 50), abi.encodeWithSelector(IClaims.TooLate.selector, uint40(lease.until + order.claimWindow))
        );
        vm.warp(uint256(lease.until) + order.claimWindow);
        claimed(0, 50);
    }

    function test_one_claim_lives_in_a_seat_and_each_unit_is_claimed_once() public {
        bytes32 id = claimed(0, 50);
        refused(aTally(0, 50), abi.encodeWithSelector(IClaims.ClaimLive.selector, id));
        blocks(300); // never captured
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Failed);
        refused(aTally(0, 50), abi.encodeWithSelector(IClaims.AlreadyClaimed.selector, 50)); // no new draw
        refused(aTally(0, 20), abi.encodeWithSelector(IClaims.AlreadyClaimed.selector, 50));
        escrow.settle(settlement(lease, 50));
        claimed(50, 50);
    }

    function test_whoever_claims_shows_that_seven_could_judge() public {
        uint256[] memory few = new uint256[](6);
        for (uint256 i = 0; i < 6; ++i) few[i] = witnesses[i];
        Tally memory tally = aTally(0, 50);
        vm.expectRevert(abi.encodeWithSelector(ICourt.NoMembers.selector, 6, 7));
        vm.prank(who(WORKER));
        claims.claim(order, lease, tally, none, few);
        uint256[] memory twice = new uint256[](7);
        for (uint256 i = 0; i < 7; ++i) twice[i] = witnesses[i == 6 ? 5 : i];
        vm.expectRevert(abi.encodeWithSelector(ICourt.BadWitness.selector, twice[6]));
        vm.prank(who(WORKER));
        claims.claim(order, lease, tally, none, twice);
        twice[6] = 0; // the worker's own slot
        vm.expectRevert(abi.encodeWithSelector(ICourt.BadWitness.selector, 0));
        vm.prank(who(WORKER));
        claims.claim(order, lease, tally, none, twice);
        twice[6] = 99;
        vm.expectRevert(abi.encodeWithSelector(ICourt.BadWitness.selector, 99));
        vm.prank(who(WORKER));
        claims.claim(order, lease, tally, none, twice);
    }

    // ---------------------------------------------------------------- capture

    function test_the_seed_is_taken_from_the_fourth_block_after_the_claim_and_no_other() public {
        bytes32 id = claimed(0, 50);
        blocks(4);
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, 0));
        claims.capture(id);
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, 0));
        claims.conclude(lease, id);
        blocks(100);
        claims.capture(id);
        IClaims.Claim memory found = claims.claimOf(id);
        bytes32 coin = keccak256(abi.encode("coin", uint256(found.blockNumber) + 4));
        vm.assertEq(
            found.seed, keccak256(abi.encode(keccak256("tallymesh.seed.1"), seat, 0, found.root, coin)), "seed"
        );
        vm.assertEq(found.k, 2, "k");
    }

    function test_a_stalled_capture_fails_the_claim_and_gives_its_bond_to_the_payer() public {
        bytes32 id = claimed(0, 50);
        blocks(4 + 257);
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooLate.selector, 0));
        claims.capture(id);
        vm.prank(who(STRANGER));
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Failed);
        vm.assertEq(claims.creditOf(who(PAYER)), BOND, "the payer's");
        vm.assertEq(escrow.seatOf(seat).cases, 0, "the seat is free");
        emptyHanded();
    }

    function test_k_is_the_rate_of_the_count_at_least_two_at_most_sixteen_and_at_most_the_count() public {
        uint40[6] memory counts = [uint40(1), 3, 50, 59, 100, 100];
        uint16[6] memory rates = [uint16(400), 400, 401, 339, 1_599, 10_000]; // 59 x 339 is 2 x 10,000 and one more
        uint8[6] memory expected = [1, 2, 3, 3, 16, 16];
        for (uint256 i = 0; i < 6; ++i) {
            order.auditRateBp = rates[i];
            order.salt = keccak256(abi.encode("k", i));
            (order, lease) = reopened(order);
            vm.assertEq(claims.claimOf(claimed(0, counts[i])).k, expected[i], "k");
        }
    }

    function test_the_adapter_for_blockhashes_knows_256_blocks() public {
        BlockhashRandomness adapter = new BlockhashRandomness();
        vm.assertEq(adapter.valueAt(block.number), 0, "this block");
        vm.assertEq(adapter.valueAt(block.number - 1), blockhash(block.number - 1), "the last");
        vm.assertEq(adapter.valueAt(block.number - 257), 0, "too old");
        vm.assertEq(adapter.kept(), 256, "kept");
    }

    // ---------------------------------------------------------------- commitments

    function test_an_auditor_commits_in_its_ranks_time_and_deposits_its_bond() public {
        bytes32 id = sampled(50);
        (address second, uint16 attempt) = claims.auditorAt(id, 0, 1);
        uint40 from = claims.claimOf(id).sampledAt + COMMIT;
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, from));
        vm.prank(second);
        claims.commit(id, 0, 1, attempt, keccak256("c"));
        vm.expectRevert(abi.encodeWithSelector(IClaims.NotDrawn.selector, second, 0, attempt));
        vm.prank(second); // a rank that it does not have
        claims.commit(id, 0, 0, attempt, keccak256("c"));
        vm.warp(from);
        vm.prank(second);
        claims.commit(id, 0, 1, attempt, keccak256("c"));
        vm.assertEq(token.balanceOf(second), BEFORE - SLOT - BOND, "its bond");
        (address first, uint16 before) = claims.auditorAt(id, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadSample.selector, 0));
        vm.prank(first); // one auditor a sample
        claims.commit(id, 0, 0, before, keccak256("c"));
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadSample.selector, 2));
        vm.prank(first);
        claims.commit(id, 2, 0, before, keccak256("c"));
    }

    function test_three_ranks_are_three_accounts_and_there_is_no_fourth() public {
        bytes32 id = sampled(50);
        (address a,) = claims.auditorAt(id, 0, 0);
        (address b,) = claims.auditorAt(id, 0, 1);
        (address c, uint16 attempt) = claims.auditorAt(id, 0, 2);
        vm.assertTrue(a != b && b != c && a != c && c != address(0), "different");
        later(2 * COMMIT);
        vm.expectRevert(abi.encodeWithSelector(IClaims.NotDrawn.selector, c, 0, attempt));
        vm.prank(c);
        claims.commit(id, 0, 3, attempt, keccak256("c"));
        vm.expectRevert(abi.encodeWithSelector(IClaims.NotDrawn.selector, c, 0, 128));
        vm.prank(c);
        claims.commit(id, 0, 2, 128, keccak256("c"));
    }

    function test_parties_and_their_owners_other_classes_and_slots_of_later_blocks_are_never_drawn() public {
        registryOwner(FIRST_AUDITOR, PAYER);
        registryOwner(FIRST_AUDITOR + 1, WORKER);
        vm.prank(who(FIRST_AUDITOR + 2));
        registry.setClass(keccak256("another class"));
        vm.warp(block.timestamp + CLASS_DELAY);
        lease.until += uint40(CLASS_DELAY); // (a lease of its own: the first one is over)
        lease = aLease(order, WORKER, 7);
        escrow.seat(order, seating(lease, WORKER));
        seat = escrow.seatIdOf(lease);
        uint256[] memory left = new uint256[](9);
        uint256 n;
        for (uint256 i = 0; i < AUDITORS; ++i) {
            address account = accountOf(witnesses[i]);
            if (account == who(FIRST_AUDITOR) || account == who(FIRST_AUDITOR + 1)) continue;
            if (account != who(FIRST_AUDITOR + 2)) left[n++] = witnesses[i];
        }
        Tally memory tally = aTally(0, 100);
        vm.prank(who(WORKER));
        bytes32 id = claims.claim(order, lease, tally, none, left);
        fund(999, 100 * SLOT);
        stake(999, 50); // after the claim: most slots now are its
        blocks(5);
        claims.capture(id);
        for (uint8 s = 0; s < claims.claimOf(id).k; ++s) {
            for (uint8 r = 0; r < 3; ++r) {
                (address account,) = claims.auditorAt(id, s, r);
                vm.assertTrue(account != address(0), "somebody");
                vm.assertTrue(account != who(999) && account != who(WORKER), "later, or the worker");
                for (uint256 i = 0; i < 3; ++i) vm.assertTrue(account != who(FIRST_AUDITOR + i), "not admissible");
            }
        }
    }

    function registryOwner(uint256 account, uint256 owner) private {
        vm.prank(who(account));
        registry.proposeOwner(who(account), who(owner));
        vm.prank(who(owner));
        registry.acceptOwner(who(account));
    }

    function test_a_copied_commitment_opens_nothing() public {
        bytes32 id = sampled(50);
        address honest = commitTo(id, 0, 0, rightFields(indexOf(id, 0)).end);
        bytes32 copied = claims.sampleOf(id, 0).commitment;
        (address copier, uint16 attempt) = claims.auditorAt(id, 1, 0);
        if (copier == honest) {
            later(COMMIT);
            (copier, attempt) = claims.auditorAt(id, 1, 1);
            vm.prank(copier);
            claims.commit(id, 1, 1, attempt, copied);
        } else {
            vm.prank(copier);
            claims.commit(id, 1, 0, attempt, copied);
        }
        claims.open(id, openingsOf(id));
        revealAs(id, 0, rightFields(indexOf(id, 0)).end, 1);
        IClaims.Finding memory seen = findingOf(id, 1, rightFields(indexOf(id, 0)).end, 1);
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadReveal.selector, copied));
        vm.prank(copier); // the same words, another account
        claims.reveal(id, 1, seen);
    }

    // ---------------------------------------------------------------- openings

    function test_leaves_are_opened_only_after_all_have_committed_or_could_have() public {
        bytes32 id = sampled(50);
        commitTo(id, 0, 0, keccak256("x"));
        IClaims.Opening[] memory openings = openingsOf(id);
        uint40 from = claims.claimOf(id).sampledAt + 3 * COMMIT;
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, from));
        claims.open(id, openings);
        vm.warp(from);
        (address late, uint16 attempt) = claims.auditorAt(id, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooLate.selector, from));
        vm.prank(late);
        claims.commit(id, 1, 0, attempt, keccak256("x"));
        vm.prank(who(STRANGER)); // by anyone
        claims.open(id, openings);
        stateIs(id, IClaims.State.Revealing);
    }

    function test_nobody_commits_once_a_leaf_was_shown() public {
        bytes32 id = sampled(50);
        commitAll(id);
        IClaims.Opening[] memory one = new IClaims.Opening[](1);
        one[0] = openingOf(id, 1);
        claims.open(id, one);
        stateIs(id, IClaims.State.Sampling);
        claims.open(id, openingsOf(id)); // the one that was shown before is skipped
        stateIs(id, IClaims.State.Revealing);
    }

    function test_an_opening_is_a_leaf_of_the_root_at_the_drawn_position_with_the_signers_Assign() public {
        bytes32 id = sampled(50);
        commitAll(id);
        for (uint256 change = 0; change < 8; ++change) {
            IClaims.Opening[] memory one = new IClaims.Opening[](1);
            one[0] = openingOf(id, 0);
            if (change == 0) one[0].unitId = keccak256("x");
            if (change == 1) one[0].start = keccak256("x");
            if (change == 2) one[0].end = keccak256("x");
            if (change == 3) one[0].salt = keccak256("x");
            if (change == 4) one[0].aux = keccak256("x");
            if (change == 5) one[0].assign = none;
            if (change == 6) one[0].path[0] = keccak256("x");
            if (change == 7) one[0] = openingOf(id, 1);
            if (change == 7) one[0].sample = 0;
            vm.expectRevert(abi.encodeWithSelector(IClaims.BadOpening.selector, 0));
            claims.open(id, one);
        }
    }

    function test_one_unit_many_times_in_a_root_opens_at_one_position_only() public {
        // the worker puts the leaf of position 0 at every place: cheap, and each place but one cannot be opened
        bytes32[] memory leaves = new bytes32[](50);
        for (uint256 i = 0; i < 50; ++i) leaves[i] = leafOf(0);
        Tally memory tally = Tally(seat, type(uint32).max, 0, 0, 50, rootOf(leaves), 0, 0);
        vm.prank(who(WORKER));
        bytes32 id = claims.claim(order, lease, tally, none, witnesses);
        blocks(5);
        claims.capture(id);
        commitAll(id);
        for (uint8 i = 0; i < 2; ++i) {
            uint256 position = indexOf(id, i);
            Merkle.Fields memory f = rightFields(0);
            IClaims.Opening[] memory one = new IClaims.Opening[](1);
            one[0] = IClaims.Opening(
                i, f.unitId, f.start, f.end, f.salt, f.aux, assigned(position), pathOf(leaves, position)
            );
            if (position == 0) continue;
            vm.expectRevert(abi.encodeWithSelector(IClaims.BadOpening.selector, i));
            claims.open(id, one);
        }
        later(3 * COMMIT + OPENING + 1);
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Failed);
    }

    function test_who_does_not_open_in_time_fails_and_pays_the_auditors_that_worked() public {
        bytes32 id = sampled(50);
        commitAll(id);
        uint40 deadline = claims.claimOf(id).deadline;
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, deadline));
        claims.conclude(lease, id);
        vm.warp(deadline + 1);
        IClaims.Opening[] memory openings = openingsOf(id);
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooLate.selector, deadline));
        claims.open(id, openings);
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Failed);
        uint256 paid;
        for (uint8 i = 0; i < 2; ++i) paid += auditFee(2);
        vm.assertEq(claims.creditOf(who(PAYER)), BOND - paid, "the payer's");
        vm.assertEq(creditsIn(address(claims)), 3 * BOND, "everybody's");
        emptyHanded();
    }

    // ---------------------------------------------------------------- verdicts

    function test_all_match_and_the_worker_is_paid_to_the_wei_after_the_challenge_window() public {
        bytes32 id = challengeable(50);
        stateIs(id, IClaims.State.Challengeable);
        vm.assertTrue(!claims.claimOf(id).half, "in full");
        uint40 deadline = claims.claimOf(id).deadline;
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, deadline));
        claims.conclude(lease, id);
        vm.warp(deadline + 1);
        vm.prank(who(STRANGER));
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Paid);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(50 * uint256(PRICE)), "the worker's pay");
        vm.assertEq(claims.creditOf(who(WORKER)), BOND, "its bond");
        uint256 fees;
        for (uint256 i = 0; i < AUDITORS; ++i) fees += escrow.creditOf(who(FIRST_AUDITOR + i));
        vm.assertEq(fees, 2 * auditFee(2), "the auditors' pay, out of the payer's bond");
        vm.assertEq(escrow.seatOf(seat).bond, BOND - fees, "the rest of it waits for the close");
        vm.assertEq(escrow.seatOf(seat).paidUnits, 50, "units");
        emptyHanded();
        claims.withdraw(who(WORKER));
        vm.assertEq(token.balanceOf(who(WORKER)), BEFORE - SLOT, "the bond is home");
        vm.expectRevert(abi.encodeWithSelector(IClaims.NothingToWithdraw.selector, who(WORKER)));
        claims.withdraw(who(WORKER));
    }

    function test_the_next_units_can_be_claimed_while_the_payers_bond_is_whole() public {
        bytes32 id = challengeable(50);
        toEnd(id);
        uint96 left = escrow.seatOf(seat).bond;
        refused(aTally(50, 50), abi.encodeWithSelector(IClaims.BondTooSmall.selector, left, BOND));
    }

    function test_data_withdrawn_by_the_payer_costs_the_worker_nothing_for_it_serves_them_itself() public {
        // one of two auditors cannot get the inputs, which the payer no longer serves; the other gets them from the worker
        bytes32 id = sampled(50);
        commitTo(id, 0, 0, rightFields(indexOf(id, 0)).end);
        commitTo(id, 1, 0, 0);
        claims.open(id, openingsOf(id));
        revealAs(id, 0, rightFields(indexOf(id, 0)).end, 1);
        revealAs(id, 1, 0, 1);
        vm.assertEq(uint256(heard(id, 1)), uint256(IClaims.Heard.Unavailable), "unavailable");
        claims.conclude(lease, id);
        vm.assertTrue(claims.claimOf(id).half, "nobody has a majority: half");
        toEnd(id);
        stateIs(id, IClaims.State.Halved);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(25 * uint256(PRICE)), "half");
        vm.assertEq(claims.creditOf(who(WORKER)), BOND, "and its bond");
        emptyHanded();
    }

    function test_a_silent_cheat_that_serves_nothing_is_paid_nothing() public {
        bytes32 id = sampled(50);
        for (uint8 i = 0; i < 2; ++i) commitTo(id, i, 0, 0);
        claims.open(id, openingsOf(id));
        for (uint8 i = 0; i < 2; ++i) revealAs(id, i, 0, 1);
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Failed);
        vm.assertEq(escrow.creditOf(who(WORKER)), 0, "nothing");
        vm.assertEq(claims.creditOf(who(PAYER)), BOND - 2 * (auditFee(2) / 10), "its bond, less a tenth of the fees");
        emptyHanded();
    }

    function test_a_claim_that_nobody_audits_is_paid_in_half_rounded_down() public {
        bytes32 id = sampled(51);
        later(3 * COMMIT);
        claims.open(id, openingsOf(id));
        claims.conclude(lease, id);
        toEnd(id);
        stateIs(id, IClaims.State.Halved);
        vm.assertEq(escrow.seatOf(seat).paidUnits, 25, "units");
        vm.assertEq(escrow.seatOf(seat).bond, BOND, "the payer's bond is whole");
        vm.assertEq(claims.creditOf(who(WORKER)), BOND, "the worker's too");
        refused(aTally(25, 50), abi.encodeWithSelector(IClaims.AlreadyClaimed.selector, 51));
    }

    function test_an_auditor_that_never_opens_its_commitment_loses_its_bond_to_the_court() public {
        bytes32 id = revealing(50);
        revealAs(id, 0, rightFields(indexOf(id, 0)).end, 1);
        uint40 deadline = claims.claimOf(id).deadline;
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, deadline));
        claims.conclude(lease, id);
        vm.warp(deadline + 1);
        IClaims.Finding memory late = findingOf(id, 1, rightFields(indexOf(id, 1)).end, 1);
        address silent = claims.sampleOf(id, 1).auditor;
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooLate.selector, deadline));
        vm.prank(silent);
        claims.reveal(id, 1, late);
        claims.conclude(lease, id);
        vm.assertEq(court.pool(), BOND, "the court's pool");
        vm.assertTrue(claims.claimOf(id).half, "one of two was heard: half");
        toEnd(id);
        emptyHanded();
    }

    function test_a_reveal_is_by_the_auditor_once_against_the_leaf_as_it_was_opened() public {
        bytes32 id = revealing(50);
        IClaims.Finding memory finding = findingOf(id, 0, rightFields(indexOf(id, 0)).end, 1);
        vm.expectRevert(abi.encodeWithSelector(IClaims.NotYours.selector, 0));
        vm.prank(who(STRANGER));
        claims.reveal(id, 0, finding);
        address auditor = claims.sampleOf(id, 0).auditor;
        finding.openedEnd = keccak256("another");
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadOpening.selector, 0));
        vm.prank(auditor);
        claims.reveal(id, 0, finding);
        revealAs(id, 0, rightFields(indexOf(id, 0)).end, 1);
        vm.assertEq(claims.creditOf(auditor) % BOND, 0, "bonds are whole");
        finding = findingOf(id, 0, rightFields(indexOf(id, 0)).end, 1);
        vm.expectRevert(abi.encodeWithSelector(IClaims.NotYours.selector, 0));
        vm.prank(auditor);
        claims.reveal(id, 0, finding);
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadSample.selector, 2));
        vm.prank(auditor);
        claims.reveal(id, 2, finding);
    }

    // ---------------------------------------------------------------- before the Court

    function cheatClaims() private returns (bytes32 id, bytes32 courtCase) {
        for (uint256 i = 0; i < 50; ++i) wrongEnd[i] = keccak256(abi.encode("garbage", i));
        id = revealing(50);
        revealAs(id, 0, rightFields(indexOf(id, 0)).end, 1);
        courtCase = caseOf(id, 0);
    }

    function test_a_cheat_that_claims_loses_its_lock_its_bond_and_its_seat() public {
        (bytes32 id, bytes32 first) = cheatClaims();
        revealAs(id, 1, rightFields(indexOf(id, 1)).end, 1); // the second auditor saw it too
        vm.expectRevert(abi.encodeWithSelector(IClaims.TooEarly.selector, 0));
        claims.conclude(lease, id);
        for (uint8 s = 0; s < 2; ++s) {
            vote(caseOf(id, s), 7, 2);
            vm.expectRevert(abi.encodeWithSelector(ICourt.NotRuled.selector, caseOf(id, s)));
            claims.rule(lease, id, s);
            unappealed(caseOf(id, s));
            claims.rule(lease, id, s);
            vm.assertEq(uint256(heard(id, s)), uint256(IClaims.Heard.Upheld), "upheld");
        }
        vm.assertEq(uint256(rulingOf(first)), uint256(ICourt.Ruling.ForAccuser), "ruling");
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Failed);
        vm.assertEq(escrow.creditOf(who(WORKER)), 0, "pay");
        vm.assertEq(claims.creditOf(who(WORKER)), 0, "bond");
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Closed, "seat");
        vm.assertEq(escrow.creditOf(who(PAYER)), LOCK * 40 / 100, "the payer's part of the lock");
        address prover = claims.sampleOf(id, 0).auditor;
        vm.assertLe(LOCK * 20 / 100, escrow.creditOf(prover), "the prover's");
        // the fees of both cases (members shared them to the wei but for what does not divide) came out of the cheat's bond
        vm.assertEq(creditsIn(address(claims)), 3 * BOND - 2 * FEE, "credits");
        emptyHanded();
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadSample.selector, 0));
        claims.rule(lease, id, 0);
    }

    function test_a_lying_auditor_pays_the_court_and_the_worker_is_paid() public {
        bytes32 id = sampled(50);
        commitTo(id, 0, 0, keccak256("a lie"));
        commitTo(id, 1, 0, rightFields(indexOf(id, 1)).end);
        claims.open(id, openingsOf(id));
        revealAs(id, 0, keccak256("a lie"), 1);
        revealAs(id, 1, rightFields(indexOf(id, 1)).end, 1);
        vote(caseOf(id, 0), 7, 5);
        unappealed(caseOf(id, 0));
        claims.rule(lease, id, 0);
        vm.assertEq(claims.creditOf(who(WORKER)), BOND - FEE, "the liar's bond, less the court's fee");
        claims.conclude(lease, id);
        toEnd(id);
        stateIs(id, IClaims.State.Paid);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(50 * uint256(PRICE)), "paid in full");
        vm.assertEq(escrow.lockLeft(lease), LOCK, "and its lock is whole");
        vm.assertEq(claims.creditOf(who(WORKER)), 2 * BOND - FEE, "bond and recompense");
        emptyHanded();
    }

    function test_a_lying_auditors_bond_is_the_workers_whoever_carried_its_claim() public {
        Tally memory tally = aTally(0, 50);
        Signature memory signature = sign(WORKER, digestOf(Messages.hash(tally)));
        vm.prank(who(STRANGER));
        bytes32 id = claims.claim(order, lease, tally, signature, witnesses);
        blocks(5);
        claims.capture(id);
        commitTo(id, 0, 0, keccak256("a lie"));
        commitTo(id, 1, 0, rightFields(indexOf(id, 1)).end);
        claims.open(id, openingsOf(id));
        revealAs(id, 0, keccak256("a lie"), 1);
        vote(caseOf(id, 0), 7, 5);
        unappealed(caseOf(id, 0));
        claims.rule(lease, id, 0);
        vm.assertEq(claims.creditOf(who(WORKER)), BOND - FEE, "the worker was accused");
        vm.assertEq(claims.creditOf(who(STRANGER)), 0, "the carrier was not");
    }

    function test_an_auditors_friendly_defeat_does_not_shield_the_cheat_from_the_other_auditor() public {
        (bytes32 id,) = cheatClaims();
        revealAs(id, 1, rightFields(indexOf(id, 1)).end, 1);
        // the first auditor is the cheat's friend and loses on purpose (its members vote for the worker)
        vote(caseOf(id, 0), 7, 7);
        unappealed(caseOf(id, 0));
        claims.rule(lease, id, 0);
        vote(caseOf(id, 1), 7, 0);
        unappealed(caseOf(id, 1));
        claims.rule(lease, id, 1);
        claims.conclude(lease, id);
        stateIs(id, IClaims.State.Failed);
        vm.assertEq(escrow.lockLeft(lease), 0, "lock");
    }

    function test_void_the_payer_answers_for_its_program() public {
        (bytes32 id, bytes32 courtCase) = cheatClaims();
        revealAs(id, 1, rightFields(indexOf(id, 1)).end, 1);
        for (uint8 s = 0; s < 2; ++s) {
            courtCase = caseOf(id, s);
            voteAll(courtCase, keccak256("neither")); // seven members, one answer, but not one of the two
            vm.assertEq(uint256(rulingOf(courtCase)), uint256(ICourt.Ruling.Void), "void");
            unappealed(courtCase);
            claims.rule(lease, id, s);
        }
        claims.conclude(lease, id);
        toEnd(id);
        stateIs(id, IClaims.State.Paid);
        vm.assertEq(escrow.creditOf(who(WORKER)), netOf(50 * uint256(PRICE)), "paid in full");
        vm.assertEq(escrow.lockLeft(lease), LOCK, "nobody is slashed");
        uint256 fees;
        for (uint256 i = 0; i < AUDITORS; ++i) fees += escrow.creditOf(who(FIRST_AUDITOR + i));
        vm.assertEq(fees, 2 * (auditFee(2) + FEE), "the auditors' pay and what they paid the court, by the payer");
        emptyHanded();
    }

    function test_no_quorum_pays_half_and_returns_the_bonds() public {
        (bytes32 id, bytes32 courtCase) = cheatClaims();
        revealAs(id, 1, rightFields(indexOf(id, 1)).end, 1);
        for (uint8 s = 0; s < 2; ++s) {
            courtCase = caseOf(id, s);
            for (uint256 i = 0; i < 4; ++i) {
                drawPanel(courtCase);
                later(VOTE + VOTES_OPEN + 1);
                court.advance(courtCase);
            }
            vm.assertEq(uint256(rulingOf(courtCase)), uint256(ICourt.Ruling.NoQuorum), "no quorum");
            claims.rule(lease, id, s);
        }
        claims.conclude(lease, id);
        toEnd(id);
        stateIs(id, IClaims.State.Halved);
        vm.assertEq(escrow.seatOf(seat).paidUnits, 25, "half");
        vm.assertEq(creditsIn(address(claims)), 3 * BOND, "all bonds");
        vm.assertEq(token.balanceOf(address(court)), 0, "the court kept nothing");
        emptyHanded();
    }

    function test_one_sample_without_a_quorum_halves_a_claim_whose_others_are_sound() public {
        order.auditRateBp = 401;
        (order, lease) = reopened(order);
        bytes32 id = sampled(50);
        bytes32 another = keccak256("another end");
        commitTo(id, 0, 0, another);
        for (uint8 s = 1; s < 3; ++s) commitTo(id, s, 0, rightFields(indexOf(id, s)).end);
        claims.open(id, openingsOf(id));
        revealAs(id, 0, another, 1);
        for (uint8 s = 1; s < 3; ++s) revealAs(id, s, rightFields(indexOf(id, s)).end, 1);
        for (uint256 i = 0; i < 4; ++i) {
            drawPanel(caseOf(id, 0));
            later(VOTE + VOTES_OPEN + 1);
            court.advance(caseOf(id, 0));
        }
        claims.rule(lease, id, 0);
        claims.conclude(lease, id);
        vm.assertTrue(claims.claimOf(id).half, "two of three are sound, and one was not decided: half");
        toEnd(id);
        stateIs(id, IClaims.State.Halved);
    }

    function test_a_wrong_start_is_decided_as_a_wrong_unit() public {
        for (uint256 i = 0; i < 50; ++i) wrongStart[i] = keccak256("another checkpoint");
        bytes32 id = revealing(50);
        revealAs(id, 0, rightFields(indexOf(id, 0)).end, 1000); // the same end
        ICourt.Case memory found = court.caseOf(caseOf(id, 0));
        vm.assertEq(uint256(found.state), uint256(ICourt.State.Drawing), "no bisection: the start itself is disputed");
        vm.assertEq(found.accusedValue, keccak256("another checkpoint"), "the worker's start");
        vm.assertEq(found.hi, 0, "value 0");
    }

    // ---------------------------------------------------------------- calls of one another

    function test_only_Accusations_refutes() public {
        bytes32 id = claimed(0, 50);
        vm.expectRevert(abi.encodeWithSelector(IClaims.NotAccusations.selector, who(PAYER)));
        vm.prank(who(PAYER));
        claims.refute(id);
    }

    function test_another_lease_moves_no_claim() public {
        bytes32 id = challengeable(50);
        later(CHALLENGE + 1);
        Lease memory other = lease;
        other.nonce = 12;
        vm.expectRevert(abi.encodeWithSelector(IClaims.WrongLease.selector));
        claims.conclude(other, id);
        vm.expectRevert(abi.encodeWithSelector(IClaims.WrongLease.selector));
        claims.rule(other, id, 0);
    }
}
