"""Bindings of Court and Accusations: cases, panels and ballots, accusations, the calls of parties and members. What a
quarrel means stands in tallymesh_ledger.court.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tallymesh.ids import ZERO32
from tallymesh.messages import Lease, Order, Tally
from tallymesh_ledger import court
from tallymesh_ledger.chain.abi import Event, snake
from tallymesh_ledger.chain.contract import At, Contract, Outcome, compact, struct
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.staking import Token
from tallymesh_ledger.chain.transactions import Sender

ALLOWANCE = 2**256 - 1  # given once: the contracts have no key and take only what the account itself calls for
NO_TALLY = Tally(
    seat=ZERO32, number=0, previous=ZERO32, start=0, count=0, root=ZERO32, block_number=0, block_hash=ZERO32
)


class _Bonded(Contract):
    """A contract that takes tokens of its caller."""

    def __init__(self, rpc: Rpc, address: bytes, token: Token) -> None:
        super().__init__(rpc, address)
        self.token = token

    async def credit_of(self, account: bytes) -> int:
        return int(await self.read("creditOf", account))

    async def events(self, names: Sequence[str], start: int, end: int, *indexed: bytes | None) -> list[Event]:
        """In order, in pages; `indexed` are the values of the events' topics, None for any."""
        topics: list[Any] = [[self.interface.topics[name] for name in names], *indexed]
        logs = await read_logs(self.rpc, self.address, topics, start, end)
        return [event for event in map(self.interface.event, logs) if event is not None]

    async def withdraw(self, sender: Sender, account: bytes) -> Outcome:
        return await self.write(sender, "withdraw", account)

    async def _allow(self, sender: Sender, amount: int) -> None:
        if await self.token.read("allowance", sender.address, self.address) < amount:
            await self.token.write(sender, "approve", self.address, ALLOWANCE)


class Court(_Bonded):
    """Decides which of two statements about one unit is right."""

    NAME = "Court"

    # ---- reads

    async def terms(self) -> court.Terms:
        names = (
            "quorum", "panel", "appealPanel", "memberFee", "moveWindow", "commitWindow", "revealWindow", "appealWindow",
        )  # fmt: skip
        quorum, panel, appeal_panel, fee, move, commit, reveal, appeal = await self.read_many([(n, []) for n in names])
        return court.Terms(
            quorum=quorum,
            panel=panel,
            appeal_panel=appeal_panel,
            member_fee=fee,
            move_s=move,
            commit_s=commit,
            reveal_s=reveal,
            appeal_s=appeal,
        )

    async def case_of(self, case: bytes, *, at: At = "latest") -> court.Case | None:
        found = await self.read("caseOf", case, at=at)
        if found["state"] == court.CaseState.NONE:
            return None
        values = {snake(name): value for name, value in found.items()}
        values |= {"state": court.CaseState(found["state"]), "ruling": court.Ruling(found["ruling"])}
        return court.Case(**values)

    async def parties_of(self, case: bytes) -> court.Parties:
        return struct(court.Parties, await self.read("partiesOf", case))

    async def members(self, case: bytes, size: int) -> list[court.Member]:
        found = await self.read_many([("memberAt", [case, number]) for number in range(size)])
        return [
            court.Member(number, attempt, account) for number, (account, attempt) in enumerate(found) if any(account)
        ]

    async def ballots(self, case: bytes, round_: int, size: int) -> list[court.Ballot]:
        found = await self.read_many([("ballotOf", [case, round_, number]) for number in range(size)])
        return [court.Ballot(**{**each, "vote": court.Vote(each["vote"])}) for each in found]

    # ---- writes

    async def post(self, sender: Sender, case: bytes, value: bytes, *, brings_wei: int | None = None) -> Outcome:
        return await self.write(sender, "post", case, value, brings_wei=brings_wei)

    async def answer(self, sender: Sender, case: bytes, value: bytes, *, brings_wei: int | None = None) -> Outcome:
        return await self.write(sender, "answer", case, value, brings_wei=brings_wei)

    async def appeal(self, sender: Sender, case: bytes, fee: int, *, brings_wei: int | None = None) -> Outcome:
        await self._allow(sender, fee)
        return await self.write(sender, "appeal", case, brings_wei=brings_wei)

    async def commit(
        self, sender: Sender, case: bytes, member: court.Member, commitment: bytes, *, brings_wei: int | None = None
    ) -> Outcome:
        return await self.write(
            sender, "commit", case, member.number, member.attempt, commitment, brings_wei=brings_wei
        )

    async def reveal(
        self, sender: Sender, case: bytes, member: int, result: bytes, salt: bytes, *, brings_wei: int | None = None
    ) -> Outcome:
        return await self.write(sender, "reveal", case, member, result, salt, brings_wei=brings_wei)

    async def advance(self, sender: Sender, case: bytes, *, brings_wei: int | None = None) -> Outcome:
        return await self.write(sender, "advance", case, brings_wei=brings_wei)


class Disputes(_Bonded):
    """What a case of a claim's sample is about."""

    NAME = "Claims"

    async def origin(self, case: bytes, block: int, head: int, steps: int) -> court.Origin | None:
        """Of a case that opened in this block; None where no sample's did."""
        for disputed in await self.events(["SampleDisputed"], block, block, None, case):
            claim, sample = disputed.values["claim"], disputed.values["sample"]
            found = await self.read("claimOf", claim)
            for leaf in await self.events(["LeafOpened"], found["blockNumber"], head, claim):
                if leaf.values["sample"] == sample:
                    return court.Origin(
                        seat=found["seat"],
                        position=leaf.values["position"],
                        steps=steps,
                        claim=claim,
                        sample=sample,
                        unit_id=leaf.values["unitId"],
                    )
        return None


class Accusations(_Bonded):
    """Takes the lock of a worker that cheated."""

    NAME = "Accusations"

    async def origin(self, case: bytes, block: int, steps: int) -> court.Origin | None:
        """Of a case that opened in this block; None where no accusation's did."""
        for event in await self.events(["Accused"], block, block, case):
            return court.Origin(seat=event.values["seat"], position=event.values["position"], steps=steps)
        return None

    async def accusation_of(self, accusation: bytes) -> court.Accusation | None:
        found = await self.read("accusationOf", accusation)
        return struct(court.Accusation, found) if any(found["accuser"]) else None

    async def accuse(
        self,
        sender: Sender,
        order: Order,
        lease: Lease,
        charge: court.Charge,
        witnesses: Sequence[int],
        *,
        bond: int,
        brings_wei: int | None = None,
    ) -> Outcome:
        await self._allow(sender, bond)
        arguments = (order, lease, _charge(charge), list(witnesses))
        return await self.write(sender, "accuse", *arguments, brings_wei=brings_wei)

    async def fraud(
        self,
        sender: Sender,
        order: Order,
        lease: Lease,
        position: int,
        one: court.Statement,
        other: court.Statement,
        *,
        brings_wei: int | None = None,
    ) -> Outcome:
        arguments = (order, lease, position, _statement(one), _statement(other))
        return await self.write(sender, "fraud", *arguments, brings_wei=brings_wei)

    async def acquit_or_convict(
        self, sender: Sender, lease: Lease, accusation: bytes, *, brings_wei: int | None = None
    ) -> Outcome:
        return await self.write(sender, "acquitOrConvict", lease, accusation, brings_wei=brings_wei)


def dispute(found: dict[str, Any]) -> court.Dispute:
    """As an event tells it."""
    return struct(court.Dispute, found)


def _statement(said: court.Statement) -> tuple[Any, ...]:
    tally = NO_TALLY if said.tally is None else said.tally
    return said.word, said.leaf, compact(said.signature), tally, said.claim, list(said.path)


def _charge(charge: court.Charge) -> tuple[Any, ...]:
    one = charge.opening
    return (
        charge.position, _statement(charge.statement), one.unit_id, compact(charge.assign), one.start, one.end,
        one.salt, one.aux, charge.own_start, charge.own_end, charge.steps,
    )  # fmt: skip
