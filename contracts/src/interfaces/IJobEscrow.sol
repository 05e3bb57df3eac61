// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Accept, AuditOrder, Lease, Order, Release, Verdict} from "../generated/Messages.sol";
import {Permit, Signature} from "./Types.sol";

/// @title JobEscrow: holds a job's budget, pays for accepted units, returns the rest.
/// @notice A job is known by `jobId = keccak(abi.encode(DOMAIN_JOB, chainId, this, payer, hashStruct(order), salt))`, a seat
/// (one lease's part of the budget) by the EIP-712 digest of its Lease, used once for ever. Neither stores what the messages
/// already say: a call that needs a field of the order or the lease passes the message, and the id proves it.
///
/// Batches. A call with several items does those that can be done; each other one emits {Refused} with the reason and
/// changes nothing. The calls return how many items took effect. Order and repetition never matter. The reason is the first
/// that holds in the order that the call names. A call's own event comes before those of the contracts that it calls, and
/// transfers of tokens come last.
///
/// Signatures of the signer may be left zero where the caller is the signer (in `open`, `seat` and `finish` also the
/// payer); the worker's or auditor's own may be left zero where the caller is that worker or auditor. Such a caller is
/// believed whatever signature comes along; for a seat the payer's word (as caller or signed) goes before the signer's.
///
/// Money. `open` and slashed stake are the only ways in; `withdraw`, `burnFees`, the stake of newcomers and relayed bonds
/// (both to Registry), and the burned part of slashed stake are the only ways out. At any time the balance of this contract
/// is the sum of what all jobs hold + all credits + 2 x feesToBurn, and for every job (held = opened - settled - audits paid
/// - bonds taken - refunded)
///   held = free + reserve + sum over open seats of (units - paidUnits) x price + sum over all seats of seat.bond.
/// Nothing that another worker, an auditor or the payer does lowers the unpaid part of an open seat.
///
/// Fee. For `units` units paid on a seat in all: `half = units x price x feeBp / 20000`, rounded down; the seat has paid fees of
/// 2 x half in all, so in however many parts it is paid, the fee is the same. One half is burned and counts for the worker in
/// the running period (`burnedOf`), the other is the court's. Both gather here until `burnFees`.
///
/// Cases. A live claim or accusation on a seat is a case; its contract (Claims, Accusations) opens it with `hold` and
/// ends it with `letGo`. While a seat has a claim (a case that `claims` holds: at most one at a time) it neither closes by
/// Release, by time nor by being paid in full, and keeps its bond when it is forfeited, for a claim may still pay out of both.
/// While it has any case its lock does not end. Accusations touch no more than that, and none begins after the lock's tail: or
/// friends could keep the payer's money in the seat for ever by accusing one after the other. `settle` always pays. All that
/// was put off happens as usual once the case is let go. Both are trusted by this contract for what they
/// say of a case (who proved, how much), but can move no more than the seat's unpaid part, its bond and its lock.
///
/// Newcomers. Where the order allows them, a worker without a live slot and without debt may be seated: see
/// {IRegistry.admit}. What its seats pay goes to Registry as its stake while it has no live slot, and is credited afterwards.
/// @dev EIP-712 domain: name "Tallymesh JobEscrow", version "1". Time is `block.timestamp`. No privileged key: `claims`,
/// `accusations` and `court` are contracts, named at construction for ever.
interface IJobEscrow {
    // ---------------------------------------------------------------- types
    /// @notice What a job holds outside its open seats, and what the escrow must remember of it. `signer` zero: never opened.
    struct Job {
        address signer;
        uint96 free; // wages that no open seat holds
        uint96 reserve; // for audits
        uint96 signerSeated; // caps and bonds of seats taken without the payer's key, less what they gave back
        uint24 openSeats;
        uint40 lastClosed; // when the newest seat closed
    }

    enum SeatState {
        None,
        Open,
        Closed, // pays no more; the lock still holds
        Unlocked // what was left of the lock was given back
    }

    /// @notice One word. cap = lease.price x units; `until` is the end of the lease and, once closed, the time of closing.
    struct Seat {
        uint96 bond; // the payer's side of claims: what is left of order.claimBond; zero once closed without a live claim
        uint40 units;
        uint40 paidUnits;
        uint40 until;
        SeatState state;
        uint8 cases; // live claims and accusations
        bool bySigner; // taken without the payer's key
        bool ownLock; // the lock is not lease.lock: part of it was slashed, or a newcomer had less
        bool newcomer; // admitted without a slot
    }

    /// @notice Why an item of a batch was not done.
    enum Refusal {
        None,
        WrongJob, // the lease is of another job
        WrongSeat, // the message is of another seat
        NotOpen, // the seat was never taken, or is closed
        AlreadySeated, // this lease was used before
        TooLate, // after seatBy, or after the order's deadline
        TooEarly, // the window has not passed
        BadTerm, // until is not in (now, now + leaseMax]
        NoUnits,
        LockTooSmall, // below the order's lockPerSeat
        PriceTooHigh, // above ceil(priceMax x workMs / 1000), or a fee above 1.1 unit prices
        OverBudget, // cap and claim bond above what is free, or fee above the reserve
        NeedsPayer, // above signerSeatMax in all
        NoStake, // the worker has no live slot, a debt, or too little free stake; or a newcomer is not admitted
        BadSignature,
        NothingNew, // no more units than were paid before, or of so few wei that they do not cover their fee
        NotPaidYet, // the Release names more units than were paid
        BadAudit, // position, draw, result or auditor cannot be
        AlreadyPaid,
        Disputed // the seat has a live claim; for `unlock`: any live case
    }

    /// @notice A lease to seat. `signer`: by the job's signer, or by the payer, which lifts the bound of `signerSeatMax`.
    struct Seating {
        Lease lease;
        Signature worker;
        Signature signer;
    }

    struct Settlement {
        Lease lease;
        Accept accept;
        Signature signature; // the signer's
    }

    struct Closing {
        Lease lease;
        Release release;
        Signature signature; // the worker's
    }

    struct Audit {
        AuditOrder order;
        Signature orderSignature; // the signer's
        Verdict verdict;
        Signature verdictSignature; // the auditor's
    }

    /// @notice All that ends one seat. Left zero: `accept` with no units, `release` with no seat, no audits.
    struct SeatEnd {
        Lease lease;
        Accept accept;
        Signature acceptSignature;
        Release release;
        Signature releaseSignature;
        Audit[] audits;
    }

    // ---------------------------------------------------------------- events
    event JobOpened(
        bytes32 indexed job, address indexed payer, address indexed signer, uint96 wages, uint96 auditReserve
    );
    event SeatOpened(
        bytes32 indexed seat,
        bytes32 indexed job,
        address indexed worker,
        uint96 price,
        uint40 units,
        uint96 lock,
        uint40 until
    );
    /// @notice The worker was credited `amount - fee` for the units up to `units`; `chain` is the value that proves a receipt.
    event Settled(
        bytes32 indexed seat,
        address indexed worker,
        uint32 tally,
        uint40 units,
        uint96 amount,
        uint96 fee,
        bytes32 chain
    );
    /// @notice `returned` went back to the job's free wages: the unpaid part and, where the seat has no live claim, its bond.
    /// (Of a seat that was closed by `forfeit` under a claim the bond follows with that claim's {LetGo}, see {BondReturned}.)
    event SeatClosed(bytes32 indexed seat, bytes32 indexed job, uint40 paidUnits, uint96 returned);
    /// @notice The bond's rest went back to the job's free wages after the claim of a closed seat.
    event BondReturned(bytes32 indexed seat, bytes32 indexed job, uint96 amount);
    event AuditPaid(
        bytes32 indexed auditOrder,
        bytes32 indexed seat,
        address indexed auditor,
        uint40 position,
        uint8 result,
        uint96 amount
    );
    event Refunded(bytes32 indexed job, address indexed payer, uint96 wages, uint96 reserve);
    event LockEnded(bytes32 indexed seat, address indexed worker, uint96 lock);
    event CreditWithdrawn(address indexed account, address indexed to, uint256 amount);
    /// @notice `amount` was burned, and as much was credited to the court.
    event FeesBurned(uint256 amount);
    /// @notice A case began or ended; the seat now has `cases` of them.
    event Held(bytes32 indexed seat, uint8 cases);
    event LetGo(bytes32 indexed seat, uint8 cases);
    /// @notice Claims spent this much of the seat's bond: `to` was credited.
    event BondTaken(bytes32 indexed seat, address indexed to, uint96 amount);
    /// @notice Stake of the worker was slashed. The four parts add up to `amount`; `burned` left the supply at once.
    event Slashed(
        bytes32 indexed seat,
        address indexed worker,
        address indexed prover,
        address payer,
        uint96 amount,
        uint96 toPayer,
        uint96 toProver,
        uint96 toCourt,
        uint96 burned
    );
    /// @notice Registry took `amount` of the account's credit, for its stake or for its owner, and the carrier got `fee` of it beside that.
    event CreditSpent(address indexed account, address indexed carrier, uint96 amount, uint96 fee);
    /// @notice The pay of a newcomer's seat became its stake.
    event Staked(address indexed account, uint96 amount);
    /// @notice `id` is the seat's, or for an audit the digest of its AuditOrder.
    event Refused(bytes32 indexed id, Refusal why);

    // ---------------------------------------------------------------- errors
    error ZeroAddress();
    error BadParameter(bytes32 name);
    error NotPayer(address caller, address payer);
    error JobExists(bytes32 job);
    error NoSuchJob(bytes32 job);
    error DeadlinePassed(uint40 deadline);
    error WindowOutOfBounds(uint40 window, uint40 min, uint40 max);
    /// @notice Others than payer and signer may refund once the deadline has passed and no seat is open.
    error NotRefundable(address caller);
    error NothingToWithdraw(address account);
    error NothingToBurn();
    error NotClaims(address caller);
    /// @notice The lease is not of this order's job.
    error NotOfJob(bytes32 seat, bytes32 job);
    /// @notice The seat was never taken, its lock is over, or (`letGo`) it has no case.
    error NotHeld(bytes32 seat);
    error TooManyCases(bytes32 seat);
    error NotRegistry(address caller);
    error BadList(uint256 left, uint256 right);
    error TooLittleCredit(address account, uint256 credit);

    // ---------------------------------------------------------------- a job begins
    /// @notice Fund a job with `wages + auditReserve` of the caller's tokens (approved before) and take its first seats.
    /// @dev Reverts: the caller is not the payer, no signer, the job exists, deadline passed, windows out of bounds, no funds.
    function open(Order calldata order, Seating[] calldata seatings) external returns (bytes32 job, uint256 seated);

    /// @notice The same in one transaction. A permit that was already used is no error while the allowance suffices.
    function openWithPermit(Order calldata order, Seating[] calldata seatings, Permit calldata permit)
        external
        returns (bytes32 job, uint256 seated);

    /// @notice Take further seats, by anyone who has the signatures. Each seat moves price x positions from the job's free
    /// wages into the seat, together with the order's claim bond, and locks the worker's stake. A worker without a live slot
    /// is seated where `order.newcomers` and {IRegistry.admit} allow it.
    /// @dev What an item is refused for, in this order: WrongJob, TooLate, BadTerm, NoUnits, LockTooSmall, PriceTooHigh,
    /// OverBudget, AlreadySeated, BadSignature (neither payer nor signer), NeedsPayer, BadSignature (the worker's), NoStake.
    function seat(Order calldata order, Seating[] calldata seatings) external returns (uint256 seated);

    // ---------------------------------------------------------------- pay
    /// @notice Pay accepted units, for any number of workers and jobs, by anyone: a seat's paid units become the highest
    /// accepted number, at most its units. A seat whose units are all paid closes, unless it has a live claim.
    /// @dev Refused for, in this order: NotOpen, WrongSeat, NothingNew, BadSignature.
    function settle(Settlement[] calldata settlements) external returns (uint256 settled);

    /// @notice Pay auditors of one seat's units from the job's reserve. Each (position, draw) is paid in full once, whatever
    /// the verdict; UNAVAILABLE earns a tenth, once per AuditOrder, while its draw was not yet paid in full.
    /// @dev Draws 0, 1 and 2 are paid; later ones are the payer's own. Refused for, in this order: WrongSeat, NotOpen (never
    /// taken), BadAudit (a verdict on another order, result, position, draw), PriceTooHigh, BadAudit (the auditor is worker or
    /// signer), BadSignature, OverBudget, AlreadyPaid.
    function payAudits(Lease calldata lease, Audit[] calldata audits) external returns (uint256 paid);

    // ---------------------------------------------------------------- a seat and a job end
    /// @notice Close seats by the worker's Release, once the units that it names are paid. By anyone. Not while it has a live claim.
    /// @dev Refused for, in this order: NotOpen, WrongSeat, NotPaidYet, BadSignature, Disputed.
    function close(Closing[] calldata closings) external returns (uint256 closed);

    /// @notice Close seats whose lease ended more than a claim window ago. By anyone. Not while it has a live claim.
    /// @dev Refused for, in this order: WrongJob, NotOpen, TooEarly, Disputed.
    function expire(Order calldata order, Lease[] calldata leases) external returns (uint256 closed);

    /// @notice Give back what is left of the locks of seats that closed at least `lockTail` seconds ago. By anyone. Not while
    /// the seat has cases.
    /// @dev Refused for, in this order: NotOpen (not closed, or unlocked before), TooEarly, Disputed. {LockEnded} says how
    /// much was given back.
    function unlock(Lease[] calldata leases) external returns (uint256 unlocked);

    /// @notice Credit the payer with the free wages and, when no seat is open and an evidence window has passed since the
    /// last one closed, with the rest of the reserve. Where that is nothing, nothing is logged.
    function refund(Order calldata order) external returns (uint96 wages, uint96 reserve);

    /// @notice Settle, pay audits, close and (where the caller may) refund, in one transaction. A seat without a Release, or
    /// whose Release was refused, is closed all the same where its time has come (as by `expire`).
    /// @dev Of an end with a lease of another job nothing is done (WrongJob); on a seat that is no longer open its Release is
    /// passed over in silence.
    function finish(Order calldata order, SeatEnd[] calldata ends) external;

    /// @notice Pay out an account's credit to its owner (Registry.ownerOf). By anyone.
    function withdraw(address account) external returns (uint256 amount);

    /// @notice Burn the half of the fees that has gathered and credit the other, equal half to the court. By anyone.
    /// @return amount What was burned.
    function burnFees() external returns (uint256 amount);

    // ---------------------------------------------------------------- calls of Claims and Accusations: {NotClaims} for others
    /// @notice Begin a case on a seat: proves that the lease is of this order's job, and adds to its cases. Possible while the
    /// seat is open, or closed and still within its lock's tail (now < until + lockTail), whatever cases it has.
    /// @dev Reverts: {NoSuchJob}, {NotOfJob}, {NotHeld}, {TooManyCases} above `CASES_MAX`.
    /// @return seatId Digest of the lease. @return found The seat, this case included.
    function hold(Order calldata order, Lease calldata lease) external returns (bytes32 seatId, Seat memory found);

    /// @notice End a case: the caller's. Where no claim is left: an open seat whose units are all paid closes; a closed seat's bond
    /// goes back to the job's free wages.
    /// @dev Reverts: {NotHeld} where the seat has no case.
    function letGo(Lease calldata lease) external;

    /// @notice Pay a claim as `settle` pays an Accept: paidUnits becomes max(paidUnits, min(unitsTo, units)), with the same
    /// fee and the same event {Settled}. Never reverts for the state of the seat: on one that is not open it pays nothing.
    /// @return amount What the seat paid, fee included; zero where there is nothing new.
    function payClaim(Lease calldata lease, uint32 tally, uint40 unitsTo, bytes32 chain)
        external
        returns (uint96 amount);

    /// @notice Credit parts of the seat's bond, in order, each at most what is left of it. Never reverts for want of money.
    /// @dev Reverts: {BadList} where the two lists differ in length; {NotHeld} where the seat has no case.
    /// @return taken What was credited in all.
    function takeBond(Lease calldata lease, address[] calldata to, uint96[] calldata amounts)
        external
        returns (uint96 taken);

    /// @notice The seat pays no more: its unpaid part goes back to the job's free wages at once, and its bond too, or with the
    /// end of a live claim.
    /// On a seat that is not open it does nothing.
    /// @dev Reverts: {NotHeld} where the seat has no case.
    function forfeit(Lease calldata lease) external;

    /// @notice Slash the seat's lock by `amount`, at most what is left of it: 40 % credited to the payer, 20 % to the prover,
    /// 15 % to the court (burned where `toCourt` is false), each rounded down, the rest burned at once.
    /// @param payer Of the job, as `hold` proved it to the caller.
    /// @dev Reverts: {NotHeld} where the seat has no case (so the lock cannot have ended).
    /// @return slashed What was taken; zero where nothing was left, then nothing else happens.
    function slash(Lease calldata lease, uint96 amount, address payer, address prover, bool toCourt)
        external
        returns (uint96 slashed);

    // ---------------------------------------------------------------- calls of Registry: reverts with {NotRegistry} for others
    /// @notice Send `amount` of the account's credit to Registry (type(uint96).max: all of it beside the fee), and credit the fee,
    /// out of the same credit, to the carrier. Registry has checked the owner's signature ({IRegistry.bondFor},
    /// {IRegistry.withdrawFor}).
    /// @dev Reverts: {TooLittleCredit}.
    /// @return spent What was sent.
    function spend(address account, uint96 amount, address carrier, uint96 fee) external returns (uint96 spent);

    // ---------------------------------------------------------------- views
    function DOMAIN_JOB() external view returns (bytes32);
    /// @notice An auditor's fee is at most this share of the seat's price.
    function AUDIT_FEE_MAX_BP() external view returns (uint256);
    function token() external view returns (address);
    function registry() external view returns (address);
    function claims() external view returns (address);
    /// @notice The other contract that may call what Claims may: claims and accusations do not fit into one of 20 kB.
    function accusations() external view returns (address);
    /// @notice Credited with its half of the fees and its share of slashed stake.
    function court() external view returns (address);
    /// @notice A seat has at most so many live cases, of which accusations leave two to others ({IAccusations.accuse}).
    function CASES_MAX() external view returns (uint8);
    /// @notice Length of a period, in seconds: period = block.timestamp / periodLength.
    function periodLength() external view returns (uint40);
    /// @notice Burned fees on the pay of this worker, and of all, in one period (the running one: so far).
    function burnedOf(uint256 period, address worker) external view returns (uint96);
    function burnedIn(uint256 period) external view returns (uint96);
    /// @notice What is left of the lock of this lease's seat; zero where it was never taken or is unlocked.
    function lockLeft(Lease calldata lease) external view returns (uint96);
    /// @notice Share of a worker's credit that is kept as fee.
    function feeBp() external view returns (uint16);
    /// @notice Longest lease, in seconds from its seating.
    function leaseMax() external view returns (uint40);
    /// @notice Seconds for which a lock outlives its seat.
    function lockTail() external view returns (uint40);
    /// @notice Bounds of an order's claim and evidence windows.
    function windowMin() external view returns (uint40);
    function windowMax() external view returns (uint40);
    function jobOf(bytes32 job) external view returns (Job memory);
    function seatOf(bytes32 seat) external view returns (Seat memory);
    function creditOf(address account) external view returns (uint256);
    /// @notice What `refund` would return now if the payer called it.
    function refundable(Order calldata order) external view returns (uint96 wages, uint96 reserve);
    /// @notice What `burnFees` would burn now; as much again is the court's.
    function feesToBurn() external view returns (uint256);
    function jobIdOf(Order calldata order) external view returns (bytes32);
    function seatIdOf(Lease calldata lease) external view returns (bytes32);
    /// @notice The EIP-712 domain separator in force.
    function domainSeparator() external view returns (bytes32);
}
