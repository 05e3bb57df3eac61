// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IRandomness} from "./interfaces/IRandomness.sol";

/// @title Randomness of chains whose `blockhash` is worth something: the hash of a block that was made after the question.
/// @dev Whoever makes that block may throw it away and make another one; it costs the block's reward each time. What hangs on
/// one draw here is a few units' pay and a lock, not more.
contract BlockhashRandomness is IRandomness {
    /// @inheritdoc IRandomness
    uint256 public constant kept = 256;

    /// @inheritdoc IRandomness
    function valueAt(uint256 blockNumber) external view returns (bytes32) {
        return blockhash(blockNumber); // zero for this block, later ones, and those more than 256 blocks ago
    }
}
