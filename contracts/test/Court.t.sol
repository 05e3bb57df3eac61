// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICourt} from "../src/interfaces/ICourt.sol";
import {Quarrel} from "./Quarrel.sol";

/// @notice Who judges, how a quarrel is narrowed to one step, and what a vote and an appeal cost.
contract CourtTest is Quarrel {
    function stateIs(bytes32 id, ICourt.State state) private view {
        vm.assertEq(uint256(court.caseOf(id).state), uint256(state), "state of the case");
    }

    function ruledIs(bytes32 id, ICourt.Ruling ruling) private view {
        vm.assertEq(uint256(rulingOf(id)), uint256(ruling), "ruling");
    }

    function memberCredits() private view returns (uint256 sum) {
        for (uint256 i = 0; i < AUDITORS; ++i) sum += court.creditOf(who(FIRST_AUDITOR + i));
    }

    // ---------------------------------------------------------------- only Claims and Accusations

    function test_only_claims_and_accusations_open_take_and_are_reimbursed() public {
        ICourt.Parties memory parties;
        ICourt.Dispute memory dispute;
        bytes memory refusal = abi.encodeWithSelector(ICourt.NotClaims.selector, address(this));
        vm.expectRevert(refusal);
        court.open(0, parties, dispute);
        vm.expectRevert(refusal);
        court.take(0);
        vm.expectRevert(refusal);
        court.reimburse(1);
    }

    function test_a_ruling_is_taken_once() public {
        bytes32 id = accused(1);
        vote(id, 7, 0);
        unappealed(id);
        accusations.acquitOrConvict(lease, id);
        vm.expectRevert(abi.encodeWithSelector(ICourt.AlreadyTaken.selector, id));
        vm.prank(address(accusations));
        court.take(id);
    }

    // ---------------------------------------------------------------- narrowing

    function stepHash(uint256 step, uint256 wrongFrom) private pure returns (bytes32) {
        return keccak256(abi.encode("step", step, step >= wrongFrom));
    }

    /// @dev The worker goes wrong at step `wrongFrom` (of `steps`); both play honestly apart from that.
    function narrowed(uint32 steps, uint32 wrongFrom) private returns (bytes32 id, uint256 exchanges) {
        id = accused(steps);
        while (court.caseOf(id).state == ICourt.State.Posting) {
            ICourt.Case memory found = court.caseOf(id);
            uint256 middle = (uint256(found.lo) + found.hi) / 2;
            vm.prank(who(WORKER));
            court.post(id, stepHash(middle, wrongFrom));
            vm.prank(who(PAYER));
            court.answer(id, stepHash(middle, type(uint256).max));
            ++exchanges;
        }
    }

    function test_a_quarrel_is_narrowed_to_the_first_wrong_step_in_log2_exchanges(uint32 steps, uint32 wrong) public {
        steps = 2 + steps % 2_000;
        wrong = 1 + wrong % steps;
        (bytes32 id, uint256 exchanges) = narrowed(steps, wrong);
        ICourt.Case memory found = court.caseOf(id);
        vm.assertEq(uint256(found.state), uint256(ICourt.State.Drawing), "then members are drawn");
        vm.assertEq(found.hi, wrong, "the first wrong step");
        vm.assertEq(found.lo, wrong - 1, "the last right one");
        uint256 log;
        while (1 << log < steps) ++log;
        vm.assertLe(exchanges, log, "exchanges");
        bytes32 right = wrong == steps ? rightFields(3).end : stepHash(wrong, type(uint256).max);
        vm.assertEq(found.accuserValue, right, "what the accuser says of it");
        bytes32 agreed = wrong == 1 ? rightFields(3).start : stepHash(wrong - 1, type(uint256).max);
        vm.assertEq(found.agreed, agreed, "what they agree on");
    }

    function test_moves_are_made_by_the_party_whose_turn_it_is_in_time() public {
        bytes32 id = accused(8);
        uint40 deadline = court.caseOf(id).deadline;
        vm.expectRevert(abi.encodeWithSelector(ICourt.NotParty.selector, who(PAYER)));
        vm.prank(who(PAYER));
        court.post(id, 0);
        vm.expectRevert(abi.encodeWithSelector(ICourt.WrongState.selector, id, ICourt.State.Posting));
        vm.prank(who(PAYER));
        court.answer(id, 0);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooEarly.selector, deadline));
        court.advance(id);
        vm.warp(deadline);
        vm.prank(who(WORKER));
        court.post(id, keccak256("m"));
        vm.expectRevert(abi.encodeWithSelector(ICourt.NotParty.selector, who(WORKER)));
        vm.prank(who(WORKER));
        court.answer(id, 0);
        vm.warp(deadline + MOVE + 1);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooLate.selector, deadline + MOVE));
        vm.prank(who(PAYER));
        court.answer(id, 0);
        court.advance(id);
        stateIs(id, ICourt.State.Ruled);
        ruledIs(id, ICourt.Ruling.ForAccused);
        vm.expectRevert(abi.encodeWithSelector(ICourt.WrongState.selector, id, ICourt.State.Ruled));
        court.advance(id);
    }

    function test_more_steps_than_can_be_told_apart_are_refused() public {
        wrongEnd[3] = keccak256("garbage");
        vm.expectPartialRevert(ICourt.BadParameter.selector);
        this.accuseWith(1 << 20 | 1);
        this.accuseWith(1 << 20);
    }

    function accuseWith(uint32 steps) external {
        accusedBy(PAYER, 3, steps);
    }

    // ---------------------------------------------------------------- members

    function voting() private returns (bytes32 id) {
        id = accused(1);
        drawPanel(id);
    }

    function test_members_are_staked_in_the_class_and_no_party() public {
        bytes32 id = voting();
        for (uint8 m = 0; m < 7; ++m) {
            (address member, uint16 attempt) = court.memberAt(id, m);
            vm.assertTrue(member != address(0) && member != who(WORKER) && member != who(PAYER), "a party");
            (address stranger_, uint16 other) = court.memberAt(id, (m + 1) % 7);
            if (stranger_ == member) continue;
            vm.expectRevert(abi.encodeWithSelector(ICourt.NotDrawn.selector, stranger_, m, other));
            vm.prank(stranger_);
            court.commit(id, m, other, keccak256("v"));
            vm.expectRevert(abi.encodeWithSelector(ICourt.NotDrawn.selector, member, m, attempt + 1));
            vm.prank(member);
            court.commit(id, m, attempt + 1, keccak256("v"));
        }
        (address none_,) = court.memberAt(id, 7);
        vm.assertEq(none_, address(0), "there are seven");
    }

    function test_an_accuser_that_is_staked_never_judges_its_own_case() public {
        uint256 accuser = FIRST_AUDITOR + 2;
        wrongEnd[3] = keccak256("garbage");
        uint256[] memory others = new uint256[](AUDITORS - 1);
        uint256 n;
        for (uint256 i = 0; i < AUDITORS; ++i) if (accountOf(witnesses[i]) != who(accuser)) others[n++] = witnesses[i];
        witnesses = others;
        bytes32 id = accusedBy(accuser, 3, 1);
        drawPanel(id);
        for (uint8 m = 0; m < 7; ++m) {
            (address member,) = court.memberAt(id, m);
            vm.assertTrue(member != who(accuser), "judges itself");
        }
    }

    function test_a_panel_is_drawn_from_the_slots_of_the_block_of_its_call() public {
        bytes32 id = accused(1);
        fund(999, 100 * SLOT);
        stake(999, 99);
        drawPanel(id);
        for (uint8 m = 0; m < 7; ++m) {
            (address member,) = court.memberAt(id, m);
            vm.assertTrue(member != who(999), "bought after the call");
        }
    }

    function test_a_vote_is_committed_in_time_once_and_revealed_by_its_member_alone() public {
        bytes32 id = voting();
        ICourt.Case memory found = court.caseOf(id);
        commitVotes(id, 0, 4, found.accuserValue);
        (address member, uint16 attempt) = court.memberAt(id, 0);
        vm.expectRevert(abi.encodeWithSelector(ICourt.AlreadyCommitted.selector, 0));
        vm.prank(member);
        court.commit(id, 0, attempt, keccak256("again"));
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooEarly.selector, found.deadline));
        vm.prank(member);
        court.reveal(id, 0, found.accuserValue, keccak256("a vote's salt"));
        vm.warp(found.deadline + 1);
        (address late, uint16 at_) = court.memberAt(id, 5);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooLate.selector, found.deadline));
        vm.prank(late);
        court.commit(id, 5, at_, keccak256("late"));
        vm.expectRevert(abi.encodeWithSelector(ICourt.NotCommitted.selector, 0));
        vm.prank(who(STRANGER));
        court.reveal(id, 0, found.accuserValue, keccak256("a vote's salt"));
        vm.expectRevert(abi.encodeWithSelector(ICourt.BadReveal.selector, ballot(member, found.accuserValue)));
        vm.prank(member); // it may not change its mind after it has seen others
        court.reveal(id, 0, found.accusedValue, keccak256("a vote's salt"));
        revealVotes(id, 0, 4, found.accuserValue);
        vm.expectRevert(abi.encodeWithSelector(ICourt.NotCommitted.selector, 0));
        vm.prank(member);
        court.reveal(id, 0, found.accuserValue, keccak256("a vote's salt"));
        court.advance(id); // all that committed have revealed
        stateIs(id, ICourt.State.Appealable);
        ruledIs(id, ICourt.Ruling.ForAccuser);
    }

    function test_a_copied_vote_cannot_be_revealed() public {
        bytes32 id = voting();
        bytes32 right = court.caseOf(id).accuserValue;
        commitVotes(id, 0, 1, right);
        (address honest,) = court.memberAt(id, 0);
        uint8 m = 1;
        (address copier, uint16 attempt) = court.memberAt(id, m);
        while (copier == honest) (copier, attempt) = court.memberAt(id, ++m);
        bytes32 copied = ballot(honest, right);
        vm.prank(copier);
        court.commit(id, m, attempt, copied);
        later(VOTE + 1);
        vm.expectRevert(abi.encodeWithSelector(ICourt.BadReveal.selector, copied));
        vm.prank(copier);
        court.reveal(id, m, right, keccak256("a vote's salt"));
    }

    function test_a_reveal_after_its_window_counts_no_more() public {
        bytes32 id = voting();
        bytes32 right = court.caseOf(id).accuserValue;
        commitVotes(id, 0, 7, right);
        uint40 until = court.caseOf(id).revealUntil;
        vm.warp(until + 1);
        (address member,) = court.memberAt(id, 0);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooLate.selector, until));
        vm.prank(member);
        court.reveal(id, 0, right, keccak256("a vote's salt"));
    }

    // ---------------------------------------------------------------- counting

    function decided(uint8[4] memory votes) private returns (ICourt.Ruling) {
        uint256 mark = vm.snapshotState();
        bytes32 id = voting();
        ICourt.Case memory found = court.caseOf(id);
        bytes32[4] memory values = [found.accusedValue, found.accuserValue, keccak256("other"), bytes32(0)];
        uint8 first = 0;
        for (uint256 i = 0; i < 4; ++i) {
            commitVotes(id, first, first + votes[i], values[i]);
            first += votes[i];
        }
        later(VOTE + 1);
        first = 0;
        for (uint256 i = 0; i < 4; ++i) {
            revealVotes(id, first, first + votes[i], values[i]);
            first += votes[i];
        }
        court.advance(id);
        ICourt.Ruling ruling = rulingOf(id);
        if (court.caseOf(id).state == ICourt.State.Drawing) ruling = ICourt.Ruling.NoQuorum; // for short: redrawn
        vm.revertToState(mark);
        return ruling;
    }

    function test_a_majority_of_the_votes_revealed_decides_and_four_must_be() public {
        expectVote([7, 0, 0, 0], ICourt.Ruling.ForAccused);
        expectVote([4, 3, 0, 0], ICourt.Ruling.ForAccused);
        expectVote([3, 4, 0, 0], ICourt.Ruling.ForAccuser);
        expectVote([0, 3, 1, 0], ICourt.Ruling.ForAccuser);
        expectVote([2, 2, 0, 0], ICourt.Ruling.Void);
        expectVote([3, 3, 1, 0], ICourt.Ruling.Void);
        expectVote([0, 0, 7, 0], ICourt.Ruling.Void);
        expectVote([3, 0, 0, 4], ICourt.Ruling.Unserved);
        expectVote([2, 2, 0, 3], ICourt.Ruling.Void);
        expectVote([0, 3, 0, 0], ICourt.Ruling.NoQuorum);
        expectVote([0, 0, 0, 0], ICourt.Ruling.NoQuorum);
    }

    function expectVote(uint8[4] memory votes, ICourt.Ruling ruling) private {
        vm.assertEq(uint256(decided(votes)), uint256(ruling), "decided");
    }

    function test_after_three_redraws_there_is_no_quorum() public {
        bytes32 id = accused(1);
        for (uint8 i = 0; i < 4; ++i) {
            stateIs(id, ICourt.State.Drawing);
            vm.assertEq(court.caseOf(id).redraws, i, "redraws");
            vm.assertEq(court.caseOf(id).round, i, "round");
            drawPanel(id);
            later(VOTE + VOTES_OPEN + 1);
            court.advance(id);
        }
        stateIs(id, ICourt.State.Ruled);
        ruledIs(id, ICourt.Ruling.NoQuorum);
    }

    function test_a_panel_whose_seed_nobody_takes_is_called_again() public {
        bytes32 id = accused(1);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooEarly.selector, 0));
        court.advance(id);
        for (uint256 i = 0; i < 4; ++i) {
            blocks(4 + 257);
            court.advance(id);
        }
        ruledIs(id, ICourt.Ruling.NoQuorum);
    }

    // ---------------------------------------------------------------- money

    function test_the_fee_is_shared_by_the_majority_and_what_does_not_divide_stays_in_the_pool() public {
        bytes32 id = accused(1);
        vote(id, 7, 3);
        vm.assertEq(memberCredits(), 0, "nothing before it is final");
        unappealed(id);
        vm.assertEq(memberCredits(), uint256(FEE) / 4 * 4, "four share it");
        vm.assertEq(court.owed(), memberCredits(), "owed");
        vm.assertEq(court.pool(), uint256(FEE) - uint256(FEE) / 4 * 4, "pool");
        (address loser,) = (who(STRANGER), 0);
        vm.expectRevert(abi.encodeWithSelector(ICourt.NothingToWithdraw.selector, loser));
        court.withdraw(loser);
        for (uint256 i = 0; i < AUDITORS; ++i) {
            address account = who(FIRST_AUDITOR + i);
            uint256 credit = court.creditOf(account);
            if (credit == 0) continue;
            uint256 before = token.balanceOf(account);
            court.withdraw(account);
            vm.assertEq(token.balanceOf(account), before + credit, "paid out");
        }
        vm.assertEq(court.owed(), 0, "owed");
    }

    function test_an_appeal_is_by_a_party_in_time_once_and_its_panel_has_the_last_word() public {
        bytes32 id = accused(1);
        vote(id, 7, 7); // a bought panel
        uint40 until = court.caseOf(id).deadline;
        vm.expectRevert(abi.encodeWithSelector(ICourt.NotParty.selector, who(STRANGER)));
        vm.prank(who(STRANGER));
        court.appeal(id);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooEarly.selector, until));
        court.advance(id);
        uint256 mark = vm.snapshotState();
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(ICourt.TooLate.selector, until));
        vm.prank(who(PAYER));
        court.appeal(id);
        vm.revertToState(mark);
        uint256 before = token.balanceOf(who(PAYER));
        vm.prank(who(PAYER));
        court.appeal(id);
        vm.assertEq(token.balanceOf(who(PAYER)), before - APPEAL_FEE, "paid by the appellant");
        vm.expectPartialRevert(ICourt.WrongState.selector);
        vm.prank(who(WORKER));
        court.appeal(id);
        vote(id, 31, 10);
        stateIs(id, ICourt.State.Ruled); // no second appeal
        ruledIs(id, ICourt.Ruling.ForAccuser);
        accusations.acquitOrConvict(lease, id);
        vm.assertEq(escrow.lockLeft(lease), 0, "convicted after all");
        vm.assertEq(court.creditOf(who(PAYER)), FEE, "what the overturned panel would have earned, and no more");
        vm.assertEq(memberCredits(), uint256(APPEAL_FEE) / 21 * 21, "the appeal's members");
    }

    function test_an_overturned_panel_earns_nothing_though_some_of_it_were_right() public {
        bytes32 id = accused(1);
        vote(id, 7, 4);
        vm.prank(who(PAYER));
        court.appeal(id);
        vote(id, 31, 0);
        vm.assertEq(court.creditOf(who(PAYER)), FEE, "the appellant's");
        vm.assertEq(memberCredits(), uint256(APPEAL_FEE) / 31 * 31, "the appeal's members");
    }

    function test_the_pool_pays_nobody_and_anybody_burns_it() public {
        vm.expectRevert(abi.encodeWithSelector(ICourt.NothingToBurn.selector));
        court.burnPool();
        vm.prank(BANK);
        token.transfer(address(court), 50 ether);
        bytes32 id = accused(1);
        vote(id, 7, 4);
        vm.prank(who(PAYER));
        court.appeal(id);
        vote(id, 31, 0); // whoever fills a class of its own: both panels are the appellant's
        vm.assertLe(50 ether, court.pool(), "the pool lost nothing");
        uint256 owed = court.owed();
        uint256 supply = token.totalSupply();
        uint256 pool = court.pool();
        vm.prank(who(STRANGER));
        court.burnPool();
        vm.assertEq(token.totalSupply(), supply - pool, "burned");
        vm.assertEq(court.pool(), 0, "nothing is stuck");
        vm.assertEq(token.balanceOf(address(court)), owed, "what is owed is there");
        accusations.acquitOrConvict(lease, id); // and the slash still repays the accuser's fee
        vm.assertEq(accusations.creditOf(who(PAYER)), BOND + FEE, "out of the court's share");
    }

    function test_an_appeal_that_changes_nothing_is_paid_by_the_appellant() public {
        bytes32 id = accused(1);
        vote(id, 7, 0);
        vm.prank(who(WORKER));
        court.appeal(id);
        vote(id, 31, 0);
        ruledIs(id, ICourt.Ruling.ForAccuser);
        vm.assertEq(court.creditOf(who(WORKER)), 0, "nothing comes back");
        vm.assertEq(memberCredits(), uint256(FEE) / 7 * 7 + uint256(APPEAL_FEE) / 31 * 31, "both panels");
    }

    function test_an_appeal_without_quorum_leaves_the_first_ruling_and_gives_its_fee_back() public {
        bytes32 id = accused(1);
        vote(id, 7, 0);
        vm.prank(who(WORKER));
        court.appeal(id);
        for (uint256 i = 0; i < 4; ++i) {
            drawPanel(id);
            later(VOTE + VOTES_OPEN + 1);
            court.advance(id);
        }
        stateIs(id, ICourt.State.Ruled);
        ruledIs(id, ICourt.Ruling.ForAccuser);
        vm.assertEq(court.creditOf(who(WORKER)), APPEAL_FEE, "the appellant's");
        vm.assertEq(memberCredits(), uint256(FEE) / 7 * 7, "the first panel's");
        vm.assertEq(token.balanceOf(address(court)), court.owed() + court.pool(), "all is accounted for");
    }
}
