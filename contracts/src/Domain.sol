// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {Signature} from "./interfaces/Types.sol";

/// @title The EIP-712 domain of one contract: name, version "1", chain, address.
/// @dev OpenZeppelin's EIP712 also answers `eip712Domain()`, with strings that cost 1.2 kB of code; nothing here asks for it.
abstract contract Domain {
    bytes32 private immutable _nameHash;
    bytes32 private immutable _separator; // where and on the chain on which it was made
    uint256 private immutable _chainId;
    address private immutable _self;

    constructor(string memory name) {
        _nameHash = keccak256(bytes(name));
        _chainId = block.chainid;
        _self = address(this);
        _separator = _separatorNow();
    }

    /// @notice The EIP-712 domain separator in force: a chain that split has another on each side.
    function domainSeparator() public view virtual returns (bytes32) {
        return block.chainid == _chainId && address(this) == _self ? _separator : _separatorNow();
    }

    /// @dev What is signed for a message with this struct hash.
    function _digest(bytes32 structHash) internal view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(domainSeparator(), structHash);
    }

    /// @dev Zero where the signature is malformed.
    function _recover(bytes32 digest, Signature calldata signature) internal pure returns (address signer) {
        (signer,,) = ECDSA.tryRecover(digest, signature.r, signature.vs);
    }

    function _separatorNow() private view returns (bytes32) {
        bytes32 typeHash =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        return keccak256(abi.encode(typeHash, _nameHash, keccak256("1"), block.chainid, address(this)));
    }
}
