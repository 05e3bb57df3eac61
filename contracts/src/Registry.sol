// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

import {Messages, PeerBinding, RelayedBond, RelayedWithdraw} from "./generated/Messages.sol";
import {Domain} from "./Domain.sol";
import {IJobEscrow} from "./interfaces/IJobEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Permit, Signature} from "./interfaces/Types.sol";

/// @title Registry
/// @dev The specification is {IRegistry}.
contract Registry is IRegistry, Domain {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;
    using Checkpoints for Checkpoints.Trace208;

    /// @dev One word: it is read and written whenever a seat is taken.
    struct Stake {
        uint32 live; // slots that were not released
        uint96 locked; // secures seats
        uint96 debt; // what was slashed of live slots; at most live * slotWei
    }

    /// @dev What an account below one slot has and does.
    struct Newcomer {
        uint96 deposit; // zero while there is debt; below slotWei
        uint96 unpaid; // of its open seats as a newcomer
        uint8 seats;
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
    uint8 public constant NEWCOMER_SEATS = 3; // enough to keep one machine busy
    /// @inheritdoc IRegistry
    uint96 public constant NEWCOMER_SHARE = 100; // what it can take unpunished is worth less than an identity

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
    mapping(address account => Newcomer) private _newcomers;
    /// @dev By `withdrawableAt`: all that the account ever released and that could be withdrawn by then.
    mapping(address account => Checkpoints.Trace208) private _released;
    mapping(address account => uint208) private _gone; // of what was released: withdrawn or slashed
    mapping(address account => Identity) private _identities;
    mapping(address account => Class) private _classes;
    mapping(address account => uint64) private _nonces; // of relayed requests

    constructor(address token_, address escrow_, uint96 slotWei_, uint40 unbondingDelay_, uint40 classDelay_)
        Domain("Tallymesh Registry")
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
        address recovered = _recover(_digest(Messages.hashCalldata(binding)), signature);
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

        first = _append(account, msg.sender, count);

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
        _checkOwner(account);
        _release(account, slots);
    }

    /// @inheritdoc IRegistry
    function releaseDeposit(address account) external {
        _checkOwner(account);
        _releaseDeposit(account);
    }

    /// @inheritdoc IRegistry
    function withdraw(address account) external returns (uint96 amount) {
        amount = withdrawable(account);
        if (amount == 0) revert NothingToWithdraw(account);

        _gone[account] += amount;
        address to = ownerOf(account);
        emit StakeWithdrawn(account, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc IRegistry
    function settleDebt(address account, uint256[] calldata slots) external {
        if (slots.length == 0) revert NoSlots();

        Stake memory stake = _stakes[account];
        for (uint256 i = 0; i < slots.length; ++i) {
            if (stake.debt == 0) revert NotShort(account);
            _take(account, slots[i], 0);
            stake.live -= 1;
            if (stake.debt >= slotWei) {
                stake.debt -= slotWei;
            } else {
                _newcomers[account].deposit = slotWei - stake.debt; // it was zero while there was debt
                stake.debt = 0;
            }
        }
        _stakes[account] = stake;
        emit DebtChanged(account, stake.debt);
    }

    // ---------------------------------------------------------------- carried by anybody

    /// @inheritdoc IRegistry
    function bondFor(RelayedBond calldata request, Signature calldata signature) external {
        bytes32 digest = _digest(Messages.hashCalldata(request));
        _useRequest(request.account, request.nonce, request.deadline, digest, signature);
        _deposit(request.account, IJobEscrow(escrow).spend(request.account, request.amount, msg.sender, request.fee));
    }

    /// @inheritdoc IRegistry
    function withdrawFor(RelayedWithdraw calldata request, uint256[] calldata slots, Signature calldata signature)
        external
        returns (uint256 amount)
    {
        bytes32 digest = _digest(Messages.hashCalldata(request));
        address owner = _useRequest(request.account, request.nonce, request.deadline, digest, signature);
        if (slots.length != request.slots) revert BadCount(slots.length, request.slots);
        if (slots.length != 0) _release(request.account, slots);
        if (request.deposit) _releaseDeposit(request.account);

        amount = IJobEscrow(escrow).spend(request.account, type(uint96).max, msg.sender, request.fee); // sends it here
        if (amount != 0) IERC20(token).safeTransfer(owner, amount);
    }

    // ---------------------------------------------------------------- calls of the escrow

    modifier onlyEscrow() {
        if (msg.sender != escrow) revert NotEscrow(msg.sender);
        _;
    }

    /// @inheritdoc IRegistry
    function tryLock(address account, uint96 amount) external onlyEscrow returns (bool locked) {
        Stake memory stake = _stakes[account];
        if (stake.live == 0 || stake.debt != 0) return false;
        if (uint256(stake.locked) + amount > uint256(stake.live) * slotWei) return false;

        _stakes[account].locked = stake.locked + amount;
        return true;
    }

    /// @inheritdoc IRegistry
    function admit(address account, uint96 amount, uint96 value)
        external
        onlyEscrow
        returns (bool admitted, uint96 locked)
    {
        Stake memory stake = _stakes[account];
        Newcomer storage newcomer = _newcomers[account];
        if (stake.live != 0 || stake.debt != 0 || newcomer.seats >= NEWCOMER_SEATS) return (false, 0);
        if (uint256(newcomer.unpaid) + value > slotWei / NEWCOMER_SHARE) return (false, 0);

        newcomer.seats += 1;
        newcomer.unpaid += value;
        uint96 held = newcomer.deposit;
        locked = held > stake.locked ? uint96(Math.min(amount, held - stake.locked)) : 0;
        if (locked != 0) _stakes[account].locked = stake.locked + locked;
        return (true, locked);
    }

    /// @inheritdoc IRegistry
    function relieve(address account, uint96 value, bool closed) external onlyEscrow returns (bool slotless) {
        Newcomer storage newcomer = _newcomers[account];
        newcomer.unpaid -= value;
        if (closed) newcomer.seats -= 1;
        return _stakes[account].live == 0;
    }

    /// @inheritdoc IRegistry
    function unlock(address account, uint96 amount) external onlyEscrow {
        _stakes[account].locked -= amount;
    }

    /// @inheritdoc IRegistry
    function deposit(address account, uint96 amount) external onlyEscrow {
        _deposit(account, amount);
    }

    /// @inheritdoc IRegistry
    function slash(address account, uint96 amount) external onlyEscrow {
        Stake memory stake = _stakes[account];
        stake.locked -= amount;
        uint96 left = amount;
        uint96 held = _newcomers[account].deposit;
        if (held != 0) {
            uint96 part = left < held ? left : held;
            left -= part;
            _newcomers[account].deposit = held - part;
        }
        uint256 whole = uint256(stake.live) * slotWei - stake.debt;
        if (left != 0 && whole != 0) {
            uint96 part = uint96(Math.min(left, whole));
            left -= part;
            stake.debt += part;
            emit DebtChanged(account, stake.debt);
        }
        if (left != 0) _gone[account] += left; // at most what unbonds: locked <= bonded + unbonding
        _stakes[account] = stake;
        emit StakeSlashed(account, amount);

        IERC20(token).safeTransfer(escrow, amount);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IRegistry
    function stakeOf(address account) external view returns (uint96 free, uint96 locked, uint96 unbonding) {
        Stake memory stake = _stakes[account];
        uint96 bonded = _bonded(account, stake).toUint96();
        unbonding = _unbonding(account).toUint96();
        locked = stake.locked;
        if (locked <= bonded) return (bonded - locked, locked, unbonding);
        return (0, locked, unbonding - (locked - bonded));
    }

    /// @inheritdoc IRegistry
    function liveSlots(address account) external view returns (uint32) {
        return _stakes[account].live;
    }

    /// @inheritdoc IRegistry
    function nonceOf(address account) external view returns (uint64) {
        return _nonces[account];
    }

    /// @inheritdoc IRegistry
    function depositOf(address account) external view returns (uint96) {
        return _newcomers[account].deposit;
    }

    /// @inheritdoc IRegistry
    function debtOf(address account) external view returns (uint96) {
        return _stakes[account].debt;
    }

    /// @inheritdoc IRegistry
    function newcomerOf(address account) external view returns (uint8 seats, uint96 unpaid) {
        Newcomer storage newcomer = _newcomers[account];
        return (newcomer.seats, newcomer.unpaid);
    }

    /// @inheritdoc IRegistry
    function withdrawable(address account) public view returns (uint96) {
        uint256 matured = _released[account].upperLookup(block.timestamp.toUint48());
        uint256 gone = _gone[account];
        if (matured <= gone) return 0;
        Stake memory stake = _stakes[account];
        uint256 unlocked = _bonded(account, stake) + _unbonding(account) - stake.locked;
        return Math.min(matured - gone, unlocked).toUint96();
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
            page[i] = Candidate(
                slot.account,
                slot.addedBlock,
                slot.releasedBlock,
                ownerOf(slot.account),
                numericClass,
                _stakes[slot.account].debt != 0
            );
        }
    }

    /// @inheritdoc IRegistry
    function drawn(uint256 slot, uint256 blockNumber)
        external
        view
        returns (address account, address owner, bytes32 numericClass)
    {
        Slot memory found = _slots[slot];
        if (found.addedBlock > blockNumber) return (account, owner, numericClass);
        if (found.releasedBlock != 0 && found.releasedBlock <= blockNumber) return (account, owner, numericClass);
        if (_stakes[found.account].debt != 0) return (account, owner, numericClass);
        account = found.account;
        owner = ownerOf(account);
        (numericClass,,) = classOf(account);
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
    function domainSeparator() public view override(Domain, IRegistry) returns (bytes32) {
        return super.domainSeparator();
    }

    // ---------------------------------------------------------------- internals

    function _checkOwner(address account) private view {
        address owner = ownerOf(account);
        if (msg.sender != account && msg.sender != owner) revert NotOwner(msg.sender, owner);
    }

    /// @dev A signed request counts once, in order, in time, by the account's owner.
    function _useRequest(address account, uint64 nonce, uint40 deadline, bytes32 digest, Signature calldata signature)
        private
        returns (address owner)
    {
        if (block.timestamp > deadline) revert Expired(deadline);
        if (nonce != _nonces[account]) revert StaleNonce(nonce, _nonces[account]);
        owner = ownerOf(account);
        if (owner == address(0) || (msg.sender != owner && _recover(digest, signature) != owner)) revert NotSigned(owner);
        _nonces[account] = nonce + 1;
        emit Relayed(account, msg.sender, nonce);
    }

    function _append(address account, address payer, uint32 count) private returns (uint256 first) {
        first = _slots.length;
        Slot memory slot = Slot(account, block.number.toUint48(), 0);
        for (uint256 i = 0; i < count; ++i) _slots.push(slot);
        _stakes[account].live += count;
        emit SlotsBought(account, payer, first, count);
    }

    function _release(address account, uint256[] calldata slots) private {
        if (slots.length == 0) revert NoSlots();
        Stake storage stake = _stakes[account];
        if (stake.debt != 0) revert Short(account, stake.debt);

        uint40 withdrawableAt = (block.timestamp + unbondingDelay).toUint40();
        for (uint256 i = 0; i < slots.length; ++i) _take(account, slots[i], withdrawableAt);
        stake.live -= slots.length.toUint32();
        _unbond(account, slots.length * slotWei, withdrawableAt);
    }

    /// @dev The slot counts in no draw from here on.
    function _take(address account, uint256 number, uint40 withdrawableAt) private {
        if (number >= _slots.length) revert NotYourSlot(number, account);
        Slot storage slot = _slots[number];
        if (slot.account != account) revert NotYourSlot(number, account);
        if (slot.releasedBlock != 0) revert SlotAlreadyReleased(number);
        slot.releasedBlock = block.number.toUint48();
        emit SlotReleased(account, number, withdrawableAt);
    }

    function _deposit(address account, uint96 amount) private {
        if (amount == 0) return;
        emit Deposited(account, amount);
        uint96 debt = _stakes[account].debt;
        if (debt != 0) {
            uint96 paid = amount < debt ? amount : debt;
            amount -= paid;
            _stakes[account].debt = debt - paid;
            emit DebtChanged(account, debt - paid);
        }
        uint96 held = _newcomers[account].deposit + amount;
        uint32 count = uint256(held / slotWei).toUint32();
        _newcomers[account].deposit = held % slotWei;
        if (count == 0) return;
        emit DepositUsed(account, count * slotWei);
        _append(account, escrow, count);
    }

    function _releaseDeposit(address account) private {
        uint96 amount = _newcomers[account].deposit;
        if (amount == 0) revert NoDeposit(account);

        _newcomers[account].deposit = 0;
        uint40 withdrawableAt = (block.timestamp + unbondingDelay).toUint40();
        _unbond(account, amount, withdrawableAt);
        emit DepositReleased(account, amount, withdrawableAt);
    }

    function _unbond(address account, uint256 amount, uint40 withdrawableAt) private {
        Checkpoints.Trace208 storage released = _released[account];
        released.push(withdrawableAt, (released.latest() + amount).toUint208());
    }

    function _bonded(address account, Stake memory stake) private view returns (uint256) {
        return uint256(stake.live) * slotWei - stake.debt + _newcomers[account].deposit;
    }

    function _unbonding(address account) private view returns (uint256) {
        return _released[account].latest() - _gone[account];
    }
}
