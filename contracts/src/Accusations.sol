// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {Assign, Lease, Messages, Order, Receipt, Tally} from "./generated/Messages.sol";
import {IAccusations} from "./interfaces/IAccusations.sol";
import {IClaims} from "./interfaces/IClaims.sol";
import {ICourt} from "./interfaces/ICourt.sol";
import {IJobEscrow} from "./interfaces/IJobEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Merkle} from "./libraries/Merkle.sol";
import {Words} from "./libraries/Words.sol";

/// @title Accusations
/// @dev The specification is {IAccusations}. All that it calls is this project's own and calls nobody back.
contract Accusations is IAccusations {
    using SafeERC20 for IERC20;

    /// @inheritdoc IAccusations
    bytes32 public constant DOMAIN_ACCUSATION = keccak256("tallymesh.accusation.1");
    uint256 private constant BP = 10_000;
    uint256 private constant COURT_SHARE_BP = 1_500; // of slashed stake, as JobEscrow divides it

    /// @inheritdoc IAccusations
    address public immutable token;
    /// @inheritdoc IAccusations
    address public immutable registry;
    /// @inheritdoc IAccusations
    address public immutable escrow;
    /// @inheritdoc IAccusations
    address public immutable claims;
    /// @inheritdoc IAccusations
    address public immutable court;

    mapping(bytes32 accusation => Accusation) private _accusations;
    /// @inheritdoc IAccusations
    mapping(bytes32 seat => uint8) public blocking;
    mapping(address account => uint256) private _credits;

    constructor(address token_, address registry_, address escrow_, address claims_, address court_) {
        if (token_ == address(0) || registry_ == address(0) || escrow_ == address(0)) revert ZeroAddress();
        if (claims_ == address(0) || court_ == address(0)) revert ZeroAddress();
        token = token_;
        registry = registry_;
        escrow = escrow_;
        claims = claims_;
        court = court_;
        IERC20(token_).forceApprove(court_, type(uint256).max); // it takes the fee of each case
    }

    // ---------------------------------------------------------------- accusations

    /// @inheritdoc IAccusations
    function accuse(Order calldata order, Lease calldata lease, Charge calldata charge, uint256[] calldata witnesses)
        external
        returns (bytes32 id)
    {
        if (order.auditors != Messages.AUDITORS_OPEN) revert NotOpenToAll();
        (bytes32 seat, IJobEscrow.Seat memory held) = IJobEscrow(escrow).hold(order, lease);
        // One case is left for the claim, one for proofs: friends or the payer could keep both out.
        if (held.cases > IJobEscrow(escrow).CASES_MAX() - 2) revert IJobEscrow.TooManyCases(seat);
        if (!_binds(seat, lease.worker, charge.position, charge.statement)) revert BadStatement();
        _checkCharge(seat, order.signer, charge);
        ICourt.Parties memory parties =
            ICourt.Parties(lease.worker, msg.sender, order.payer, order.signer, lease.numericClass);
        ICourt(court).checkMembers(parties, witnesses);
        id = keccak256(abi.encode(DOMAIN_ACCUSATION, seat, charge.position, charge.statement.leaf, msg.sender));
        if (_accusations[id].accuser != address(0)) revert ICourt.CaseExists(id);

        // What begins after a claim's last day holds its pay up no more, or it could be held up for ever.
        bool blocks = !IClaims(claims).unchallenged(seat);
        if (blocks) blocking[seat] += 1;
        _accusations[id] = Accusation(msg.sender, blocks, false, order.claimBond, seat);
        emit Accused(id, seat, msg.sender, charge.position, order.claimBond);

        IERC20(token).safeTransferFrom(msg.sender, address(this), accusationBond(order));
        ICourt(court).open(
            id, parties, ICourt.Dispute(charge.start, charge.end, charge.ownStart, charge.ownEnd, charge.steps)
        );
    }

    /// @inheritdoc IAccusations
    function acquitOrConvict(Lease calldata lease, bytes32 id) external {
        Accusation storage found = _accusations[id];
        if (found.accuser == address(0) || found.ended) revert NoSuchAccusation(id);
        bytes32 seat = found.seat;
        if (IJobEscrow(escrow).seatIdOf(lease) != seat) revert WrongLease();
        (ICourt.Ruling ruling, uint96 feeLeft) = ICourt(court).take(id);

        found.ended = true;
        if (found.blocking) blocking[seat] -= 1;
        emit AccusationEnded(id, seat, ruling);
        uint96 back = found.bond + feeLeft;
        address to = found.accuser;
        if (ruling == ICourt.Ruling.ForAccused && feeLeft != 0) {
            // It was silent. Were the fee the worker's, a friend's accusation would shield it for nothing.
            back -= feeLeft;
            IERC20(token).safeTransfer(court, feeLeft);
        }
        if (ruling == ICourt.Ruling.ForAccuser) back += _convict(lease, id, to, ICourt(court).fee() - feeLeft);
        else if (ruling == ICourt.Ruling.ForAccused || ruling == ICourt.Ruling.Unserved) to = lease.worker;
        _credits[to] += back;
        IJobEscrow(escrow).letGo(lease);
    }

    /// @inheritdoc IAccusations
    function fraud(
        Order calldata order,
        Lease calldata lease,
        uint40 position,
        Statement calldata a,
        Statement calldata b
    ) external {
        if (order.auditors != Messages.AUDITORS_OPEN) revert NotOpenToAll();
        if (a.leaf == b.leaf) revert SameLeaf();
        (bytes32 seat,) = IJobEscrow(escrow).hold(order, lease);
        if (!_binds(seat, lease.worker, position, a) || !_binds(seat, lease.worker, position, b)) revert BadStatement();

        if (a.word == Word.Claim) IClaims(claims).refute(a.claim);
        if (b.word == Word.Claim) IClaims(claims).refute(b.claim);
        uint96 slashed = IJobEscrow(escrow).slash(lease, lease.lock, order.payer, msg.sender, false);
        if (slashed == 0 && a.word != Word.Claim && b.word != Word.Claim) revert NothingToSlash();
        emit FraudProved(seat, position, a.leaf, b.leaf, msg.sender, slashed);
        IJobEscrow(escrow).letGo(lease);
    }

    // ---------------------------------------------------------------- credits

    /// @inheritdoc IAccusations
    function withdraw(address account) external returns (uint256 amount) {
        amount = _credits[account];
        if (amount == 0) revert NothingToWithdraw(account);

        _credits[account] = 0;
        address to = IRegistry(registry).ownerOf(account);
        emit CreditWithdrawn(account, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IAccusations
    function accusationOf(bytes32 id) external view returns (Accusation memory) {
        return _accusations[id];
    }

    /// @inheritdoc IAccusations
    function accusationBond(Order calldata order) public view returns (uint96) {
        return ICourt(court).fee() + order.claimBond;
    }

    /// @inheritdoc IAccusations
    function creditOf(address account) external view returns (uint256) {
        return _credits[account];
    }

    // ---------------------------------------------------------------- internals

    function _checkCharge(bytes32 seat, address signer, Charge calldata charge) private view {
        Merkle.Fields memory fields =
            Merkle.Fields(charge.unitId, charge.start, charge.end, charge.salt, charge.aux);
        if (Merkle.leaf(seat, charge.position, fields) != charge.statement.leaf) revert BadCharge();
        bytes32 assigned = Messages.hash(Assign(seat, charge.position, charge.unitId));
        if (!Words.signed(escrow, signer, assigned, charge.assign)) revert BadCharge();
        if (charge.ownStart == charge.start && charge.ownEnd == charge.end) revert BadCharge();
    }

    /// @dev Whether the worker said that its leaf at this position is `said.leaf`.
    function _binds(bytes32 seat, address worker, uint40 position, Statement calldata said)
        private
        view
        returns (bool)
    {
        if (said.word == Word.Receipt) {
            bytes32 receipt = Messages.hash(Receipt(seat, position, said.leaf));
            return Words.signed(escrow, worker, receipt, said.signature);
        }
        if (said.word == Word.Tally) {
            Tally calldata tally = said.tally;
            if (tally.seat != seat || position < tally.start) return false;
            if (!Merkle.verify(tally.root, tally.count, position - tally.start, said.leaf, said.path)) return false;
            return Words.signed(escrow, worker, Messages.hashCalldata(tally), said.signature);
        }
        (bytes32 claimed, bytes32 root, uint40 from, uint40 count) = IClaims(claims).rootOf(said.claim);
        if (claimed != seat || position < from) return false;
        return Merkle.verify(root, count, position - from, said.leaf, said.path);
    }

    /// @return repaid What the court's share of this slash gives back of the fee: never more, or the court's pool could be
    /// farmed with small locks of one's own.
    function _convict(Lease calldata lease, bytes32 id, address accuser, uint96 spent) private returns (uint96 repaid) {
        address payer = ICourt(court).partiesOf(id).payer;
        uint96 slashed = IJobEscrow(escrow).slash(lease, lease.lock, payer, accuser, true);
        IJobEscrow(escrow).forfeit(lease);
        repaid = uint96(uint256(slashed) * COURT_SHARE_BP / BP);
        if (repaid > spent) repaid = spent;
        if (repaid == 0) return 0;
        IJobEscrow(escrow).withdraw(court); // its credit, which now holds that share, to itself
        return ICourt(court).reimburse(repaid);
    }
}
