// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";

import {ICourt} from "./interfaces/ICourt.sol";
import {IRandomness} from "./interfaces/IRandomness.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Draws} from "./libraries/Draws.sol";

/// @title Court
/// @dev The specification is {ICourt}.
contract Court is ICourt {
    using SafeERC20 for IERC20;
    using SafeCast for uint256;

    /// @notice Lengths of time, in seconds.
    struct Windows {
        uint40 move;
        uint40 commit;
        uint40 reveal;
        uint40 appeal;
    }

    /// @inheritdoc ICourt
    bytes32 public constant DOMAIN_COURT = keccak256("tallymesh.court.1");
    /// @inheritdoc ICourt
    bytes32 public constant UNSERVED = 0;
    /// @inheritdoc ICourt
    uint64 public constant SEED_DELAY = Draws.SEED_DELAY;
    /// @inheritdoc ICourt
    uint16 public constant MAX_ATTEMPTS = Draws.MAX_ATTEMPTS;
    /// @inheritdoc ICourt
    uint8 public constant MAX_REDRAWS = 3;
    /// @inheritdoc ICourt
    uint32 public constant MAX_STEPS = 1 << 20; // twenty exchanges
    uint8 private constant PANEL_MAX = 31; // sharing the fees of two panels stays under 2 M gas

    /// @inheritdoc ICourt
    address public immutable token;
    /// @inheritdoc ICourt
    address public immutable registry;
    /// @inheritdoc ICourt
    address public immutable claims;
    /// @inheritdoc ICourt
    address public immutable accusations;
    /// @inheritdoc ICourt
    address public immutable randomness;
    /// @inheritdoc ICourt
    uint8 public immutable quorum;
    /// @inheritdoc ICourt
    uint8 public immutable panel;
    /// @inheritdoc ICourt
    uint8 public immutable appealPanel;
    /// @inheritdoc ICourt
    uint96 public immutable memberFee;
    /// @inheritdoc ICourt
    uint40 public immutable moveWindow;
    /// @inheritdoc ICourt
    uint40 public immutable commitWindow;
    /// @inheritdoc ICourt
    uint40 public immutable revealWindow;
    /// @inheritdoc ICourt
    uint40 public immutable appealWindow;

    /// @inheritdoc ICourt
    uint256 public owed;
    mapping(bytes32 id => Case) private _cases;
    mapping(bytes32 id => Parties) private _parties;
    mapping(bytes32 id => mapping(uint256 round => mapping(uint256 member => Ballot))) private _ballots;
    mapping(address account => uint256) private _credits;

    constructor(
        address token_,
        address registry_,
        address claims_,
        address accusations_,
        address randomness_,
        uint8 quorum_,
        uint8 panel_,
        uint8 appealPanel_,
        uint96 memberFee_,
        Windows memory windows
    ) {
        if (token_ == address(0) || registry_ == address(0)) revert ZeroAddress();
        if (claims_ == address(0) || accusations_ == address(0) || randomness_ == address(0)) revert ZeroAddress();
        if (quorum_ == 0) revert BadParameter("quorum");
        if (panel_ == 0 || panel_ > PANEL_MAX) revert BadParameter("panel");
        if (appealPanel_ < panel_ || appealPanel_ > PANEL_MAX) revert BadParameter("appealPanel");
        if (memberFee_ == 0 || memberFee_ > type(uint96).max / PANEL_MAX) revert BadParameter("memberFee");
        if (windows.move == 0 || windows.commit == 0) revert BadParameter("windows");
        if (windows.reveal == 0 || windows.appeal == 0) revert BadParameter("windows");
        token = token_;
        registry = registry_;
        claims = claims_;
        accusations = accusations_;
        randomness = randomness_;
        quorum = quorum_;
        panel = panel_;
        appealPanel = appealPanel_;
        memberFee = memberFee_;
        moveWindow = windows.move;
        commitWindow = windows.commit;
        revealWindow = windows.reveal;
        appealWindow = windows.appeal;
    }

    modifier onlyClaims() {
        if (msg.sender != claims && msg.sender != accusations) revert NotClaims(msg.sender);
        _;
    }

    // ---------------------------------------------------------------- calls of Claims

    /// @inheritdoc ICourt
    function open(bytes32 id, Parties calldata parties, Dispute calldata dispute) external onlyClaims {
        Case storage found = _cases[id];
        if (found.state != State.None) revert CaseExists(id);
        if (dispute.steps > MAX_STEPS) revert BadParameter("steps");

        _parties[id] = parties;
        uint96 cost = fee();
        found.fee = cost;
        owed += cost;
        if (dispute.accusedStart != dispute.accuserStart) {
            found.accusedValue = dispute.accusedStart;
            found.accuserValue = dispute.accuserStart;
            _call(id, found);
        } else {
            found.agreed = dispute.accusedStart;
            found.accusedValue = dispute.accusedEnd;
            found.accuserValue = dispute.accuserEnd;
            found.hi = dispute.steps < 2 ? 1 : dispute.steps;
            _narrow(id, found);
        }
        emit CaseOpened(id, parties.accused, parties.accuser, dispute, found.state);

        IERC20(token).safeTransferFrom(msg.sender, address(this), cost);
    }

    /// @inheritdoc ICourt
    function take(bytes32 id) external onlyClaims returns (Ruling ruling, uint96 feeLeft) {
        Case storage found = _cases[id];
        if (found.state != State.Ruled) revert NotRuled(id);
        if (found.taken) revert AlreadyTaken(id);

        found.taken = true;
        ruling = found.ruling;
        feeLeft = found.fee;
        if (feeLeft == 0) return (ruling, 0);
        found.fee = 0;
        owed -= feeLeft;

        IERC20(token).safeTransfer(msg.sender, feeLeft);
    }

    /// @inheritdoc ICourt
    function reimburse(uint96 amount) external onlyClaims returns (uint96 paid) {
        uint256 has = pool();
        paid = has < amount ? uint96(has) : amount;

        IERC20(token).safeTransfer(msg.sender, paid);
    }

    /// @inheritdoc ICourt
    function checkMembers(Parties calldata parties, uint256[] calldata witnesses) external view {
        if (witnesses.length < quorum) revert NoMembers(witnesses.length, quorum);
        uint256 slots = IRegistry(registry).slotCount();
        Draws.Pool memory from = Draws.pool(IRegistry(registry), slots, block.number, parties);
        address last = address(0);
        for (uint256 i = 0; i < witnesses.length; ++i) {
            if (witnesses[i] >= slots) revert BadWitness(witnesses[i]);
            address account = Draws.admissible(from, witnesses[i]);
            if (account <= last) revert BadWitness(witnesses[i]); // not admissible is zero, which is below everybody
            last = account;
        }
    }

    /// @inheritdoc ICourt
    function auditorAt(
        Parties calldata parties,
        bytes32 seed,
        uint256 index,
        uint256 slots,
        uint256 blockNumber,
        uint8 rank,
        uint16 limit
    ) external view returns (address account, uint16 attempt) {
        Draws.Pool memory from = Draws.pool(IRegistry(registry), slots, blockNumber, parties);
        address[] memory before = new address[](rank); // of lower ranks
        uint256 next = 0;
        for (attempt = 0; attempt < limit; ++attempt) {
            account = Draws.admissible(from, Draws.slot(seed, "auditor", index, 0, attempt, slots));
            for (uint256 i = 0; i < next; ++i) if (account == before[i]) account = address(0);
            if (account == address(0)) continue;
            if (next == rank) return (account, attempt);
            before[next++] = account;
        }
        return (address(0), 0);
    }

    // ---------------------------------------------------------------- moves of the parties

    /// @inheritdoc ICourt
    function post(bytes32 id, bytes32 value) external {
        Case storage found = _cases[id];
        if (found.state != State.Posting) revert WrongState(id, found.state);
        if (msg.sender != _parties[id].accused) revert NotParty(msg.sender);
        _intime(found.deadline);

        found.posted = value;
        found.state = State.Answering;
        found.deadline = _after(moveWindow);
        emit Posted(id, (found.lo + found.hi) / 2, value);
    }

    /// @inheritdoc ICourt
    function answer(bytes32 id, bytes32 value) external {
        Case storage found = _cases[id];
        if (found.state != State.Answering) revert WrongState(id, found.state);
        if (msg.sender != _parties[id].accuser) revert NotParty(msg.sender);
        _intime(found.deadline);

        uint32 middle = (found.lo + found.hi) / 2;
        if (value == found.posted) {
            found.lo = middle;
            found.agreed = value;
        } else {
            found.hi = middle;
            found.accusedValue = found.posted;
            found.accuserValue = value;
        }
        emit Answered(id, found.lo, found.hi, value);
        _narrow(id, found);
    }

    /// @inheritdoc ICourt
    function appeal(bytes32 id) external {
        Case storage found = _cases[id];
        if (found.state != State.Appealable) revert WrongState(id, found.state);
        Parties storage parties = _parties[id];
        if (msg.sender != parties.accused && msg.sender != parties.accuser) revert NotParty(msg.sender);
        _intime(found.deadline);

        uint96 cost = appealFee();
        found.appealed = true;
        found.appellant = msg.sender;
        found.appealFee = cost;
        owed += cost;
        emit Appealed(id, msg.sender, cost);
        found.redraws = 0;
        found.round += 1;
        _call(id, found);

        IERC20(token).safeTransferFrom(msg.sender, address(this), cost);
    }

    // ---------------------------------------------------------------- moves of the members

    /// @inheritdoc ICourt
    function commit(bytes32 id, uint8 member, uint16 attempt, bytes32 commitment) external {
        Case storage found = _cases[id];
        if (found.state != State.Voting) revert WrongState(id, found.state);
        _intime(found.deadline);
        Ballot storage ballot = _ballots[id][found.round][member];
        if (ballot.member != address(0)) revert AlreadyCommitted(member);
        (address account, uint16 first) = memberAt(id, member);
        if (account != msg.sender || first != attempt) revert NotDrawn(msg.sender, member, attempt);

        ballot.member = msg.sender;
        ballot.commitment = commitment;
        found.committed += 1;
        emit VoteCommitted(id, found.round, member, msg.sender);
    }

    /// @inheritdoc ICourt
    function reveal(bytes32 id, uint8 member, bytes32 result, bytes32 salt) external {
        Case storage found = _cases[id];
        if (found.state != State.Voting) revert WrongState(id, found.state);
        Ballot storage ballot = _ballots[id][found.round][member];
        if (ballot.member != msg.sender || ballot.vote != Vote.None) revert NotCommitted(member);
        if (block.timestamp <= found.deadline && found.committed < _size(found)) revert TooEarly(found.deadline);
        _intime(found.revealUntil);
        if (keccak256(abi.encode(result, salt, msg.sender)) != ballot.commitment) revert BadReveal(ballot.commitment);

        Vote vote = Vote.Other;
        if (result == UNSERVED) {
            vote = Vote.Unserved;
            found.unserved += 1;
        } else if (result == found.accusedValue) {
            vote = Vote.Accused;
            found.forAccused += 1;
        } else if (result == found.accuserValue) {
            vote = Vote.Accuser;
            found.forAccuser += 1;
        }
        ballot.vote = vote;
        found.revealed += 1;
        emit VoteRevealed(id, found.round, member, result, vote);
    }

    // ---------------------------------------------------------------- by anybody

    /// @inheritdoc ICourt
    function advance(bytes32 id) external {
        Case storage found = _cases[id];
        State state = found.state;
        if (state == State.Drawing) return _drawPanel(id, found);
        if (state == State.Voting) return _count(id, found);
        if (state == State.None || state == State.Ruled) revert WrongState(id, state);
        if (block.timestamp <= found.deadline) revert TooEarly(found.deadline);

        // It may be off and honest: before its first move, silence only means that members recompute the whole unit.
        if (state == State.Posting && found.posted == 0) return _call(id, found);
        if (state == State.Posting) found.ruling = Ruling.ForAccuser;
        else if (state == State.Answering) found.ruling = Ruling.ForAccused;
        else _share(id, found.firstRound, panel, found.ruling, found.fee);
        _rule(id, found, state == State.Appealable);
    }

    /// @inheritdoc ICourt
    function withdraw(address account) external returns (uint256 amount) {
        amount = _credits[account];
        if (amount == 0) revert NothingToWithdraw(account);

        _credits[account] = 0;
        owed -= amount;
        address to = IRegistry(registry).ownerOf(account);
        emit CreditWithdrawn(account, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc ICourt
    function burnPool() external returns (uint256 amount) {
        amount = pool();
        if (amount == 0) revert NothingToBurn();

        emit PoolBurned(amount);

        ERC20Burnable(token).burn(amount);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc ICourt
    function fee() public view returns (uint96) {
        return panel * memberFee;
    }

    /// @inheritdoc ICourt
    function appealFee() public view returns (uint96) {
        return appealPanel * memberFee;
    }

    /// @inheritdoc ICourt
    function caseOf(bytes32 id) external view returns (Case memory) {
        return _cases[id];
    }

    /// @inheritdoc ICourt
    function partiesOf(bytes32 id) external view returns (Parties memory) {
        return _parties[id];
    }

    /// @inheritdoc ICourt
    function ballotOf(bytes32 id, uint8 round, uint8 member) external view returns (Ballot memory) {
        return _ballots[id][round][member];
    }

    /// @inheritdoc ICourt
    function memberAt(bytes32 id, uint8 member) public view returns (address account, uint16 attempt) {
        Case storage found = _cases[id];
        if (found.state != State.Voting || member >= _size(found)) return (address(0), 0);
        Draws.Pool memory from = Draws.pool(IRegistry(registry), found.slots, found.drawnBlock, _parties[id]);
        bytes32 seed = found.seed;
        for (attempt = 0; attempt < MAX_ATTEMPTS; ++attempt) {
            account = Draws.admissible(
                from, Draws.slot(seed, "member", member, found.round, attempt, from.slots)
            );
            if (account != address(0)) return (account, attempt);
        }
        return (address(0), 0);
    }

    /// @inheritdoc ICourt
    function creditOf(address account) external view returns (uint256) {
        return _credits[account];
    }

    /// @inheritdoc ICourt
    function pool() public view returns (uint256) {
        return IERC20(token).balanceOf(address(this)) - owed;
    }

    // ---------------------------------------------------------------- internals: narrowing

    /// @dev The next exchange, or the panel once the disputed step is found.
    function _narrow(bytes32 id, Case storage found) private {
        if (found.hi - found.lo == 1) return _call(id, found);
        found.state = State.Posting;
        found.deadline = _after(moveWindow);
    }

    // ---------------------------------------------------------------- internals: panels

    function _call(bytes32 id, Case storage found) private {
        found.state = State.Drawing;
        found.drawnBlock = uint64(block.number);
        found.slots = IRegistry(registry).slotCount().toUint32();
        found.committed = 0;
        found.revealed = 0;
        found.forAccused = 0;
        found.forAccuser = 0;
        found.unserved = 0;
        emit PanelCalled(id, found.round, uint8(_size(found)), uint64(block.number) + SEED_DELAY);
    }

    function _drawPanel(bytes32 id, Case storage found) private {
        uint64 seedBlock = found.drawnBlock + SEED_DELAY;
        if (block.number <= seedBlock) revert TooEarly(0);
        bytes32 coin = IRandomness(randomness).valueAt(seedBlock);
        if (coin == 0) return _redraw(id, found); // nobody took it in time

        found.seed = keccak256(abi.encode(DOMAIN_COURT, id, found.round, coin));
        found.state = State.Voting;
        found.deadline = _after(commitWindow);
        found.revealUntil = found.deadline + revealWindow;
        emit PanelDrawn(id, found.round, found.seed, found.deadline, found.revealUntil);
    }

    function _count(bytes32 id, Case storage found) private {
        uint256 size = _size(found);
        uint256 revealed = found.revealed;
        bool complete = revealed == size || (revealed == found.committed && block.timestamp > found.deadline);
        if (!complete && block.timestamp <= found.revealUntil) revert TooEarly(found.revealUntil);
        if (revealed < size / 2 + 1) return _redraw(id, found);

        Ruling ruling = Ruling.Void;
        if (uint256(found.forAccused) * 2 > revealed) ruling = Ruling.ForAccused;
        else if (uint256(found.forAccuser) * 2 > revealed) ruling = Ruling.ForAccuser;
        else if (uint256(found.unserved) * 2 > revealed) ruling = Ruling.Unserved;
        if (!found.appealed) {
            found.ruling = ruling;
            found.firstRound = found.round;
            found.state = State.Appealable;
            found.deadline = _after(appealWindow);
            emit Decided(id, found.round, ruling, found.deadline);
            return;
        }

        bool overturned = ruling != found.ruling;
        found.ruling = ruling;
        emit Decided(id, found.round, ruling, 0);
        if (!overturned) _share(id, found.firstRound, panel, ruling, found.fee);
        _share(id, found.round, size, ruling, found.appealFee);
        if (overturned) {
            // Whom the first panel wronged gets its fee. The pool pays nothing: who fills a class of its own sits on both panels.
            owed -= found.fee;
            _repay(id, found, found.fee);
        }
        _rule(id, found, true);
    }

    function _redraw(bytes32 id, Case storage found) private {
        if (found.redraws < MAX_REDRAWS) {
            found.redraws += 1;
            found.round += 1;
            return _call(id, found);
        }
        if (found.appealed) {
            owed -= found.appealFee; // and owed to the appellant again
            _repay(id, found, found.appealFee);
            _share(id, found.firstRound, panel, found.ruling, found.fee);
        } else {
            found.ruling = Ruling.NoQuorum;
        }
        _rule(id, found, found.appealed);
    }

    function _size(Case storage found) private view returns (uint256) {
        return found.appealed ? appealPanel : panel;
    }

    // ---------------------------------------------------------------- internals: the end

    /// @param shared Members have earned the fee; else Claims takes it back.
    function _rule(bytes32 id, Case storage found, bool shared) private {
        found.state = State.Ruled;
        if (shared) found.fee = 0;
        found.appealFee = 0;
        emit Ruled(id, found.ruling);
    }

    /// @dev Those of one round who voted for what was ruled share `amount`; what nobody earned goes to the pool.
    function _share(bytes32 id, uint256 round, uint256 size, Ruling ruling, uint96 amount) private {
        owed -= amount;
        mapping(uint256 member => Ballot) storage ballots = _ballots[id][round];
        uint256 earners = 0;
        for (uint256 i = 0; i < size; ++i) if (_earns(ballots[i].vote, ruling)) ++earners;
        if (earners == 0) return;
        uint96 each = uint96(amount / earners);
        owed += each * earners;
        for (uint256 i = 0; i < size; ++i) {
            if (!_earns(ballots[i].vote, ruling)) continue;
            address account = ballots[i].member;
            _credits[account] += each;
            emit MemberPaid(id, account, each);
        }
    }

    function _earns(Vote vote, Ruling ruling) private pure returns (bool) {
        if (ruling == Ruling.ForAccused) return vote == Vote.Accused;
        if (ruling == Ruling.ForAccuser) return vote == Vote.Accuser;
        if (ruling == Ruling.Unserved) return vote == Vote.Unserved;
        return vote != Vote.None && vote != Vote.Unserved; // Void
    }

    function _repay(bytes32 id, Case storage found, uint96 amount) private {
        if (amount == 0) return;
        address appellant = found.appellant;
        _credits[appellant] += amount;
        owed += amount;
        emit AppellantPaid(id, appellant, amount);
    }

    // ---------------------------------------------------------------- internals: time

    function _after(uint40 window) private view returns (uint40) {
        return (block.timestamp + window).toUint40();
    }

    function _intime(uint40 deadline) private view {
        if (block.timestamp > deadline) revert TooLate(deadline);
    }
}
