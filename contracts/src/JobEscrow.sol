// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Accept, AuditOrder, Lease, Messages, Order, Release} from "./generated/Messages.sol";
import {Domain} from "./Domain.sol";
import {IJobEscrow} from "./interfaces/IJobEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Permit, Signature} from "./interfaces/Types.sol";

/// @title JobEscrow
/// @dev The specification is {IJobEscrow}. Token and Registry are this project's own and call nobody back; still every
/// transfer comes last.
contract JobEscrow is IJobEscrow, Domain {
    using SafeERC20 for IERC20;

    /// @inheritdoc IJobEscrow
    bytes32 public constant DOMAIN_JOB = keccak256("tallymesh.job.1");
    /// @inheritdoc IJobEscrow
    uint256 public constant AUDIT_FEE_MAX_BP = 11_000; // fetching and waiting cost a little more than the work
    uint256 private constant BP = 10_000;
    uint256 private constant UNAVAILABLE_SHARE = 10; // a tenth
    uint256 private constant DRAWS = 3; // the first auditor of a unit and two that confirm
    uint256 private constant POSITIONS_PER_WORD = 64; // four bits each: a draw each, and "ask _answered too"
    /// @inheritdoc IJobEscrow
    uint8 public constant CASES_MAX = 255;
    // of slashed stake; what is left of it is burned
    uint256 private constant PAYER_SHARE = 40;
    uint256 private constant PROVER_SHARE = 20;
    uint256 private constant COURT_SHARE = 15;

    // A credit is one word, so that noting the burned fee costs nothing beside crediting the pay: amount u96, burned u96 in the
    // period u40, and a mark. Never cleared once written, so that a returning worker's word is never set anew (5,000 gas in
    // place of 22,100).
    uint256 private constant STATE = 216; // where it is in a seat's word
    uint256 private constant TOUCHED = 1 << 255; // in every credit that was ever written

    /// @inheritdoc IJobEscrow
    address public immutable token;
    /// @inheritdoc IJobEscrow
    address public immutable registry;
    /// @inheritdoc IJobEscrow
    address public immutable claims;
    /// @inheritdoc IJobEscrow
    address public immutable accusations;
    /// @inheritdoc IJobEscrow
    address public immutable court;
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
    uint40 public immutable periodLength;

    mapping(bytes32 job => Job) private _jobs;
    // Words, packed here: the compiler writes a struct member by member, 200 gas each.
    mapping(bytes32 seat => uint256) private _seats; // see _load
    mapping(address account => uint256) private _credits;
    uint256 private _fees; // as a credit: gathered, to burn and as much for the court; burned in the period
    mapping(bytes32 seat => uint96) private _locks; // of seats with `ownLock`: what is left
    mapping(bytes32 seat => bool) private _claimed; // one of its cases is a claim, which may still pay
    mapping(uint256 period => uint96) private _burnedIn; // periods before the one in `_fees`
    mapping(uint256 period => mapping(address worker => uint96)) private _burnedOf; // … and before that in `_credits`
    mapping(bytes32 seat => mapping(uint256 word => uint256)) private _audited;
    mapping(bytes32 auditOrder => bool) private _answered; // paid as UNAVAILABLE

    constructor(
        address token_,
        address registry_,
        address claims_,
        address accusations_,
        address court_,
        uint16 feeBp_,
        uint40 leaseMax_,
        uint40 lockTail_,
        uint40 windowMin_,
        uint40 windowMax_,
        uint40 periodLength_
    ) Domain("Tallymesh JobEscrow") {
        if (token_ == address(0) || registry_ == address(0)) revert ZeroAddress();
        if (claims_ == address(0) || accusations_ == address(0) || court_ == address(0)) revert ZeroAddress();
        if (feeBp_ >= BP) revert BadParameter("feeBp");
        if (leaseMax_ == 0) revert BadParameter("leaseMax");
        if (windowMin_ > windowMax_) revert BadParameter("windowMin");
        if (periodLength_ == 0) revert BadParameter("periodLength");
        token = token_;
        registry = registry_;
        claims = claims_;
        accusations = accusations_;
        court = court_;
        feeBp = feeBp_;
        leaseMax = leaseMax_;
        lockTail = lockTail_;
        windowMin = windowMin_;
        windowMax = windowMax_;
        periodLength = periodLength_;
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
            Refusal why = leases[i].job == jobId ? _expire(seatId, leases[i], order.claimWindow) : Refusal.WrongJob;
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

        _credits[account] -= amount;
        address to = IRegistry(registry).ownerOf(account);
        emit CreditWithdrawn(account, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc IJobEscrow
    function burnFees() external returns (uint256 amount) {
        amount = uint96(_fees);
        if (amount == 0) revert NothingToBurn();

        _fees -= amount;
        _credit(court, amount);
        emit FeesBurned(amount);

        ERC20Burnable(token).burn(amount);
    }

    // ---------------------------------------------------------------- calls of Claims

    modifier onlyClaims() {
        _checkClaims(); // a function, not a copy of it in each
        _;
    }

    /// @inheritdoc IJobEscrow
    function hold(Order calldata order, Lease calldata lease)
        external
        onlyClaims
        returns (bytes32 seatId, Seat memory found)
    {
        (bytes32 jobId,) = _jobOf(order);
        seatId = seatIdOf(lease);
        if (lease.job != jobId) revert NotOfJob(seatId, jobId);
        found = _load(seatId);
        bool inTail = block.timestamp < uint256(found.until) + lockTail; // whatever is live: it would never end
        bool locked = found.state == SeatState.Open || (found.state == SeatState.Closed && inTail);
        if (!locked) revert NotHeld(seatId);
        if (found.cases >= CASES_MAX) revert TooManyCases(seatId);

        found.cases += 1;
        if (msg.sender == claims) _claimed[seatId] = true;
        _store(seatId, found);
        emit Held(seatId, found.cases);
    }

    /// @inheritdoc IJobEscrow
    function letGo(Lease calldata lease) external onlyClaims {
        (bytes32 seatId, Seat memory found) = _heldSeat(lease);
        found.cases -= 1;
        if (msg.sender == claims) delete _claimed[seatId];
        emit LetGo(seatId, found.cases);
        if (!_mayPay(seatId, found)) {
            if (found.state != SeatState.Open) _returnBond(seatId, lease.job, found);
            else if (found.paidUnits == found.units) return _close(seatId, lease, found);
        }
        _store(seatId, found);
    }

    /// @inheritdoc IJobEscrow
    function payClaim(Lease calldata lease, uint32 tally, uint40 unitsTo, bytes32 chain)
        external
        onlyClaims
        returns (uint96 amount)
    {
        bytes32 seatId = seatIdOf(lease);
        Seat memory found = _load(seatId);
        uint40 units = unitsTo < found.units ? unitsTo : found.units;
        if (found.state != SeatState.Open || !_isNew(found, lease.price, units)) return 0;
        return _pay(seatId, lease, found, units, tally, chain);
    }

    /// @inheritdoc IJobEscrow
    function takeBond(Lease calldata lease, address[] calldata to, uint96[] calldata amounts)
        external
        onlyClaims
        returns (uint96 taken)
    {
        if (to.length != amounts.length) revert BadList(to.length, amounts.length);
        (bytes32 seatId, Seat memory found) = _heldSeat(lease);
        for (uint256 i = 0; i < to.length; ++i) {
            uint96 left = found.bond - taken;
            uint96 amount = amounts[i] < left ? amounts[i] : left;
            if (amount == 0) continue;
            taken += amount;
            _credit(to[i], amount);
            emit BondTaken(seatId, to[i], amount);
        }
        found.bond -= taken;
        _store(seatId, found);
    }

    /// @inheritdoc IJobEscrow
    function forfeit(Lease calldata lease) external onlyClaims {
        (bytes32 seatId, Seat memory found) = _heldSeat(lease);
        if (found.state == SeatState.Open) _close(seatId, lease, found);
    }

    /// @inheritdoc IJobEscrow
    function slash(Lease calldata lease, uint96 amount, address payer, address prover, bool toCourt)
        external
        onlyClaims
        returns (uint96 slashed)
    {
        (bytes32 seatId, Seat memory found) = _heldSeat(lease);
        uint96 left = _lockLeft(seatId, lease, found.ownLock);
        slashed = amount < left ? amount : left;
        if (slashed == 0) return 0;

        found.ownLock = true;
        _store(seatId, found);
        _locks[seatId] = left - slashed;
        uint96 toPayer = _share(slashed, PAYER_SHARE);
        uint96 toProver = _share(slashed, PROVER_SHARE);
        uint96 courts = toCourt ? _share(slashed, COURT_SHARE) : 0;
        uint96 burned = slashed - toPayer - toProver - courts;
        _credit(payer, toPayer);
        _credit(prover, toProver);
        if (courts != 0) _credit(court, courts);
        emit Slashed(seatId, lease.worker, prover, payer, slashed, toPayer, toProver, courts, burned);

        IRegistry(registry).slash(lease.worker, slashed); // sends it here
        ERC20Burnable(token).burn(burned);
    }

    // ---------------------------------------------------------------- calls of Registry

    /// @inheritdoc IJobEscrow
    function spend(address account, uint96 amount, address carrier, uint96 fee) external returns (uint96 spent) {
        if (msg.sender != registry) revert NotRegistry(msg.sender);
        uint256 held = creditOf(account);
        bool all = amount == type(uint96).max;
        if (held < uint256(fee) + (all ? 0 : amount)) revert TooLittleCredit(account, held);
        spent = all ? uint96(held - fee) : amount;
        _credits[account] -= uint256(fee) + spent;
        _credit(carrier, fee);
        emit CreditSpent(account, carrier, spent, fee);

        if (spent != 0) IERC20(token).safeTransfer(registry, spent);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IJobEscrow
    function jobOf(bytes32 jobId) external view returns (Job memory) {
        return _jobs[jobId];
    }

    /// @inheritdoc IJobEscrow
    function seatOf(bytes32 seatId) external view returns (Seat memory) {
        return _load(seatId);
    }

    /// @inheritdoc IJobEscrow
    function lockLeft(Lease calldata lease) external view returns (uint96) {
        bytes32 seatId = seatIdOf(lease);
        Seat memory found = _load(seatId);
        if (found.state == SeatState.None || found.state == SeatState.Unlocked) return 0;
        return _lockLeft(seatId, lease, found.ownLock);
    }

    /// @inheritdoc IJobEscrow
    function creditOf(address account) public view returns (uint256) {
        return uint96(_credits[account]);
    }

    /// @inheritdoc IJobEscrow
    function feesToBurn() external view returns (uint256) {
        return uint96(_fees);
    }

    /// @inheritdoc IJobEscrow
    function burnedOf(uint256 period, address worker) external view returns (uint96) {
        uint256 credit = _credits[worker];
        return uint40(credit >> 192) == period ? uint96(credit >> 96) : _burnedOf[period][worker];
    }

    /// @inheritdoc IJobEscrow
    function burnedIn(uint256 period) external view returns (uint96) {
        return uint40(_fees >> 192) == period ? uint96(_fees >> 96) : _burnedIn[period];
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
        return _digest(Messages.hashCalldata(lease));
    }

    /// @inheritdoc IJobEscrow
    function domainSeparator() public view override(Domain, IJobEscrow) returns (bytes32) {
        return super.domainSeparator();
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
        uint256 held = uint256(lease.price) * lease.positions + order.claimBond;
        if (held > job.free) return Refusal.OverBudget;
        if (_seats[seatId] != 0) return Refusal.AlreadySeated;

        bool bySigner = !_isBy(order.payer, seatId, seating.signer);
        if (bySigner && !_isBy(order.signer, seatId, seating.signer)) return Refusal.BadSignature;
        if (bySigner && job.signerSeated + held > order.signerSeatMax) return Refusal.NeedsPayer;
        if (!_isBy(lease.worker, seatId, seating.worker)) return Refusal.BadSignature;
        uint96 lock = lease.lock;
        bool newcomer = !IRegistry(registry).tryLock(lease.worker, lock);
        if (newcomer) {
            if (!order.newcomers) return Refusal.NoStake;
            bool admitted;
            (admitted, lock) = IRegistry(registry).admit(lease.worker, lock, uint96(held - order.claimBond));
            if (!admitted) return Refusal.NoStake;
            if (lock != lease.lock) _locks[seatId] = lock;
        }

        job.free -= uint96(held);
        job.openSeats += 1;
        if (bySigner) job.signerSeated += uint96(held);
        bool own = lock != lease.lock;
        _store(
            seatId, Seat(order.claimBond, lease.positions, 0, lease.until, SeatState.Open, 0, bySigner, own, newcomer)
        );
        emit SeatOpened(seatId, jobId, lease.worker, lease.price, lease.positions, lock, lease.until);
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
        Seat memory found = _load(seatId);
        if (found.state != SeatState.Open) return Refusal.NotOpen;
        if (accept.seat != seatId) return Refusal.WrongSeat;
        uint40 units = accept.units < found.units ? accept.units : found.units;
        if (!_isNew(found, lease.price, units)) return Refusal.NothingNew;
        if (!byPayer && !_isBy(_jobs[lease.job].signer, _digest(Messages.hashCalldata(accept)), signature)) {
            return Refusal.BadSignature;
        }

        _pay(seatId, lease, found, units, accept.tally, accept.chain);
        return Refusal.None;
    }

    /// @dev `units` is more than was paid and at most what the seat has.
    function _pay(bytes32 seatId, Lease calldata lease, Seat memory found, uint40 units, uint32 tally, bytes32 chain)
        private
        returns (uint96 amount)
    {
        amount = (units - found.paidUnits) * lease.price; // at most the cap, which was in free wages once
        uint96 half = _halfFeeDown(units, lease.price) - _halfFeeDown(found.paidUnits, lease.price);
        found.paidUnits = units;
        _note(half);
        emit Settled(seatId, lease.worker, tally, units, amount, 2 * half, chain);
        uint96 net = amount - 2 * half;
        bool toStake = found.newcomer && IRegistry(registry).relieve(lease.worker, amount, false);
        _earn(lease.worker, toStake ? 0 : net, half);
        if (toStake) _stake(lease.worker, net);
        if (units == found.units && !_mayPay(seatId, found)) _close(seatId, lease, found);
        else _store(seatId, found);
    }

    /// @dev More units than were paid, which earn at least their own fee (of one wei, half the fee may round up to one).
    function _isNew(Seat memory found, uint96 price, uint40 units) private view returns (bool) {
        if (units <= found.paidUnits) return false;
        uint256 half = _halfFeeDown(units, price) - _halfFeeDown(found.paidUnits, price);
        return 2 * half <= uint256(units - found.paidUnits) * price;
    }

    /// @dev Half the fee on this many units. Of all that was paid on a seat, less what was taken before: in however many parts,
    /// the fee is the same.
    function _halfFeeDown(uint40 units, uint96 price) private view returns (uint96) {
        return uint96(uint256(units) * price * feeBp / (2 * BP));
    }

    function _release(bytes32 seatId, Lease calldata lease, Release calldata release, Signature calldata signature)
        private
        returns (Refusal)
    {
        Seat memory found = _load(seatId);
        if (found.state != SeatState.Open) return Refusal.NotOpen;
        if (release.seat != seatId) return Refusal.WrongSeat;
        if (release.units > found.paidUnits) return Refusal.NotPaidYet;
        if (!_isBy(lease.worker, _digest(Messages.hashCalldata(release)), signature)) {
            return Refusal.BadSignature;
        }
        if (_mayPay(seatId, found)) return Refusal.Disputed;

        _close(seatId, lease, found);
        return Refusal.None;
    }

    function _expire(bytes32 seatId, Lease calldata lease, uint40 claimWindow) private returns (Refusal) {
        Seat memory found = _load(seatId);
        if (found.state != SeatState.Open) return Refusal.NotOpen;
        if (block.timestamp <= uint256(found.until) + claimWindow) return Refusal.TooEarly;
        if (_mayPay(seatId, found)) return Refusal.Disputed;

        _close(seatId, lease, found);
        return Refusal.None;
    }

    /// @dev The unpaid part of an open seat goes back to the free wages, and its bond where no case may still spend it. `found` is
    /// the seat as it is to be stored.
    function _close(bytes32 seatId, Lease calldata lease, Seat memory found) private {
        Job storage job = _jobs[lease.job];
        uint96 returned = (found.units - found.paidUnits) * lease.price;
        if (found.newcomer) IRegistry(registry).relieve(lease.worker, returned, true);
        if (!_mayPay(seatId, found)) {
            returned += found.bond;
            found.bond = 0;
        }
        _giveBack(job, found.bySigner, returned);
        job.openSeats -= 1;
        job.lastClosed = uint40(block.timestamp);
        found.state = SeatState.Closed;
        found.until = uint40(block.timestamp);
        _store(seatId, found);
        emit SeatClosed(seatId, lease.job, found.paidUnits, returned);
    }

    /// @dev Whether a claim of it is live: only that pays, and out of the bond. Accusations touch the lock.
    function _mayPay(bytes32 seatId, Seat memory found) private view returns (bool) {
        return found.cases != 0 && _claimed[seatId];
    }

    /// @dev Of a closed seat, once no claim can spend it any more.
    function _returnBond(bytes32 seatId, bytes32 jobId, Seat memory found) private {
        if (found.bond == 0) return;
        _giveBack(_jobs[jobId], found.bySigner, found.bond);
        emit BondReturned(seatId, jobId, found.bond);
        found.bond = 0;
    }

    function _giveBack(Job storage job, bool bySigner, uint96 amount) private {
        job.free += amount;
        if (bySigner) job.signerSeated -= amount;
    }

    function _unlock(bytes32 seatId, Lease calldata lease) private returns (Refusal) {
        Seat memory found = _load(seatId);
        if (found.state != SeatState.Closed) return Refusal.NotOpen;
        if (block.timestamp < uint256(found.until) + lockTail) return Refusal.TooEarly;
        if (found.cases != 0) return Refusal.Disputed;

        _seats[seatId] += 1 << STATE; // Unlocked
        uint96 left = _lockLeft(seatId, lease, found.ownLock);
        IRegistry(registry).unlock(lease.worker, left);
        emit LockEnded(seatId, lease.worker, left);
        return Refusal.None;
    }

    function _lockLeft(bytes32 seatId, Lease calldata lease, bool ownLock) private view returns (uint96) {
        return ownLock ? _locks[seatId] : lease.lock;
    }

    function _load(bytes32 seatId) private view returns (Seat memory) {
        uint256 word = _seats[seatId];
        return Seat(
            uint96(word),
            uint40(word >> 96),
            uint40(word >> 136),
            uint40(word >> 176),
            SeatState(uint8(word >> STATE)),
            uint8(word >> 224),
            (word >> 232) & 1 != 0,
            (word >> 240) & 1 != 0,
            (word >> 248) & 1 != 0
        );
    }

    function _store(bytes32 seatId, Seat memory found) private {
        uint256 word = uint256(found.bond) | (uint256(found.units) << 96) | (uint256(found.paidUnits) << 136);
        word |= (uint256(found.until) << 176) | (uint256(found.state) << STATE) | (uint256(found.cases) << 224);
        if (found.bySigner) word |= 1 << 232;
        if (found.ownLock) word |= 1 << 240;
        if (found.newcomer) word |= 1 << 248;
        _seats[seatId] = word;
    }

    function _checkClaims() private view {
        if (msg.sender != claims && msg.sender != accusations) revert NotClaims(msg.sender);
    }

    /// @dev The seat of a call of Claims that needs a case.
    function _heldSeat(Lease calldata lease) private view returns (bytes32 seatId, Seat memory found) {
        seatId = seatIdOf(lease);
        found = _load(seatId);
        if (found.cases == 0) revert NotHeld(seatId);
    }

    // ---------------------------------------------------------------- internals: audits

    function _payAudits(bytes32 seatId, Lease calldata lease, Audit[] calldata audits, bool byPayer)
        private
        returns (uint256 paid)
    {
        for (uint256 i = 0; i < audits.length; ++i) {
            bytes32 orderId = _digest(Messages.hashCalldata(audits[i].order));
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
        if (_seats[seatId] == 0) return Refusal.NotOpen;
        if (order.position >= lease.positions || order.draw >= DRAWS) return Refusal.BadAudit;
        if (audit.verdict.auditOrder != orderId) return Refusal.BadAudit;
        if (result < Messages.RESULT_MATCH || result > Messages.RESULT_UNAVAILABLE) return Refusal.BadAudit;
        if (uint256(order.fee) * BP > uint256(lease.price) * AUDIT_FEE_MAX_BP) return Refusal.PriceTooHigh;
        Job storage job = _jobs[lease.job];
        address signer = job.signer;
        if (order.auditor == lease.worker || order.auditor == signer) return Refusal.BadAudit;
        if (!byPayer && !_isBy(signer, orderId, audit.orderSignature)) return Refusal.BadSignature;
        bytes32 verdictId = _digest(Messages.hashCalldata(audit.verdict));
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
        if (uint8(_seats[seatId] >> STATE) != uint8(SeatState.Open)) return;
        if (item.release.seat != 0) {
            if (_done(seatId, _release(seatId, item.lease, item.release, item.releaseSignature))) return;
        }
        _expire(seatId, item.lease, order.claimWindow); // where its time has come; else it stays open, which is no refusal
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
        _credits[account] = (_credits[account] | TOUCHED) + amount; // far below 2^96: see Token
    }

    /// @dev Credit a worker, and note what was burned on its pay in the running period.
    function _earn(address worker, uint96 amount, uint96 burned) private {
        uint256 credit = _credits[worker];
        uint256 period = _period();
        if (credit >> 192 & type(uint40).max != period) {
            if (uint96(credit >> 96) != 0) _burnedOf[uint40(credit >> 192)][worker] = uint96(credit >> 96);
            credit = _turned(credit, period);
        }
        _credits[worker] = _plus(credit, amount, burned);
    }

    function _note(uint96 half) private {
        uint256 fees = _fees;
        uint256 period = _period();
        if (fees >> 192 & type(uint40).max != period) {
            if (uint96(fees >> 96) != 0) _burnedIn[uint40(fees >> 192)] = uint96(fees >> 96);
            fees = _turned(fees, period);
        }
        _fees = _plus(fees, half, half);
    }

    /// @dev The amount stays, nothing is burned yet in the new period.
    function _turned(uint256 word, uint256 period) private pure returns (uint256) {
        return TOUCHED | (period << 192) | uint96(word);
    }

    /// @dev Neither sum reaches 2^96: no more tokens than that exist (see Token), and what is burned is burned once.
    function _plus(uint256 word, uint96 amount, uint96 burned) private pure returns (uint256) {
        unchecked {
            return word + amount + (uint256(burned) << 96);
        }
    }

    function _period() private view returns (uint40) {
        return uint40(block.timestamp / periodLength);
    }

    /// @dev The account's stake: its money moves to Registry.
    function _stake(address account, uint96 amount) private {
        emit Staked(account, amount);
        IERC20(token).safeTransfer(registry, amount);
        IRegistry(registry).deposit(account, amount);
    }

    function _share(uint96 amount, uint256 percent) private pure returns (uint96) {
        return uint96(uint256(amount) * percent / 100);
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
}
