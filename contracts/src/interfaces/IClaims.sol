// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Lease, Order, Tally} from "../generated/Messages.sol";
import {ICourt} from "./ICourt.sol";
import {Signature} from "./Types.sol";

/// @title IClaims: pays a worker whose payer is silent.
/// @notice A worker with unpaid units shows a root over at most two tallies; drawn auditors recompute a sample of it on chain;
/// who says MISMATCH meets the worker before the {ICourt}. Only for orders whose auditors are `open`. Beside it stands
/// {IAccusations}, by which a worker that cheated loses its lock. A seat with a live claim neither closes nor expires, one with
/// a live claim or accusation does not unlock (JobEscrow.hold and letGo).
///
/// A claim's life. Every state has a deadline, and {conclude}, which anybody may call, is the exit:
///
/// | state | who acts | until | what `conclude` does after it |
/// |---|---|---|---|
/// | Pending | anybody: `capture`, from SEED_DELAY + 1 blocks on | the seed block's value is no longer kept | Failed |
/// | Sampling | auditors: `commit` before sampledAt + RANKS x commitWindow and before the first opening; anybody: `open` from then, or from the moment when all k have committed | sampledAt + RANKS x commitWindow + openWindow | Failed |
/// | Revealing | auditors that committed: `reveal` | revealWindow after the last leaf was opened, or when all that committed have revealed | the decision below; while a case of this claim is before the Court: TooEarly(0) |
/// | Challengeable | anybody: IAccusations | challengeWindow after the decision | Paid or Halved, Failed where the worker was convicted meanwhile; while an accusation of this seat is live that began before the deadline: TooEarly(0) |
/// | Paid, Halved, Failed | nobody | | |
///
/// The decision. k = min(count, max(2, ceil(auditRateBp x count / 10000)), 16) positions from + units[0 … k-1], the
/// Fisher-Yates draw of docs/PROTOCOL.md section 5.3 from seed = keccak(abi.encode(DOMAIN_SEED, seat, 0, root, randomness
/// of block claimed + SEED_DELAY)). A sample that nobody committed to, or that was not revealed, is unheard. In this order:
/// 1. the root was refuted by fraud, the seat is no longer open (a conviction forfeits it), or any sample Upheld: Failed;
/// 2. any sample Undecided (the Court had no quorum): Challengeable for half;
/// 3. (Match + Acquitted + Void) x 2 > k: Challengeable in full;
/// 4. (Unavailable + Unserved) x 2 > k: Failed: whoever claims serves the inputs, and it kept them to run the units;
/// 5. else nobody was heard: Challengeable for half.
/// Half is count / 2 whole units, rounded down.
///
/// Auditors. Sample i may be committed to by the account of rank r from sampledAt + r x commitWindow on, r < RANKS. Rank r is
/// the (r+1)-th different admissible account among attempts 0, 1, 2, …: attempt a hits slot uint(keccak(abi.encode(seed,
/// "auditor", units[i], 0, a))) mod slots (slots and their liveness as of the claim's block); admissible is a live slot whose
/// account is not payer, signer or worker, has none of their owners, and is in the lease's class.
///
/// Money. Claims holds the bonds of live claims and of their auditors, and credits. B = order.claimBond.
/// - A claimer deposits B, each auditor that commits deposits B, the payer's B waits in its seat. fee = Court.fee().
/// - An auditor's pay is a = min(price x 11 / 10, B / k), a tenth of it for Unavailable, nothing for Acquitted, Unserved and
///   unheard (but `a` to all that committed where the leaves were not opened in time: that is the claimer's fault). It comes out of the payer's B (JobEscrow.takeBond) where the claim was Paid or Halved, for that is what not
///   paying costs; out of the claimer's where it Failed. In both, sample by sample, as far as it reaches.
/// - Reveal credits the auditor its B back, unless it says MISMATCH: then fee goes to the Court and the rest waits for the
///   ruling. A commitment that was not opened forfeits B to the Court's pool, at the decision, before its events.
/// - Ruled ForAccuser (Upheld): the auditor is credited B - fee + what the Court gave back, and the rest of the fee out of
///   the claimer's bond as far as it reaches; the lock is slashed with the auditor as prover, the seat forfeited.
///   ForAccused, Unserved (Acquitted, Unserved): the worker, whoever carried its claim, is credited B - fee + what the Court
///   gave back. Void: the
///   auditor is credited B - fee + what the Court gave back, and the fee with its pay at the end.
///   NoQuorum (Undecided): the auditor is credited B - fee + what the Court gave back (all of it).
/// - Paid and Halved credit the claimer B. Failed credits what auditors and refunds left of it to the payer.
/// @dev Messages are checked in JobEscrow's EIP-712 domain. There is no privileged key. Time is `block.timestamp`. Where a
/// call lists refusals, they are tested in that order; an error of JobEscrow, Registry, Court or Token passes through.
interface IClaims {
    // ---------------------------------------------------------------- types
    enum State {
        None,
        Pending,
        Sampling,
        Revealing,
        Challengeable,
        Paid,
        Halved,
        Failed
    }

    enum Heard {
        None, // nobody committed
        Committed,
        Match,
        Unavailable,
        Disputed, // MISMATCH, before the Court
        Acquitted, // the Court found the worker's value right
        Unserved, // the auditor could not show the bytes of the disputed step
        Upheld, // the Court found the auditor's value right
        Void,
        Undecided // no quorum
    }

    struct Claim {
        State state;
        bool half; // Challengeable or Halved: for half
        bool refuted; // the worker's own word contradicts the root
        uint8 k;
        uint8 committed;
        uint8 opened;
        uint8 revealed;
        uint8 inCourt; // cases that were not ruled yet
        uint40 from;
        uint40 count;
        uint40 sampledAt;
        uint40 deadline; // Sampling: of the openings; Revealing; Challengeable
        uint32 slots; // of Registry at the claim's block
        uint64 blockNumber; // of the claim
        uint96 price; // per unit
        uint96 bond; // B
        uint96 left; // of the claimer's bond
        address claimer;
        bytes32 seat;
        bytes32 root;
        bytes32 chain; // keccak(abi.encode(previous, root, from, count))
        bytes32 seed;
    }

    struct Sample {
        Heard heard;
        address auditor;
        bytes32 commitment; // keccak(abi.encode(end, salt, auditor, probe)), as in an AuditCommit
        bytes32 opened; // keccak(abi.encode(start, end)) of the leaf; zero until it is opened
    }

    /// @notice What Claims remembers of a seat.
    struct Quarrels {
        bytes32 claim; // the live one, zero if none
        uint40 claimedTo; // positions below it were claimed once
    }

    /// @notice The opening of one sample's leaf, with the signer's Assign of that position and the leaf's path.
    struct Opening {
        uint8 sample;
        bytes32 unitId;
        bytes32 start;
        bytes32 end;
        bytes32 salt;
        bytes32 aux;
        Signature assign;
        bytes32[] path;
    }

    /// @notice What an auditor says: its own `end` (zero: UNAVAILABLE) and `start`, beside the leaf's as it was opened.
    struct Finding {
        bytes32 openedStart;
        bytes32 openedEnd;
        bytes32 start;
        bytes32 end;
        bytes32 salt;
        bytes32 probe;
        uint32 steps; // of the unit; 1: the Court votes on the end at once
    }

    // ---------------------------------------------------------------- events
    event Claimed(
        bytes32 indexed claim,
        bytes32 indexed seat,
        address indexed claimer,
        bytes32 root,
        uint40 from,
        uint40 count,
        uint96 bond,
        uint64 seedBlock
    );
    event Captured(bytes32 indexed claim, bytes32 seed, uint8 k, uint40 openBy);
    event AuditCommitted(bytes32 indexed claim, uint8 sample, address indexed auditor, uint8 rank);
    event LeafOpened(
        bytes32 indexed claim, uint8 sample, uint40 position, bytes32 unitId, bytes32 start, bytes32 end, bytes32 aux
    );
    event AuditRevealed(bytes32 indexed claim, uint8 sample, address indexed auditor, Heard heard);
    /// @notice A sample went to the Court under this case id.
    event SampleDisputed(bytes32 indexed claim, uint8 sample, bytes32 indexed courtCase);
    event SampleRuled(bytes32 indexed claim, uint8 sample, Heard heard);
    event Challengeable(bytes32 indexed claim, bool half, uint40 until);
    /// @notice Paid, Halved or Failed; `units` is the cumulative number to which the claim pays: from + count, or half of it
    /// (also where the seat was paid further meanwhile); 0 where Failed.
    event ClaimEnded(bytes32 indexed claim, bytes32 indexed seat, State state, uint40 units);
    /// @notice Out of the claimer's bond, where it Failed (out of the payer's: JobEscrow.BondTaken).
    event AuditorPaid(bytes32 indexed claim, uint8 sample, address indexed auditor, uint96 amount);
    event CreditWithdrawn(address indexed account, address indexed to, uint256 amount);

    // ---------------------------------------------------------------- errors
    error ZeroAddress();
    error BadParameter(bytes32 name);
    /// @notice The order's auditors are not `open`.
    error NotOpenToAll();
    /// @notice B is below the Court's fee, or the seat no longer holds it.
    error BondTooSmall(uint96 bond, uint96 needed);
    error SeatNotOpen(bytes32 seat);
    error ClaimLive(bytes32 claim);
    error BadTally();
    error BadSignature(address expected);
    error BadRange();
    error AlreadyClaimed(uint40 claimedTo);
    error WrongState(bytes32 claim, State state);
    error WrongLease();
    error TooEarly(uint40 from);
    error TooLate(uint40 deadline);
    error BadSample(uint8 sample);
    error NotDrawn(address caller, uint8 sample, uint16 attempt);
    /// @notice Path, position, Assign or fields do not give a leaf of the root.
    error BadOpening(uint8 sample);
    error NotYours(uint8 sample);
    error BadReveal(bytes32 commitment);
    error NotAccusations(address caller);
    error NothingToWithdraw(address account);

    // ---------------------------------------------------------------- claims
    /// @notice Claim the pay of the positions of a tally, for the worker of this seat, with B deposited. By anyone who has the
    /// worker's signature of exactly this: a Tally with the number CLAIM_TALLY, which it signs for nothing else (a claim
    /// stakes the worker's word on its root, and each position is claimed once). The worker itself needs no signature. The
    /// block that the tally names is not looked at.
    /// @param witnesses Slots of accounts that could judge (ICourt.checkMembers).
    /// @dev Refuses: auditors not open; B below Court.fee(); JobEscrow.hold (order and lease are not of one job,
    /// CASES_MAX cases live); seat not open (SeatNotOpen); a tally of another seat or number (BadTally); not signed by the worker
    /// (BadSignature); the payer's B no longer whole in the seat (BondTooSmall); a live claim; now > until +
    /// order.claimWindow (TooLate); not start <= paidUnits < start + count <= units, or count > 2 x order.tallyUnits
    /// (BadRange); start < claimedTo; too few witnesses; no tokens. (Units below paidUnits are sampled and not paid again. A
    /// claim from just paidUnits on would be evaded: its payer sees it coming and pays one unit in front of it.)
    /// @return id keccak(abi.encode(DOMAIN_CLAIM, seat, root, start, count))
    function claim(
        Order calldata order,
        Lease calldata lease,
        Tally calldata tally,
        Signature calldata signature,
        uint256[] calldata witnesses
    ) external returns (bytes32 id);

    /// @notice Take the seed. By anyone. Pending -> Sampling.
    /// @dev Refuses: state; the seed block is not over (TooEarly(0)); its value is no longer kept (TooLate(0)).
    function capture(bytes32 claim) external;

    /// @notice The caller will audit this sample, with B deposited. `attempt` is the draw's that gives it this rank, below
    /// MAX_ATTEMPTS; {auditorAt} finds it.
    /// @dev Refuses: state; a leaf was opened, or now >= sampledAt + RANKS x commitWindow (TooLate); sample >= k or taken
    /// (BadSample); not of this rank at this attempt (NotDrawn); its rank's time has not come (TooEarly).
    function commit(bytes32 claim, uint8 sample, uint8 rank, uint16 attempt, bytes32 commitment) external;

    /// @notice Show leaves of samples. By anyone. One that was shown before is skipped. All k shown: -> Revealing.
    /// @dev Refuses: state; fewer than k committed and commitments are still possible (TooEarly); after the deadline; then
    /// per opening: sample >= k; not a leaf of the root at the sample's position, or no Assign by the signer.
    function open(bytes32 claim, Opening[] calldata openings) external;

    /// @notice Say what the caller found. Its `end` zero: Unavailable; both as the leaf says: Match; else Disputed, and a
    /// case keccak(abi.encode(DOMAIN_CASE, claim, sample)) opens before the Court between worker and auditor.
    /// @dev Refuses: state; after the deadline; sample >= k; not committed by the caller, or revealed before (NotYours);
    /// openedStart and openedEnd are not the leaf's (BadOpening); the commitment is another one.
    function reveal(bytes32 claim, uint8 sample, Finding calldata finding) external;

    /// @notice Carry out the Court's ruling on a disputed sample. By anyone.
    /// @dev Refuses: another lease; a sample that is not Disputed (BadSample); the Court (ICourt.NotRuled).
    function rule(Lease calldata lease, bytes32 claim, uint8 sample) external;

    /// @notice Move a claim on whose state's time is over (table above). By anyone.
    /// @dev Refuses: another lease; None, Paid, Halved, Failed (WrongState); not yet (TooEarly with the time, then TooEarly(0)
    /// while the Court or, once Challengeable, a blocking accusation has not ended, or the seed block's value is kept).
    function conclude(Lease calldata lease, bytes32 claim) external;

    // ---------------------------------------------------------------- calls of Accusations
    /// @notice A claim's root contradicts another word of the worker: the claim will fail.
    /// @dev Refuses: another caller.
    function refute(bytes32 claim) external;

    // ---------------------------------------------------------------- credits
    /// @notice Pay out an account's credit to its owner (Registry.ownerOf). By anyone.
    function withdraw(address account) external returns (uint256 amount);

    // ---------------------------------------------------------------- views
    function DOMAIN_SEED() external view returns (bytes32);
    function DOMAIN_LEAF() external view returns (bytes32);
    function DOMAIN_CLAIM() external view returns (bytes32);
    function DOMAIN_CASE() external view returns (bytes32);
    /// @notice The number of a Tally that is signed for a claim: 2^32 - 1.
    function CLAIM_TALLY() external view returns (uint32);
    function SEED_DELAY() external view returns (uint64);
    function MAX_ATTEMPTS() external view returns (uint16);
    /// @notice Auditors that may be asked for one sample, one after the other: 3.
    function RANKS() external view returns (uint8);
    function SAMPLES_MIN() external view returns (uint8);
    function SAMPLES_MAX() external view returns (uint8);
    function token() external view returns (address);
    function registry() external view returns (address);
    function escrow() external view returns (address);
    function accusations() external view returns (address);
    function court() external view returns (address);
    function randomness() external view returns (address);
    function commitWindow() external view returns (uint40);
    function openWindow() external view returns (uint40);
    function revealWindow() external view returns (uint40);
    function challengeWindow() external view returns (uint40);
    function claimOf(bytes32 claim) external view returns (Claim memory);
    function sampleOf(bytes32 claim, uint8 sample) external view returns (Sample memory);
    /// @notice What binds a worker in a claim; zeros where there is none.
    function rootOf(bytes32 claim) external view returns (bytes32 seat, bytes32 root, uint40 from, uint40 count);
    /// @notice Whether the seat's live claim has outlived its challenge window: what begins now holds it up no more.
    function unchallenged(bytes32 seat) external view returns (bool);
    function quarrelsOf(bytes32 seat) external view returns (Quarrels memory);
    /// @notice Indices within the claim (0 … count - 1) of the k units drawn.
    function unitsOf(bytes32 claim) external view returns (uint256[] memory);
    /// @notice The auditor of this rank, and the attempt that found it; zero where there is none.
    function auditorAt(bytes32 claim, uint8 sample, uint8 rank) external view returns (address account, uint16 attempt);
    function creditOf(address account) external view returns (uint256);
}
