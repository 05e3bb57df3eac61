// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICourt} from "../interfaces/ICourt.sol";
import {IRegistry} from "../interfaces/IRegistry.sol";

/// @title Which units are recomputed, and by whom: everything follows from a seed (tallymesh_ledger.sampling, golden vectors
/// in tests/vectors/sampling.json).
library Draws {
    bytes32 internal constant DOMAIN_SEED = keccak256("tallymesh.seed.1");
    /// @dev Blocks from a question to the one whose randomness answers it: the asker cannot know it, nor pick its moment.
    uint64 internal constant SEED_DELAY = 4;
    /// @dev 11 k gas each. A class of 5 % of all slots is missed by all of them once in 700 draws.
    uint16 internal constant MAX_ATTEMPTS = 128;

    /// @dev From whom to draw: slots live at `blockNumber`, of none of the parties nor of their owners, in their class.
    struct Pool {
        IRegistry registry;
        uint256 slots;
        uint256 blockNumber;
        address[4] parties;
        address[4] owners;
        bytes32 numericClass;
    }

    /// @dev `e` is a tally's number and `coin` the payer's secret, or 0 and a block's randomness.
    function tallySeed(bytes32 seat, uint256 e, bytes32 root, bytes32 coin) internal pure returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_SEED, seat, e, root, coin));
    }

    /// @dev Indices within the tally of the k units to recompute: the first k of a Fisher-Yates shuffle of `count`.
    function units(bytes32 seed, uint256 count, uint256 k) internal pure returns (uint256[] memory drawn) {
        drawn = new uint256[](k);
        uint256[] memory from = new uint256[](k); // places that were swapped, and what stands there now
        uint256[] memory value = new uint256[](k);
        for (uint256 j = 0; j < k; ++j) {
            uint256 other = j + uint256(keccak256(abi.encode(seed, "unit", j))) % (count - j);
            uint256 atOther = other;
            uint256 atJ = j;
            for (uint256 i = 0; i < j; ++i) {
                // the newest entry of a place counts, so later ones overwrite
                if (from[i] == other) atOther = value[i];
                if (from[i] == j) atJ = value[i];
            }
            drawn[j] = atOther;
            from[j] = other;
            value[j] = atJ;
        }
    }

    /// @dev The slot that attempt `attempt` of draw (i, draw) hits.
    function slot(bytes32 seed, string memory label, uint256 i, uint256 draw, uint256 attempt, uint256 slots)
        internal
        pure
        returns (uint256)
    {
        return uint256(keccak256(abi.encode(seed, label, i, draw, attempt))) % slots;
    }

    function pool(IRegistry registry, uint256 slots, uint256 blockNumber, ICourt.Parties memory parties)
        internal
        view
        returns (Pool memory from)
    {
        from.registry = registry;
        from.slots = slots;
        from.blockNumber = blockNumber;
        from.numericClass = parties.numericClass;
        from.parties = [parties.accused, parties.accuser, parties.payer, parties.signer];
        for (uint256 i = 0; i < 4; ++i) {
            address party = from.parties[i];
            if (party != address(0)) from.owners[i] = registry.ownerOf(party);
        }
    }

    /// @dev The account of a slot where it may audit or judge; else zero.
    function admissible(Pool memory from, uint256 slot_) internal view returns (address) {
        (address account, address owner, bytes32 numericClass) = from.registry.drawn(slot_, from.blockNumber);
        if (account == address(0) || numericClass != from.numericClass) return address(0);
        for (uint256 i = 0; i < 4; ++i) {
            if (account == from.parties[i] || owner == from.owners[i]) return address(0);
        }
        return account;
    }
}
