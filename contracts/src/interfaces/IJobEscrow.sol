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
/// changes nothing. The calls return how many items took effect. Order and repetition never matter.
///
/// Signatures of the signer may be left zero where the caller is the signer (in `open`, `seat` and `finish` also the
/// payer); the worker's or auditor's own may be left zero where the caller is that worker or auditor.
///
/// Money. `open` is the only way in, `withdraw` and `burnFees` are the only ways out. At any time the balance of this
/// contract is at least the sum of what all jobs hold + all credits + fees to burn, and for every job
/// (held = opened - settled - audits paid - refunded) held = free + reserve + sum over open seats of (units - paidUnits) x price.
/// Nothing that another worker, an auditor or the payer does lowers the unpaid part of an open seat.
/// @dev EIP-712 domain: name "Tallymesh JobEscrow", version "1". Time is `block.timestamp`. No privileged key.
interface IJobEscrow {
    // ---------------------------------------------------------------- types
    /// @notice What a job holds outside its open seats, and what the escrow must remember of it. `signer` zero: never opened.
    struct Job {
        address signer;
        uint96 free; // wages that no open seat holds
        uint96 reserve; // for audits
        uint96 signerSeated; // caps of seats taken without the payer's key, less what they gave back
        uint24 openSeats;
        uint40 lastClosed; // when the newest seat closed
    }

    enum SeatState {
        None,
        Open,
        Closed, // pays no more; the lock still holds
        Unlocked // the lock was given back
    }

    /// @notice One word. cap = price x units; `until` is the end of the lease and, once closed, the time of closing.
    struct Seat {
        uint96 price;
        uint40 units;
        uint40 paidUnits;
        uint40 until;
        SeatState state;
        bool bySigner; // taken without the payer's key
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
        PriceTooHigh, // above the order's priceMax, or a fee above 1.1 unit prices
        OverBudget, // cap above what is free, or fee above the reserve
        NeedsPayer, // above signerSeatMax in all
        NoStake, // the worker has no live slot, or too little free stake
        BadSignature,
        NothingNew, // no more units than were paid before
        NotPaidYet, // the Release names more units than were paid
        BadAudit, // position, draw, result or auditor cannot be
        AlreadyPaid
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
    /// @notice `returned` went back to the job's free wages.
    event SeatClosed(bytes32 indexed seat, bytes32 indexed job, uint40 paidUnits, uint96 returned);
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
    event FeesBurned(uint256 amount);
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

    // ---------------------------------------------------------------- a job begins
    /// @notice Fund a job with `wages + auditReserve` of the caller's tokens (approved before) and take its first seats.
    /// @dev Reverts: the caller is not the payer, no signer, the job exists, deadline passed, windows out of bounds, no funds.
    function open(Order calldata order, Seating[] calldata seatings) external returns (bytes32 job, uint256 seated);

    /// @notice The same in one transaction. A permit that was already used is no error while the allowance suffices.
    function openWithPermit(Order calldata order, Seating[] calldata seatings, Permit calldata permit)
        external
        returns (bytes32 job, uint256 seated);

    /// @notice Take further seats, by anyone who has the signatures. Each seat moves price x positions from the job's free
    /// wages into the seat and locks the worker's stake.
    function seat(Order calldata order, Seating[] calldata seatings) external returns (uint256 seated);

    // ---------------------------------------------------------------- pay
    /// @notice Pay accepted units, for any number of workers and jobs, by anyone: a seat's paid units become the highest
    /// accepted number, at most its units. A seat whose units are all paid closes.
    function settle(Settlement[] calldata settlements) external returns (uint256 settled);

    /// @notice Pay auditors of one seat's units from the job's reserve. Each (position, draw) is paid in full once, whatever
    /// the verdict; UNAVAILABLE earns a tenth, once per AuditOrder, while its draw was not yet paid in full.
    /// @dev Draws 0, 1 and 2 are paid; later ones are the payer's own.
    function payAudits(Lease calldata lease, Audit[] calldata audits) external returns (uint256 paid);

    // ---------------------------------------------------------------- a seat and a job end
    /// @notice Close seats by the worker's Release, once the units that it names are paid. By anyone.
    function close(Closing[] calldata closings) external returns (uint256 closed);

    /// @notice Close seats whose lease ended a claim window ago. By anyone.
    function expire(Order calldata order, Lease[] calldata leases) external returns (uint256 closed);

    /// @notice Give the locks of seats back that closed at least `lockTail` seconds ago. By anyone.
    function unlock(Lease[] calldata leases) external returns (uint256 unlocked);

    /// @notice Credit the payer with the free wages and, when no seat is open and an evidence window has passed since the
    /// last one closed, with the rest of the reserve.
    function refund(Order calldata order) external returns (uint96 wages, uint96 reserve);

    /// @notice Settle, pay audits, close and (where the caller may) refund, in one transaction.
    function finish(Order calldata order, SeatEnd[] calldata ends) external;

    /// @notice Pay out an account's credit to its owner (Registry.ownerOf). By anyone.
    function withdraw(address account) external returns (uint256 amount);

    /// @notice Burn the fees that have gathered. By anyone.
    function burnFees() external returns (uint256 amount);

    // ---------------------------------------------------------------- views
    function DOMAIN_JOB() external view returns (bytes32);
    /// @notice An auditor's fee is at most this share of the seat's price.
    function AUDIT_FEE_MAX_BP() external view returns (uint256);
    function token() external view returns (address);
    function registry() external view returns (address);
    /// @notice Share of a worker's credit that is burned, rounded down over all that its seat was paid.
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
    function feesToBurn() external view returns (uint256);
    function jobIdOf(Order calldata order) external view returns (bytes32);
    function seatIdOf(Lease calldata lease) external view returns (bytes32);
    /// @notice The EIP-712 domain separator in force.
    function domainSeparator() external view returns (bytes32);
}
