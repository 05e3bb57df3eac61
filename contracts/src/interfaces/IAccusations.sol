// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Lease, Order, Tally} from "../generated/Messages.sol";
import {ICourt} from "./ICourt.sol";
import {Signature} from "./Types.sol";

/// @title IAccusations: takes the lock of a worker that cheated.
/// @notice Two ways in, both for orders whose auditors are `open`, both until the seat's lock ends:
///
/// - **accuse**: anybody who can show a unit that the worker signed, and says that it is wrong, meets the worker before the
///   {ICourt}. The case touches the lock and the unpaid part of the seat, never credits, and binds only its two parties: a
///   friend's accusation that fails on purpose stops nobody else's. (A seat has room for 255 live cases; accusations leave
///   two of them, for the worker's claim and for proofs, so neither side can shut the other out.)
/// - **fraud**: two words of a worker that give different leaves for one position of one seat cost it the lock at once.
///
/// An accusation is live from `accuse` to `acquitOrConvict`, which anybody may call once the Court has ruled; every state of
/// the Court has its own exit. A claim of the same seat is not paid while an accusation is live that began before the end of
/// the claim's challenge window (`blocking`).
///
/// Money. Accusations holds the bonds of live accusations, and credits. B = order.claimBond, fee = Court.fee().
/// - An accuser deposits fee + B; fee goes to the Court. ForAccuser: it is credited B + what the Court gave back + the rest of
///   the fee out of the court's share of its slash (15 % of what was slashed, rounded down), as far as that reaches; the
///   whole lock is slashed with the accuser as prover (20 %, as JobEscrow credit), the seat is forfeited. ForAccused,
///   Unserved: the worker is credited B; what the Court gave back (the accuser was silent) goes to the Court's pool: were it
///   the worker's, a friend's accusation would hold its lock for nothing. Void, NoQuorum: the accuser is credited B + what the
///   Court gave back; nobody is slashed. (A void costs an accuser the fee: nobody lives on accusing bad programs.)
/// @dev Messages are checked in JobEscrow's EIP-712 domain. There is no privileged key. Time is `block.timestamp`. Where a
/// call lists refusals, they are tested in that order; an error of JobEscrow, Court or Token passes through.
interface IAccusations {
    // ---------------------------------------------------------------- types
    struct Accusation {
        address accuser; // zero: there is none
        bool blocking; // a claim of the seat waits for it
        bool ended;
        uint96 bond; // B, beside the fee
        bytes32 seat;
    }

    enum Word {
        Receipt, // signed by the worker
        Tally, // signed by the worker; `path` shows the leaf in its root
        Claim // the root of a claim of this seat, live or ended; `path` shows the leaf in it
    }

    /// @notice How a worker is bound to a leaf at a position of its seat.
    struct Statement {
        Word word;
        bytes32 leaf;
        Signature signature; // Receipt and Tally
        Tally tally; // Tally, else zero
        bytes32 claim; // Claim, else zero
        bytes32[] path; // Tally and Claim, else empty
    }

    /// @notice The unit in question, and what the accuser found instead.
    struct Charge {
        uint40 position;
        Statement statement;
        bytes32 unitId;
        Signature assign; // the signer's, for (seat, position, unitId)
        bytes32 start; // of the leaf
        bytes32 end;
        bytes32 salt;
        bytes32 aux;
        bytes32 ownStart;
        bytes32 ownEnd;
        uint32 steps;
    }

    // ---------------------------------------------------------------- events
    /// @notice `accusation` is the Court's case id too.
    event Accused(bytes32 indexed accusation, bytes32 indexed seat, address indexed accuser, uint40 position, uint96 bond);
    event AccusationEnded(bytes32 indexed accusation, bytes32 indexed seat, ICourt.Ruling ruling);
    event FraudProved(
        bytes32 indexed seat, uint40 position, bytes32 leafA, bytes32 leafB, address indexed prover, uint96 slashed
    );
    event CreditWithdrawn(address indexed account, address indexed to, uint256 amount);

    // ---------------------------------------------------------------- errors
    error ZeroAddress();
    /// @notice The order's auditors are not `open`.
    error NotOpenToAll();
    error BadStatement();
    error BadCharge();
    error SameLeaf();
    error NothingToSlash();
    error NoSuchAccusation(bytes32 accusation);
    error WrongLease();
    error NothingToWithdraw(address account);

    // ---------------------------------------------------------------- accusations
    /// @notice Say that a signed unit is wrong, with accusationBond(order) deposited. The Court opens a case.
    /// @dev Refuses: auditors not open; JobEscrow.hold (the lock has ended); CASES_MAX - 2 cases live
    /// (IJobEscrow.TooManyCases); the statement does not bind the worker (BadStatement); the fields do not give its leaf, no Assign by the signer, own start and end are the leaf's
    /// (BadCharge); too few witnesses; the same accusation before (ICourt.CaseExists); no tokens.
    /// @return accusation keccak(abi.encode(DOMAIN_ACCUSATION, seat, position, leaf, accuser))
    function accuse(Order calldata order, Lease calldata lease, Charge calldata charge, uint256[] calldata witnesses)
        external
        returns (bytes32 accusation);

    /// @notice Carry out the Court's ruling. By anyone. It binds only its two parties. (To repay a fee it has the escrow pay the
    /// Court its credit first, then asks the Court for the part.)
    /// @dev Refuses: no such live accusation; another lease; the Court (ICourt.NotRuled).
    function acquitOrConvict(Lease calldata lease, bytes32 accusation) external;

    /// @notice Two words of one worker that give different leaves for one position: its lock is slashed by proof, with the
    /// caller as prover and without a share for the Court; a claim of a contradicted root fails, also where nothing is left of
    /// the lock. No more: the seat stays.
    /// @dev Refuses: auditors not open; one leaf twice; JobEscrow.hold (the lock has ended, CASES_MAX cases live); a statement
    /// that does not bind the worker; no lock left, and neither word is a claimed root (NothingToSlash).
    function fraud(Order calldata order, Lease calldata lease, uint40 position, Statement calldata a, Statement calldata b)
        external;

    // ---------------------------------------------------------------- credits
    /// @notice Pay out an account's credit to its owner (Registry.ownerOf). By anyone.
    function withdraw(address account) external returns (uint256 amount);

    // ---------------------------------------------------------------- views
    function DOMAIN_ACCUSATION() external view returns (bytes32);
    function token() external view returns (address);
    function registry() external view returns (address);
    function escrow() external view returns (address);
    function claims() external view returns (address);
    function court() external view returns (address);
    function accusationOf(bytes32 accusation) external view returns (Accusation memory);
    /// @notice Live accusations of this seat that a claim waits for.
    function blocking(bytes32 seat) external view returns (uint8);
    /// @notice Court.fee() + order.claimBond.
    function accusationBond(Order calldata order) external view returns (uint96);
    function creditOf(address account) external view returns (uint256);
}
