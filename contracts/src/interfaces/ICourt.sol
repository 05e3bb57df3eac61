// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title ICourt: decides which of two statements about one unit is right, by drawn members who recompute one step of it.
/// @notice A unit is a row of values: value 0 is its start (named by its unit id), value i the hash of its state after step
/// i, value `steps` its end; after the last step a state stays as it is, so too large a number of steps harms nobody. The
/// accused (a worker) and the accuser agree on some value and disagree on a later one. They narrow that down to one step
/// in at most log2(steps) exchanges (the accused posts the middle value, the accuser answers with its own); then members,
/// drawn by slots from those who are staked in the unit's numeric class, recompute that step and vote by commit and reveal.
/// What they vote on is always the value at `hi`, recomputed from the value at `lo`, however far apart the two are: where the
/// accused never moves, that is the whole unit. (hi = 0: the start, as the unit's id names it.)
///
/// States. Every one has a deadline, and {advance}, which anybody may call, is the exit:
///
/// | state | who acts | deadline | what `advance` does then |
/// |---|---|---|---|
/// | Posting | the accused: `post` | moveWindow | it has posted nothing yet (`posted` is zero): a panel is called on `lo` = 0 and `hi` = steps, the whole unit -> Drawing; else its silence convicts: ForAccuser -> Ruled |
/// | Answering | the accuser: `answer` | moveWindow | the accuser was silent: ForAccused -> Ruled |
/// | Drawing | anybody: `advance` from the 5th block on | `kept` blocks after | takes the seed -> Voting; too late: redraw |
/// | Voting | members: `commit` until the deadline, `reveal` from it until `revealUntil` (or from the moment when every member of the panel has committed) | revealUntil | counts (also before it, once the whole panel or, after the deadline, all that committed have revealed): Appealable, Ruled, or redraw |
/// | Appealable | a party: `appeal` | appealWindow | -> Ruled |
/// | Ruled | nobody | - | - |
///
/// Panels. Member m of a panel is the account of the first admissible slot among attempts 0, 1, 2, … where attempt a hits
/// slot uint(keccak(abi.encode(seed, "member", m, round, a))) mod slots; `seed` = keccak(abi.encode(DOMAIN_COURT, case,
/// round, randomness of block `drawnBlock + SEED_DELAY`), `slots` and liveness of slots as of `drawnBlock`. Admissible is a
/// slot that is live then, whose account is none of the parties (accused, accuser, payer, signer), has none of their owners,
/// and is in the case's class when it votes. Drawing is with replacement: who is drawn twice has two votes. `round` counts
/// from 0 over all draws of a case, those of the appeal too.
///
/// Counting. A vote is the value that the member found for the disputed step, or UNSERVED where neither party served the
/// bytes that it needs. Fewer than panel/2 + 1 votes revealed: redraw; the panel's fourth failure is NoQuorum (in an appeal:
/// the first ruling stands). A strict majority of the votes revealed for the accused's value, for the accuser's, or UNSERVED
/// decides; else Void. One appeal, by either party, to a panel of `appealPanel`, which it pays.
///
/// Money. The Court holds the fee of every open case, the fees of appeals and the members' credits (`owed` is their sum);
/// the rest of its balance is the pool. At Ruled each panel's fee is shared by those of its members who voted for what was
/// ruled (Void: by all who did not vote UNSERVED; Unserved: by those who did), rounded down; what nobody earned stays in the
/// pool. A case that ends without a vote (silence, NoQuorum) gives its fee back to whoever opened it. Where an appeal changes the
/// ruling, the first panel earns nothing: its whole fee is credited to the appellant. An appeal without quorum gives the
/// appellant its own fee back, and the first panel keeps what it earned.
/// The pool pays nobody: in a class of one's own one could sit on every panel and draw on it. All of it can be burned by
/// anybody (`burnPool`). Only `reimburse` takes from it, within the transaction that brought as much.
/// @dev Only Claims and Accusations open cases. There is no privileged key. Time is `block.timestamp`.
interface ICourt {
    // ---------------------------------------------------------------- types
    enum State {
        None,
        Posting,
        Answering,
        Drawing,
        Voting,
        Appealable,
        Ruled
    }

    enum Ruling {
        None,
        ForAccused,
        ForAccuser,
        Void, // the program gives no one answer: the payer answers for it
        Unserved, // nobody served the disputed step's bytes: the accuser loses
        NoQuorum
    }

    enum Vote {
        None,
        Accused,
        Accuser,
        Other,
        Unserved
    }

    /// @notice Whom a case concerns. None of them, nor their owners, may be members.
    struct Parties {
        address accused;
        address accuser;
        address payer;
        address signer;
        bytes32 numericClass;
    }

    /// @notice What the two say. `start` is value 0, `end` value `steps`.
    struct Dispute {
        bytes32 accusedStart;
        bytes32 accusedEnd;
        bytes32 accuserStart;
        bytes32 accuserEnd;
        uint32 steps;
    }

    /// @notice A case. They agree on value `lo` (`agreed`), and disagree on value `hi`. In Drawing and later these two bound
    /// what members recompute: one step, or the start (hi = 0), or the whole unit (lo = 0, where the accused never moved).
    struct Case {
        State state;
        Ruling ruling; // provisional until Ruled
        bool appealed;
        uint8 redraws; // of the present panel
        uint8 round; // of the present panel
        uint8 firstRound; // the round in which the first panel decided
        uint32 lo;
        uint32 hi;
        uint40 deadline; // of the state; Voting: of the commitments
        uint40 revealUntil; // Voting only
        uint64 drawnBlock;
        uint32 slots;
        uint8 committed; // of the present round
        uint8 revealed;
        uint8 forAccused;
        uint8 forAccuser;
        uint8 unserved;
        bool taken; // who opened it has acted on the ruling
        uint96 fee; // left with the Court; zero once shared or given back
        uint96 appealFee;
        address appellant;
        bytes32 agreed;
        bytes32 accusedValue; // at `hi`
        bytes32 accuserValue; // at `hi`
        bytes32 posted; // at (lo + hi) / 2 while Answering; keeps its value afterwards. Zero: nothing yet
        bytes32 seed;
    }

    struct Ballot {
        bytes32 commitment;
        address member;
        Vote vote;
    }

    // ---------------------------------------------------------------- events
    event CaseOpened(bytes32 indexed id, address indexed accused, address indexed accuser, Dispute dispute, State state);
    event Posted(bytes32 indexed id, uint32 step, bytes32 value);
    /// @notice They now agree on value `lo` and disagree on value `hi`.
    event Answered(bytes32 indexed id, uint32 lo, uint32 hi, bytes32 value);
    /// @notice A panel will be drawn from the randomness of block `seedBlock`.
    event PanelCalled(bytes32 indexed id, uint8 round, uint8 members, uint64 seedBlock);
    event PanelDrawn(bytes32 indexed id, uint8 round, bytes32 seed, uint40 commitUntil, uint40 revealUntil);
    event VoteCommitted(bytes32 indexed id, uint8 round, uint8 member, address indexed account);
    event VoteRevealed(bytes32 indexed id, uint8 round, uint8 member, bytes32 result, Vote vote);
    /// @notice A panel has decided; a party may appeal until `appealUntil` (0: it was the appeal's, and MemberPaid,
    /// AppellantPaid and Ruled follow).
    event Decided(bytes32 indexed id, uint8 round, Ruling ruling, uint40 appealUntil);
    event Appealed(bytes32 indexed id, address indexed appellant, uint96 fee);
    /// @notice Final.
    event Ruled(bytes32 indexed id, Ruling ruling);
    event MemberPaid(bytes32 indexed id, address indexed account, uint96 amount);
    event AppellantPaid(bytes32 indexed id, address indexed account, uint96 amount);
    event CreditWithdrawn(address indexed account, address indexed to, uint256 amount);
    event PoolBurned(uint256 amount);

    // ---------------------------------------------------------------- errors
    error ZeroAddress();
    error BadParameter(bytes32 name);
    error NotClaims(address caller);
    error CaseExists(bytes32 id);
    error WrongState(bytes32 id, State state);
    error NotParty(address caller);
    error TooEarly(uint40 from);
    error TooLate(uint40 deadline);
    /// @notice The witnesses do not show that enough accounts besides the parties are staked in the class.
    error NoMembers(uint256 shown, uint256 needed);
    error BadWitness(uint256 slot);
    /// @notice Attempt `attempt` is not the first admissible one of this member, or hits another account.
    error NotDrawn(address caller, uint8 member, uint16 attempt);
    error AlreadyCommitted(uint8 member);
    error NotCommitted(uint8 member);
    error BadReveal(bytes32 commitment);
    error NotRuled(bytes32 id);
    error AlreadyTaken(bytes32 id);
    error NothingToWithdraw(address account);
    error NothingToBurn();

    // ---------------------------------------------------------------- calls of Claims and Accusations: {NotClaims} for others
    /// @notice Open a case. Takes `fee` from the caller (Claims and Accusations approve everything at construction).
    /// @dev Refuses, in this order: another caller, an id that was used, steps > MAX_STEPS (BadParameter). The starts differ: value 0 is disputed, directly
    /// Drawing. steps <= 1: the end is disputed, directly Drawing. Else Posting.
    function open(bytes32 id, Parties calldata parties, Dispute calldata dispute) external;

    /// @notice Read a final ruling, once. What is left of the fee is transferred to the caller.
    /// @dev Refuses: another caller, not Ruled, taken before.
    function take(bytes32 id) external returns (Ruling ruling, uint96 feeLeft);

    /// @notice Transfer at most `amount` from the pool to the caller (for an accuser whom the slash of its case repays: the caller
    /// has just brought the court's share of that slash here).
    function reimburse(uint96 amount) external returns (uint96 paid);

    /// @notice Refuses unless the slots named are live, admissible for these parties, of strictly ascending accounts, and at
    /// least `quorum` many. Whoever begins a quarrel shows that somebody can decide it.
    /// @dev Refuses, in this order: fewer than quorum; then per slot (in order) one that does not exist, is not live, is
    /// not admissible, or whose account is not above the one before.
    function checkMembers(Parties calldata parties, uint256[] calldata witnesses) external view;

    /// @notice The auditor of this rank for one unit of a claim: the (rank + 1)-th different admissible account among the
    /// first `limit` attempts, where attempt a hits slot uint(keccak(abi.encode(seed, "auditor", index, 0, a))) mod slots,
    /// live at `blockNumber`; and the attempt that found it. Zeros where there is none.
    function auditorAt(
        Parties calldata parties,
        bytes32 seed,
        uint256 index,
        uint256 slots,
        uint256 blockNumber,
        uint8 rank,
        uint16 limit
    ) external view returns (address account, uint16 attempt);

    // ---------------------------------------------------------------- the parties' moves
    /// @notice The accused names value (lo + hi) / 2. Posting only, before or at the deadline, by the accused. (No state's hash is
    /// zero: to post zero is to post nothing.)
    /// @dev Refuses, in this order: state, caller, too late. (So do the other moves.)
    function post(bytes32 id, bytes32 value) external;

    /// @notice The accuser names its own: equal to what was posted, they agree up to there; else they disagree there.
    /// @dev Then hi = lo + 1: Drawing; else Posting.
    function answer(bytes32 id, bytes32 value) external;

    /// @notice A party pays `appealFee()` (approved before) for the appeal panel. Appealable only, until the deadline.
    /// @dev Refuses, in this order: state, caller is no party (accused or accuser), too late.
    function appeal(bytes32 id) external;

    // ---------------------------------------------------------------- the members' moves
    /// @notice The caller votes as member `member` (0 … panel - 1): keccak(abi.encode(result, salt, caller)). `attempt` is
    /// the draw's first admissible attempt, below MAX_ATTEMPTS; {memberAt} finds it.
    /// @dev Refuses, in this order: state, after the deadline, voted before, not drawn.
    function commit(bytes32 id, uint8 member, uint16 attempt, bytes32 commitment) external;

    /// @notice Open a vote, by the member itself: the commitment holds the account, so a copied one never opens.
    /// @dev Refuses, in this order: state, no commitment of the caller (or revealed before), before the deadline while
    /// some member has not committed, after `revealUntil`, a value that does not open it.
    function reveal(bytes32 id, uint8 member, bytes32 result, bytes32 salt) external;

    // ---------------------------------------------------------------- by anybody
    /// @notice Do what is due (table above). Refuses: None and Ruled (WrongState), nothing due yet (TooEarly, with the time;
    /// in Drawing with 0).
    function advance(bytes32 id) external;

    /// @notice Pay out an account's credit to its owner (Registry.ownerOf).
    function withdraw(address account) external returns (uint256 amount);

    /// @notice Burn the pool, so that no wei stays here for ever. By anyone.
    /// @dev Refuses: an empty pool (NothingToBurn).
    function burnPool() external returns (uint256 amount);

    // ---------------------------------------------------------------- views
    function DOMAIN_COURT() external view returns (bytes32);
    /// @notice The vote of a member that could not get the bytes of the disputed step: zero.
    function UNSERVED() external view returns (bytes32);
    /// @notice Blocks from the call of a panel (or a claim) to the one whose randomness seeds it: 4.
    function SEED_DELAY() external view returns (uint64);
    /// @notice Attempts after which a draw finds nobody: 128.
    function MAX_ATTEMPTS() external view returns (uint16);
    /// @notice Redraws of one panel: 3.
    function MAX_REDRAWS() external view returns (uint8);
    /// @notice The most steps of a unit that can be told apart: 2^20. (Of a longer one `steps` may be 1.)
    function MAX_STEPS() external view returns (uint32);
    function token() external view returns (address);
    function registry() external view returns (address);
    function claims() external view returns (address);
    function accusations() external view returns (address);
    function randomness() external view returns (address);
    /// @notice Accounts besides the parties that must be staked in the class before a quarrel begins.
    function quorum() external view returns (uint8);
    function panel() external view returns (uint8);
    function appealPanel() external view returns (uint8);
    function memberFee() external view returns (uint96);
    function moveWindow() external view returns (uint40);
    function commitWindow() external view returns (uint40);
    function revealWindow() external view returns (uint40);
    function appealWindow() external view returns (uint40);
    /// @notice panel x memberFee: what a case costs.
    function fee() external view returns (uint96);
    /// @notice appealPanel x memberFee.
    function appealFee() external view returns (uint96);
    function caseOf(bytes32 id) external view returns (Case memory);
    function partiesOf(bytes32 id) external view returns (Parties memory);
    function ballotOf(bytes32 id, uint8 round, uint8 member) external view returns (Ballot memory);
    /// @notice The member drawn in the present round, and the attempt that found it; zero where nobody is admissible.
    function memberAt(bytes32 id, uint8 member) external view returns (address account, uint16 attempt);
    function creditOf(address account) external view returns (uint256);
    /// @notice Fees of open cases and appeals + credits; the rest of the balance is the pool.
    function owed() external view returns (uint256);
    function pool() external view returns (uint256);
}
