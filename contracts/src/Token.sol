// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Capped} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Capped.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title MESH, the settlement token: 18 decimals, a cap, permits, burning; nobody can mint after the deployment.
/// @dev The cap keeps every sum of balances under 2^96, which is how Registry and JobEscrow store amounts.
contract Token is ERC20Capped, ERC20Burnable, ERC20Permit {
    /// @notice The most that can ever exist, in wei.
    uint256 public constant CAP = 1_000_000_000 * 10 ** 18;

    /// @param holder Receives the whole supply.
    /// @param supply In wei, at most `CAP`.
    constructor(address holder, uint256 supply) ERC20("Tallymesh", "MESH") ERC20Permit("Tallymesh") ERC20Capped(CAP) {
        _mint(holder, supply);
    }

    /// @dev Both parents extend it; the cap must see every mint.
    function _update(address from, address to, uint256 value) internal override(ERC20, ERC20Capped) {
        super._update(from, to, value);
    }
}
