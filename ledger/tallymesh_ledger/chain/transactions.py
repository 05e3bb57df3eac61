"""Sending transactions from one account: nonces, waiting, sending again, replacing, and going on after a restart.

One `Sender` an account and process; any number of tasks may use it at once. What it signs is in its outbox before it is
sent, and stays there until its block is `confirmations` deep: `run` (or the next `send`) sends it again where a node
lost it or a reorganisation took it back. A call that is still on its way from an earlier life, or whose caller gave up
waiting, is found by its intent and waited for instead of being made twice. This module does not know what a transaction
means.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from tallymesh.chain_facts import ANY_CHAIN, ChainFacts
from tallymesh.errors import ChainError, LocalError
from tallymesh_ledger.chain import abi, fees
from tallymesh_ledger.chain.courier import AWAY, RESEND_S, Courier, Pending
from tallymesh_ledger.chain.envelope import Envelope, Plain, parse
from tallymesh_ledger.chain.fees import NO_LIMITS, GasPolicy, Quote
from tallymesh_ledger.chain.outbox import MemoryOutbox, Outbox
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.keys import AccountKey, checksum

log = logging.getLogger(__name__)

DEADLINE_S = 120.0  # how long `send` waits for a transaction to be mined
POLL_S = (0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)  # between looks for a receipt; the last one repeats
WATCH_S = 5.0  # between looks at transactions that nobody waits for
CREATION_GAS = 53_000 + 50_000  # a transaction that makes a contract, and its constructor
CREATION_BYTE_GAS = 16 + 200  # to send a byte of it, and to keep it
GAS_MARGIN_UP = 5, 4  # over the estimate: the state may have changed by the time it is mined
NONCE_TRIES = 20  # against other processes of the same account, which take turns by chance
NONCE_PAUSE_MS = 50
IN_FLIGHT_MAX = 64  # transactions of one account on their way; nodes keep about as many per sender
KEPT_MAX = 1_024  # in blocks that are not final yet as well: some minutes of the busiest account
_DATA_FEE = keccak(b"getL1Fee(bytes)")[:4]
_SIGNATURE_BYTES = bytes(110)  # what signature and envelope add to a call's data, for the fee by the byte


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
    """Sends from one account. Create one an account; two of them would take the same nonces (and notice, and retry).

    `confirmations`: how deep a block must lie before its transactions are forgotten here.
    """

    def __init__(
        self,
        rpc: Rpc,
        key: AccountKey,
        *,
        outbox: Outbox | None = None,
        policy: GasPolicy = NO_LIMITS,
        facts: ChainFacts = ANY_CHAIN,
        confirmations: int = 0,
    ) -> None:
        self.rpc = rpc
        self.address = key.address
        self._key = key
        self._policy = policy
        self._facts = facts
        self._outbox: Outbox = outbox or MemoryOutbox()
        self._courier = Courier(rpc, key, self._outbox, policy, facts)
        self._confirmations = confirmations
        self.permits = trio.Lock()  # held while a permit of this account is on its way: they are numbered, too
        self._turn = trio.Lock()  # from choosing a nonce until the node has taken it
        self._slots = trio.CapacityLimiter(IN_FLIGHT_MAX)
        self._pending: dict[int, Pending] = {}  # by nonce
        self._loaded = False
        self._sent = trio.Event()  # something is on its way since there was nothing
        self.mined_block = 0  # the newest that is known to hold a transaction of this account

    def __repr__(self) -> str:
        waiting = [each.nonce for each in self._pending.values() if not each.mined]
        return f"<Sender {checksum(self.address)} not mined={waiting} final in {len(self._pending)}>"

    @property
    def unmined(self) -> int:
        """Transactions on their way."""
        return sum(not each.mined for each in self._pending.values())

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
        intent: bytes = b"",
        brings_wei: int | None = None,
    ) -> Mined:
        """Sign, send, wait until it is mined with `confirmations` blocks above it. An empty `to` creates a contract.

        ChainError: reverted (with the contract's reason; found by the estimate, it has cost nothing),
        `no_gas_coin`, `gas_too_dear`, `not_worth_gas` (where it brings `brings_wei` of MESH to this account and the gas
        is worth more), `chain_unavailable`, `outrun` (another process used its nonce), or `not_mined` after
        `deadline_s`: then it is still on its way, and the same call (or the same `intent`) made again waits for it.
        `gas` spares the estimate; `gas_room` is added to it, where the call may do more by the time it is mined.
        LocalError `disk` where it cannot be kept: then nothing was sent.
        """
        intent = intent or keccak(word(to) + word(value) + data)
        with trio.move_on_after(deadline_s):
            async with self._slots:
                await self._load()
                pending = self._adopt(intent)
                if pending is None:
                    used = gas or await self._estimate(to, data, value)
                    limit = gas or -(-used * GAS_MARGIN_UP[0] // GAS_MARGIN_UP[1]) + gas_room
                    pending = await self._submit(to, data, value, used, limit, intent, brings_wei)
                try:
                    return await self._wait(pending, confirmations)
                finally:
                    pending.waited = False
        raise ChainError(
            "not_mined",
            f"The transaction was not mined within {deadline_s:g} s.",
            reverted=False,
            remedy="It is still on its way: look at it again later.",
        )

    async def refuse_short(self, creations: Sequence[bytes], more_gas: int) -> None:
        """ChainError `no_gas_coin` where the account cannot pay for all of these contracts and `more_gas` at today's
        price: half of them made would help nobody. By the EVM's own prices, because constructors call contracts that
        are not there yet, so that no chain could estimate them."""
        gas, data_fee = more_gas, 0
        for creation in creations:
            gas += CREATION_GAS + CREATION_BYTE_GAS * len(creation)
            data_fee += await self._data_fee(creation)
        _, balance, price = await self._nonce_balance_price()
        needs = gas * fees.least_up(price) + data_fee
        if balance < needs:
            raise fees.short(self._facts, checksum(self.address), balance, needs, what="the deployment")

    async def run(self) -> None:
        """Watch what nobody waits for, until it is final: sends it again where it got lost or was taken back."""
        while True:
            try:
                await self._load()
                for pending in [each for each in self._pending.values() if not each.waited]:
                    await self._watch(pending)
            except ChainError as error:
                log.debug("transactions on their way cannot be looked at: %s", error)
            except LocalError as error:
                log.warning("transactions on their way cannot be looked after: %s", error)
            if self._loaded and not self._pending:
                self._sent = trio.Event()
                await self._sent.wait()
            await trio.sleep(WATCH_S)

    # ---- what is on its way already

    async def _load(self) -> None:
        """Once: what an earlier life of this account left in the outbox. What is mined already is nobody's to wait
        for: its caller reads its effect from the chain."""
        if self._loaded:
            return
        chain_id = await self.rpc.known_chain_id()
        async with self._turn:
            if self._loaded:
                return
            found: dict[int, Pending] = {}
            now = trio.current_time()
            for sent in await self._outbox.load(self.address, chain_id):
                plain, envelope = parse(sent.raw), Envelope(sent.raw, sent.hash)
                pending = found.get(sent.nonce)
                if pending is None:
                    pending = found[sent.nonce] = Pending(
                        intent=sent.intent, plain=plain, envelopes=[], at=sent.at, sent=now, looked=now - RESEND_S,
                        waited=False,
                    )  # fmt: skip
                pending.plain = plain
                pending.envelopes.append(envelope)
            for nonce, pending in sorted(found.items()):
                _, receipt = await self._courier.look(pending)
                if receipt is not None and await self._deep(receipt, self._confirmations):
                    await self._courier.forget(pending)
                else:
                    self._pending[nonce] = pending
            self._loaded = True

    def _adopt(self, intent: bytes) -> Pending | None:
        for pending in self._pending.values():
            if pending.intent == intent and not pending.waited and not pending.mined:
                pending.waited = True
                return pending
        return None

    async def _watch(self, pending: Pending) -> None:
        try:
            receipt = await self._courier.step(pending)
        except ChainError as error:
            if error.code == "outrun":
                log.warning("a transaction got lost: %s", error)
                await self._forget(pending)
                return
            raise
        if receipt is not None and await self._deep(receipt, self._confirmations):
            await self._forget(pending)

    async def _forget(self, pending: Pending) -> None:
        await self._courier.forget(pending)
        self._pending.pop(pending.nonce, None)

    # ---- sending

    async def _estimate(self, to: bytes, data: bytes, value: int) -> int:
        return int(await self.rpc.call("eth_estimateGas", self._request(to, data, value)), 16)

    def _request(self, to: bytes, data: bytes, value: int) -> dict[str, str]:
        request = {"from": _hex(self.address), "data": _hex(data), "value": hex(value)}
        if to:
            request["to"] = _hex(to)
        return request

    async def _submit(
        self, to: bytes, data: bytes, value: int, used: int, gas: int, intent: bytes, brings_wei: int | None
    ) -> Pending:
        async with self._turn:
            if self.unmined >= 2 * IN_FLIGHT_MAX or len(self._pending) >= KEPT_MAX:
                raise ChainError(
                    "too_many_pending",
                    f"{self.unmined} transactions of this account are on their way, {len(self._pending)} not final.",
                    reverted=False,
                    remedy="Wait until some are; the chain may be congested.",
                )
            for attempt in range(NONCE_TRIES):
                chain_id = await self.rpc.known_chain_id()
                nonce, balance, price = await self._nonce_balance_price()
                data_fee = await self._data_fee(data)
                if brings_wei is not None:
                    fees.refuse_loss(self._policy, self._facts, used * price.expected_wei + data_fee, brings_wei)
                spare = balance - value - data_fee
                offer = fees.affordable(price, gas, spare)
                if offer is None:
                    needs = gas * fees.least_up(price) + value + data_fee
                    raise fees.short(self._facts, checksum(self.address), balance, needs)
                plain = Plain(chain_id=chain_id, nonce=nonce, gas=gas, fees=offer, to=to, data=data, value=value)
                now = trio.current_time()
                pending = Pending(intent=intent, plain=plain, envelopes=[], at=time.time(), sent=now, looked=now)
                self._pending[nonce] = pending
                self._sent.set()
                try:
                    await self._courier.carry(pending, plain)
                except ChainError as error:
                    await self._forget(pending)
                    if error.code == "nonce_taken" and attempt < NONCE_TRIES - 1:
                        await trio.sleep(secrets.randbelow(NONCE_PAUSE_MS) / 1000)
                        continue  # another process sent from this account: look again, not in step with it
                    raise
                except BaseException:
                    pending.waited = False  # nobody waits any more, and it may be on its way
                    if not pending.envelopes:
                        del self._pending[nonce]  # it could not be kept, so it was not sent
                    raise
                return pending
        raise AssertionError("the last attempt returns or raises")

    async def _nonce_balance_price(self) -> tuple[int, int, Quote]:
        """In one round trip; sends again what the node forgot, so that nothing of ours is in front of a gap."""
        count, balance, *answers = await self.rpc.batch([
            ("eth_getTransactionCount", [_hex(self.address), "pending"]),
            ("eth_getBalance", [_hex(self.address), "latest"]),
            *fees.questions(),
        ])  # fmt: skip
        for answer in (count, balance):
            if isinstance(answer, ChainError):
                raise answer
        nonce = int(count, 16)
        for pending in sorted(self._pending.values(), key=lambda each: each.nonce):
            if pending.nonce >= nonce:
                await self._courier.again(pending)
        while nonce in self._pending:
            nonce += 1
        return nonce, int(balance, 16), fees.quote(answers, self._facts, self._policy)

    async def _data_fee(self, data: bytes) -> int:
        """What a roll-up takes for the bytes themselves; 0 on other chains."""
        if not self._facts.data_fee_oracle:
            return 0
        padded = data + _SIGNATURE_BYTES
        call = _DATA_FEE + word(32) + word(len(padded)) + padded + bytes(-len(padded) % 32)
        return int(
            await self.rpc.call("eth_call", {"to": self._facts.data_fee_oracle, "data": _hex(call)}, "latest"), 16
        )

    # ---- waiting

    async def _wait(self, pending: Pending, confirmations: int) -> Mined:
        """Until one of the envelopes of this nonce is mined deep enough. A chain that is away is waited for."""
        looks = 0
        while True:
            try:
                receipt = await self._courier.step(pending)
                if receipt is not None and await self._deep(receipt, confirmations):
                    if await self._deep(receipt, self._confirmations):
                        await self._forget(pending)
                    return await self._mined(pending.plain, receipt)
            except ChainError as error:
                if error.code == "outrun":
                    await self._forget(pending)
                if error.code != AWAY:
                    raise
            await trio.sleep(POLL_S[min(looks, len(POLL_S) - 1)])
            looks += 1

    async def _deep(self, receipt: dict[str, Any], confirmations: int) -> bool:
        if not confirmations:
            return True
        head = await self.rpc.block()
        return head.number >= int(receipt["blockNumber"], 16) + confirmations

    async def _mined(self, plain: Plain, receipt: dict[str, Any]) -> Mined:
        number = int(receipt["blockNumber"], 16)
        self.mined_block = max(self.mined_block, number)
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


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
