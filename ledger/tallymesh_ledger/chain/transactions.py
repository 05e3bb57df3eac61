"""Sending transactions from one account: nonces, gas, fees, waiting, and sending again when one got lost.

One `Sender` an account and process; any number of tasks may use it at once. It keeps nothing on disk: after a restart
the chain's count of the account's transactions (pending ones included) is where it goes on, and everything that the
contracts take from us is idempotent. This module does not know what a transaction means.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import trio

from tallymesh.errors import ChainError
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.envelope import Envelope, Fees, Plain, sign
from tallymesh_ledger.chain.rpc import Rpc, block_of
from tallymesh_ledger.keys import AccountKey, checksum

DEADLINE_S = 120.0  # how long `send` waits for a transaction to be mined
POLL_S = (0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)  # between looks for a receipt; the last one repeats
RESEND_S = 10.0  # a transaction that the node does not know any more after this is sent again, the same bytes
BUMP_S = 30.0  # one that is known but not mined after this is replaced by the same with a higher fee …
BUMPS_MAX = 4  # … at most so often: 1.25 ** 4 is 2.4 times the fee
BUMP_UP = 125, 100  # nodes ask for at least 10 % more before they replace one
GAS_MARGIN_UP = 5, 4  # over the estimate: the state may have changed by the time it is mined
NONCE_TRIES = 20  # against other processes of the same account, which take turns by chance
NONCE_PAUSE_MS = 50
GAS_CHANCE = 1_000
BASE_FEE_ROOM = 2  # the base fee may double before a transaction is mined (six full blocks)
TIP_WEI = 10**9  # where the node has no opinion
IN_FLIGHT_MAX = 64  # transactions of one account on their way; nodes keep about as many per sender


class Mined(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that succeeded, in its block. `logs` are as JSON-RPC shows them."""

    hash: bytes
    block_number: int
    block_hash: bytes
    gas_used: int
    contract: bytes | None  # created by it
    logs: tuple[dict[str, Any], ...]

    def events(self, interface: abi.Interface, address: bytes) -> list[abi.Event]:
        """Those of one contract, decoded, in order."""
        found = [interface.event(log) for log in self.logs if bytes.fromhex(log["address"][2:]) == address]
        return [event for event in found if event is not None]


class Sender:
    """Sends from one account. Create one an account; two of them would take the same nonces (and notice, and retry)."""

    def __init__(self, rpc: Rpc, key: AccountKey) -> None:
        self.rpc = rpc
        self.address = key.address
        self._key = key
        self.permits = trio.Lock()  # held while a permit of this account is on its way: they are numbered, too
        self._turn = trio.Lock()  # from choosing a nonce until the node has taken it
        self._slots = trio.CapacityLimiter(IN_FLIGHT_MAX)
        self._next: int | None = None  # first nonce not given away; None: ask the chain
        self._in_flight = 0

    def __repr__(self) -> str:
        return f"<Sender {checksum(self.address)} next={self._next} in_flight={self._in_flight}>"

    def sign_digest(self, digest: bytes) -> bytes:
        return self._key.sign_digest(digest)

    async def send(
        self,
        to: bytes,
        data: bytes = b"",
        *,
        value: int = 0,
        gas: int = 0,
        gas_room: int = 0,
        confirmations: int = 0,
        deadline_s: float = DEADLINE_S,
    ) -> Mined:
        """Sign, send, wait until it is mined with `confirmations` blocks above it. An empty `to` creates a contract.

        ChainError: reverted (with the contract's reason; found by the estimate, it has cost nothing),
        `no_gas_coin`, `chain_unavailable`, or `not_mined` after `deadline_s` (it may still be mined later).
        `gas` spares the estimate; `gas_room` is added to it, where the call may do more by the time it is mined.
        """
        with trio.move_on_after(deadline_s):
            async with self._slots:
                self._in_flight += 1
                try:
                    if not gas:
                        gas = await self._estimate(to, data, value) + gas_room
                    plain, envelope = await self._submit(to, data, value, gas)
                    return await self._wait(plain, envelope, confirmations)
                finally:
                    self._in_flight -= 1
        raise ChainError(
            "not_mined",
            f"The transaction was not mined within {deadline_s:g} s.",
            reverted=False,
            remedy="Look at it again later.",
        )

    # ---- sending

    async def _estimate(self, to: bytes, data: bytes, value: int) -> int:
        estimate = int(await self.rpc.call("eth_estimateGas", self._request(to, data, value)), 16)
        return -(-estimate * GAS_MARGIN_UP[0] // GAS_MARGIN_UP[1])

    def _request(self, to: bytes, data: bytes, value: int) -> dict[str, str]:
        request = {"from": _hex(self.address), "data": _hex(data), "value": hex(value)}
        if to:
            request["to"] = _hex(to)
        return request

    async def _submit(self, to: bytes, data: bytes, value: int, gas: int) -> tuple[Plain, Envelope]:
        async with self._turn:
            for attempt in range(NONCE_TRIES):
                chain_id = await self.rpc.known_chain_id()
                nonce, fees = await self._nonce_and_fees()
                # a little more gas by chance makes the bytes ours: where two processes of one account send the same
                # call under the same nonce, "already known" would otherwise pass for success of both
                limit = gas + secrets.randbelow(GAS_CHANCE)
                plain = Plain(chain_id=chain_id, nonce=nonce, gas=limit, fees=fees, to=to, data=data, value=value)
                envelope = sign(self._key, plain)
                try:
                    await self._broadcast(envelope)
                except ChainError as error:
                    self._next = None
                    if error.code == "nonce_taken" and attempt < NONCE_TRIES - 1:
                        await trio.sleep(secrets.randbelow(NONCE_PAUSE_MS) / 1000)
                        continue  # another process sent from this account: look again, not in step with it
                    raise
                self._next = nonce + 1
                return plain, envelope
        raise AssertionError("the last attempt returns or raises")

    async def _nonce_and_fees(self) -> tuple[int, Fees]:
        """In one round trip."""
        answers = await self.rpc.batch([
            ("eth_getTransactionCount", [_hex(self.address), "pending"]),
            ("eth_getBlockByNumber", ["latest", False]),
            ("eth_gasPrice", []),
            ("eth_maxPriorityFeePerGas", []),
        ])  # fmt: skip
        count, block, price, tip = answers
        for answer in (count, block, price):
            if isinstance(answer, ChainError):
                raise answer
        nonce = int(count, 16)
        if self._next is not None and self._in_flight > 1:
            # in company the chain may lag behind; alone it is right even where one of ours was dropped
            nonce = max(self._next, nonce)
        base_fee = block_of(block).base_fee
        if base_fee is None:
            return nonce, Fees(int(price, 16), int(price, 16), legacy=True)
        tip_wei = TIP_WEI if isinstance(tip, ChainError) else int(tip, 16)  # not every node has the method
        return nonce, Fees(BASE_FEE_ROOM * base_fee + tip_wei, tip_wei)

    async def _broadcast(self, envelope: Envelope) -> None:
        """Idempotent. ChainError `nonce_taken` where another transaction has this one's place."""
        try:
            await self.rpc.call("eth_sendRawTransaction", _hex(envelope.raw))
        except ChainError as error:
            said = error.sentence.lower()
            if "already known" in said or "known transaction" in said or "already imported" in said:
                return
            if "nonce too low" in said or "replacement transaction underpriced" in said or "nonce has already" in said:
                if await self._known(envelope.hash):
                    return
                raise ChainError("nonce_taken", error.sentence, reverted=False) from None
            raise

    async def _known(self, hash_: bytes) -> bool:
        return await self.rpc.call("eth_getTransactionByHash", _hex(hash_)) is not None

    # ---- waiting

    async def _wait(self, plain: Plain, envelope: Envelope, confirmations: int) -> Mined:
        """Until one of the envelopes of this nonce is mined deep enough."""
        envelopes = [envelope]
        sent = looked = trio.current_time()
        looks = 0
        while True:
            for each in envelopes:
                receipt = await self.rpc.call("eth_getTransactionReceipt", _hex(each.hash))
                if receipt is not None and await self._deep(receipt, confirmations):
                    return await self._mined(plain, receipt)
            await trio.sleep(POLL_S[min(looks, len(POLL_S) - 1)])
            looks += 1
            now = trio.current_time()
            if receipt is None and now - sent >= BUMP_S and len(envelopes) <= BUMPS_MAX:
                sent = looked = now
                plain = msgspec.structs.replace(plain, fees=_bump_up(plain.fees))
                envelopes.append(sign(self._key, plain))
                await self._again(envelopes[-1])
            elif receipt is None and now - looked >= RESEND_S:
                looked = now
                if not await self._known(envelopes[-1].hash):
                    await self._again(envelopes[-1])

    async def _again(self, envelope: Envelope) -> None:
        try:
            await self._broadcast(envelope)
        except ChainError as error:
            # its place may have been taken by an earlier envelope of ours, whose receipt the next look finds
            if error.code != "nonce_taken":
                raise

    async def _deep(self, receipt: dict[str, Any], confirmations: int) -> bool:
        if not confirmations:
            return True
        head = await self.rpc.block()
        return head.number >= int(receipt["blockNumber"], 16) + confirmations

    async def _mined(self, plain: Plain, receipt: dict[str, Any]) -> Mined:
        number = int(receipt["blockNumber"], 16)
        if int(receipt["status"], 16) == 0:
            if int(receipt["gasUsed"], 16) >= plain.gas:
                raise ChainError("out_of_gas", f"The transaction needed more than its {plain.gas} gas.", reverted=True)
            raise await self._reason(plain, number)
        contract = receipt.get("contractAddress")
        return Mined(
            hash=bytes.fromhex(receipt["transactionHash"][2:]),
            block_number=number,
            block_hash=bytes.fromhex(receipt["blockHash"][2:]),
            gas_used=int(receipt["gasUsed"], 16),
            contract=bytes.fromhex(contract[2:]) if contract else None,
            logs=tuple(receipt["logs"]),
        )

    async def _reason(self, plain: Plain, number: int) -> ChainError:
        """Why a mined transaction failed: a receipt does not say, so the call is made again on the state before it."""
        request = {**self._request(plain.to, plain.data, plain.value), "gas": hex(plain.gas)}
        try:
            await self.rpc.call("eth_call", request, hex(number - 1))
        except ChainError as error:
            if error.reverted:
                return error
        return ChainError("reverted", f"The transaction failed in block {number}.", reverted=True)


def _bump_up(fees: Fees) -> Fees:
    up, by = BUMP_UP
    return msgspec.structs.replace(fees, max_fee=-(-fees.max_fee * up // by), tip=-(-fees.tip * up // by))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
