// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Accept, AuditOrder, Lease, Messages, Order, Release} from "./generated/Messages.sol";
import {IJobEscrow} from "./interfaces/IJobEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Permit, Signature} from "./interfaces/Types.sol";

/// @title JobEscrow
/// @dev The specification is {IJobEscrow}. Token and Registry are this project's own and call nobody back; still every
/// transfer comes last.
contract JobEscrow is IJobEscrow, EIP712 {
    using SafeERC20 for IERC20;

    /// @inheritdoc IJobEscrow
    bytes32 public constant DOMAIN_JOB = keccak256("tallymesh.job.1");
    /// @inheritdoc IJobEscrow
    uint256 public constant AUDIT_FEE_MAX_BP = 11_000; // fetching and waiting cost a little more than the work
    uint256 private constant BP = 10_000;
    uint256 private constant UNAVAILABLE_SHARE = 10; // a tenth
    uint256 private constant DRAWS = 3; // the first auditor of a unit and two that confirm
    uint256 private constant POSITIONS_PER_WORD = 64; // four bits each: a draw each, and "ask _answered too"
    /// @dev Set in every credit that was ever written, so that a returning worker's slot is never cleared and set anew
    /// (5,000 gas in place of 22,100).
    uint256 private constant TOUCHED = 1 << 255;

    /// @inheritdoc IJobEscrow
    address public immutable token;
    /// @inheritdoc IJobEscrow
    address public immutable registry;
    /// @inheritdoc IJobEscrow
    uint16 public immutable feeBp;
    /// @inheritdoc IJobEscrow
    uint40 public immutable leaseMax;
    /// @inheritdoc IJobEscrow
    uint40 public immutable lockTail;
    /// @inheritdoc IJobEscrow
    uint40 public immutable windowMin;
    /// @inheritdoc IJobEscrow
    uint40 public immutable windowMax;

    /// @inheritdoc IJobEscrow
    uint256 public feesToBurn;
    mapping(bytes32 job => Job) private _jobs;
    mapping(bytes32 seat => Seat) private _seats;
    mapping(address account => uint256) private _credits;
    mapping(bytes32 seat => mapping(uint256 word => uint256)) private _audited;
    mapping(bytes32 auditOrder => bool) private _answered; // paid as UNAVAILABLE

    constructor(
        address token_,
        address registry_,
        uint16 feeBp_,
        uint40 leaseMax_,
        uint40 lockTail_,
        uint40 windowMin_,
        uint40 windowMax_
    ) EIP712("Tallymesh JobEscrow", "1") {
        if (token_ == address(0) || registry_ == address(0)) revert ZeroAddress();
        if (feeBp_ >= BP) revert BadParameter("feeBp");
        if (leaseMax_ == 0) revert BadParameter("leaseMax");
        if (windowMin_ > windowMax_) revert BadParameter("windowMin");
        token = token_;
        registry = registry_;
        feeBp = feeBp_;
        leaseMax = leaseMax_;
        lockTail = lockTail_;
        windowMin = windowMin_;
        windowMax = windowMax_;
    }

    // ---------------------------------------------------------------- a job begins

    /// @inheritdoc IJobEscrow
    function open(Order calldata order, Seating[] calldata seatings)
        public
        returns (bytes32 jobId, uint256 seated)
    {
        if (msg.sender != order.payer) revert NotPayer(msg.sender, order.payer);
        if (order.signer == address(0)) revert ZeroAddress();
        if (order.deadline < block.timestamp) revert DeadlinePassed(order.deadline);
        _checkWindow(order.claimWindow);
        _checkWindow(order.evidenceWindow);
        jobId = jobIdOf(order);
        Job storage job = _jobs[jobId];
        if (job.signer != address(0)) revert JobExists(jobId);

        job.signer = order.signer;
        job.free = order.wages;
        job.reserve = order.auditReserve;
        emit JobOpened(jobId, order.payer, order.signer, order.wages, order.auditReserve);
        seated = _seatAll(order, jobId, job, seatings);

        IERC20(token).safeTransferFrom(msg.sender, address(this), uint256(order.wages) + order.auditReserve);
    }

    /// @inheritdoc IJobEscrow
    function openWithPermit(Order calldata order, Seating[] calldata seatings, Permit calldata permit)
        external
        returns (bytes32 jobId, uint256 seated)
    {
        // Whoever saw the permit can use it first; then the allowance is there and the transfer goes through.
        try IERC20Permit(token).permit(
            msg.sender, address(this), permit.value, permit.deadline, permit.v, permit.r, permit.s
        ) {} catch {}
        return open(order, seatings);
    }

    /// @inheritdoc IJobEscrow
    function seat(Order calldata order, Seating[] calldata seatings) external returns (uint256 seated) {
        (bytes32 jobId, Job storage job) = _jobOf(order);
        seated = _seatAll(order, jobId, job, seatings);
    }

    // ---------------------------------------------------------------- pay

    /// @inheritdoc IJobEscrow
    function settle(Settlement[] calldata settlements) external returns (uint256 settled) {
        for (uint256 i = 0; i < settlements.length; ++i) {
            Settlement calldata item = settlements[i];
            bytes32 seatId = seatIdOf(item.lease);
            Refusal why = _settle(seatId, item.lease, item.accept, item.signature, false);
            if (_done(seatId, why)) ++settled;
        }
    }

    /// @inheritdoc IJobEscrow
    function payAudits(Lease calldata lease, Audit[] calldata audits) external returns (uint256 paid) {
        return _payAudits(seatIdOf(lease), lease, audits, false);
    }

    // ---------------------------------------------------------------- a seat and a job end

    /// @inheritdoc IJobEscrow
    function close(Closing[] calldata closings) external returns (uint256 closed) {
        for (uint256 i = 0; i < closings.length; ++i) {
            Closing calldata item = closings[i];
            bytes32 seatId = seatIdOf(item.lease);
            if (_done(seatId, _release(seatId, item.lease, item.release, item.signature))) ++closed;
        }
    }

    /// @inheritdoc IJobEscrow
    function expire(Order calldata order, Lease[] calldata leases) external returns (uint256 closed) {
        (bytes32 jobId,) = _jobOf(order);
        for (uint256 i = 0; i < leases.length; ++i) {
            bytes32 seatId = seatIdOf(leases[i]);
            Refusal why = leases[i].job == jobId ? _expire(seatId, jobId, order.claimWindow) : Refusal.WrongJob;
            if (_done(seatId, why)) ++closed;
        }
    }

    /// @inheritdoc IJobEscrow
    function unlock(Lease[] calldata leases) external returns (uint256 unlocked) {
        for (uint256 i = 0; i < leases.length; ++i) {
            bytes32 seatId = seatIdOf(leases[i]);
            if (_done(seatId, _unlock(seatId, leases[i]))) ++unlocked;
        }
    }

    /// @inheritdoc IJobEscrow
    function refund(Order calldata order) external returns (uint96 wages, uint96 reserve) {
        (bytes32 jobId, Job storage job) = _jobOf(order);
        if (!_mayRefund(order, job)) revert NotRefundable(msg.sender);
        return _refund(order, jobId, job);
    }

    /// @inheritdoc IJobEscrow
    function finish(Order calldata order, SeatEnd[] calldata ends) external {
        (bytes32 jobId, Job storage job) = _jobOf(order);
        bool byPayer = msg.sender == order.payer;
        for (uint256 i = 0; i < ends.length; ++i) _end(order, jobId, ends[i], byPayer);
        if (_mayRefund(order, job)) _refund(order, jobId, job);
    }

    /// @inheritdoc IJobEscrow
    function withdraw(address account) external returns (uint256 amount) {
        amount = creditOf(account);
        if (amount == 0) revert NothingToWithdraw(account);

        _credits[account] = TOUCHED;
        address to = IRegistry(registry).ownerOf(account);
        emit CreditWithdrawn(account, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc IJobEscrow
    function burnFees() external returns (uint256 amount) {
        amount = feesToBurn;
        if (amount == 0) revert NothingToBurn();

        feesToBurn = 0;
        emit FeesBurned(amount);

        ERC20Burnable(token).burn(amount);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IJobEscrow
    function jobOf(bytes32 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @inheritdoc IJobEscrow
    function seatOf(bytes32 seatId) external view returns (Seat memory) {
        return _seats[seatId];
    }

    /// @inheritdoc IJobEscrow
    function creditOf(address account) public view returns (uint256) {
        return _credits[account] & ~TOUCHED;
    }

    /// @inheritdoc IJobEscrow
    function refundable(Order calldata order) external view returns (uint96 wages, uint96 reserve) {
        (, Job storage job) = _jobOf(order);
        return (job.free, _reserveIsFree(order, job) ? job.reserve : 0);
    }

    /// @inheritdoc IJobEscrow
    function jobIdOf(Order calldata order) public view returns (bytes32) {
        bytes32 orderHash = Messages.hashCalldata(order);
        return keccak256(abi.encode(DOMAIN_JOB, block.chainid, address(this), order.payer, orderHash, order.salt));
    }

    /// @inheritdoc IJobEscrow
    function seatIdOf(Lease calldata lease) public view returns (bytes32) {
        return _hashTypedDataV4(Messages.hashCalldata(lease));
    }

    /// @inheritdoc IJobEscrow
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }

    // ---------------------------------------------------------------- internals: seats

    function _seatAll(Order calldata order, bytes32 jobId, Job storage job, Seating[] calldata seatings)
        private
        returns (uint256 seated)
    {
        for (uint256 i = 0; i < seatings.length; ++i) {
            bytes32 seatId = seatIdOf(seatings[i].lease);
            if (_done(seatId, _seat(order, jobId, job, seatId, seatings[i]))) ++seated;
        }
    }

    function _seat(Order calldata order, bytes32 jobId, Job storage job, bytes32 seatId, Seating calldata seating)
        private
        returns (Refusal)
    {
        Lease calldata lease = seating.lease;
        if (lease.job != jobId) return Refusal.WrongJob;
        if (block.timestamp > lease.seatBy || block.timestamp > order.deadline) return Refusal.TooLate;
        if (lease.until <= block.timestamp || lease.until > block.timestamp + leaseMax) return Refusal.BadTerm;
        if (lease.positions == 0) return Refusal.NoUnits;
        if (lease.lock < order.lockPerSeat) return Refusal.LockTooSmall;
        // price <= priceMax x workMs / 1000, rounded up: a payer that computes a price may round it to a whole wei.
        if (uint256(lease.price) * 1000 >= uint256(order.priceMax) * lease.workMs + 1000) return Refusal.PriceTooHigh;
        uint256 cap = uint256(lease.price) * lease.positions;
        if (cap > job.free) return Refusal.OverBudget;
        if (_seats[seatId].state != SeatState.None) return Refusal.AlreadySeated;

        bool bySigner = !_isBy(order.payer, seatId, seating.signer);
        if (bySigner && !_isBy(order.signer, seatId, seating.signer)) return Refusal.BadSignature;
        if (bySigner && job.signerSeated + cap > order.signerSeatMax) return Refusal.NeedsPayer;
        if (!_isBy(lease.worker, seatId, seating.worker)) return Refusal.BadSignature;
        if (!IRegistry(registry).tryLock(lease.worker, lease.lock)) return Refusal.NoStake;

        job.free -= uint96(cap);
        job.openSeats += 1;
        if (bySigner) job.signerSeated += uint96(cap);
        _seats[seatId] = Seat(lease.price, lease.positions, 0, lease.until, SeatState.Open, bySigner);
        emit SeatOpened(seatId, jobId, lease.worker, lease.price, lease.positions, lease.lock, lease.until);
        return Refusal.None;
    }

    /// @param byPayer The caller is this job's payer: its word needs no signature.
    function _settle(
        bytes32 seatId,
        Lease calldata lease,
        Accept calldata accept,
        Signature calldata signature,
        bool byPayer
    ) private returns (Refusal) {
        Seat memory found = _seats[seatId];
        if (found.state != SeatState.Open) return Refusal.NotOpen;
        if (accept.seat != seatId) return Refusal.WrongSeat;
        uint40 units = accept.units < found.units ? accept.units : found.units;
        if (units <= found.paidUnits) return Refusal.NothingNew;
        if (!byPayer && !_isBy(_jobs[lease.job].signer, _hashTypedDataV4(Messages.hashCalldata(accept)), signature)) {
            return Refusal.BadSignature;
        }

        uint96 amount = (units - found.paidUnits) * found.price; // at most the cap, which was in free wages once
        // Of all that was paid on the seat, less what was taken before: in however many parts, the fee is the same.
        uint96 fee = uint96(_feeDown(uint256(units) * found.price) - _feeDown(uint256(found.paidUnits) * found.price));
        found.paidUnits = units;
        _credit(lease.worker, amount - fee);
        feesToBurn += fee;
        emit Settled(seatId, lease.worker, accept.tally, units, amount, fee, accept.chain);
        if (units == found.units) _close(seatId, lease.job, found);
        else _seats[seatId] = found;
        return Refusal.None;
    }

    function _feeDown(uint256 amount) private view returns (uint256) {
        return amount * feeBp / BP;
    }

    function _release(bytes32 seatId, Lease calldata lease, Release calldata release, Signature calldata signature)
        private
        returns (Refusal)
    {
        Seat memory found = _seats[seatId];
        if (found.state != SeatState.Open) return Refusal.NotOpen;
        if (release.seat != seatId) return Refusal.WrongSeat;
        if (release.units > found.paidUnits) return Refusal.NotPaidYet;
        if (!_isBy(lease.worker, _hashTypedDataV4(Messages.hashCalldata(release)), signature)) {
            return Refusal.BadSignature;
        }

        _close(seatId, lease.job, found);
        return Refusal.None;
    }

    function _expire(bytes32 seatId, bytes32 jobId, uint40 claimWindow) private returns (Refusal) {
        Seat memory found = _seats[seatId];
        if (found.state != SeatState.Open) return Refusal.NotOpen;
        if (block.timestamp <= uint256(found.until) + claimWindow) return Refusal.TooEarly;

        _close(seatId, jobId, found);
        return Refusal.None;
    }

    /// @dev The unpaid part of an open seat goes back to the free wages. `found` is the seat as it is to be stored.
    function _close(bytes32 seatId, bytes32 jobId, Seat memory found) private {
        Job storage job = _jobs[jobId];
        uint96 returned = (found.units - found.paidUnits) * found.price;
        job.free += returned;
        if (found.bySigner) job.signerSeated -= returned;
        job.openSeats -= 1;
        job.lastClosed = uint40(block.timestamp);
        found.state = SeatState.Closed;
        found.until = uint40(block.timestamp);
        _seats[seatId] = found;
        emit SeatClosed(seatId, jobId, found.paidUnits, returned);
    }

    function _unlock(bytes32 seatId, Lease calldata lease) private returns (Refusal) {
        Seat storage found = _seats[seatId];
        if (found.state != SeatState.Closed) return Refusal.NotOpen;
        if (block.timestamp < uint256(found.until) + lockTail) return Refusal.TooEarly;

        found.state = SeatState.Unlocked;
        IRegistry(registry).unlock(lease.worker, lease.lock);
        emit LockEnded(seatId, lease.worker, lease.lock);
        return Refusal.None;
    }

    // ---------------------------------------------------------------- internals: audits

    function _payAudits(bytes32 seatId, Lease calldata lease, Audit[] calldata audits, bool byPayer)
        private
        returns (uint256 paid)
    {
        for (uint256 i = 0; i < audits.length; ++i) {
            bytes32 orderId = _hashTypedDataV4(Messages.hashCalldata(audits[i].order));
            if (_done(orderId, _payAudit(seatId, lease, orderId, audits[i], byPayer))) ++paid;
        }
    }

    function _payAudit(bytes32 seatId, Lease calldata lease, bytes32 orderId, Audit calldata audit, bool byPayer)
        private
        returns (Refusal)
    {
        AuditOrder calldata order = audit.order;
        uint8 result = audit.verdict.result;
        if (order.seat != seatId) return Refusal.WrongSeat;
        if (_seats[seatId].state == SeatState.None) return Refusal.NotOpen;
        if (order.position >= lease.positions || order.draw >= DRAWS) return Refusal.BadAudit;
        if (audit.verdict.auditOrder != orderId) return Refusal.BadAudit;
        if (result < Messages.RESULT_MATCH || result > Messages.RESULT_UNAVAILABLE) return Refusal.BadAudit;
        if (uint256(order.fee) * BP > uint256(lease.price) * AUDIT_FEE_MAX_BP) return Refusal.PriceTooHigh;
        Job storage job = _jobs[lease.job];
        address signer = job.signer;
        if (order.auditor == lease.worker || order.auditor == signer) return Refusal.BadAudit;
        if (!byPayer && !_isBy(signer, orderId, audit.orderSignature)) return Refusal.BadSignature;
        bytes32 verdictId = _hashTypedDataV4(Messages.hashCalldata(audit.verdict));
        if (!_isBy(order.auditor, verdictId, audit.verdictSignature)) return Refusal.BadSignature;

        bool available = result != Messages.RESULT_UNAVAILABLE;
        uint96 amount = available ? order.fee : uint96(order.fee / UNAVAILABLE_SHARE);
        if (amount > job.reserve) return Refusal.OverBudget;
        if (!_markPaid(seatId, orderId, order.position, order.draw, available)) return Refusal.AlreadyPaid;
        job.reserve -= amount;
        _credit(order.auditor, amount);
        emit AuditPaid(orderId, seatId, order.auditor, order.position, result, amount);
        return Refusal.None;
    }

    /// @dev False, and nothing changed, where this order or (in full) this draw of this position was paid before.
    function _markPaid(bytes32 seatId, bytes32 orderId, uint40 position, uint8 draw, bool available)
        private
        returns (bool)
    {
        uint256 shift = (position % POSITIONS_PER_WORD) * 4;
        uint256 word = _audited[seatId][position / POSITIONS_PER_WORD];
        uint256 inFull = 1 << (shift + draw);
        uint256 askAnswered = 1 << (shift + DRAWS);
        if (word & inFull != 0) return false;
        if (word & askAnswered != 0 && _answered[orderId]) return false;
        if (!available) _answered[orderId] = true;
        _audited[seatId][position / POSITIONS_PER_WORD] = word | (available ? inFull : askAnswered);
        return true;
    }

    // ---------------------------------------------------------------- internals: jobs and credits

    function _end(Order calldata order, bytes32 jobId, SeatEnd calldata item, bool byPayer) private {
        bytes32 seatId = seatIdOf(item.lease);
        if (item.lease.job != jobId) {
            emit Refused(seatId, Refusal.WrongJob);
            return;
        }
        if (item.accept.units != 0) {
            _done(seatId, _settle(seatId, item.lease, item.accept, item.acceptSignature, byPayer));
        }
        _payAudits(seatId, item.lease, item.audits, byPayer);
        if (_seats[seatId].state != SeatState.Open) return;
        if (item.release.seat != 0) {
            if (_done(seatId, _release(seatId, item.lease, item.release, item.releaseSignature))) return;
        }
        _expire(seatId, jobId, order.claimWindow); // where its time has come; else it stays open, which is no refusal
    }

    /// @dev Strangers must wait until nobody can want the wages any more: a refund right after `open` would starve it.
    function _mayRefund(Order calldata order, Job storage job) private view returns (bool) {
        if (msg.sender == order.payer || msg.sender == order.signer) return true;
        return block.timestamp > order.deadline && job.openSeats == 0;
    }

    function _refund(Order calldata order, bytes32 jobId, Job storage job)
        private
        returns (uint96 wages, uint96 reserve)
    {
        wages = job.free;
        if (wages != 0) job.free = 0;
        if (_reserveIsFree(order, job)) {
            reserve = job.reserve;
            job.reserve = 0;
        }
        if (wages + reserve == 0) return (0, 0);
        _credit(order.payer, wages + reserve);
        emit Refunded(jobId, order.payer, wages, reserve);
    }

    function _reserveIsFree(Order calldata order, Job storage job) private view returns (bool) {
        return job.openSeats == 0 && block.timestamp >= uint256(job.lastClosed) + order.evidenceWindow;
    }

    function _jobOf(Order calldata order) private view returns (bytes32 jobId, Job storage job) {
        jobId = jobIdOf(order);
        job = _jobs[jobId];
        if (job.signer == address(0)) revert NoSuchJob(jobId);
    }

    function _credit(address account, uint256 amount) private {
        _credits[account] = (_credits[account] | TOUCHED) + amount;
    }

    function _checkWindow(uint40 window) private view {
        if (window < windowMin || window > windowMax) revert WindowOutOfBounds(window, windowMin, windowMax);
    }

    // ---------------------------------------------------------------- internals: items and signatures

    function _done(bytes32 id, Refusal why) private returns (bool) {
        if (why == Refusal.None) return true;
        emit Refused(id, why);
        return false;
    }

    /// @dev The account says it: it is the caller, or this is its signature.
    function _isBy(address account, bytes32 digest, Signature calldata signature) private view returns (bool) {
        if (account == address(0)) return false;
        return msg.sender == account || _recover(digest, signature) == account;
    }

    /// @dev Zero where the signature is malformed.
    function _recover(bytes32 digest, Signature calldata signature) private pure returns (address signer) {
        (signer,,) = ECDSA.tryRecover(digest, signature.r, signature.vs);
    }
}
