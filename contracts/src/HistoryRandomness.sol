// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IRandomness} from "./interfaces/IRandomness.sol";

/// @title Randomness of chains that keep the hashes of their last 8,191 blocks in a contract (EIP-2935): a block's value is
/// there for hours, where `blockhash` forgets it after 256 blocks, which are minutes on a fast chain.
/// @dev The same value as BlockhashRandomness gives, and as much worth: whoever makes a block may throw it away.
contract HistoryRandomness is IRandomness {
    /// @notice Where EIP-2935 has its contract, on every chain that has one.
    address public constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    /// @inheritdoc IRandomness
    uint256 public constant kept = 8191;

    /// @dev There is nothing at that address: this chain is not for it.
    error NoHistory();

    constructor() {
        if (HISTORY.code.length == 0) revert NoHistory();
    }

    /// @inheritdoc IRandomness
    function valueAt(uint256 blockNumber) external view returns (bytes32 value) {
        value = blockhash(blockNumber); // needs no call, and is right in the first blocks after the contract was made
        if (value != 0 || blockNumber >= block.number) return value;
        // It reverts for blocks that it does not keep, and holds zero for those before it was there.
        (bool known, bytes memory said) = HISTORY.staticcall(abi.encode(blockNumber));
        if (known && said.length == 32) value = abi.decode(said, (bytes32));
    }
}
