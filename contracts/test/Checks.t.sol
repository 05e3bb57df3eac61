// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Messages} from "../src/generated/Messages.sol";
import {IAccusations} from "../src/interfaces/IAccusations.sol";
import {IClaims} from "../src/interfaces/IClaims.sol";
import {ICourt} from "../src/interfaces/ICourt.sol";
import {Quarrel} from "./Quarrel.sol";

/// @notice One case for each check of a quarrel that the other tests pass by: without the check the case goes through, or
/// ends in another error. docs/TRUST.md names them.
contract ChecksTest is Quarrel {
    bytes32 private constant UNKNOWN = keccak256("nobody's case");

    // ---------------------------------------------------------------- claims: who commits, and until when

    function notDrawn(address by, bytes32 id, uint8 sample, uint8 rank, uint16 attempt) private {
        vm.expectRevert(abi.encodeWithSelector(IClaims.NotDrawn.selector, by, sample, attempt));
        vm.prank(by);
        claims.commit(id, sample, rank, attempt, keccak256("c"));
    }

    function test_nobody_commits_in_the_place_of_a_drawn_auditor() public {
        bytes32 id = sampled(50);
        (, uint16 attempt) = claims.auditorAt(id, 0, 0);
        notDrawn(who(STRANGER), id, 0, 0, attempt);
    }

    function test_a_drawn_auditor_names_the_attempt_that_drew_it() public {
        bytes32 id = sampled(50);
        (address auditor, uint16 attempt) = claims.auditorAt(id, 0, 0);
        notDrawn(auditor, id, 0, 0, attempt + 1);
    }

    function test_a_draw_that_finds_nobody_in_128_attempts_finds_nobody() public {
        fund(WORKER, 4_000 * SLOT);
        stake(WORKER, 4_000); // whoever audits it is rare
        bytes32 id = sampled(50);
        IClaims.Claim memory found = claims.claimOf(id);
        ICourt.Parties memory parties =
            ICourt.Parties(lease.worker, address(0), order.payer, order.signer, lease.numericClass);
        uint256 index = claims.unitsOf(id)[0];
        (address account, uint16 attempt) =
            court.auditorAt(parties, found.seed, index, found.slots, found.blockNumber, 2, type(uint16).max);
        vm.assertTrue(account != address(0) && attempt >= 128, "further on there would be somebody");
        (address within,) =
            court.auditorAt(parties, found.seed, index, found.slots, found.blockNumber, 2, attempt);
        vm.assertEq(within, address(0), "as many attempts as were asked for, and not one more");
        later(2 * COMMIT);
        notDrawn(account, id, 0, 2, attempt);
    }

    function test_once_a_leaf_was_shown_a_commitment_is_too_late() public {
        bytes32 id = sampled(50);
        (address auditor, uint16 attempt) = claims.auditorAt(id, 0, 0);
        commitAll(id);
        IClaims.Opening[] memory one = new IClaims.Opening[](1);
        one[0] = openingOf(id, 1);
        claims.open(id, one);
        vm.expectPartialRevert(IClaims.TooLate.selector);
        vm.prank(auditor);
        claims.commit(id, 0, 0, attempt, keccak256("c"));
    }

    function test_before_the_seed_and_beyond_the_samples_and_ranks_nobody_is_drawn() public {
        bytes32 id = claimed(0, 50);
        nobody(id, 0, 0);
        blocks(5);
        claims.capture(id);
        nobody(id, claims.claimOf(id).k, 0);
        nobody(id, 0, 3);
    }

    function nobody(bytes32 id, uint8 sample, uint8 rank) private view {
        (address account,) = claims.auditorAt(id, sample, rank);
        vm.assertEq(account, address(0), "drawn");
    }

    // ---------------------------------------------------------------- claims: the order of its life

    function test_a_sample_that_was_not_drawn_is_not_opened() public {
        bytes32 id = sampled(50);
        commitAll(id);
        IClaims.Opening[] memory one = new IClaims.Opening[](1);
        one[0] = openingOf(id, 0);
        one[0].sample = claims.claimOf(id).k;
        vm.expectRevert(abi.encodeWithSelector(IClaims.BadSample.selector, one[0].sample));
        claims.open(id, one);
    }

    function test_a_move_of_a_claim_is_made_in_its_state_only() public {
        bytes32 id = claimed(0, 50);
        bytes memory pending = abi.encodeWithSelector(IClaims.WrongState.selector, id, IClaims.State.Pending);
        vm.expectRevert(pending);
        claims.commit(id, 0, 0, 0, keccak256("c"));
        vm.expectRevert(pending);
        claims.open(id, new IClaims.Opening[](0));
        blocks(5);
        claims.capture(id);
        vm.expectRevert(abi.encodeWithSelector(IClaims.WrongState.selector, id, IClaims.State.Sampling));
        claims.capture(id); // another seed, that it knows
    }

    function test_a_claim_is_concluded_once() public {
        bytes32 id = challengeable(50);
        later(CHALLENGE + 1);
        claims.conclude(lease, id);
        uint256 credit = claims.creditOf(who(WORKER));
        vm.expectRevert(abi.encodeWithSelector(IClaims.WrongState.selector, id, IClaims.State.Paid));
        claims.conclude(lease, id);
        vm.assertEq(claims.creditOf(who(WORKER)), credit, "its bond comes back once");
    }

    // ---------------------------------------------------------------- what binds a worker

    function unbound(uint40 position, IAccusations.Statement memory said) private {
        IAccusations.Statement memory right = receiptOf(position, leafOf(position));
        vm.expectRevert(abi.encodeWithSelector(IAccusations.BadStatement.selector));
        accusations.fraud(order, lease, position, said, right);
        vm.expectRevert(abi.encodeWithSelector(IAccusations.BadStatement.selector));
        accusations.fraud(order, lease, position, right, said);
    }

    function signed(IAccusations.Statement memory said) private view returns (IAccusations.Statement memory) {
        said.word = IAccusations.Word.Tally;
        said.tally.seat = seat;
        said.signature = sign(WORKER, digestOf(Messages.hash(said.tally)));
        return said;
    }

    function test_a_leaf_of_one_position_does_not_bind_at_another() public {
        IAccusations.Statement memory said;
        (said.leaf, said.tally.count, said.tally.root) = (leafOf(0), 1, rootOf(leavesOf(0, 1)));
        unbound(1, signed(said)); // honest: it stands at position 0, and the root has no other
    }

    function test_a_node_within_a_tree_is_no_leaf_that_binds() public {
        IAccusations.Statement memory said;
        said.leaf = keccak256(abi.encode(leafOf(0), leafOf(1)));
        (said.tally.count, said.tally.root) = (2, rootOf(leavesOf(0, 2)));
        unbound(0, signed(said));
    }

    function test_a_tree_of_more_than_2_to_the_20_leaves_binds_nobody() public {
        IAccusations.Statement memory said;
        said.leaf = keccak256("another");
        said.path = new bytes32[](21);
        bytes32 value = said.leaf;
        for (uint256 i = 0; i < 21; ++i) value = keccak256(abi.encode(value, bytes32(0)));
        said.tally.count = (1 << 20) + 1;
        said.tally.root = keccak256(abi.encode(uint256(said.tally.count), value));
        unbound(0, signed(said));
    }

    function test_a_tally_binds_its_own_seat_from_its_start_on() public {
        bytes32[] memory leaves = leavesOf(0, 10);
        leaves[3] = keccak256("another");
        IAccusations.Statement memory said = underTally(3, leaves);
        said.tally.start = 4;
        unbound(3, signed(said));
        said = underTally(3, leaves);
        said.tally.seat = keccak256("another seat");
        said.signature = sign(WORKER, digestOf(Messages.hash(said.tally)));
        unbound(3, said);
    }

    function test_a_claimed_root_binds_its_own_seat_from_its_start_on() public {
        escrow.settle(settlement(lease, 5));
        bytes32 id = claimed(5, 10);
        IAccusations.Statement memory said = underClaim(id, 5);
        unbound(4, said);
        lease = aLease(order, WORKER, 7);
        escrow.seat(order, seating(lease, WORKER));
        seat = escrow.seatIdOf(lease);
        unbound(5, said); // it did other work there
    }

    function test_an_accusation_needs_a_charge_that_fits_and_seven_that_could_judge() public {
        wrongEnd[3] = keccak256("garbage");
        IAccusations.Charge memory charge = aCharge(3, 1);
        uint256[] memory few = new uint256[](QUORUM - 1);
        for (uint256 i = 0; i < few.length; ++i) few[i] = witnesses[i];
        vm.expectRevert(abi.encodeWithSelector(ICourt.NoMembers.selector, few.length, QUORUM));
        accusations.accuse(order, lease, charge, few);
        charge.unitId = keccak256("another unit");
        vm.expectRevert(abi.encodeWithSelector(IAccusations.BadCharge.selector));
        accusations.accuse(order, lease, charge, witnesses);
    }

    function test_a_second_accusation_of_one_leaf_is_refused_before_its_deposit_is_asked_for() public {
        bytes32 id = accused(1);
        IAccusations.Charge memory charge = aCharge(3, 1);
        vm.prank(who(PAYER));
        token.approve(address(accusations), 0);
        vm.expectRevert(abi.encodeWithSelector(ICourt.CaseExists.selector, id));
        vm.prank(who(PAYER));
        accusations.accuse(order, lease, charge, witnesses);
    }

    // ---------------------------------------------------------------- the Court

    function test_a_witness_is_a_slot_that_there_is_and_each_another_account() public {
        ICourt.Parties memory parties =
            ICourt.Parties(lease.worker, address(0), order.payer, order.signer, lease.numericClass);
        uint256[] memory shown = witnesses;
        court.checkMembers(parties, shown);
        for (uint256 i = 0; i < 2; ++i) {
            shown[QUORUM - 1] = i == 0 ? registry.slotCount() : witnesses[QUORUM - 2];
            vm.expectRevert(abi.encodeWithSelector(ICourt.BadWitness.selector, shown[QUORUM - 1]));
            court.checkMembers(parties, shown);
        }
    }

    function test_a_case_is_opened_once() public {
        bytes32 id = accused(1);
        ICourt.Parties memory parties = court.partiesOf(id);
        ICourt.Dispute memory dispute;
        vm.expectRevert(abi.encodeWithSelector(ICourt.CaseExists.selector, id));
        vm.prank(address(accusations));
        court.open(id, parties, dispute);
    }

    function test_a_case_that_was_never_opened_is_not_ruled() public {
        vm.expectRevert(abi.encodeWithSelector(ICourt.WrongState.selector, UNKNOWN, ICourt.State.None));
        court.advance(UNKNOWN);
    }

    function test_a_move_of_a_case_is_made_in_its_state_only() public {
        bytes32 id = accused(1);
        bytes memory drawing = abi.encodeWithSelector(ICourt.WrongState.selector, id, ICourt.State.Drawing);
        vm.expectRevert(drawing);
        vm.prank(who(WORKER));
        court.post(id, keccak256("m"));
        vm.expectRevert(drawing);
        court.commit(id, 0, 0, keccak256("v"));
        vm.expectRevert(drawing);
        court.reveal(id, 0, 0, 0);
    }

    function test_a_first_move_comes_in_time() public {
        bytes32 id = accused(8);
        uint40 deadline = court.caseOf(id).deadline;
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooLate.selector, deadline));
        vm.prank(who(WORKER));
        court.post(id, keccak256("m"));
    }

    function test_votes_are_counted_when_no_more_can_come() public {
        bytes32 id = accused(1);
        drawPanel(id);
        ICourt.Case memory found = court.caseOf(id);
        commitVotes(id, 0, 5, found.accuserValue);
        vm.warp(found.deadline + 1);
        revealVotes(id, 0, 4, found.accuserValue);
        vm.warp(found.revealUntil); // one of them may still show it
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooEarly.selector, found.revealUntil));
        court.advance(id);
    }

    function test_nobody_is_a_member_before_the_draw_and_after_the_count() public {
        bytes32 id = accused(1);
        for (uint256 i = 0; i < 2; ++i) {
            (address account,) = court.memberAt(id, 0);
            vm.assertEq(account, address(0), "a member");
            if (i == 0) vote(id, 7, 0);
        }
    }

    function test_a_panel_that_is_drawn_again_has_no_members_meanwhile() public {
        bytes32 id = accused(1);
        drawPanel(id);
        later(VOTE + VOTES_OPEN + 1);
        court.advance(id);
        (address account,) = court.memberAt(id, 0);
        vm.assertEq(account, address(0), "a member");
    }
}
