// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {Assign, Lease, Messages, Order, Tally} from "./generated/Messages.sol";
import {IAccusations} from "./interfaces/IAccusations.sol";
import {IClaims} from "./interfaces/IClaims.sol";
import {ICourt} from "./interfaces/ICourt.sol";
import {IRandomness} from "./interfaces/IRandomness.sol";
import {Signature} from "./interfaces/Types.sol";
import {IJobEscrow} from "./interfaces/IJobEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Draws} from "./libraries/Draws.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Words} from "./libraries/Words.sol";

/// @title Claims
/// @dev The specification is {IClaims}. Escrow, Registry, Court and token are this project's own and call nobody back.
contract Claims is IClaims {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice Lengths of time, in seconds.
    struct Windows {
        uint40 commit;
        uint40 open;
        uint40 reveal;
        uint40 challenge;
    }

    /// @inheritdoc IClaims
    bytes32 public constant DOMAIN_SEED = Draws.DOMAIN_SEED;
    /// @inheritdoc IClaims
    bytes32 public constant DOMAIN_LEAF = Merkle.DOMAIN_LEAF;
    /// @inheritdoc IClaims
    bytes32 public constant DOMAIN_CLAIM = keccak256("tallymesh.claim.1");
    /// @inheritdoc IClaims
    bytes32 public constant DOMAIN_CASE = keccak256("tallymesh.case.1");
    /// @inheritdoc IClaims
    uint32 public constant CLAIM_TALLY = type(uint32).max;
    /// @inheritdoc IClaims
    uint64 public constant SEED_DELAY = Draws.SEED_DELAY;
    /// @inheritdoc IClaims
    uint16 public constant MAX_ATTEMPTS = Draws.MAX_ATTEMPTS;
    /// @inheritdoc IClaims
    uint8 public constant RANKS = 3;
    /// @inheritdoc IClaims
    uint8 public constant SAMPLES_MIN = 2;
    /// @inheritdoc IClaims
    uint8 public constant SAMPLES_MAX = 16;
    uint256 private constant BP = 10_000;
    uint256 private constant AUDIT_FEE_BP = 11_000; // as off chain: fetching and waiting cost a little more than the work
    uint256 private constant UNAVAILABLE_SHARE = 10; // a tenth

    /// @inheritdoc IClaims
    address public immutable token;
    /// @inheritdoc IClaims
    address public immutable registry;
    /// @inheritdoc IClaims
    address public immutable escrow;
    /// @inheritdoc IClaims
    address public immutable accusations;
    /// @inheritdoc IClaims
    address public immutable court;
    /// @inheritdoc IClaims
    address public immutable randomness;
    /// @inheritdoc IClaims
    uint40 public immutable commitWindow;
    /// @inheritdoc IClaims
    uint40 public immutable openWindow;
    /// @inheritdoc IClaims
    uint40 public immutable revealWindow;
    /// @inheritdoc IClaims
    uint40 public immutable challengeWindow;

    mapping(bytes32 claim => Claim) private _claims;
    mapping(bytes32 claim => ICourt.Parties) private _parties;
    mapping(bytes32 claim => mapping(uint256 sample => Sample)) private _samples;
    mapping(bytes32 seat => Quarrels) private _quarrels;
    mapping(address account => uint256) private _credits;

    constructor(
        address token_,
        address registry_,
        address escrow_,
        address accusations_,
        address court_,
        address randomness_,
        Windows memory windows
    ) {
        if (token_ == address(0) || registry_ == address(0) || escrow_ == address(0)) revert ZeroAddress();
        if (accusations_ == address(0) || court_ == address(0) || randomness_ == address(0)) revert ZeroAddress();
        if (windows.commit == 0 || windows.open == 0) revert BadParameter("windows");
        if (windows.reveal == 0 || windows.challenge == 0) revert BadParameter("windows");
        token = token_;
        registry = registry_;
        escrow = escrow_;
        accusations = accusations_;
        court = court_;
        randomness = randomness_;
        commitWindow = windows.commit;
        openWindow = windows.open;
        revealWindow = windows.reveal;
        challengeWindow = windows.challenge;
        IERC20(token_).forceApprove(court_, type(uint256).max); // it takes the fee of each case
    }

    // ---------------------------------------------------------------- a claim, in the order in which it happens

    /// @inheritdoc IClaims
    function claim(
        Order calldata order,
        Lease calldata lease,
        Tally calldata tally,
        Signature calldata signature,
        uint256[] calldata witnesses
    ) external returns (bytes32 id) {
        if (order.auditors != Messages.AUDITORS_OPEN) revert NotOpenToAll();
        uint96 fee = ICourt(court).fee();
        if (order.claimBond < fee) revert BondTooSmall(order.claimBond, fee);
        (bytes32 seat, IJobEscrow.Seat memory held) = IJobEscrow(escrow).hold(order, lease);
        if (held.state != IJobEscrow.SeatState.Open) revert SeatNotOpen(seat);
        if (tally.seat != seat || tally.number != CLAIM_TALLY) revert BadTally();
        if (msg.sender != lease.worker && !Words.signed(escrow, lease.worker, Messages.hashCalldata(tally), signature)) {
            revert BadSignature(lease.worker);
        }
        if (held.bond < order.claimBond) revert BondTooSmall(held.bond, order.claimBond);
        Quarrels storage quarrels = _quarrels[seat];
        if (quarrels.claim != 0) revert ClaimLive(quarrels.claim);
        uint256 until = uint256(held.until) + order.claimWindow;
        if (block.timestamp > until) revert TooLate(until.toUint40());
        uint256 end = uint256(tally.start) + tally.count;
        // Not "from paidUnits on": a payer that sees it coming would pay one unit in front of it, each time.
        if (tally.start > held.paidUnits || end <= held.paidUnits || end > held.units) revert BadRange();
        if (tally.count == 0 || tally.count > 2 * uint256(order.tallyUnits)) revert BadRange();
        if (tally.start < quarrels.claimedTo) revert AlreadyClaimed(quarrels.claimedTo);

        id = keccak256(abi.encode(DOMAIN_CLAIM, seat, tally.root, tally.start, tally.count));
        quarrels.claim = id;
        quarrels.claimedTo = uint40(end);
        _begin(id, seat, order, lease, tally);
        ICourt.Parties memory parties =
            ICourt.Parties(lease.worker, address(0), order.payer, order.signer, lease.numericClass);
        _parties[id] = parties;
        ICourt(court).checkMembers(parties, witnesses);

        _pull(order.claimBond);
    }

    function _begin(bytes32 id, bytes32 seat, Order calldata order, Lease calldata lease, Tally calldata tally) private {
        Claim storage found = _claims[id];
        found.state = State.Pending;
        found.k = _samplesOf(tally.count, order.auditRateBp);
        found.from = tally.start;
        found.count = tally.count;
        found.slots = IRegistry(registry).slotCount().toUint32();
        found.blockNumber = uint64(block.number);
        found.price = lease.price;
        found.bond = order.claimBond;
        found.left = order.claimBond;
        found.claimer = msg.sender;
        found.seat = seat;
        found.root = tally.root;
        found.chain = Merkle.chain(tally.previous, tally.root, tally.start, tally.count);
        emit Claimed(
            id,
            seat,
            msg.sender,
            tally.root,
            tally.start,
            tally.count,
            order.claimBond,
            uint64(block.number) + SEED_DELAY
        );
    }

    /// @inheritdoc IClaims
    function capture(bytes32 id) external {
        Claim storage found = _in(id, State.Pending);
        uint64 seedBlock = found.blockNumber + SEED_DELAY;
        if (block.number <= seedBlock) revert TooEarly(0);
        bytes32 coin = IRandomness(randomness).valueAt(seedBlock);
        if (coin == 0) revert TooLate(0);

        found.seed = Draws.tallySeed(found.seat, 0, found.root, coin);
        found.sampledAt = uint40(block.timestamp);
        found.deadline = (_commitBy(found) + openWindow).toUint40();
        found.state = State.Sampling;
        emit Captured(id, found.seed, found.k, found.deadline);
    }

    /// @inheritdoc IClaims
    function commit(bytes32 id, uint8 sample, uint8 rank, uint16 attempt, bytes32 commitment) external {
        Claim storage found = _in(id, State.Sampling);
        uint256 until = _commitBy(found);
        if (found.opened != 0 || block.timestamp >= until) revert TooLate(uint40(until));
        Sample storage taken = _samples[id][sample];
        if (sample >= found.k || taken.auditor != address(0)) revert BadSample(sample);
        if (attempt >= MAX_ATTEMPTS) revert NotDrawn(msg.sender, sample, attempt);
        (address account, uint16 at_) = _auditorAt(id, found, sample, rank, attempt + 1);
        if (account != msg.sender || at_ != attempt) revert NotDrawn(msg.sender, sample, attempt);
        uint256 start = found.sampledAt + uint256(rank) * commitWindow;
        if (block.timestamp < start) revert TooEarly(uint40(start));

        taken.heard = Heard.Committed;
        taken.auditor = msg.sender;
        taken.commitment = commitment;
        found.committed += 1;
        emit AuditCommitted(id, sample, msg.sender, rank);

        _pull(found.bond);
    }

    /// @inheritdoc IClaims
    function open(bytes32 id, Opening[] calldata openings) external {
        Claim storage found = _in(id, State.Sampling);
        uint256 until = _commitBy(found);
        if (found.committed < found.k && block.timestamp < until) revert TooEarly(uint40(until));
        if (block.timestamp > found.deadline) revert TooLate(found.deadline);

        uint256[] memory drawn = Draws.units(found.seed, found.count, found.k);
        address signer = _parties[id].signer;
        uint8 opened = found.opened;
        for (uint256 i = 0; i < openings.length; ++i) {
            uint8 sample = openings[i].sample;
            if (sample >= drawn.length) revert BadSample(sample);
            Sample storage one = _samples[id][sample];
            if (one.opened != 0) continue;
            _checkOpening(found, drawn[sample], signer, openings[i]);
            one.opened = keccak256(abi.encode(openings[i].start, openings[i].end));
            ++opened;
            emit LeafOpened(
                id,
                sample,
                uint40(found.from + drawn[sample]),
                openings[i].unitId,
                openings[i].start,
                openings[i].end,
                openings[i].aux
            );
        }
        found.opened = opened;
        if (opened < drawn.length) return;
        found.state = State.Revealing;
        found.deadline = (block.timestamp + revealWindow).toUint40();
    }

    /// @inheritdoc IClaims
    function reveal(bytes32 id, uint8 sample, Finding calldata finding) external {
        Claim storage found = _in(id, State.Revealing);
        if (block.timestamp > found.deadline) revert TooLate(found.deadline);
        Sample storage one = _samples[id][sample];
        if (sample >= found.k) revert BadSample(sample);
        if (one.auditor != msg.sender || one.heard != Heard.Committed) revert NotYours(sample);
        if (keccak256(abi.encode(finding.openedStart, finding.openedEnd)) != one.opened) revert BadOpening(sample);
        bytes32 commitment = keccak256(abi.encode(finding.end, finding.salt, msg.sender, finding.probe));
        if (commitment != one.commitment) revert BadReveal(one.commitment);

        bool same = finding.start == finding.openedStart && finding.end == finding.openedEnd;
        Heard heard = finding.end == 0 ? Heard.Unavailable : same ? Heard.Match : Heard.Disputed;
        one.heard = heard;
        found.revealed += 1;
        emit AuditRevealed(id, sample, msg.sender, heard);
        if (heard != Heard.Disputed) {
            _credit(msg.sender, found.bond);
            return;
        }
        found.inCourt += 1;
        bytes32 courtCase = keccak256(abi.encode(DOMAIN_CASE, id, sample));
        emit SampleDisputed(id, sample, courtCase);
        ICourt.Parties memory parties = _parties[id];
        parties.accuser = msg.sender;
        ICourt(court).open(
            courtCase,
            parties,
            ICourt.Dispute(finding.openedStart, finding.openedEnd, finding.start, finding.end, finding.steps)
        );
    }

    /// @inheritdoc IClaims
    function rule(Lease calldata lease, bytes32 id, uint8 sample) external {
        Claim storage found = _claims[id];
        _isOf(lease, found.seat);
        Sample storage one = _samples[id][sample];
        if (one.heard != Heard.Disputed) revert BadSample(sample);
        (ICourt.Ruling ruling, uint96 feeLeft) = ICourt(court).take(keccak256(abi.encode(DOMAIN_CASE, id, sample)));

        address auditor = one.auditor;
        uint96 spent = ICourt(court).fee() - feeLeft; // what members earned
        uint96 back = found.bond - spent;
        found.inCourt -= 1;
        if (ruling == ICourt.Ruling.ForAccuser) {
            one.heard = Heard.Upheld;
            uint96 repaid = _least(spent, found.left);
            found.left -= repaid;
            _credit(auditor, back + repaid);
            IJobEscrow(escrow).slash(lease, lease.lock, _parties[id].payer, auditor, true);
            IJobEscrow(escrow).forfeit(lease);
        } else if (ruling == ICourt.Ruling.ForAccused || ruling == ICourt.Ruling.Unserved) {
            one.heard = ruling == ICourt.Ruling.Unserved ? Heard.Unserved : Heard.Acquitted;
            _credit(lease.worker, back); // whom it accused, and not whoever carried its claim
        } else {
            one.heard = ruling == ICourt.Ruling.Void ? Heard.Void : Heard.Undecided;
            _credit(auditor, back);
        }
        emit SampleRuled(id, sample, one.heard);
    }

    /// @inheritdoc IClaims
    function conclude(Lease calldata lease, bytes32 id) external {
        Claim storage found = _claims[id];
        _isOf(lease, found.seat);
        State state = found.state;
        if (state == State.Pending) {
            uint64 seedBlock = found.blockNumber + SEED_DELAY;
            bool missed = block.number > seedBlock && IRandomness(randomness).valueAt(seedBlock) == 0;
            if (!missed) revert TooEarly(0);
            return _fail(lease, id, found);
        }
        if (state == State.Revealing) return _decide(lease, id, found);
        if (state != State.Sampling && state != State.Challengeable) revert WrongState(id, state);
        if (block.timestamp <= found.deadline) revert TooEarly(found.deadline);
        if (state == State.Sampling) return _fail(lease, id, found);
        if (IAccusations(accusations).blocking(found.seat) != 0) revert TooEarly(0);
        if (found.refuted || !_seatOpen(found.seat)) return _fail(lease, id, found);
        _pay(lease, id, found);
    }

    // ---------------------------------------------------------------- calls of Accusations

    /// @inheritdoc IClaims
    function refute(bytes32 id) external {
        if (msg.sender != accusations) revert NotAccusations(msg.sender);
        _claims[id].refuted = true;
    }

    // ---------------------------------------------------------------- credits

    /// @inheritdoc IClaims
    function withdraw(address account) external returns (uint256 amount) {
        amount = _credits[account];
        if (amount == 0) revert NothingToWithdraw(account);

        _credits[account] = 0;
        address to = IRegistry(registry).ownerOf(account);
        emit CreditWithdrawn(account, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IClaims
    function claimOf(bytes32 id) external view returns (Claim memory) {
        return _claims[id];
    }

    /// @inheritdoc IClaims
    function sampleOf(bytes32 id, uint8 sample) external view returns (Sample memory) {
        return _samples[id][sample];
    }

    /// @inheritdoc IClaims
    function rootOf(bytes32 id) external view returns (bytes32 seat, bytes32 root, uint40 from, uint40 count) {
        Claim storage found = _claims[id];
        return (found.seat, found.root, found.from, found.count);
    }

    /// @inheritdoc IClaims
    function unchallenged(bytes32 seat) external view returns (bool) {
        Claim storage live = _claims[_quarrels[seat].claim];
        return live.state == State.Challengeable && block.timestamp > live.deadline;
    }

    /// @inheritdoc IClaims
    function quarrelsOf(bytes32 seat) external view returns (Quarrels memory) {
        return _quarrels[seat];
    }

    /// @inheritdoc IClaims
    function unitsOf(bytes32 id) public view returns (uint256[] memory) {
        Claim storage found = _claims[id];
        return Draws.units(found.seed, found.count, found.k);
    }

    /// @inheritdoc IClaims
    function auditorAt(bytes32 id, uint8 sample, uint8 rank) external view returns (address account, uint16 attempt) {
        Claim storage found = _claims[id];
        if (found.sampledAt == 0 || sample >= found.k) return (address(0), 0);
        return _auditorAt(id, found, sample, rank, MAX_ATTEMPTS);
    }

    /// @inheritdoc IClaims
    function creditOf(address account) external view returns (uint256) {
        return _credits[account];
    }

    // ---------------------------------------------------------------- internals: who and what is drawn

    /// @dev min(count, max(2, rate x count rounded up), 16)
    function _samplesOf(uint256 count, uint256 rateBp) private pure returns (uint8) {
        uint256 k = (rateBp * count + BP - 1) / BP;
        if (k < SAMPLES_MIN) k = SAMPLES_MIN;
        if (k > SAMPLES_MAX) k = SAMPLES_MAX;
        return uint8(k < count ? k : count);
    }

    function _commitBy(Claim storage found) private view returns (uint256) {
        return uint256(found.sampledAt) + uint256(RANKS) * commitWindow;
    }

    function _auditorAt(bytes32 id, Claim storage found, uint8 sample, uint8 rank, uint16 limit)
        private
        view
        returns (address account, uint16 attempt)
    {
        if (rank >= RANKS) return (address(0), 0);
        uint256 index = Draws.units(found.seed, found.count, found.k)[sample];
        return ICourt(court).auditorAt(
            _parties[id], found.seed, index, found.slots, found.blockNumber, rank, limit
        );
    }

    // ---------------------------------------------------------------- internals: words

    function _checkOpening(Claim storage found, uint256 index, address signer, Opening calldata one) private view {
        bytes32 seat = found.seat;
        uint256 position = found.from + index;
        Merkle.Fields memory fields = Merkle.Fields(one.unitId, one.start, one.end, one.salt, one.aux);
        bytes32 leaf = Merkle.leaf(seat, position, fields);
        if (!Merkle.verify(found.root, found.count, index, leaf, one.path)) revert BadOpening(one.sample);
        bytes32 assigned = Messages.hash(Assign(seat, uint40(position), one.unitId));
        if (!Words.signed(escrow, signer, assigned, one.assign)) revert BadOpening(one.sample);
    }

    function _in(bytes32 id, State state) private view returns (Claim storage found) {
        found = _claims[id];
        if (found.state != state) revert WrongState(id, found.state);
    }

    function _isOf(Lease calldata lease, bytes32 seat) private view {
        if (IJobEscrow(escrow).seatIdOf(lease) != seat) revert WrongLease();
    }

    function _seatOpen(bytes32 seat) private view returns (bool) {
        return IJobEscrow(escrow).seatOf(seat).state == IJobEscrow.SeatState.Open;
    }

    // ---------------------------------------------------------------- internals: the end

    function _decide(Lease calldata lease, bytes32 id, Claim storage found) private {
        if (found.revealed < found.committed && block.timestamp <= found.deadline) revert TooEarly(found.deadline);
        if (found.inCourt != 0) revert TooEarly(0);

        uint256 sound;
        uint256 withheld;
        uint256 silent;
        bool bad = found.refuted || !_seatOpen(found.seat);
        bool half;
        uint256 k = found.k;
        for (uint256 i = 0; i < k; ++i) {
            Heard heard = _samples[id][i].heard;
            if (heard == Heard.Match || heard == Heard.Acquitted || heard == Heard.Void) ++sound;
            else if (heard == Heard.Unavailable || heard == Heard.Unserved) ++withheld;
            else if (heard == Heard.Upheld) bad = true;
            else if (heard == Heard.Undecided) half = true;
            else if (heard == Heard.Committed) ++silent;
        }
        if (silent != 0) IERC20(token).safeTransfer(court, silent * found.bond); // nobody gains by another's silence
        if (bad || (!half && sound * 2 <= k && withheld * 2 > k)) return _fail(lease, id, found);
        found.half = half || sound * 2 <= k;
        found.state = State.Challengeable;
        found.deadline = (block.timestamp + challengeWindow).toUint40();
        emit Challengeable(id, found.half, found.deadline);
    }

    function _pay(Lease calldata lease, bytes32 id, Claim storage found) private {
        State state = found.half ? State.Halved : State.Paid;
        uint40 units = found.from + (found.half ? found.count / 2 : found.count);
        uint256 k = found.k;
        address[] memory to = new address[](k);
        uint96[] memory amounts = new uint96[](k);
        uint96 each = _auditFee(found);
        for (uint256 i = 0; i < k; ++i) {
            to[i] = _samples[id][i].auditor;
            amounts[i] = _payOf(_samples[id][i].heard, each);
        }
        _end(found, state);
        emit ClaimEnded(id, found.seat, state, units);
        _credit(found.claimer, found.left);
        found.left = 0;
        IJobEscrow(escrow).payClaim(lease, CLAIM_TALLY, units, found.chain);
        IJobEscrow(escrow).takeBond(lease, to, amounts);
        IJobEscrow(escrow).letGo(lease);
    }

    function _fail(Lease calldata lease, bytes32 id, Claim storage found) private {
        bool unopened = found.state == State.Sampling;
        uint96 each = _auditFee(found);
        uint96 left = found.left;
        uint256 k = found.k;
        for (uint256 i = 0; i < k; ++i) {
            Sample storage one = _samples[id][i];
            bool stranded = unopened && one.heard == Heard.Committed;
            uint96 amount = _least(stranded ? each : _payOf(one.heard, each), left);
            left -= amount;
            if (amount != 0) emit AuditorPaid(id, uint8(i), one.auditor, amount);
            if (stranded) amount += found.bond;
            if (amount != 0) _credit(one.auditor, amount);
        }
        found.left = 0;
        if (left != 0) _credit(_parties[id].payer, left);
        _end(found, State.Failed);
        emit ClaimEnded(id, found.seat, State.Failed, 0);
        IJobEscrow(escrow).letGo(lease);
    }

    function _end(Claim storage found, State state) private {
        found.state = state;
        _quarrels[found.seat].claim = 0;
    }

    function _auditFee(Claim storage found) private view returns (uint96) {
        return _least((uint256(found.price) * AUDIT_FEE_BP / BP).toUint96(), found.bond / found.k);
    }

    function _payOf(Heard heard, uint96 each) private view returns (uint96) {
        if (heard == Heard.Void) return each + ICourt(court).fee(); // it was right to ask
        if (heard == Heard.Unavailable) return uint96(each / UNAVAILABLE_SHARE);
        return heard == Heard.Match || heard == Heard.Upheld || heard == Heard.Undecided ? each : 0;
    }

    function _pull(uint96 amount) private {
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
    }

    function _credit(address account, uint256 amount) private {
        _credits[account] += amount;
    }

    function _least(uint96 a, uint96 b) private pure returns (uint96) {
        return a < b ? a : b;
    }
}
