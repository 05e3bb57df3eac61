// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IJobEscrow} from "./interfaces/IJobEscrow.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {IRewards} from "./interfaces/IRewards.sol";

/// @title Rewards
/// @dev The specification is {IRewards}.
contract Rewards is IRewards {
    using SafeERC20 for IERC20;

    uint256 private constant SHARE = 9; // tenths of what was burned: less than all of it, so that no circle of pay gains

    /// @inheritdoc IRewards
    address public immutable token;
    /// @inheritdoc IRewards
    address public immutable registry;
    /// @inheritdoc IRewards
    address public immutable escrow;
    /// @inheritdoc IRewards
    uint256 public immutable emission;
    /// @inheritdoc IRewards
    mapping(address worker => mapping(uint256 period => bool)) public collected;

    constructor(address token_, address registry_, address escrow_, uint256 emission_) {
        if (token_ == address(0) || registry_ == address(0) || escrow_ == address(0)) revert ZeroAddress();
        token = token_;
        registry = registry_;
        escrow = escrow_;
        emission = emission_;
    }

    /// @inheritdoc IRewards
    function collect(address worker, uint256 period) external returns (uint256 amount) {
        if (!_over(period)) revert PeriodNotOver(period);
        amount = rewardOf(worker, period);
        if (amount == 0) revert NothingToCollect(worker, period);

        collected[worker][period] = true;
        address to = IRegistry(registry).ownerOf(worker);
        emit Collected(worker, period, to, amount);

        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc IRewards
    function rewardOf(address worker, uint256 period) public view returns (uint256) {
        if (!_over(period) || collected[worker][period]) return 0;
        uint256 mine = IJobEscrow(escrow).burnedOf(period, worker);
        if (mine == 0) return 0;
        uint256 share = Math.mulDiv(emission, mine, IJobEscrow(escrow).burnedIn(period));
        uint256 reward = Math.min(share, mine * SHARE / 10);
        return Math.min(reward, IERC20(token).balanceOf(address(this)));
    }

    function _over(uint256 period) private view returns (bool) {
        return period < block.timestamp / IJobEscrow(escrow).periodLength();
    }
}
