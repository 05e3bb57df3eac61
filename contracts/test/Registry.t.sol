// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {Messages, PeerBinding} from "../src/generated/Messages.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Permit, Signature} from "../src/interfaces/Types.sol";
import {Base} from "./Base.sol";

contract RegistryTest is Base {
    bytes32 private constant PEER = keccak256("peer");
    bytes32 private constant CLASS_A = keccak256("class a");
    bytes32 private constant CLASS_B = keccak256("class b");

    function slots(uint256 one) private pure returns (uint256[] memory list) {
        list = new uint256[](1);
        list[0] = one;
    }

    function bind(PeerBinding memory binding, uint256 key) private {
        registry.bind(binding, sign(key, registryDigestOf(Messages.hash(binding))));
    }

    function release(uint256 key, uint256 slot) private {
        vm.prank(who(key));
        registry.releaseSlots(who(key), slots(slot));
    }

    function lock(uint256 key, uint96 amount) private returns (bool) {
        vm.prank(address(escrow));
        return registry.tryLock(who(key), amount);
    }

    function checkStake(uint256 key, uint256 free, uint256 locked, uint256 unbonding) private view {
        (uint96 f, uint96 l, uint96 u) = registry.stakeOf(who(key));
        vm.assertEq(f, free, "free");
        vm.assertEq(l, locked, "locked");
        vm.assertEq(u, unbonding, "unbonding");
    }

    // ---------------------------------------------------------------- deployment

    function test_deployment_without_a_token_or_an_escrow_is_refused() public {
        refused(
            "Registry", abi.encode(address(0), escrow, SLOT, UNBONDING, CLASS_DELAY),
            abi.encodePacked(IRegistry.ZeroAddress.selector)
        );
        refused(
            "Registry", abi.encode(token, address(0), SLOT, UNBONDING, CLASS_DELAY),
            abi.encodePacked(IRegistry.ZeroAddress.selector)
        );
        refused(
            "Registry", abi.encode(token, address(escrow), 0, UNBONDING, CLASS_DELAY),
            abi.encodePacked(IRegistry.ZeroAmount.selector)
        );
    }

    // ---------------------------------------------------------------- bind

    function test_a_binding_signed_by_another_key_is_refused() public {
        PeerBinding memory binding = PeerBinding(PEER, who(WORKER), 1);
        bytes32 digest = registryDigestOf(Messages.hash(binding));
        vm.expectRevert(abi.encodeWithSelector(IRegistry.BadSignature.selector, who(WORKER), who(STRANGER)));
        registry.bind(binding, sign(STRANGER, digest));
    }

    function test_a_binding_of_the_zero_account_is_refused_though_a_broken_signature_recovers_to_it() public {
        PeerBinding memory binding = PeerBinding(PEER, address(0), 1);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.BadSignature.selector, address(0), address(0)));
        registry.bind(binding, none);
    }

    function test_a_binding_for_another_contract_is_refused() public {
        PeerBinding memory binding = PeerBinding(PEER, who(WORKER), 1);
        Signature memory signature = sign(WORKER, digestOf(Messages.hash(binding)));
        vm.expectPartialRevert(IRegistry.BadSignature.selector); // it recovers to some other address
        registry.bind(binding, signature);
    }

    function test_a_binding_with_an_old_version_is_refused() public {
        bind(PeerBinding(PEER, who(WORKER), 2), WORKER);
        PeerBinding memory again = PeerBinding(keccak256("other"), who(WORKER), 2);
        bytes32 digest = registryDigestOf(Messages.hash(again));
        vm.expectRevert(abi.encodeWithSelector(IRegistry.StaleBinding.selector, 2, 2));
        registry.bind(again, sign(WORKER, digest));
    }

    function test_anybody_may_carry_a_binding_and_a_higher_version_replaces_it() public {
        vm.expectEmit(address(registry));
        emit IRegistry.Bound(who(WORKER), PEER, 1);
        bind(PeerBinding(PEER, who(WORKER), 1), WORKER);
        bind(PeerBinding(keccak256("new"), who(WORKER), 7), WORKER);
        (bytes32 peer, uint32 version) = registry.peerOf(who(WORKER));
        vm.assertEq(peer, keccak256("new"), "peer");
        vm.assertEq(version, 7, "version");
    }

    // ---------------------------------------------------------------- owner

    function test_a_stranger_cannot_propose_an_owner() public {
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotOwner.selector, who(STRANGER), who(WORKER)));
        vm.prank(who(STRANGER));
        registry.proposeOwner(who(WORKER), who(STRANGER));
    }

    function test_nobody_becomes_owner_unasked() public {
        vm.prank(who(WORKER));
        registry.proposeOwner(who(WORKER), who(PAYER));
        vm.assertEq(registry.ownerOf(who(WORKER)), who(WORKER), "changed without acceptance");
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotProposed.selector, who(STRANGER), who(PAYER)));
        vm.prank(who(STRANGER));
        registry.acceptOwner(who(WORKER));
    }

    function test_ownership_passes_in_two_steps_and_the_account_loses_it() public {
        vm.prank(who(WORKER));
        registry.proposeOwner(who(WORKER), who(PAYER));
        vm.expectEmit(address(registry));
        emit IRegistry.OwnerChanged(who(WORKER), who(WORKER), who(PAYER));
        vm.prank(who(PAYER));
        registry.acceptOwner(who(WORKER));
        vm.assertEq(registry.ownerOf(who(WORKER)), who(PAYER), "owner");
        vm.assertEq(registry.proposedOwnerOf(who(WORKER)), address(0), "the proposal is used up");
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotOwner.selector, who(WORKER), who(PAYER)));
        vm.prank(who(WORKER));
        registry.proposeOwner(who(WORKER), who(WORKER));
    }

    // ---------------------------------------------------------------- class

    function test_a_class_counts_only_after_its_delay() public {
        vm.prank(who(WORKER));
        registry.setClass(CLASS_A);
        vm.warp(START + CLASS_DELAY - 1);
        (bytes32 current, bytes32 next, uint40 effectiveAt) = registry.classOf(who(WORKER));
        vm.assertEq(current, 0, "too early");
        vm.assertEq(next, CLASS_A, "next");
        vm.assertEq(effectiveAt, START + CLASS_DELAY, "effectiveAt");
        vm.warp(START + CLASS_DELAY);
        (current, next, effectiveAt) = registry.classOf(who(WORKER));
        vm.assertEq(current, CLASS_A, "in force");
        vm.assertEq(next, 0, "nothing waits");
        vm.assertEq(effectiveAt, 0, "nothing waits");
    }

    function test_a_class_stays_in_force_until_the_next_one_counts() public {
        vm.startPrank(who(WORKER));
        registry.setClass(CLASS_A);
        vm.warp(START + CLASS_DELAY);
        registry.setClass(CLASS_B);
        (bytes32 current,,) = registry.classOf(who(WORKER));
        vm.assertEq(current, CLASS_A, "the old one");
        // changing one's mind does not bring the waiting one into force
        vm.warp(START + 2 * CLASS_DELAY - 1);
        registry.setClass(keccak256("class c"));
        (current,,) = registry.classOf(who(WORKER));
        vm.assertEq(current, CLASS_A, "still the old one");
        vm.stopPrank();
    }

    // ---------------------------------------------------------------- buySlots

    function test_buying_no_slot_or_for_nobody_is_refused() public {
        vm.startPrank(who(WORKER));
        vm.expectRevert(IRegistry.NoSlots.selector);
        registry.buySlots(who(WORKER), 0);
        vm.expectRevert(IRegistry.ZeroAddress.selector);
        registry.buySlots(address(0), 1);
        vm.stopPrank();
    }

    function test_buying_without_tokens_is_refused_and_leaves_no_slot() public {
        bytes memory notAllowed =
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(registry), 0, SLOT);
        vm.expectRevert(notAllowed);
        vm.prank(who(STRANGER));
        registry.buySlots(who(STRANGER), 1);
        vm.assertEq(registry.slotCount(), 0, "slots");
    }

    function test_slots_are_numbered_in_order_and_paid_by_the_caller() public {
        stake(WORKER_2, 2);
        uint256 before = token.balanceOf(who(PAYER));
        vm.expectEmit(address(registry));
        emit IRegistry.SlotsBought(who(WORKER), who(PAYER), 2, 3);
        vm.prank(who(PAYER));
        vm.assertEq(registry.buySlots(who(WORKER), 3), 2, "first");
        vm.assertEq(token.balanceOf(who(PAYER)), before - 3 * SLOT, "paid");
        vm.assertEq(registry.slotCount(), 5, "count");
        vm.assertEq(registry.liveSlots(who(WORKER)), 3, "live");
        IRegistry.Slot memory slot = registry.slotAt(4);
        vm.assertEq(slot.account, who(WORKER), "account");
        vm.assertEq(slot.addedBlock, block.number, "addedBlock");
        vm.assertEq(slot.releasedBlock, 0, "releasedBlock");
        checkStake(WORKER, 3 * SLOT, 0, 0);
    }

    function test_a_permit_buys_in_one_call_and_one_used_before_is_no_error() public {
        vm.startPrank(who(WORKER));
        token.approve(address(registry), 0);
        Permit memory permit = permitOf(WORKER, address(registry), 2 * uint256(SLOT));
        registry.buySlotsWithPermit(who(WORKER), 1, permit);
        // the permit is used up (as if somebody had carried it first), the allowance is there
        registry.buySlotsWithPermit(who(WORKER), 1, permit);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(registry), 0, SLOT)
        );
        registry.buySlotsWithPermit(who(WORKER), 1, permit);
        vm.stopPrank();
        vm.assertEq(registry.liveSlots(who(WORKER)), 2, "live");
    }

    // ---------------------------------------------------------------- releaseSlots

    function test_a_stranger_cannot_release() public {
        stake(WORKER, 1);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotOwner.selector, who(STRANGER), who(WORKER)));
        vm.prank(who(STRANGER));
        registry.releaseSlots(who(WORKER), slots(0));
    }

    function test_releasing_nothing_a_slot_of_another_or_one_that_is_not_there_is_refused() public {
        stake(WORKER, 1);
        stake(WORKER_2, 1);
        vm.startPrank(who(WORKER));
        vm.expectRevert(IRegistry.NoSlots.selector);
        registry.releaseSlots(who(WORKER), new uint256[](0));
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotYourSlot.selector, 1, who(WORKER)));
        registry.releaseSlots(who(WORKER), slots(1));
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotYourSlot.selector, 2, who(WORKER)));
        registry.releaseSlots(who(WORKER), slots(2));
        vm.stopPrank();
    }

    function test_a_slot_is_released_once() public {
        stake(WORKER, 2);
        uint256[] memory twice = new uint256[](2);
        vm.startPrank(who(WORKER));
        vm.expectRevert(abi.encodeWithSelector(IRegistry.SlotAlreadyReleased.selector, 0));
        registry.releaseSlots(who(WORKER), twice);
        vm.stopPrank();
        release(WORKER, 1);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.SlotAlreadyReleased.selector, 1));
        vm.prank(who(WORKER));
        registry.releaseSlots(who(WORKER), slots(1));
    }

    function test_a_released_slot_keeps_its_number_and_says_when() public {
        stake(WORKER, 2);
        vm.roll(2_000);
        vm.expectEmit(address(registry));
        emit IRegistry.SlotReleased(who(WORKER), 0, uint40(START + UNBONDING));
        release(WORKER, 0);
        vm.assertEq(registry.slotAt(0).releasedBlock, 2_000, "releasedBlock");
        vm.assertEq(registry.slotAt(1).releasedBlock, 0, "the other one lives");
        vm.assertEq(registry.slotCount(), 2, "slots are appended only");
        checkStake(WORKER, SLOT, 0, SLOT);
    }

    // ---------------------------------------------------------------- withdraw

    function test_stake_cannot_be_withdrawn_before_the_delay() public {
        stake(WORKER, 1);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NothingToWithdraw.selector, who(WORKER)));
        registry.withdraw(who(WORKER));
        release(WORKER, 0);
        vm.warp(START + UNBONDING - 1);
        vm.assertEq(registry.withdrawable(who(WORKER)), 0, "withdrawable");
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NothingToWithdraw.selector, who(WORKER)));
        registry.withdraw(who(WORKER));
    }

    function test_stake_comes_back_to_the_owner_once() public {
        stake(WORKER, 1);
        release(WORKER, 0);
        vm.prank(who(WORKER));
        registry.proposeOwner(who(WORKER), who(STRANGER));
        vm.prank(who(STRANGER));
        registry.acceptOwner(who(WORKER));
        vm.warp(START + UNBONDING);
        vm.expectEmit(address(registry));
        emit IRegistry.StakeWithdrawn(who(WORKER), who(STRANGER), SLOT);
        vm.assertEq(registry.withdraw(who(WORKER)), SLOT, "amount");
        vm.assertEq(token.balanceOf(who(STRANGER)), SLOT, "paid to the owner");
        checkStake(WORKER, 0, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NothingToWithdraw.selector, who(WORKER)));
        registry.withdraw(who(WORKER));
    }

    function test_the_owner_may_release() public {
        stake(WORKER, 1);
        vm.prank(who(WORKER));
        registry.proposeOwner(who(WORKER), who(PAYER));
        vm.startPrank(who(PAYER));
        registry.acceptOwner(who(WORKER));
        registry.releaseSlots(who(WORKER), slots(0));
        vm.stopPrank();
        checkStake(WORKER, 0, 0, SLOT);
    }

    function test_a_lock_survives_the_release_and_holds_the_stake_back() public {
        stake(WORKER, 2);
        vm.assertTrue(lock(WORKER, SLOT + 1), "locked");
        release(WORKER, 0);
        release(WORKER, 1);
        checkStake(WORKER, 0, SLOT + 1, SLOT - 1);
        vm.warp(START + UNBONDING);
        vm.assertEq(registry.withdrawable(who(WORKER)), SLOT - 1, "withdrawable");
        registry.withdraw(who(WORKER));
        checkStake(WORKER, 0, SLOT + 1, 0);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NothingToWithdraw.selector, who(WORKER)));
        registry.withdraw(who(WORKER));
        vm.prank(address(escrow));
        registry.unlock(who(WORKER), SLOT + 1);
        vm.assertEq(registry.withdraw(who(WORKER)), SLOT + 1, "the rest");
        vm.assertEq(token.balanceOf(address(registry)), 0, "nothing is left");
    }

    function test_one_withdrawal_takes_any_number_of_releases_at_the_same_cost() public {
        uint256 many = 200;
        fund(WORKER, many * SLOT);
        stake(WORKER, uint32(many));
        for (uint256 i = 0; i < many; ++i) {
            vm.warp(START + i);
            release(WORKER, i);
        }
        vm.warp(START + UNBONDING + many / 2 - 1);
        vm.assertEq(registry.withdraw(who(WORKER)), many / 2 * SLOT, "the first half");
        vm.warp(START + UNBONDING + many);
        uint256 before = gasleft();
        vm.assertEq(registry.withdraw(who(WORKER)), many / 2 * SLOT, "the rest");
        vm.assertLe(before - gasleft(), 150_000, "gas");
    }

    function test_releases_mature_one_by_one() public {
        stake(WORKER, 2);
        release(WORKER, 0);
        vm.warp(START + 1 days);
        release(WORKER, 1);
        vm.warp(START + UNBONDING);
        vm.assertEq(registry.withdraw(who(WORKER)), SLOT, "the first");
        vm.warp(START + UNBONDING + 1 days);
        vm.assertEq(registry.withdraw(who(WORKER)), SLOT, "the second");
    }

    function test_the_rest_of_a_release_that_a_lock_cut_short_matures_no_later_one() public {
        stake(WORKER, 3);
        vm.assertTrue(lock(WORKER, 3 * SLOT / 2), "locked");
        release(WORKER, 0);
        release(WORKER, 1);
        vm.warp(START + UNBONDING);
        vm.assertEq(registry.withdraw(who(WORKER)), 3 * SLOT / 2, "all but the lock");
        vm.prank(address(escrow));
        registry.unlock(who(WORKER), 3 * SLOT / 2);
        release(WORKER, 2); // has its whole delay before it
        vm.assertEq(registry.withdraw(who(WORKER)), SLOT / 2, "the rest");
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NothingToWithdraw.selector, who(WORKER)));
        registry.withdraw(who(WORKER));
    }

    // ---------------------------------------------------------------- locks

    function test_only_the_escrow_locks_and_unlocks() public {
        stake(WORKER, 1);
        vm.startPrank(who(WORKER));
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotEscrow.selector, who(WORKER)));
        registry.tryLock(who(WORKER), 1);
        vm.expectRevert(abi.encodeWithSelector(IRegistry.NotEscrow.selector, who(WORKER)));
        registry.unlock(who(WORKER), 0);
        vm.stopPrank();
    }

    function test_no_lock_without_a_live_slot_not_even_of_nothing() public {
        vm.assertTrue(!lock(WORKER, 0), "never bought");
        stake(WORKER, 1);
        release(WORKER, 0);
        vm.assertTrue(!lock(WORKER, 0), "released");
    }

    function test_no_lock_above_the_free_stake() public {
        stake(WORKER, 1);
        vm.assertTrue(!lock(WORKER, SLOT + 1), "more than one slot");
        vm.assertTrue(lock(WORKER, SLOT), "all of it");
        vm.assertTrue(!lock(WORKER, 1), "nothing is free");
        checkStake(WORKER, 0, SLOT, 0);
    }

    function test_stake_that_unbonds_secures_no_new_lease() public {
        stake(WORKER, 2);
        release(WORKER, 0);
        vm.assertTrue(!lock(WORKER, SLOT + 1), "unbonding stake was locked");
        vm.assertTrue(lock(WORKER, SLOT), "the live slot");
    }

    // ---------------------------------------------------------------- views

    function test_slots_are_read_in_pages_with_what_a_draw_asks() public {
        stake(WORKER, 2);
        stake(WORKER_2, 1);
        vm.prank(who(WORKER_2));
        registry.setClass(CLASS_A);
        vm.prank(who(WORKER_2));
        registry.proposeOwner(who(WORKER_2), who(PAYER));
        vm.prank(who(PAYER));
        registry.acceptOwner(who(WORKER_2));
        vm.warp(START + CLASS_DELAY);
        IRegistry.Candidate[] memory page = registry.slotsFrom(1, 10);
        vm.assertEq(page.length, 2, "as many as there are");
        vm.assertEq(page[0].account, who(WORKER), "account");
        vm.assertEq(page[0].owner, who(WORKER), "its own owner");
        vm.assertEq(page[1].owner, who(PAYER), "owner");
        vm.assertEq(page[1].numericClass, CLASS_A, "class");
        vm.assertEq(registry.slotsFrom(3, 1).length, 0, "at the end");
        vm.assertEq(registry.slotsFrom(4, 1).length, 0, "past the end");
        vm.assertEq(registry.slotsFrom(0, type(uint256).max).length, 3, "no overflow");
    }

    // ---------------------------------------------------------------- fuzz

    /// @notice free + locked + unbonding is what was paid in less what was paid out, whatever is locked and released.
    function testFuzz_the_three_parts_of_stake_add_up(uint8 bought, uint8 released, uint96 locked) public {
        uint32 count = uint32(bought % 10) + 1;
        stake(WORKER, count);
        lock(WORKER, locked % (count * SLOT));
        uint256 gone = released % (count + 1);
        for (uint256 i = 0; i < gone; ++i) release(WORKER, i);
        (uint96 free, uint96 held, uint96 unbonding) = registry.stakeOf(who(WORKER));
        vm.assertEq(uint256(free) + held + unbonding, count * SLOT, "sum");
        vm.warp(START + UNBONDING);
        if (registry.withdrawable(who(WORKER)) == 0) return;
        uint256 paid = registry.withdraw(who(WORKER));
        (free, held, unbonding) = registry.stakeOf(who(WORKER));
        vm.assertEq(uint256(free) + held + unbonding + paid, count * SLOT, "sum after withdrawal");
        vm.assertEq(held, locked % (count * SLOT), "the lock is whole");
        vm.assertEq(token.balanceOf(address(registry)), count * SLOT - paid, "held");
    }
}
