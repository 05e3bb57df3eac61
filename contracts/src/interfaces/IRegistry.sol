// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {PeerBinding} from "../generated/Messages.sol";
import {Permit, Signature} from "./Types.sol";

/// @title Registry: who speaks for an account, what it has at stake, and in which numeric class it computes.
/// @notice Stake comes in slots of one size. Slots are numbered from 0 in the order of purchase and are never moved or
/// reused, so a draw over the slots of a past block can be repeated by anybody. An account's stake is free (can secure new
/// leases), locked (secures seats) or unbonding (released, waits for its delay); the three add up to all that this
/// contract holds for it. A lock outlives a release: what is locked cannot be withdrawn, released or not.
/// @dev EIP-712 domain: name "Tallymesh Registry", version "1". There is no privileged key: only the escrow given at
/// construction may lock and unlock. Draws at a past block read these views at that block.
interface IRegistry {
    /// @notice One unit of stake. Live at block b when `addedBlock <= b` and (`releasedBlock == 0` or `releasedBlock > b`).
    struct Slot {
        address account;
        uint48 addedBlock;
        uint48 releasedBlock;
    }

    /// @notice A slot with all that a draw asks about its account, so that one call fetches a page of them.
    struct Candidate {
        address account;
        uint48 addedBlock;
        uint48 releasedBlock;
        address owner;
        bytes32 numericClass;
    }

    // ---------------------------------------------------------------- events
    /// @notice `account` said that the peer with this hash speaks for it.
    event Bound(address indexed account, bytes32 indexed peerIdHash, uint32 version);
    /// @notice The owner of `account` offered it to `next`; nothing changes until `next` accepts.
    event OwnerProposed(address indexed account, address indexed next);
    event OwnerChanged(address indexed account, address indexed previous, address indexed owner);
    /// @notice Slots `first` to `first + count - 1` were added, paid by `payer`.
    event SlotsBought(address indexed account, address indexed payer, uint256 first, uint256 count);
    event SlotReleased(address indexed account, uint256 indexed slot, uint40 withdrawableAt);
    event StakeWithdrawn(address indexed account, address indexed to, uint96 amount);
    event ClassSet(address indexed account, bytes32 indexed numericClass, uint40 effectiveAt);

    // ---------------------------------------------------------------- errors
    error BadSignature(address expected, address recovered);
    /// @notice A binding must have a higher version than the one in force.
    error StaleBinding(uint32 version, uint32 current);
    error NotOwner(address caller, address owner);
    error NotProposed(address caller, address proposed);
    error NotEscrow(address caller);
    error NoSlots();
    error NotYourSlot(uint256 slot, address account);
    error SlotAlreadyReleased(uint256 slot);
    error NothingToWithdraw(address account);
    error ZeroAddress();
    error ZeroAmount();

    // ---------------------------------------------------------------- identity
    /// @notice Record which peer speaks for `binding.account`. Anyone may carry the account's signature here.
    /// @dev Refuses: a signature of another key, a version that is not higher than the one in force.
    function bind(PeerBinding calldata binding, Signature calldata signature) external;

    /// @notice Offer the ownership of `account` to `next`. The owner receives the account's credits and stake; accounts with
    /// one owner never audit each other. By the present owner, which is the account itself at first.
    function proposeOwner(address account, address next) external;

    /// @notice Take over what was proposed to the caller. Two steps, so that nobody is made an owner unasked: a stranger
    /// could otherwise take an honest auditor's accounts out of a draw by naming its owner.
    function acceptOwner(address account) external;

    /// @notice Say in which numeric class the caller computes, from `classDelay` seconds later on.
    function setClass(bytes32 numericClass) external;

    // ---------------------------------------------------------------- stake
    /// @notice Buy `count` slots for `account` with the caller's tokens (approved for this contract before).
    /// @return first Number of the first new slot.
    function buySlots(address account, uint32 count) external returns (uint256 first);

    /// @notice The same in one transaction. A permit that was already used is no error while the allowance suffices.
    function buySlotsWithPermit(address account, uint32 count, Permit calldata permit) external returns (uint256 first);

    /// @notice Release slots of `account`: at once they count in no draw, after the delay their stake can be withdrawn.
    /// By the account or its owner. Refuses a slot of another account and one that was released before.
    function releaseSlots(address account, uint256[] calldata slots) external;

    /// @notice Pay out what has finished unbonding and is not locked, to the account's owner. By anyone.
    /// @dev At most `WITHDRAW_MAX` releases a call; call again for more.
    function withdraw(address account) external returns (uint96 amount);

    /// @notice Lock `amount` of the free stake of an account with at least one live slot.
    /// @return locked False, and nothing changed, where the account has no live slot or less free stake.
    function tryLock(address account, uint96 amount) external returns (bool locked);

    /// @notice Give back a lock. The escrow calls it once for each lock that it took.
    function unlock(address account, uint96 amount) external;

    // ---------------------------------------------------------------- views
    function WITHDRAW_MAX() external view returns (uint256);
    function token() external view returns (address);
    function escrow() external view returns (address);
    /// @notice Stake of one slot, in wei.
    function slotWei() external view returns (uint96);
    /// @notice Seconds from release to withdrawal.
    function unbondingDelay() external view returns (uint40);
    /// @notice Seconds from `setClass` until the class counts.
    function classDelay() external view returns (uint40);
    /// @notice free + locked + unbonding = all that is held for the account. Locks rest on live slots first.
    function stakeOf(address account) external view returns (uint96 free, uint96 locked, uint96 unbonding);
    function liveSlots(address account) external view returns (uint32);
    /// @notice What `withdraw` would pay now if it took every release at once.
    function withdrawable(address account) external view returns (uint96);
    /// @notice How many slots were ever added: the modulus of the draw.
    function slotCount() external view returns (uint256);
    function slotAt(uint256 slot) external view returns (Slot memory);
    /// @notice Up to `count` slots from `first` on; fewer at the end.
    function slotsFrom(uint256 first, uint256 count) external view returns (Candidate[] memory);
    /// @notice The class in force now, and the one that replaces it at `effectiveAt` (0: none is waiting).
    function classOf(address account) external view returns (bytes32 numericClass, bytes32 next, uint40 effectiveAt);
    function ownerOf(address account) external view returns (address);
    function proposedOwnerOf(address account) external view returns (address);
    function peerOf(address account) external view returns (bytes32 peerIdHash, uint32 version);
    /// @notice The EIP-712 domain separator in force.
    function domainSeparator() external view returns (bytes32);
}
