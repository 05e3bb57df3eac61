"""Carries signed transactions to the chain: on disk, to a node, again where it got lost, for more where it is stuck.

One look at a nonce (`step`) does whatever helps it on and never two things at once, so whoever waits only calls it
again. This module does not choose nonces, and does not know what a transaction means.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

import msgspec
import trio

from tallymesh.chain_facts import ChainFacts
from tallymesh.errors import ChainError
from tallymesh_ledger.chain import fees
from tallymesh_ledger.chain.envelope import Envelope, Plain, sign
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.chain.outbox import Outbox, Sent
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.keys import AccountKey

log = logging.getLogger(__name__)

RESEND_S = 10.0  # a transaction that the node does not know any more after this is sent again, the same bytes
BUMP_S = 30.0  # one that is known but not mined after this is replaced by the same with a higher fee …
BUMPS_MAX = 4  # … at most so often: 1.25 ** 4 is 2.4 times the fee, or what the chain asks by then
OUTRUN_S = 10.0  # a nonce that is used up while no envelope of ours has a receipt: nodes may differ for so long
AWAY = "chain_unavailable"


class Pending(msgspec.Struct, kw_only=True, eq=False):
    """One nonce that is not final: all envelopes that were signed for it, the newest last. Times are trio's."""

    intent: bytes
    plain: Plain  # of the newest envelope
    envelopes: list[Envelope]
    at: float  # Unix time of the first
    sent: float  # newest envelope
    looked: float  # whether a node still knows it
    waited: bool = True  # a task waits for it
    mined: bool = False  # as of the last look
    outrun_since: float | None = None

    @property
    def nonce(self) -> int:
        return self.plain.nonce


class Courier:
    """For one account. `policy` and `facts` say what may be offered."""

    def __init__(self, rpc: Rpc, key: AccountKey, outbox: Outbox, policy: GasPolicy, facts: ChainFacts) -> None:
        self.rpc = rpc
        self.policy = policy
        self.facts = facts
        self._key = key
        self._outbox = outbox

    async def carry(self, pending: Pending, plain: Plain) -> None:
        """Sign, keep, send one more envelope. Where it is not known whether a node took it, it counts as on its way.
        ChainError where the node refused it, `nonce_taken` where another transaction has its place."""
        # The salt makes the bytes ours: where two processes of one account send the same call under the same nonce,
        # "already known" would otherwise pass for success of both.
        envelope = sign(self._key, plain, salt=secrets.token_bytes(32))
        sent = Sent(
            account=self._key.address, chain_id=plain.chain_id, nonce=plain.nonce, hash=envelope.hash,
            raw=envelope.raw, intent=pending.intent, at=pending.at,
        )  # fmt: skip
        with trio.CancelScope(shield=True):  # kept and remembered, or neither
            await self._outbox.keep(sent)
        pending.plain = plain
        pending.envelopes.append(envelope)
        try:
            await self._broadcast(envelope)
        except ChainError as error:
            if error.code == AWAY:
                return  # it may have arrived; `step` finds out
            raise

    async def forget(self, pending: Pending) -> None:
        """One of its envelopes is final, or none can ever be."""
        await self._outbox.drop([each.hash for each in pending.envelopes])

    async def again(self, pending: Pending) -> None:
        """Send the newest envelope once more. ChainError only where the chain is away."""
        try:
            await self._broadcast(pending.envelopes[-1])
        except ChainError as error:
            if error.code == AWAY:
                raise
            log.debug("sending again was refused: %s", error)

    async def look(self, pending: Pending) -> tuple[int, dict[str, Any] | None]:
        """(transactions of this account in blocks, the receipt of whichever envelope is in one)."""
        answers = await self.rpc.batch([
            ("eth_getTransactionCount", [_hex(self._key.address), "latest"]),
            *(("eth_getTransactionReceipt", [_hex(each.hash)]) for each in pending.envelopes),
        ])  # fmt: skip
        for answer in answers:
            if isinstance(answer, ChainError):
                raise answer
        count, *receipts = answers
        found = next((each for each in receipts if each is not None), None)
        pending.mined = found is not None
        return int(count, 16), found

    async def step(self, pending: Pending) -> dict[str, Any] | None:
        """One look at a nonce: its receipt, or what helps it to one. ChainError `outrun` where it can have none."""
        count, receipt = await self.look(pending)
        now = trio.current_time()
        if receipt is not None or count <= pending.nonce:
            pending.outrun_since = None
        if receipt is not None:
            return receipt
        if count > pending.nonce:
            if pending.outrun_since is None:
                pending.outrun_since = now
            if now - pending.outrun_since >= OUTRUN_S:
                raise ChainError(
                    "outrun",
                    f"Another transaction of this account took nonce {pending.nonce}.",
                    reverted=False,
                    remedy="Only one program at a time should send from an account.",
                )
        elif now - pending.sent >= BUMP_S and len(pending.envelopes) <= BUMPS_MAX:
            pending.sent = pending.looked = now
            await self._replace(pending)
        elif now - pending.looked >= RESEND_S:
            pending.looked = now
            if not await self._known(pending.envelopes[-1].hash):
                await self.again(pending)
        return None

    async def _replace(self, pending: Pending) -> None:
        """The same call under the same nonce for more, where the owner's limit allows it."""
        answers = await self.rpc.batch(fees.questions())
        try:
            offer = fees.bump_up(pending.plain.fees, fees.quote(answers, self.facts, self.policy), self.policy)
        except ChainError as error:
            if error.code != "gas_too_dear":
                raise
            offer = None
        if offer is None:
            await self.again(pending)
            return
        try:
            await self.carry(pending, msgspec.structs.replace(pending.plain, fees=offer))
        except ChainError as error:
            # an earlier envelope of ours may be mined by now, which the next look finds; and where the account cannot
            # pay more, the earlier offer still stands
            log.debug("a replacement was refused: %s", error)

    async def _broadcast(self, envelope: Envelope) -> None:
        """Idempotent. ChainError `nonce_taken` where another transaction has this one's place."""
        try:
            await self.rpc.call("eth_sendRawTransaction", _hex(envelope.raw))
        except ChainError as error:
            said = error.sentence.lower()
            if "already known" in said or "known transaction" in said or "already imported" in said:
                return
            if error.code == AWAY:
                raise
            if await self._known(envelope.hash):
                return  # another URL had taken it and its answer got lost
            if "nonce too low" in said or "replacement transaction underpriced" in said or "nonce has already" in said:
                raise ChainError("nonce_taken", error.sentence, reverted=False) from None
            raise

    async def _known(self, hash_: bytes) -> bool:
        return await self.rpc.call("eth_getTransactionByHash", _hex(hash_)) is not None


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
