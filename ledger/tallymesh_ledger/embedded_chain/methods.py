"""The JSON-RPC methods of the embedded chain, as https://ethereum.github.io/execution-apis/ words them.

A request is a method's name and its parameters; what comes back is JSON, or `RpcFailure` with the code that clients
know (3 for a revert, with the contract's data). This module does not know HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from eth_utils import ValidationError

from tallymesh_ledger.embedded_chain import render
from tallymesh_ledger.embedded_chain.evm import GAS_PRICE_TIP, CallRequest, Evm, Refused, Reverted
from tallymesh_ledger.embedded_chain.pool import Pool
from tallymesh_ledger.embedded_chain.store import Store

LOGS_MAX = 20_000  # logs in one answer; a client that meets the limit asks for fewer blocks, as on public nodes
FEE_HISTORY_MAX = 1_024  # blocks

INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
SERVER_ERROR = -32000
LIMIT_EXCEEDED = -32005
REVERTED = 3  # geth's code


class RpcFailure(Exception):
    """Becomes the `error` member of the answer."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(code, message)

    def shown(self) -> dict[str, Any]:
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            body["data"] = self.data
        return body


class Methods:
    """One chain's methods. Each runs to its end without waiting."""

    def __init__(self, evm: Evm, store: Store) -> None:
        self._evm = evm
        self._store = store
        self._pool = Pool()
        self._automine = True
        self._table: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "tallymesh-embedded-chain/1/py-evm",
            "net_version": lambda: str(evm.chain_id),
            "net_listening": lambda: True,
            "eth_chainId": lambda: render.quantity(evm.chain_id),
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_blockNumber": lambda: render.quantity(evm.head.block_number),
            "eth_gasPrice": lambda: render.quantity(evm.head.base_fee_per_gas + GAS_PRICE_TIP),
            "eth_maxPriorityFeePerGas": lambda: render.quantity(GAS_PRICE_TIP),
            "eth_feeHistory": self._fee_history,
            "eth_getBalance": self._balance,
            "eth_getTransactionCount": self._nonce,
            "eth_getCode": self._code,
            "eth_getStorageAt": self._storage,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getBlockReceipts": self._block_receipts,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getLogs": self._logs,
            # what development chains offer beside the standard, to try a reorganisation or a congested chain
            "evm_snapshot": lambda: render.quantity(evm.snapshot()),
            "evm_revert": self._revert,
            "evm_mine": self._mine,
            "evm_setAutomine": self._set_automine,
        }

    def call(self, method: str, params: Sequence[Any]) -> Any:
        """The result, or RpcFailure."""
        function = self._table.get(method)
        if function is None:
            raise RpcFailure(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
        try:
            return function(*params)
        except Refused as error:
            raise RpcFailure(SERVER_ERROR, str(error)) from None
        except Reverted as error:
            raise _revert_failure(error) from None
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, ValidationError) as error:
            # parameters come from anyone: whatever their shape breaks is their fault
            raise RpcFailure(INVALID_PARAMS, f"invalid params of {method}: {error}") from None

    # ---- blocks

    def _header(self, tag: Any) -> Any:
        """Header of a block named by number, tag, or EIP-1898 object. RpcFailure where there is none."""
        header = self._find_header(tag)
        if header is None:
            raise RpcFailure(SERVER_ERROR, "header not found")
        return header

    def _find_header(self, tag: Any) -> Any | None:
        if isinstance(tag, dict):
            if "blockHash" in tag:
                return self._evm.header_by_hash(_bytes(tag["blockHash"], 32))
            tag = tag.get("blockNumber", "latest")
        if tag in ("latest", "pending", "safe", "finalized", None):
            return self._evm.head
        return self._evm.header(0 if tag == "earliest" else _int(tag))

    def _block_by_number(self, tag: Any, whole: bool = False) -> Any:
        return self._show_block(self._find_header(tag), whole)

    def _block_by_hash(self, hash_: str, whole: bool = False) -> Any:
        return self._show_block(self._evm.header_by_hash(_bytes(hash_, 32)), whole)

    def _show_block(self, header: Any | None, whole: bool) -> Any:
        if header is None:
            return None
        rows = self._store.transactions_in(header.block_number)
        return render.block(header, [json.loads(body) if whole else render.data(hash_) for hash_, body, _ in rows])

    def _block_receipts(self, tag: Any) -> Any:
        header = self._find_header(tag)
        if header is None:
            return None
        return [json.loads(receipt) for _, _, receipt in self._store.transactions_in(header.block_number)]

    def _fee_history(self, count: Any, newest: Any, percentiles: Sequence[float] = ()) -> Any:
        end = self._header(newest).block_number
        start = max(0, end - min(_int(count), FEE_HISTORY_MAX) + 1)
        headers = [self._header(hex(number)) for number in range(start, end + 1)]
        fees = [header.base_fee_per_gas for header in headers]
        return {
            "oldestBlock": render.quantity(start),
            "baseFeePerGas": [render.quantity(fee) for fee in [*fees, fees[-1]]],
            "gasUsedRatio": [header.gas_used / header.gas_limit for header in headers],
            "reward": [[render.quantity(GAS_PRICE_TIP)] * len(percentiles) for _ in headers],
        }

    # ---- accounts

    def _balance(self, address: str, tag: Any = "latest") -> str:
        return render.quantity(self._evm.state_at(self._header(tag)).get_balance(_bytes(address, 20)))

    def _nonce(self, address: str, tag: Any = "latest") -> str:
        account = _bytes(address, 20)
        due = self._evm.state_at(self._header(tag)).get_nonce(account)
        return render.quantity(self._pool.next_nonce(account, due) if tag == "pending" else due)

    def _code(self, address: str, tag: Any = "latest") -> str:
        return render.data(self._evm.state_at(self._header(tag)).get_code(_bytes(address, 20)))

    def _storage(self, address: str, slot: Any, tag: Any = "latest") -> str:
        value = self._evm.state_at(self._header(tag)).get_storage(_bytes(address, 20), _int(slot))
        return render.data(value.to_bytes(32, "big"))

    # ---- execution

    def _call(self, request: dict[str, Any], tag: Any = "latest") -> str:
        return render.data(self._evm.call(_call_request(request), self._header(tag)))

    def _estimate(self, request: dict[str, Any], tag: Any = "latest") -> str:
        return render.quantity(self._evm.estimate(_call_request(request)))

    # ---- transactions

    def _send(self, raw: str) -> str:
        transaction = self._evm.decode(_bytes(raw))
        if self._store.transaction(transaction.hash) is not None:
            raise RpcFailure(SERVER_ERROR, "already known")
        due = self._evm.state_at(self._evm.head).get_nonce(transaction.sender)
        if transaction.nonce < due or (self._automine and transaction.nonce == due):
            self._evm.mine(transaction)
            self._mine_waiting(transaction.sender)
        else:
            self._evm.check_funds(transaction)
            self._pool.add(transaction)  # several tasks of one sender may overtake each other on their way here
        return render.data(transaction.hash)

    def _mine_waiting(self, sender: bytes) -> None:
        while True:
            due = self._evm.state_at(self._evm.head).get_nonce(sender)
            transaction = self._pool.take(sender, due)
            if transaction is None:
                return
            try:
                self._evm.mine(transaction)
            except Refused:
                return  # its sender sees no receipt, sends again, and is told why

    def _transaction(self, hash_: str) -> Any:
        found = self._store.transaction(_bytes(hash_, 32))
        if found is not None:
            return json.loads(found[1])
        waiting = self._pool.find(_bytes(hash_, 32))
        return None if waiting is None else render.transaction(waiting, None, None)

    def _receipt(self, hash_: str) -> Any:
        found = self._store.transaction(_bytes(hash_, 32))
        return None if found is None else json.loads(found[2])

    # ---- logs

    def _logs(self, wanted: dict[str, Any]) -> Any:
        if "blockHash" in wanted:
            header = self._evm.header_by_hash(_bytes(wanted["blockHash"], 32))
            if header is None:
                raise RpcFailure(SERVER_ERROR, "unknown block")
            start = end = header.block_number
        else:
            start = self._number(wanted.get("fromBlock", "latest"))
            end = self._number(wanted.get("toBlock", "latest"))
        addresses = [_bytes(address, 20) for address in _many(wanted.get("address"))]
        topics = [[_bytes(topic, 32) for topic in _many(position)] for position in wanted.get("topics") or []]
        if len(topics) > 4:
            raise RpcFailure(INVALID_PARAMS, "a log has at most four topics")
        found = self._store.logs(start, end, addresses, topics, LOGS_MAX + 1)
        if len(found) > LOGS_MAX:
            raise RpcFailure(LIMIT_EXCEEDED, f"query returned more than {LOGS_MAX} results")
        return [json.loads(body) for body in found]

    def _number(self, tag: Any) -> int:
        if isinstance(tag, str) and tag.startswith("0x"):
            return _int(tag)
        number: int = self._header(tag).block_number
        return number

    def _mine(self, *_: Any) -> str:
        """All that waits and is due, each in a block of its own; an empty one where nothing is."""
        before = self._evm.head.block_number
        for sender in self._pool.senders():
            self._mine_waiting(sender)
        if self._evm.head.block_number == before:
            self._evm.mine()
        return render.quantity(0)

    def _set_automine(self, on: bool) -> bool:
        self._automine = bool(on)
        if on:
            for sender in self._pool.senders():
                self._mine_waiting(sender)
        return True

    def _revert(self, snapshot: Any) -> bool:
        self._pool.clear()
        return self._evm.revert(_int(snapshot))


def _call_request(request: dict[str, Any]) -> CallRequest:
    payload = request.get("input", request.get("data")) or "0x"
    return CallRequest(
        sender=_bytes(request.get("from") or "0x" + "00" * 20, 20),
        to=_bytes(request["to"], 20) if request.get("to") else b"",
        data=_bytes(payload),
        value=_int(request.get("value", 0)),
        gas=_int(request.get("gas", 0)),
    )


def _revert_failure(error: Reverted) -> RpcFailure:
    if error.reason != "execution reverted":
        return RpcFailure(SERVER_ERROR, error.reason)
    reason = ""
    if error.data[:4] == b"\x08\xc3y\xa0" and len(error.data) >= 68:  # Error(string)
        size = int.from_bytes(error.data[36:68], "big")
        reason = ": " + error.data[68 : 68 + min(size, 1_024)].decode("utf-8", "replace")
    return RpcFailure(REVERTED, error.reason + reason, render.data(error.data))


def _bytes(text: Any, size: int | None = None) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise ValueError(f"expected 0x-prefixed hex, got {text!r:.80}")
    value = bytes.fromhex(text[2:])
    if size is not None and len(value) != size:
        raise ValueError(f"expected {size} bytes, got {len(value)}")
    return value


def _int(value: Any) -> int:
    number = int(value, 16) if isinstance(value, str) else int(value)
    if number < 0:
        raise ValueError("expected a number that is not negative")
    return number


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
