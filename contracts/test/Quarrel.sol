// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Assign, Lease, Messages, Order, Receipt, Tally} from "../src/generated/Messages.sol";
import {IAccusations} from "../src/interfaces/IAccusations.sol";
import {IClaims} from "../src/interfaces/IClaims.sol";
import {ICourt} from "../src/interfaces/ICourt.sol";
import {IJobEscrow} from "../src/interfaces/IJobEscrow.sol";
import {IRandomness} from "../src/interfaces/IRandomness.sol";
import {IRegistry} from "../src/interfaces/IRegistry.sol";
import {Signature} from "../src/interfaces/Types.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Base, IToken} from "./Base.sol";

/// @notice A coin for every block, kept as long as a chain keeps its hashes: the same in every run.
contract Coins is IRandomness {
    uint256 public constant kept = 256;

    function valueAt(uint256 blockNumber) external view returns (bytes32) {
        if (blockNumber >= block.number || block.number - blockNumber > kept) return 0;
        return keccak256(abi.encode("coin", blockNumber));
    }
}

/// @notice All contracts as they are deployed, a class of twelve staked accounts, and every move of a quarrel.
contract Quarrel is Base {
    uint40 internal constant COMMIT = 6 hours;
    uint40 internal constant OPENING = 6 hours;
    uint40 internal constant REVEAL = 2 hours;
    uint40 internal constant CHALLENGE = 24 hours;
    uint40 internal constant MOVE = 1 hours;
    uint40 internal constant VOTE = 6 hours;
    uint40 internal constant VOTES_OPEN = 2 hours;
    uint40 internal constant APPEAL = 12 hours;
    uint96 internal constant MEMBER_FEE = 0.1 ether;
    uint96 internal constant FEE = 7 * MEMBER_FEE;
    uint96 internal constant APPEAL_FEE = 31 * MEMBER_FEE;
    uint96 internal constant BOND = 2 ether;
    uint8 internal constant QUORUM = 7;
    uint256 internal constant FIRST_AUDITOR = 310;
    uint256 internal constant AUDITORS = 12;
    uint96 internal constant LOCK = 100 ether;

    IClaims internal claims;
    IAccusations internal accusations;
    ICourt internal court;
    IRandomness internal coins;
    uint256[] internal witnesses; // slots of the auditors, by account

    // the running example
    Order internal order;
    Lease internal lease;
    bytes32 internal seat;
    mapping(uint256 position => bytes32) internal wrongEnd; // what the worker says in place of the right one
    mapping(uint256 position => bytes32) internal wrongStart;

    function setUp() public virtual override {
        vm.warp(START);
        vm.roll(1_000);
        deployAll();
        fund(PAYER, 1_000_000 ether);
        fund(WORKER, 10_000 ether);
        fund(STRANGER, 10_000 ether);
        fund(WORKER_2, 10_000 ether);
        stake(WORKER, 1);
        for (uint256 i = 0; i < AUDITORS; ++i) {
            fund(FIRST_AUDITOR + i, 10_000 ether);
            witnesses.push(stake(FIRST_AUDITOR + i, 1));
        }
        byAccount(witnesses);
        openExample();
    }

    function deployAll() internal {
        token = IToken(create("Token", abi.encode(BANK, 1_000_000_000 ether)));
        uint256 nonce = vm.getNonce(address(this));
        address[5] memory at_; // registry, escrow, claims, accusations, court
        for (uint256 i = 0; i < 5; ++i) at_[i] = vm.computeCreateAddress(address(this), nonce + i);
        registry = IRegistry(create("Registry", abi.encode(token, at_[1], SLOT, UNBONDING, CLASS_DELAY)));
        bytes memory parties = abi.encode(token, at_[0], at_[2], at_[3], at_[4]);
        bytes memory terms = abi.encode(FEE_BP, LEASE_MAX, LOCK_TAIL, WINDOW_MIN, WINDOW_MAX, PERIOD);
        escrow = IJobEscrow(create("JobEscrow", bytes.concat(parties, terms)));
        coins = new_coins(at_);
    }

    /// @dev The coins are made last of all but must be named first: one more nonce.
    function new_coins(address[5] memory at_) private returns (IRandomness made) {
        made = IRandomness(vm.computeCreateAddress(address(this), vm.getNonce(address(this)) + 3));
        claims = IClaims(
            create(
                "Claims",
                abi.encode(token, at_[0], at_[1], at_[3], at_[4], made, COMMIT, OPENING, REVEAL, CHALLENGE)
            )
        );
        accusations = IAccusations(create("Accusations", abi.encode(token, at_[0], at_[1], at_[2], at_[4])));
        bytes memory known = abi.encode(token, at_[0], at_[2], at_[3], made);
        bytes memory panels = abi.encode(QUORUM, uint8(7), uint8(31), MEMBER_FEE, MOVE, VOTE, VOTES_OPEN, APPEAL);
        court = ICourt(create("Court", bytes.concat(known, panels)));
        vm.assertEq(address(court), at_[4], "the court is not where the others expect it");
        vm.assertEq(address(new Coins()), address(made), "coins");
    }

    function fundQuarrels(uint256 key) internal {
        vm.startPrank(who(key));
        token.approve(address(claims), type(uint256).max);
        token.approve(address(accusations), type(uint256).max);
        token.approve(address(court), type(uint256).max);
        vm.stopPrank();
    }

    function openExample() internal {
        fundQuarrels(PAYER);
        fundQuarrels(WORKER);
        fundQuarrels(STRANGER);
        for (uint256 i = 0; i < AUDITORS; ++i) fundQuarrels(FIRST_AUDITOR + i);
        order = anOrder();
        order.wages = 20 ether;
        order.signerSeatMax = 20 ether;
        order.claimBond = BOND;
        lease = aLease(order, WORKER, 1);
        seat = escrow.seatIdOf(lease);
        IJobEscrow.Seating[] memory items = seating(lease, WORKER);
        vm.prank(who(PAYER));
        escrow.open(order, items);
        vm.assertTrue(stateOf(lease) == IJobEscrow.SeatState.Open, "the example's seat is not open");
    }

    function byAccount(uint256[] storage slots) internal {
        for (uint256 i = 1; i < slots.length; ++i) {
            for (uint256 j = i; j > 0 && accountOf(slots[j]) < accountOf(slots[j - 1]); --j) {
                (slots[j], slots[j - 1]) = (slots[j - 1], slots[j]);
            }
        }
    }

    function accountOf(uint256 slot) internal view returns (address) {
        return registry.slotAt(slot).account;
    }

    function later(uint256 seconds_) internal {
        vm.warp(block.timestamp + seconds_);
        vm.roll(block.number + 1);
    }

    function blocks(uint256 count) internal {
        vm.roll(block.number + count);
        vm.warp(block.timestamp + 12 * count);
    }

    // ---------------------------------------------------------------- the worker's words

    function rightFields(uint256 position) internal pure returns (Merkle.Fields memory f) {
        f.unitId = keccak256(abi.encode("unit", position));
        f.start = keccak256(abi.encode("start", position));
        f.end = keccak256(abi.encode("end", position));
        f.salt = keccak256(abi.encode("salt", position));
        f.aux = keccak256(abi.encode("aux", position));
    }

    function fieldsOf(uint256 position) internal view returns (Merkle.Fields memory f) {
        f = rightFields(position);
        if (wrongEnd[position] != 0) f.end = wrongEnd[position];
        if (wrongStart[position] != 0) f.start = wrongStart[position];
    }

    function leafOf(uint256 position) internal view returns (bytes32) {
        return Merkle.leaf(seat, position, fieldsOf(position));
    }

    function leavesOf(uint256 from, uint256 count) internal view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) leaves[i] = leafOf(from + i);
    }

    function rootOf(bytes32[] memory leaves) internal pure returns (bytes32) {
        bytes32[] memory level = padded(leaves);
        while (level.length > 1) level = above(level);
        return keccak256(abi.encode(leaves.length, level[0]));
    }

    function pathOf(bytes32[] memory leaves, uint256 index) internal pure returns (bytes32[] memory path) {
        bytes32[] memory level = padded(leaves);
        path = new bytes32[](Merkle.height(leaves.length));
        for (uint256 i = 0; i < path.length; ++i) {
            path[i] = level[index ^ 1];
            level = above(level);
            index >>= 1;
        }
    }

    function padded(bytes32[] memory leaves) private pure returns (bytes32[] memory level) {
        level = new bytes32[](1 << Merkle.height(leaves.length));
        for (uint256 i = 0; i < leaves.length; ++i) level[i] = leaves[i];
    }

    function above(bytes32[] memory level) private pure returns (bytes32[] memory next) {
        next = new bytes32[](level.length / 2);
        for (uint256 i = 0; i < next.length; ++i) next[i] = keccak256(abi.encode(level[2 * i], level[2 * i + 1]));
    }

    function aTally(uint40 from, uint40 count) internal view returns (Tally memory) {
        bytes32 root = rootOf(leavesOf(from, count));
        return Tally(seat, type(uint32).max, keccak256("previous"), from, count, root, 0, 0);
    }

    function assigned(uint256 position) internal view returns (Signature memory) {
        Assign memory assign = Assign(seat, uint40(position), rightFields(position).unitId);
        return sign(SIGNER, digestOf(Messages.hash(assign)));
    }

    function receiptOf(uint256 position, bytes32 leaf) internal view returns (IAccusations.Statement memory said) {
        said.word = IAccusations.Word.Receipt;
        said.leaf = leaf;
        said.signature = sign(WORKER, digestOf(Messages.hash(Receipt(seat, uint40(position), leaf))));
    }

    function underTally(uint256 position, bytes32[] memory leaves) internal view returns (IAccusations.Statement memory said) {
        said.word = IAccusations.Word.Tally;
        said.leaf = leaves[position];
        said.tally = Tally(seat, 3, 0, 0, uint40(leaves.length), rootOf(leaves), 7, 0);
        said.signature = sign(WORKER, digestOf(Messages.hash(said.tally)));
        said.path = pathOf(leaves, position);
    }

    function underClaim(bytes32 id, uint256 position) internal view returns (IAccusations.Statement memory said) {
        (,, uint40 from, uint40 count) = claims.rootOf(id);
        bytes32[] memory leaves = leavesOf(from, count);
        said.word = IAccusations.Word.Claim;
        said.claim = id;
        said.leaf = leaves[position - from];
        said.path = pathOf(leaves, position - from);
    }

    // ---------------------------------------------------------------- a claim's moves

    function claimed(uint40 from, uint40 count) internal returns (bytes32 id) {
        Tally memory tally = aTally(from, count);
        vm.prank(who(WORKER));
        return claims.claim(order, lease, tally, none, witnesses);
    }

    function sampled(uint40 count) internal returns (bytes32 id) {
        id = claimed(0, count);
        blocks(5);
        claims.capture(id);
    }

    function indexOf(bytes32 id, uint8 sample) internal view returns (uint256 position) {
        return claims.claimOf(id).from + claims.unitsOf(id)[sample];
    }

    function commitmentOf(bytes32 end, address auditor) internal pure returns (bytes32) {
        return keccak256(abi.encode(end, keccak256("a salt"), auditor, keccak256("a probe")));
    }

    /// @notice The auditor of this rank commits to `end`.
    function commitTo(bytes32 id, uint8 sample, uint8 rank, bytes32 end) internal returns (address auditor) {
        uint16 attempt;
        (auditor, attempt) = claims.auditorAt(id, sample, rank);
        vm.prank(auditor);
        claims.commit(id, sample, rank, attempt, commitmentOf(end, auditor));
    }

    /// @notice All auditors of first rank commit to what is right.
    function commitAll(bytes32 id) internal {
        uint8 k = claims.claimOf(id).k;
        for (uint8 i = 0; i < k; ++i) commitTo(id, i, 0, rightFields(indexOf(id, i)).end);
    }

    function openingOf(bytes32 id, uint8 sample) internal view returns (IClaims.Opening memory opening) {
        IClaims.Claim memory found = claims.claimOf(id);
        uint256 position = indexOf(id, sample);
        Merkle.Fields memory f = fieldsOf(position);
        bytes32[] memory path = pathOf(leavesOf(found.from, found.count), position - found.from);
        return IClaims.Opening(sample, f.unitId, f.start, f.end, f.salt, f.aux, assigned(position), path);
    }

    function openingsOf(bytes32 id) internal view returns (IClaims.Opening[] memory openings) {
        openings = new IClaims.Opening[](claims.claimOf(id).k);
        for (uint8 i = 0; i < openings.length; ++i) openings[i] = openingOf(id, i);
    }

    function findingOf(bytes32 id, uint8 sample, bytes32 end, uint32 steps)
        internal
        view
        returns (IClaims.Finding memory)
    {
        uint256 position = indexOf(id, sample);
        Merkle.Fields memory f = fieldsOf(position);
        return IClaims.Finding(
            f.start, f.end, rightFields(position).start, end, keccak256("a salt"), keccak256("a probe"), steps
        );
    }

    function revealAs(bytes32 id, uint8 sample, bytes32 end, uint32 steps) internal {
        IClaims.Finding memory finding = findingOf(id, sample, end, steps);
        vm.prank(claims.sampleOf(id, sample).auditor);
        claims.reveal(id, sample, finding);
    }

    /// @notice Every auditor says what is right: where the worker is wrong the Court gets a case.
    function revealAll(bytes32 id) internal {
        uint8 k = claims.claimOf(id).k;
        for (uint8 i = 0; i < k; ++i) revealAs(id, i, rightFields(indexOf(id, i)).end, 1);
    }

    function revealing(uint40 count) internal returns (bytes32 id) {
        id = sampled(count);
        commitAll(id);
        claims.open(id, openingsOf(id));
    }

    function challengeable(uint40 count) internal returns (bytes32 id) {
        id = revealing(count);
        revealAll(id);
        claims.conclude(lease, id);
    }

    function caseOf(bytes32 id, uint8 sample) internal view returns (bytes32) {
        return keccak256(abi.encode(claims.DOMAIN_CASE(), id, sample));
    }

    // ---------------------------------------------------------------- accusations

    function aCharge(uint256 position, uint32 steps) internal view returns (IAccusations.Charge memory charge) {
        Merkle.Fields memory f = fieldsOf(position);
        Merkle.Fields memory right = rightFields(position);
        charge.position = uint40(position);
        charge.statement = receiptOf(position, leafOf(position));
        charge.unitId = f.unitId;
        charge.assign = assigned(position);
        charge.start = f.start;
        charge.end = f.end;
        charge.salt = f.salt;
        charge.aux = f.aux;
        charge.ownStart = right.start;
        charge.ownEnd = right.end;
        charge.steps = steps;
    }

    /// @notice The worker's unit 3 is wrong, and the payer says so.
    function accused(uint32 steps) internal returns (bytes32 id) {
        wrongEnd[3] = keccak256("garbage");
        return accusedBy(PAYER, 3, steps);
    }

    function accusedBy(uint256 accuser, uint256 position, uint32 steps) internal returns (bytes32) {
        IAccusations.Charge memory charge = aCharge(position, steps);
        vm.prank(who(accuser));
        return accusations.accuse(order, lease, charge, witnesses);
    }

    // ---------------------------------------------------------------- the Court's members

    function drawPanel(bytes32 id) internal {
        blocks(5);
        court.advance(id);
    }

    function ballot(address member, bytes32 result) internal pure returns (bytes32) {
        return keccak256(abi.encode(result, keccak256("a vote's salt"), member));
    }

    /// @notice Members first … last - 1 vote for `result`, to be revealed by `revealVotes`.
    function commitVotes(bytes32 id, uint8 first, uint8 last, bytes32 result) internal {
        for (uint8 m = first; m < last; ++m) {
            (address member, uint16 attempt) = court.memberAt(id, m);
            vm.prank(member);
            court.commit(id, m, attempt, ballot(member, result));
        }
    }

    function revealVotes(bytes32 id, uint8 first, uint8 last, bytes32 result) internal {
        for (uint8 m = first; m < last; ++m) {
            (address member,) = court.memberAt(id, m);
            vm.prank(member);
            court.reveal(id, m, result, keccak256("a vote's salt"));
        }
    }

    /// @notice A whole panel of `size` votes: `forAccused` of them for the accused's value, the rest for the accuser's.
    function vote(bytes32 id, uint8 size, uint8 forAccused) internal {
        drawPanel(id);
        ICourt.Case memory found = court.caseOf(id);
        commitVotes(id, 0, forAccused, found.accusedValue);
        commitVotes(id, forAccused, size, found.accuserValue);
        revealVotes(id, 0, forAccused, found.accusedValue);
        revealVotes(id, forAccused, size, found.accuserValue);
        court.advance(id);
    }

    function voteAll(bytes32 id, bytes32 result) internal {
        drawPanel(id);
        commitVotes(id, 0, 7, result);
        revealVotes(id, 0, 7, result);
        court.advance(id);
    }

    /// @notice The first panel's word is final.
    function unappealed(bytes32 id) internal {
        later(APPEAL + 1);
        court.advance(id);
    }

    function rulingOf(bytes32 id) internal view returns (ICourt.Ruling) {
        return court.caseOf(id).ruling;
    }

    // ---------------------------------------------------------------- sums

    function actors() internal pure returns (address[] memory all) {
        all = new address[](5 + AUDITORS);
        (all[0], all[1], all[2], all[3]) = (who(PAYER), who(WORKER), who(STRANGER), who(WORKER_2));
        all[4] = who(SIGNER);
        for (uint256 i = 0; i < AUDITORS; ++i) all[5 + i] = who(FIRST_AUDITOR + i);
    }

    /// @notice All credits of the two contracts that hold bonds.
    function creditsIn(address holder) internal view returns (uint256 sum) {
        address[] memory all = actors();
        for (uint256 i = 0; i < all.length; ++i) sum += IClaims(holder).creditOf(all[i]);
    }

    function expectRevert(bytes memory data) internal {
        vm.expectRevert(data);
    }
}
