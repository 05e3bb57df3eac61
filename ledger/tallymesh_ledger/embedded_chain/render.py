"""How blocks, transactions, receipts and logs look in JSON-RPC (https://ethereum.github.io/execution-apis/).

Values in, dictionaries out; this module reads no chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]


def quantity(value: int) -> str:
    """Integers are hex without leading zeros."""
    return hex(value)


def data(value: bytes) -> str:
    return "0x" + bytes(value).hex()


def block(header: Any, transactions: Sequence[Any]) -> Json:
    """`transactions` are hashes (as hex) or whole transaction objects, as the caller asked for."""
    return {
        "number": quantity(header.block_number),
        "hash": data(header.hash),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": data(header.bloom.to_bytes(256, "big")),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "totalDifficulty": quantity(0),
        "extraData": data(header.extra_data),
        "size": quantity(0),  # nobody asks, and it would cost an encoding of the whole block
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "mixHash": data(header.mix_hash),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "withdrawalsRoot": data(header.withdrawals_root),
        "withdrawals": [],
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": data(header.parent_beacon_block_root),
        "requestsHash": data(header.requests_hash),
        "transactions": list(transactions),
        "uncles": [],
    }


def transaction(signed: Any, header: Any | None, position: int | None) -> Json:
    """Without a header: one that is not in a block."""
    kind = _kind(signed)
    shown: Json = {
        "type": quantity(kind),
        "hash": data(signed.hash),
        "nonce": quantity(signed.nonce),
        "blockHash": data(header.hash) if header else None,
        "blockNumber": quantity(header.block_number) if header else None,
        "transactionIndex": quantity(position) if position is not None else None,
        "from": data(signed.sender),
        "to": data(signed.to) if signed.to else None,
        "value": quantity(signed.value),
        "gas": quantity(signed.gas),
        "gasPrice": quantity(_price(signed, header) if header else signed.max_fee_per_gas),
        "input": data(signed.data),
        "r": quantity(signed.r),
        "s": quantity(signed.s),
        "v": quantity(signed.y_parity if kind else signed.v),
    }
    if kind:
        shown["chainId"] = quantity(signed.chain_id)
        shown["yParity"] = quantity(signed.y_parity)
        shown["accessList"] = [
            {"address": data(address), "storageKeys": [data(key.to_bytes(32, "big")) for key in keys]}
            for address, keys in signed.access_list
        ]
    if kind >= 2:
        shown["maxFeePerGas"] = quantity(signed.max_fee_per_gas)
        shown["maxPriorityFeePerGas"] = quantity(signed.max_priority_fee_per_gas)
    return shown


def receipt(result: Any, signed: Any, header: Any, position: int, created: bytes | None, logs: Sequence[Json]) -> Json:
    return {
        "type": quantity(_kind(signed)),
        "transactionHash": data(signed.hash),
        "transactionIndex": quantity(position),
        "blockHash": data(header.hash),
        "blockNumber": quantity(header.block_number),
        "from": data(signed.sender),
        "to": data(signed.to) if signed.to else None,
        "contractAddress": data(created) if created else None,
        "status": quantity(1 if result.state_root == b"\x01" else 0),
        "cumulativeGasUsed": quantity(result.gas_used),
        "gasUsed": quantity(result.gas_used),
        "effectiveGasPrice": quantity(_price(signed, header)),
        "logsBloom": data(result.bloom.to_bytes(256, "big")),
        "logs": list(logs),
    }


def log(entry: Any, signed: Any, header: Any, position: int, index: int) -> Json:
    return {
        "address": data(entry.address),
        "topics": [data(topic.to_bytes(32, "big")) for topic in entry.topics],
        "data": data(entry.data),
        "blockNumber": quantity(header.block_number),
        "blockHash": data(header.hash),
        "blockTimestamp": quantity(header.timestamp),
        "transactionHash": data(signed.hash),
        "transactionIndex": quantity(position),
        "logIndex": quantity(index),
        "removed": False,
    }


def _kind(signed: Any) -> int:
    return int(getattr(signed, "type_id", None) or 0)


def _price(signed: Any, header: Any) -> int:
    return int(min(signed.max_fee_per_gas, signed.max_priority_fee_per_gas + header.base_fee_per_gas))
