// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {PeerBinding, RelayedBond, RelayedWithdraw} from "../generated/Messages.sol";
import {Permit, Signature} from "./Types.sol";

/// @title Registry: who speaks for an account, what it has at stake, and in which numeric class it computes.
/// @notice Stake comes in slots of one size. Slots are numbered from 0 in the order of purchase and are never moved or
/// reused, so a draw over the slots of a past block can be repeated by anybody. An account's stake is free (can secure new
/// leases), locked (secures seats) or unbonding (released, waits for its delay); the three add up to all that this
/// contract holds for it. A lock outlives a release: what is locked cannot be withdrawn, released or not.
///
/// Deposit: stake below one slot, which a newcomer earns. As soon as it holds a slot's stake, a slot is appended for it.
///
/// Debt. Slashed stake leaves at once: first out of the deposit, then out of live slots, then out of unbonding stake. What was
/// taken out of live slots is the account's debt: its slots are whole in number but short in stake, so it gets no new lease,
/// is drawn for nothing (`short`), and cannot release slots, until the debt is paid: `settleDebt` releases slots of its that
/// anyone names, one slot's stake each, and puts the rest of the last into the deposit; incoming deposits pay it too.
///
/// bonded = live x slotWei - debt + deposit; debt > 0 only while deposit = 0; locked <= bonded + unbonding; and the balance of
/// this contract is the sum over all accounts of bonded + unbonding.
/// @dev EIP-712 domain: name "Tallymesh Registry", version "1". There is no privileged key: only the escrow given at
/// construction may lock, unlock, slash, deposit and admit. Draws at a past block read these views at that block.
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
        bool short; // the account has a debt: it is drawn for nothing
    }

    // ---------------------------------------------------------------- events
    /// @notice `account` said that the peer with this hash speaks for it.
    event Bound(address indexed account, bytes32 indexed peerIdHash, uint32 version);
    /// @notice The owner of `account` offered it to `next`; nothing changes until `next` accepts.
    event OwnerProposed(address indexed account, address indexed next);
    event OwnerChanged(address indexed account, address indexed previous, address indexed owner);
    /// @notice Slots `first` to `first + count - 1` were added, paid by `payer`; after {DepositUsed} out of the
    /// account's deposit, and `payer` is who called: the escrow or a carrier.
    event SlotsBought(address indexed account, address indexed payer, uint256 first, uint256 count);
    /// @notice The slot counts in no draw any more; its stake can be withdrawn from then on (0: it paid a debt).
    event SlotReleased(address indexed account, uint256 indexed slot, uint40 withdrawableAt);
    event StakeWithdrawn(address indexed account, address indexed to, uint96 amount);
    /// @notice The escrow brought `amount` of new stake (what of it paid a debt included).
    event Deposited(address indexed account, uint96 amount);
    /// @notice So much of the deposit became slots; {SlotsBought} follows.
    event DepositUsed(address indexed account, uint96 amount);
    /// @notice The deposit began to unbond.
    event DepositReleased(address indexed account, uint96 amount, uint40 withdrawableAt);
    event StakeSlashed(address indexed account, uint96 amount);
    /// @notice The account now owes `debt`; zero: it is short no longer.
    event DebtChanged(address indexed account, uint96 debt);
    /// @notice A carrier brought what the account's owner signed; `nonce` is used up. {IJobEscrow.CreditSpent} says what moved.
    event Relayed(address indexed account, address indexed carrier, uint64 nonce);
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
    /// @notice Slots of an account that owes stake are released by `settleDebt` alone.
    error Short(address account, uint96 debt);
    error NotShort(address account);
    error NoDeposit(address account);
    error Expired(uint40 deadline);
    error StaleNonce(uint64 given, uint64 expected);
    /// @notice Not signed by the account's owner, and not called by it.
    error NotSigned(address owner);
    error BadCount(uint256 named, uint32 asked);

    // ---------------------------------------------------------------- identity
    /// @notice Record which peer speaks for `binding.account`. Anyone may carry the account's signature here.
    /// @dev Refuses, in this order: a version that is not higher than the one in force, a signature of another key.
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
    /// By the account or its owner. Refuses, in this order: another caller, an empty list, an account with debt, a slot of
    /// another account, one that was released before.
    function releaseSlots(address account, uint256[] calldata slots) external;

    /// @notice Begin to unbond the whole deposit. By the account or its owner. Refuses: another caller, {NoDeposit}.
    function releaseDeposit(address account) external;

    /// @notice Pay out what has finished unbonding and is neither locked nor slashed, to the account's owner. By anyone.
    /// @dev The oldest releases first. Stake that was slashed out of the unbonding part counts as the oldest.
    function withdraw(address account) external returns (uint96 amount);

    /// @notice Pay the debt of an account by releasing live slots of its: each covers up to one slot's stake of debt, what the
    /// last one does not need goes into the deposit. By anyone. Nothing of it unbonds.
    /// @dev Refuses, in this order: an empty list, {NotShort} (also for a slot named after the debt was covered), a slot of
    /// another account, one that was released before.
    function settleDebt(address account, uint256[] calldata slots) external;

    // ---------------------------------------------------------------- carried by anybody
    /// @notice Turn `amount` of the account's credit in the escrow (type(uint96).max: all of it beside the fee) into its stake,
    /// as {deposit} does, by its owner's signature; the fee, out of the same credit, is credited to the caller. The owner
    /// itself needs no signature.
    /// @dev Reverts, in this order: {Expired} after the deadline, {StaleNonce} unless the nonce is `nonceOf(account)`,
    /// {NotSigned}, and {IJobEscrow.TooLittleCredit}.
    function bondFor(RelayedBond calldata request, Signature calldata signature) external;

    /// @notice Release `slots` (as many as the request says; which ones the caller chooses, all are alike) and, where the
    /// request says so, the deposit; and pay the account's credit in the escrow, less the fee, to its owner. The fee is
    /// credited to the caller. What was released is paid out by `withdraw` after its delay.
    /// @dev Reverts, in this order: {Expired}, {StaleNonce}, {NotSigned}, {BadCount} where another number of slots is named;
    /// then as `releaseSlots` and `releaseDeposit` do; then {IJobEscrow.TooLittleCredit} below the fee.
    /// @return amount What was paid to the owner; zero is no error.
    function withdrawFor(RelayedWithdraw calldata request, uint256[] calldata slots, Signature calldata signature)
        external
        returns (uint256 amount);

    // ---------------------------------------------------------------- calls of the escrow: {NotEscrow} for others
    /// @notice Lock `amount` of the free stake of an account with at least one live slot and no debt. Only live slots' stake
    /// counts (not the deposit).
    /// @return locked False, and nothing changed, where the account has no live slot, a debt, or less free stake.
    function tryLock(address account, uint96 amount) external returns (bool locked);

    /// @notice Admit an account without a live slot and without debt to one more seat of at most `value` in pay: while it has
    /// fewer than `NEWCOMER_SEATS` of them and their unpaid value with this one is at most slotWei / NEWCOMER_SHARE. Locks
    /// min(amount, what of its deposit is not locked).
    /// @return admitted False, and nothing changed, where it may not. @return locked What was locked.
    function admit(address account, uint96 amount, uint96 value) external returns (bool admitted, uint96 locked);

    /// @notice Of a newcomer's seats `value` less is unpaid; `closed`: and one fewer is open.
    /// @return slotless The account still has no live slot: its pay is stake.
    function relieve(address account, uint96 value, bool closed) external returns (bool slotless);

    /// @notice Give back a lock, or what slashing left of it. The escrow never gives back more than it took.
    function unlock(address account, uint96 amount) external;

    /// @notice `amount` of tokens that the escrow has just sent here is stake of the account: it pays its debt first, the rest
    /// goes to the deposit, and as many whole slots as the deposit then holds are appended. Nothing happens for zero.
    function deposit(address account, uint96 amount) external;

    /// @notice Take `amount` of locked stake (at most what is locked) and send it to the escrow.
    function slash(address account, uint96 amount) external;

    // ---------------------------------------------------------------- views
    /// @notice A newcomer has at most so many open seats, of at most slotWei / NEWCOMER_SHARE in unpaid value together.
    function NEWCOMER_SEATS() external view returns (uint8);
    function NEWCOMER_SHARE() external view returns (uint96);
    function token() external view returns (address);
    function escrow() external view returns (address);
    /// @notice Stake of one slot, in wei.
    function slotWei() external view returns (uint96);
    /// @notice Seconds from release to withdrawal.
    function unbondingDelay() external view returns (uint40);
    /// @notice Seconds from `setClass` until the class counts.
    function classDelay() external view returns (uint40);
    /// @notice free + locked + unbonding = all that is held for the account. Locks rest on live slots and the deposit first.
    function stakeOf(address account) external view returns (uint96 free, uint96 locked, uint96 unbonding);
    function liveSlots(address account) external view returns (uint32);
    /// @notice The nonce that the account's next relayed request must carry.
    function nonceOf(address account) external view returns (uint64);
    function depositOf(address account) external view returns (uint96);
    function debtOf(address account) external view returns (uint96);
    /// @notice Seats that the account has as a newcomer, and what they may still pay.
    function newcomerOf(address account) external view returns (uint8 seats, uint96 unpaid);
    /// @notice Whom slot `slot` draws at block `blockNumber`: zeros where it was not live then, or its account is short now.
    /// Owner and class are those of now. Refuses nothing below slotCount(); above it reverts.
    function drawn(uint256 slot, uint256 blockNumber)
        external
        view
        returns (address account, address owner, bytes32 numericClass);
    /// @notice What `withdraw` would pay now.
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
