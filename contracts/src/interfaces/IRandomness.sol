// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title IRandomness: a number that nobody knew before a given block.
/// @notice One adapter per kind of chain. What it must give: the value of a block is fixed once the block is, the same for
/// everybody, and unknown while earlier blocks are made, except to whoever makes the block and throws others away.
interface IRandomness {
    /// @notice The value of a block; zero where that block is not over yet or its value is no longer kept.
    function valueAt(uint256 blockNumber) external view returns (bytes32);

    /// @notice For how many blocks after it a block's value is kept.
    function kept() external view returns (uint256);
}
