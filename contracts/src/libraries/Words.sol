// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Signature} from "../interfaces/Types.sol";
import {IJobEscrow} from "../interfaces/IJobEscrow.sol";

/// @title Who signed a message of a job: they all live in the escrow's EIP-712 domain.
library Words {
    /// @return False where the signature is malformed, or nobody is asked about.
    function signed(address escrow, address by, bytes32 structHash, Signature calldata signature)
        internal
        view
        returns (bool)
    {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", IJobEscrow(escrow).domainSeparator(), structHash));
        (address signer,,) = ECDSA.tryRecover(digest, signature.r, signature.vs);
        return signer == by && by != address(0);
    }
}
