"""Binding of Claims, with what it needs of Court: claims by their id, who is drawn for them, what was opened, and the
calls that move a claim on. What a claim means stands in tallymesh_ledger.claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tallymesh.exchange import Opening
from tallymesh.messages import Lease, Order, Tally
from tallymesh.schema import camel, fields
from tallymesh_ledger import merkle
from tallymesh_ledger.chain.abi import Event, Function, snake
from tallymesh_ledger.chain.contract import At, Contract, Outcome, compact
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.staking import Token
from tallymesh_ledger.chain.transactions import Sender
from tallymesh_ledger.claims import RANKS, Claim, ClaimState, Draw, Finding, Heard, Sample, Shown, SignedOpening, Terms

ALLOWANCE = 2**256 - 1  # given once: the contract has no key and takes only what the account itself calls for
RULED = 6  # ICourt.State


class Tribunal(Contract):
    """What a claim asks of the Court."""

    NAME = "Court"

    async def ruled(self, case: bytes) -> bool:
        """Final, and not yet read by whoever opened the case."""
        found = await self.read("caseOf", case)
        return found["state"] == RULED and not found["taken"]

    async def check_members(self, parties: tuple[Any, ...], witnesses: Sequence[int]) -> None:
        """ChainError where these slots do not show that a quarrel could be judged."""
        await self.read("checkMembers", parties, list(witnesses))


class Claims(Contract):
    """Pays a worker whose payer is silent."""

    NAME = "Claims"

    def __init__(self, rpc: Rpc, address: bytes, token: Token, court: bytes) -> None:
        super().__init__(rpc, address)
        self.token = token
        self.court = Tribunal(rpc, court)

    # ---- reads

    async def terms(self) -> Terms:
        names = ("commitWindow", "openWindow", "revealWindow", "challengeWindow")
        commit, show, reveal, challenge = await self.read_many([(name, []) for name in names])
        fee, quorum = await self.court.read_many([("fee", []), ("quorum", [])])
        return Terms(commit_s=commit, open_s=show, reveal_s=reveal, challenge_s=challenge, court_fee=fee, quorum=quorum)

    async def claim_of(self, claim: bytes, *, at: At = "latest") -> Claim | None:
        found = await self.read("claimOf", claim, at=at)
        if found["state"] == ClaimState.NONE:
            return None
        values = {snake(name): value for name, value in found.items()}
        return Claim(from_=values.pop("from"), **{**values, "state": ClaimState(values["state"])})

    async def quarrels_of(self, seat: bytes) -> tuple[bytes, int]:
        found = await self.read("quarrelsOf", seat)
        return (found["claim"] if any(found["claim"]) else b""), found["claimedTo"]

    async def samples_of(self, claim: bytes, k: int) -> list[Sample]:
        found = await self.read_many([("sampleOf", [claim, sample]) for sample in range(k)])
        return [Sample(**{**each, "heard": Heard(each["heard"])}) for each in found]

    async def draws_of(self, claim: bytes, k: int) -> list[Draw]:
        places = [(sample, rank) for sample in range(k) for rank in range(RANKS)]
        found = await self.read_many([("auditorAt", [claim, *place]) for place in places])
        return [
            Draw(*place, attempt, account)
            for place, (account, attempt) in zip(places, found, strict=True)
            if any(account)
        ]

    async def credit_of(self, account: bytes) -> int:
        return int(await self.read("creditOf", account))

    async def lease_of(self, claim: bytes, block: int) -> Lease | None:
        """The lease in the call that made the claim in this block; None where it was made in another way."""
        for event in await self.events(["Claimed"], block, block, claim=claim):
            found = await self.rpc.call("eth_getTransactionByHash", "0x" + event.transaction.hex())
            data = bytes.fromhex(found["input"][2:]) if found else b""
            called = self.interface.functions["claim"]
            if data[:4] == called.selector:
                # what a call takes is laid out as what it returns
                _, lease, *_ = Function({"name": "claim", "inputs": [], "outputs": called.inputs}).decode(data[4:])
                return Lease(**{name: lease[camel(name)] for name, _ in fields(Lease)})
        return None

    async def shown(self, claim: bytes, seat: bytes, start: int, end: int) -> list[Shown]:
        """The leaves of a claim that were opened, out of the calls that opened them; those that another contract's call
        opened are left out."""
        found: dict[int, Shown] = {}
        opened = await self.events(["LeafOpened"], start, end, claim=claim)
        positions = {event.values["sample"]: event.values["position"] for event in opened}
        for transaction in dict.fromkeys(event.transaction for event in opened):
            sent = await self.rpc.call("eth_getTransactionByHash", "0x" + transaction.hex())
            data, called = bytes.fromhex(sent["input"][2:]) if sent else b"", self.interface.functions["open"]
            if data[:4] != called.selector:
                continue
            of, openings = Function({"name": "open", "inputs": [], "outputs": called.inputs}).decode(data[4:])
            for each in openings if of == claim else ():
                position = positions.get(each["sample"])
                if position is not None and position not in found:
                    opening = Opening(each["unitId"], each["start"], each["end"], each["salt"], each["aux"])
                    found[position] = Shown(position, merkle.leaf(seat, position, opening), tuple(each["path"]))
        return list(found.values())

    async def events(self, names: Sequence[str], start: int, end: int, *, claim: bytes | None = None) -> list[Event]:
        """In order, in pages."""
        topics: list[Any] = [[self.interface.topics[name] for name in names]]
        if claim is not None:
            topics.append(claim)
        logs = await read_logs(self.rpc, self.address, topics, start, end)
        return [event for event in map(self.interface.event, logs) if event is not None]

    # ---- writes; all but `claim` and `commit` are free of a bond

    async def claim(
        self,
        sender: Sender,
        order: Order,
        lease: Lease,
        tally: Tally,
        signature: bytes,
        witnesses: Sequence[int],
        *,
        brings_wei: int,
    ) -> Outcome:
        await self._allow(sender, order.claim_bond)
        arguments = (order, lease, tally, compact(signature), list(witnesses))
        return await self.write(sender, "claim", *arguments, brings_wei=brings_wei)

    async def capture(self, sender: Sender, claim: bytes) -> Outcome:
        return await self.write(sender, "capture", claim)

    async def commit(
        self, sender: Sender, claim: bytes, draw: Draw, commitment: bytes, *, bond: int, brings_wei: int
    ) -> Outcome:
        await self._allow(sender, bond)
        arguments = (claim, draw.sample, draw.rank, draw.attempt, commitment)
        return await self.write(sender, "commit", *arguments, brings_wei=brings_wei)

    async def open(self, sender: Sender, claim: bytes, openings: Sequence[SignedOpening]) -> Outcome:
        return await self.write(sender, "open", claim, [_opening(each) for each in openings])

    async def reveal(self, sender: Sender, claim: bytes, sample: int, finding: Finding) -> Outcome:
        return await self.write(sender, "reveal", claim, sample, msgspec.structs.astuple(finding))

    async def rule(self, sender: Sender, lease: Lease, claim: bytes, sample: int) -> Outcome:
        return await self.write(sender, "rule", lease, claim, sample)

    async def conclude(self, sender: Sender, lease: Lease, claim: bytes, *, brings_wei: int | None = None) -> Outcome:
        return await self.write(sender, "conclude", lease, claim, brings_wei=brings_wei)

    async def withdraw(self, sender: Sender, account: bytes) -> Outcome:
        return await self.write(sender, "withdraw", account)

    async def _allow(self, sender: Sender, amount: int) -> None:
        if await self.token.read("allowance", sender.address, self.address) < amount:
            await self.token.write(sender, "approve", self.address, ALLOWANCE)


async def first_block_at(rpc: Rpc, time: int, low: int) -> int:
    """Number of the first block from `low` on whose time is `time` or later; the head's where none is."""
    high = (await rpc.block()).number
    low = min(low, high)
    while low < high:
        middle = (low + high) // 2
        if (await rpc.block(middle)).timestamp < time:
            low = middle + 1
        else:
            high = middle
    return low


def _opening(each: SignedOpening) -> tuple[Any, ...]:
    one = each.opening
    return (
        each.sample, one.unit_id, one.start, one.end, one.salt, one.aux, compact(each.assign), list(each.path),
    )  # fmt: skip
