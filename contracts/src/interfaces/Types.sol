// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @notice A secp256k1 signature in the compact form of EIP-2098: `vs` is `s` with the parity of `v - 27` in its top bit.
struct Signature {
    bytes32 r;
    bytes32 vs;
}

/// @notice An EIP-2612 permit of the caller for the called contract.
struct Permit {
    uint256 value;
    uint256 deadline;
    uint8 v;
    bytes32 r;
    bytes32 s;
}
