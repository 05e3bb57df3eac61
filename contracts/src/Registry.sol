// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {Messages, PeerBinding} from "./generated/Messages.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Permit, Signature} from "./interfaces/Types.sol";

/// @title Registry
/// @dev The specification is {IRegistry}.
contract Registry is IRegistry, EIP712 {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @dev One word: it is read and written whenever a seat is taken. `locked <= live * slotWei + unbonding` always.
    struct Stake {
        uint32 live; // slots that were not released
        uint96 locked; // secures seats
        uint96 unbonding; // released and not yet withdrawn
    }

    struct Unbonding {
        uint96 amount;
        uint40 withdrawableAt;
    }

    struct Identity {
        bytes32 peerIdHash;
        address owner; // zero: the account itself
        uint32 version;
        address proposed;
    }

    struct Class {
        bytes32 current;
        bytes32 next;
        uint40 effectiveAt; // of `next`; zero: no class was ever set
    }

    /// @inheritdoc IRegistry
    uint256 public constant WITHDRAW_MAX = 64; // about 350 k gas

    /// @inheritdoc IRegistry
    address public immutable token;
    /// @inheritdoc IRegistry
    address public immutable escrow;
    /// @inheritdoc IRegistry
    uint96 public immutable slotWei;
    /// @inheritdoc IRegistry
    uint40 public immutable unbondingDelay;
    /// @inheritdoc IRegistry
    uint40 public immutable classDelay;

    Slot[] private _slots;
    mapping(address account => Stake) private _stakes;
    mapping(address account => Unbonding[]) private _unbondings; // in the order of release, so of `withdrawableAt`
    mapping(address account => uint256) private _unbondingHead; // first entry that was not paid out
    mapping(address account => Identity) private _identities;
    mapping(address account => Class) private _classes;

    constructor(address token_, address escrow_, uint96 slotWei_, uint40 unbondingDelay_, uint40 classDelay_)
        EIP712("Tallymesh Registry", "1")
    {
        if (token_ == address(0) || escrow_ == address(0)) revert ZeroAddress();
        if (slotWei_ == 0) revert ZeroAmount(); // a free slot would be a free identity
        token = token_;
        escrow = escrow_;
        slotWei = slotWei_;
        unbondingDelay = unbondingDelay_;
        classDelay = classDelay_;
    }

    // ---------------------------------------------------------------- identity

    /// @inheritdoc IRegistry
    function bind(PeerBinding calldata binding, Signature calldata signature) external {
        Identity storage identity = _identities[binding.account];
        if (binding.version <= identity.version) revert StaleBinding(binding.version, identity.version);
        address recovered = _recover(_hashTypedDataV4(Messages.hashCalldata(binding)), signature);
        if (recovered != binding.account || recovered == address(0)) revert BadSignature(binding.account, recovered);

        identity.peerIdHash = binding.peerIdHash;
        identity.version = binding.version;
        emit Bound(binding.account, binding.peerIdHash, binding.version);
    }

    /// @inheritdoc IRegistry
    function proposeOwner(address account, address next) external {
        address owner = ownerOf(account);
        if (msg.sender != owner) revert NotOwner(msg.sender, owner);

        _identities[account].proposed = next;
        emit OwnerProposed(account, next);
    }

    /// @inheritdoc IRegistry
    function acceptOwner(address account) external {
        Identity storage identity = _identities[account];
        if (msg.sender != identity.proposed) revert NotProposed(msg.sender, identity.proposed);

        address previous = ownerOf(account);
        identity.owner = msg.sender;
        identity.proposed = address(0);
        emit OwnerChanged(account, previous, msg.sender);
    }

    /// @inheritdoc IRegistry
    function setClass(bytes32 numericClass) external {
        Class storage class = _classes[msg.sender];
        if (class.effectiveAt <= block.timestamp) class.current = class.next;
        class.next = numericClass;
        class.effectiveAt = (block.timestamp + classDelay).toUint40();
        emit ClassSet(msg.sender, numericClass, class.effectiveAt);
    }

    // ---------------------------------------------------------------- stake

    /// @inheritdoc IRegistry
    function buySlots(address account, uint32 count) public returns (uint256 first) {
        if (account == address(0)) revert ZeroAddress();
        if (count == 0) revert NoSlots();

        first = _slots.length;
        Slot memory slot = Slot(account, block.number.toUint48(), 0);
        for (uint256 i = 0; i < count; ++i) _slots.push(slot);
        _stakes[account].live += count;
        emit SlotsBought(account, msg.sender, first, count);

        IERC20(token).safeTransferFrom(msg.sender, address(this), uint256(count) * slotWei);
    }

    /// @inheritdoc IRegistry
    function buySlotsWithPermit(address account, uint32 count, Permit calldata permit)
        external
        returns (uint256 first)
    {
        // Whoever saw the permit can use it first; then the allowance is there and the transfer goes through.
        try IERC20Permit(token).permit(
            msg.sender, address(this), permit.value, permit.deadline, permit.v, permit.r, permit.s
        ) {} catch {}
        return buySlots(account, count);
    }

    /// @inheritdoc IRegistry
    function releaseSlots(address account, uint256[] calldata slots) external {
        address owner = ownerOf(account);
        if (msg.sender != account && msg.sender != owner) revert NotOwner(msg.sender, owner);
        if (slots.length == 0) revert NoSlots();

        uint40 withdrawableAt = (block.timestamp + unbondingDelay).toUint40();
        for (uint256 i = 0; i < slots.length; ++i) {
            if (slots[i] >= _slots.length) revert NotYourSlot(slots[i], account);
            Slot storage slot = _slots[slots[i]];
            if (slot.account != account) revert NotYourSlot(slots[i], account);
            if (slot.releasedBlock != 0) revert SlotAlreadyReleased(slots[i]);
            slot.releasedBlock = block.number.toUint48();
            emit SlotReleased(account, slots[i], withdrawableAt);
        }
        uint96 amount = (slots.length * slotWei).toUint96();
        Stake storage stake = _stakes[account];
        stake.live -= slots.length.toUint32();
        stake.unbonding += amount;
        _unbondings[account].push(Unbonding(amount, withdrawableAt));
    }

    /// @inheritdoc IRegistry
    function withdraw(address account) external returns (uint96 amount) {
        Stake memory stake = _stakes[account];
        uint96 spare = _spare(stake);
        Unbonding[] storage queue = _unbondings[account];
        uint256 head = _unbondingHead[account];
        uint256 end = Math.min(queue.length, head + WITHDRAW_MAX);
        while (head < end && amount < spare && queue[head].withdrawableAt <= block.timestamp) {
            uint96 part = queue[head].amount;
            if (part > spare - amount) {
                part = spare - amount;
                queue[head].amount -= part;
            } else {
                delete queue[head++];
            }
            amount += part;
        }
        if (amount == 0) revert NothingToWithdraw(account);

        _unbondingHead[account] = head;
        _stakes[account].unbonding = stake.unbonding - amount;
        address to = ownerOf(account);
        emit StakeWithdrawn(account, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc IRegistry
    function tryLock(address account, uint96 amount) external returns (bool locked) {
        if (msg.sender != escrow) revert NotEscrow(msg.sender);
        Stake memory stake = _stakes[account];
        if (stake.live == 0 || uint256(stake.locked) + amount > uint256(stake.live) * slotWei) return false;

        _stakes[account].locked = stake.locked + amount;
        return true;
    }

    /// @inheritdoc IRegistry
    function unlock(address account, uint96 amount) external {
        if (msg.sender != escrow) revert NotEscrow(msg.sender);

        _stakes[account].locked -= amount;
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IRegistry
    function stakeOf(address account) external view returns (uint96 free, uint96 locked, uint96 unbonding) {
        Stake memory stake = _stakes[account];
        uint96 bonded = (uint256(stake.live) * slotWei).toUint96();
        locked = stake.locked;
        if (locked <= bonded) return (bonded - locked, locked, stake.unbonding);
        return (0, locked, stake.unbonding - (locked - bonded));
    }

    /// @inheritdoc IRegistry
    function liveSlots(address account) external view returns (uint32) {
        return _stakes[account].live;
    }

    /// @inheritdoc IRegistry
    function withdrawable(address account) external view returns (uint96 amount) {
        uint96 spare = _spare(_stakes[account]);
        Unbonding[] storage queue = _unbondings[account];
        for (uint256 i = _unbondingHead[account]; i < queue.length; ++i) {
            if (queue[i].withdrawableAt > block.timestamp) break;
            amount += queue[i].amount;
        }
        return amount < spare ? amount : spare;
    }

    /// @inheritdoc IRegistry
    function slotCount() external view returns (uint256) {
        return _slots.length;
    }

    /// @inheritdoc IRegistry
    function slotAt(uint256 slot) external view returns (Slot memory) {
        return _slots[slot];
    }

    /// @inheritdoc IRegistry
    function slotsFrom(uint256 first, uint256 count) external view returns (Candidate[] memory page) {
        uint256 total = _slots.length;
        if (first >= total) return page;
        if (count > total - first) count = total - first;
        page = new Candidate[](count);
        for (uint256 i = 0; i < count; ++i) {
            Slot memory slot = _slots[first + i];
            (bytes32 numericClass,,) = classOf(slot.account);
            page[i] =
                Candidate(slot.account, slot.addedBlock, slot.releasedBlock, ownerOf(slot.account), numericClass);
        }
    }

    /// @inheritdoc IRegistry
    function classOf(address account) public view returns (bytes32 numericClass, bytes32 next, uint40 effectiveAt) {
        Class storage class = _classes[account];
        if (class.effectiveAt <= block.timestamp) return (class.next, 0, 0);
        return (class.current, class.next, class.effectiveAt);
    }

    /// @inheritdoc IRegistry
    function ownerOf(address account) public view returns (address) {
        address owner = _identities[account].owner;
        return owner == address(0) ? account : owner;
    }

    /// @inheritdoc IRegistry
    function proposedOwnerOf(address account) external view returns (address) {
        return _identities[account].proposed;
    }

    /// @inheritdoc IRegistry
    function peerOf(address account) external view returns (bytes32 peerIdHash, uint32 version) {
        Identity storage identity = _identities[account];
        return (identity.peerIdHash, identity.version);
    }

    /// @inheritdoc IRegistry
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // ---------------------------------------------------------------- internals

    /// @dev What may leave without uncovering a lock.
    function _spare(Stake memory stake) private view returns (uint96) {
        uint256 held = uint256(stake.live) * slotWei + stake.unbonding;
        uint256 spare = held - stake.locked;
        return uint96(spare < stake.unbonding ? spare : stake.unbonding);
    }

    /// @dev Zero where the signature is malformed.
    function _recover(bytes32 digest, Signature calldata signature) private pure returns (address signer) {
        (signer,,) = ECDSA.tryRecover(digest, signature.r, signature.vs);
    }
}
