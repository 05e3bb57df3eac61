"""Gives newcomers of a local network gas coin and MESH. Only the launcher's process holds its key.

Bounded for each address and in total: the chain of a local network is no public good, but a program that asks in a loop
must not be able to spoil it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.errors import CallerError
from tallymesh_ledger.chain.envelope import Fees, Plain, sign
from tallymesh_ledger.eip712 import word
from tallymesh_ledger.keys import AccountKey

GIFT_WEI = 10 * 10**18  # gas coin: some 10,000 transactions
GIFT_TOKENS_WEI = 10_000 * WEI_PER_TOKEN  # ten slots, or a great many jobs
GIFTS_PER_ADDRESS = 3
GIFTS_MAX = 10_000  # in all: a tenth of the supply
_TRANSFER = bytes.fromhex("a9059cbb")  # transfer(address,uint256)
_GAS = 100_000  # a transfer takes about 52,000


class Faucet:
    """`call` is the chain's own JSON-RPC, in this process: a method's name and its parameters."""

    def __init__(self, key: AccountKey, chain_id: int, token: bytes, call: Callable[..., Any]) -> None:
        self._key = key
        self._chain_id = chain_id
        self._token = token
        self._call = call
        self._given: dict[bytes, int] = {}
        self._total = 0

    def give(self, address: bytes) -> dict[str, Any]:
        """Send both, mined when it returns. CallerError where the address or the faucet has had its share."""
        had = self._given.get(address, 0)
        if had >= GIFTS_PER_ADDRESS:
            raise CallerError("faucet_limit", f"The faucet gave {GIFTS_PER_ADDRESS} times to this address: no more.")
        if self._total >= GIFTS_MAX:
            raise CallerError("faucet_empty", "The faucet has given all that it had.")
        self._total += 1
        self._given[address] = had + 1
        coin = self._send(address, b"", GIFT_WEI)
        tokens = self._send(self._token, _TRANSFER + word(address) + word(GIFT_TOKENS_WEI), 0)
        return {"transactions": [coin, tokens], "gas_wei": str(GIFT_WEI), "tokens_wei": str(GIFT_TOKENS_WEI)}

    def _send(self, to: bytes, data: bytes, value: int) -> Any:
        nonce = int(self._call("eth_getTransactionCount", ["0x" + self._key.address.hex(), "pending"]), 16)
        price = 2 * int(self._call("eth_gasPrice", []), 16)
        plain = Plain(
            chain_id=self._chain_id, nonce=nonce, gas=_GAS, fees=Fees(price, 10**9), to=to, data=data, value=value
        )
        return self._call("eth_sendRawTransaction", ["0x" + sign(self._key, plain).raw.hex()])
