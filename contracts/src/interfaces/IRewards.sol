// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Rewards: returns part of the burned fees to those on whose pay they were burned.
/// @notice Funded once, with tokens sent here at the deployment (anyone may send more); never mints. For a worker i and a period
/// that has ended: reward = min(emission x burned_i / burned, 9 x burned_i / 10), each rounded down, with burned_i =
/// escrow.burnedOf(period, i) and burned = escrow.burnedIn(period). Below what was burned for it, so trading with oneself
/// always loses. Where less is left than the reward, what is left is paid and the rest is forgone.
/// @dev No privileged key. A period is escrow.periodLength() seconds of block.timestamp, counted from zero.
interface IRewards {
    event Collected(address indexed worker, uint256 indexed period, address indexed to, uint256 amount);

    error ZeroAddress();
    error PeriodNotOver(uint256 period);
    /// @notice No fee was burned for this worker then, the reward rounds to nothing, or it was collected before, or none is left.
    error NothingToCollect(address worker, uint256 period);

    /// @notice Pay the worker's reward of a period, once, to its owner (Registry.ownerOf). By anyone.
    /// @dev Reverts: {PeriodNotOver}, {NothingToCollect}.
    function collect(address worker, uint256 period) external returns (uint256 amount);

    /// @notice What `collect` would pay now; zero where it would revert.
    function rewardOf(address worker, uint256 period) external view returns (uint256);
    function collected(address worker, uint256 period) external view returns (bool);
    function token() external view returns (address);
    function registry() external view returns (address);
    function escrow() external view returns (address);
    /// @notice The most that all workers together get in one period, in wei.
    function emission() external view returns (uint256);
}
