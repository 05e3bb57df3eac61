// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Base} from "./Base.sol";
import {Reader} from "./generated/Reader.sol";

/// @notice Digests that Python signs are the digests that the contracts check: random structs of every message, written by
/// scripts/make_vectors and read here through the contracts' own domains.
contract VectorsTest is Base {
    mapping(bytes32 kind => bool) private seen;
    uint256 private kinds;
    string private json;

    function test_every_golden_digest_is_the_contracts_own() public {
        json = vm.readFile("../tests/vectors/eip712.json");
        uint256 i;
        for (; vm.keyExistsJson(json, path(i, "")); ++i) check(i);
        vm.assertEq(kinds, Reader.KINDS, "every kind of message has vectors");
        vm.assertLe(3 * Reader.KINDS, i, "and several of them");
    }

    function check(uint256 i) private {
        string memory kind = vm.parseJsonString(json, path(i, ".type"));
        if (!seen[keccak256(bytes(kind))]) {
            seen[keccak256(bytes(kind))] = true;
            ++kinds;
        }
        bytes32 structHash = Reader.structHash(vm, kind, json, path(i, ".fields"));
        vm.assertEq(structHash, vm.parseJsonBytes32(json, path(i, ".struct_hash")), kind);
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", separator(i), structHash));
        vm.assertEq(digest, vm.parseJsonBytes32(json, path(i, ".digest")), kind);
    }

    /// @dev The domain of the real contract, put on the vector's chain and at the vector's address.
    function separator(uint256 i) private returns (bytes32) {
        vm.chainId(vm.parseJsonUint(json, path(i, ".domain.chainId")));
        address where = vm.parseJsonAddress(json, path(i, ".domain.verifyingContract"));
        bytes32 name = keccak256(bytes(vm.parseJsonString(json, path(i, ".domain.name"))));
        address contract_ = name == keccak256("Tallymesh Registry") ? address(registry) : address(escrow);
        if (where.code.length == 0) vm.etch(where, contract_.code);
        (bool done, bytes memory result) = where.staticcall(abi.encodeCall(escrow.domainSeparator, ()));
        vm.assertTrue(done, "domainSeparator");
        return abi.decode(result, (bytes32));
    }

    function path(uint256 i, string memory field) private pure returns (string memory) {
        return string.concat("$[", vm.toString(i), "]", field);
    }
}
