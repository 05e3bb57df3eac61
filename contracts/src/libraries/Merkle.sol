// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title What a worker commits to: leaves, roots and chain values, as in tallymesh_ledger.merkle (docs/PROTOCOL.md 5.1).
library Merkle {
    bytes32 internal constant DOMAIN_LEAF = keccak256("tallymesh.leaf.1");
    uint256 internal constant MAX_LEAVES = 1 << 20; // bounds what a path may cost

    /// @dev What one unit's leaf holds. `end` hides behind the salt until the worker opens it.
    struct Fields {
        bytes32 unitId;
        bytes32 start;
        bytes32 end;
        bytes32 salt;
        bytes32 aux;
    }

    /// @dev Hashed twice, so that no inner node of a tree can pass for a leaf.
    function leaf(bytes32 seat, uint256 position, Fields memory f) internal pure returns (bytes32) {
        bytes32 hidden = keccak256(abi.encode(f.end, f.salt));
        bytes memory words = abi.encode(DOMAIN_LEAF, seat, position, f.unitId, f.start, hidden, f.aux);
        return keccak256(abi.encode(keccak256(words)));
    }

    /// @dev Whether `value` stands at `index` of the `count` leaves under `root`. A path has exactly the tree's height.
    function verify(bytes32 root, uint256 count, uint256 index, bytes32 value, bytes32[] calldata path)
        internal
        pure
        returns (bool)
    {
        if (index >= count || count > MAX_LEAVES || path.length != height(count)) return false;
        for (uint256 i = 0; i < path.length; ++i) {
            value = index & 1 == 1 ? keccak256(abi.encode(path[i], value)) : keccak256(abi.encode(value, path[i]));
            index >>= 1;
        }
        return keccak256(abi.encode(count, value)) == root;
    }

    /// @dev Levels above the leaves of a tree that is padded to a power of two.
    function height(uint256 count) internal pure returns (uint256 levels) {
        while (1 << levels < count) ++levels;
    }

    /// @dev One word that stands for a seat's history.
    function chain(bytes32 previous, bytes32 root, uint256 start, uint256 count) internal pure returns (bytes32) {
        return keccak256(abi.encode(previous, root, start, count));
    }
}
