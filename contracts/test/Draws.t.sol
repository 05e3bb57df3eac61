// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Draws} from "../src/libraries/Draws.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Base} from "./Base.sol";

contract Verifier {
    function verify(bytes32 root, uint256 count, uint256 index, bytes32 leaf, bytes32[] calldata path)
        external
        pure
        returns (bool)
    {
        return Merkle.verify(root, count, index, leaf, path);
    }
}

/// @notice Draws and commitments that Python makes are those that the contracts check: golden vectors of scripts/make_vectors.
contract DrawsTest is Base {
    string private json;

    function setUp() public override {}

    function row(uint256 i, string memory rest) private pure returns (string memory) {
        return string.concat("$[", vm.toString(i), "]", rest);
    }

    function item(uint256 i, string memory list, uint256 j) private pure returns (string memory) {
        return row(i, string.concat(".", list, "[", vm.toString(j), "]"));
    }

    function test_seeds_units_and_auditors_are_those_of_the_golden_vectors() public {
        json = vm.readFile("../tests/vectors/sampling.json");
        uint256 i;
        for (; vm.keyExistsJson(json, row(i, "")); ++i) {
            bytes32 seed = vm.parseJsonBytes32(json, row(i, ".seed"));
            bytes32 seat = vm.parseJsonBytes32(json, row(i, ".seat"));
            bytes32 root = vm.parseJsonBytes32(json, row(i, ".root"));
            uint256 tally = vm.parseJsonUint(json, row(i, ".tally"));
            bytes32 coin = vm.parseJsonBytes32(json, row(i, ".secret"));
            vm.assertEq(Draws.tallySeed(seat, tally, root, coin), seed, "seed");
            uint256 k = vm.parseJsonUint(json, row(i, ".k"));
            uint256[] memory drawn = Draws.units(seed, vm.parseJsonUint(json, row(i, ".count")), k);
            vm.assertEq(drawn.length, k, "k");
            for (uint256 j = 0; j < k; ++j) {
                vm.assertEq(drawn[j], vm.parseJsonUint(json, item(i, "units", j)), "unit");
            }
            checkAuditors(i, seed);
        }
        vm.assertLe(7, i, "vectors");
    }

    function checkAuditors(uint256 i, bytes32 seed) private view {
        uint256 slots = vm.parseJsonUint(json, row(i, ".total_slots"));
        for (uint256 j = 0; j < 8; ++j) {
            uint256 slot = Draws.slot(seed, "auditor", j / 4 * 5, j / 2 % 2 * 2, j % 2 * 9, slots);
            vm.assertEq(slot, vm.parseJsonUint(json, item(i, "auditor_slots", j)), "auditor");
        }
    }

    function test_leaves_roots_paths_and_chains_are_those_of_the_golden_vectors() public {
        json = vm.readFile("../tests/vectors/merkle.json");
        Verifier verifier = new Verifier();
        uint256 i;
        for (; vm.keyExistsJson(json, row(i, "")); ++i) {
            uint256 count;
            while (vm.keyExistsJson(json, item(i, "leaves", count))) checkLeaf(i, count++);
            bytes32 root = vm.parseJsonBytes32(json, row(i, ".root"));
            bytes32 last = vm.parseJsonBytes32(json, item(i, "leaves", count - 1));
            bytes32[] memory path = new bytes32[](Merkle.height(count));
            for (uint256 j = 0; j < path.length; ++j) {
                path[j] = vm.parseJsonBytes32(json, item(i, "last_path", j));
            }
            vm.assertTrue(verifier.verify(root, count, count - 1, last, path), "path");
            vm.assertTrue(!verifier.verify(root, count, count, last, path), "beyond the count");
            vm.assertTrue(!verifier.verify(root, count + 1, count - 1, last, path), "another count");
            vm.assertTrue(!verifier.verify(root, count, count - 1, bytes32(uint256(last) ^ 1), path), "another leaf");
            if (count > 1) vm.assertTrue(!verifier.verify(root, count, count - 2, last, path), "another place");
            vm.assertTrue(!verifier.verify(root, count, count - 1, last, new bytes32[](path.length + 1)), "height");
            vm.assertEq(Merkle.chain(0, root, 0, count), vm.parseJsonBytes32(json, row(i, ".chain")), "chain");
        }
        vm.assertLe(5, i, "vectors");
    }

    function checkLeaf(uint256 i, uint256 p) private view {
        bytes32[5] memory f;
        for (uint256 j = 0; j < 5; ++j) {
            string memory where = string.concat(".openings[", vm.toString(p), "][", vm.toString(j), "]");
            f[j] = vm.parseJsonBytes32(json, row(i, where));
        }
        bytes32 leaf = Merkle.leaf(
            vm.parseJsonBytes32(json, row(i, ".seat")), p, Merkle.Fields(f[0], f[1], f[2], f[3], f[4])
        );
        vm.assertEq(leaf, vm.parseJsonBytes32(json, item(i, "leaves", p)), "leaf");
    }

    function test_a_draw_takes_k_different_units_of_the_tally(bytes32 seed, uint8 count, uint8 k) public pure {
        uint256 n = 1 + uint256(count) % 100;
        uint256 wanted = k % (n < 16 ? n + 1 : 17);
        uint256[] memory drawn = Draws.units(seed, n, wanted);
        for (uint256 i = 0; i < wanted; ++i) {
            vm.assertTrue(drawn[i] < n, "within the tally");
            for (uint256 j = 0; j < i; ++j) vm.assertTrue(drawn[i] != drawn[j], "twice");
        }
    }
}
