// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20Capped} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Capped.sol";

import {Base} from "./Base.sol";

contract TokenTest is Base {
    function test_more_than_the_cap_cannot_be_deployed() public {
        uint256 cap = token.CAP();
        refused(
            "Token", abi.encode(BANK, cap + 1),
            abi.encodeWithSelector(ERC20Capped.ERC20ExceededCap.selector, cap + 1, cap)
        );
    }

    function test_the_whole_supply_goes_to_its_holder_and_fits_the_contracts_amounts() public view {
        vm.assertEq(token.totalSupply(), token.CAP(), "supply");
        vm.assertEq(token.decimals(), 18, "decimals");
        vm.assertLe(token.CAP(), type(uint96).max, "Registry and JobEscrow store amounts in 96 bits");
    }

    function test_burning_lowers_the_supply() public {
        vm.prank(BANK);
        token.burn(1 ether);
        vm.assertEq(token.totalSupply(), token.CAP() - 1 ether, "supply");
    }
}
