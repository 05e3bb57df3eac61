"""`CourtChain` over the contracts' model (tallymesh_ledger.model): one account's view of fakes.chain's world; and a
training in steps without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import trio
from blake3 import blake3

from fakes.chain import STARTED, UNLIMITED, World
from tallymesh.errors import ChainError
from tallymesh.ids import BlobId
from tallymesh.messages import Lease, Order
from tallymesh.units import Unit
from tallymesh_ledger import court
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.chain.court import NO_TALLY
from tallymesh_ledger.model import quarrels
from tallymesh_ledger.model.signatures import Signature

STATE_BYTES = 96


def trained(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    """What a `tallymesh:segment` gives in these tests: `config.steps` times the same function of state and data, so
    that cutting it changes nothing."""
    state, data = inputs[unit.input("state")], inputs[unit.input("data")]
    for _ in range(json.loads(unit.config)["steps"]):
        state = blake3(data + state).digest(STATE_BYTES)
    return state, {"loss": 0.5}


class FakeCourt:
    """The `CourtChain` of one account. `refuse` makes a call fail: name -> the error's code."""

    def __init__(self, world: World, account: bytes) -> None:
        self.world, self.account = world, account
        self.court = world.contracts.court
        self.accusing = world.contracts.accusations
        self.refuse: dict[str, str] = {}
        self.sent: list[str] = []

    # ---- reads

    async def terms(self) -> court.Terms:
        await self._reach()
        terms = self.court.terms
        return court.Terms(
            quorum=terms.quorum,
            panel=terms.panel,
            appeal_panel=terms.appeal_panel,
            member_fee=terms.member_fee,
            move_s=terms.move_window,
            commit_s=terms.commit_window,
            reveal_s=terms.reveal_window,
            appeal_s=terms.appeal_window,
        )

    async def head(self) -> int:
        await self._reach()
        return self.world.now() - STARTED

    async def case_of(self, case: bytes) -> court.Case | None:
        await self._reach()
        found = msgspec.structs.asdict(self.court.case_of(case))
        found |= {"state": court.CaseState(found["state"]), "ruling": court.Ruling(found["ruling"])}
        return court.Case(**found) if found["state"] else None

    async def parties_of(self, case: bytes) -> court.Parties:
        await self._reach()
        return court.Parties(**self.court.parties_of(case)._asdict())

    async def members(self, case: bytes, size: int) -> list[court.Member]:
        await self._reach()
        self.world.at_now()
        found = [(number, *self.court.member_at(case, number)) for number in range(size)]
        return [court.Member(number, attempt, account) for number, account, attempt in found if any(account)]

    async def ballots(self, case: bytes, round_: int, size: int) -> list[court.Ballot]:
        await self._reach()
        found = [msgspec.structs.asdict(self.court.ballot_of(case, round_, number)) for number in range(size)]
        return [court.Ballot(**{**each, "vote": court.Vote(each["vote"])}) for each in found]

    async def panels(self, since: int) -> list[bytes]:
        return list(dict.fromkeys(values["id"] for _, values in await self._events("PanelDrawn", since)))

    async def called(self, since: int) -> list[bytes]:
        return list(dict.fromkeys(values["id"] for _, values in await self._events("PanelCalled", since)))

    async def cases(self, account: bytes, since: int) -> list[court.Opened]:
        return [
            court.Opened(
                case=values["id"],
                accused=values["accused"],
                accuser=values["accuser"],
                dispute=court.Dispute(**values["dispute"]._asdict()),
                block=at - STARTED,
                at=at,
            )
            for at, values in await self._events("CaseOpened", since)
            if account in (values["accused"], values["accuser"])
        ]

    async def origin(self, case: bytes) -> court.Origin | None:
        steps = [values["dispute"].steps for _, values in await self._events("CaseOpened", 0) if values["id"] == case]
        for _, values in await self._events("Accused", 0):
            if values["accusation"] == case:
                return court.Origin(seat=values["seat"], position=values["position"], steps=steps[-1])
        for _, values in await self._events("SampleDisputed", 0):
            if values["courtCase"] == case:
                claim, sample = values["claim"], values["sample"]
                for _, leaf in await self._events("LeafOpened", 0):
                    if (leaf["claim"], leaf["sample"]) == (claim, sample):
                        seat = self.world.contracts.claims.claim_of(claim).seat
                        position, unit_id = leaf["position"], leaf["unitId"]
                        return court.Origin(
                            seat=seat,
                            position=position,
                            steps=steps[-1],
                            claim=claim,
                            sample=sample,
                            unit_id=unit_id,
                        )
        return None

    async def accusation_of(self, accusation: bytes) -> court.Accusation | None:
        await self._reach()
        found = self.accusing.accusation_of(accusation)
        return court.Accusation(**msgspec.structs.asdict(found)) if any(found.accuser) else None

    async def accusations(self, seat: bytes, since: int) -> list[court.Accused]:
        return [
            court.Accused(
                id=values["accusation"],
                seat=seat,
                accuser=values["accuser"],
                position=values["position"],
                bond=values["bond"],
                block=at - STARTED,
                at=at,
            )
            for at, values in await self._events("Accused", since)
            if values["seat"] == seat
        ]

    async def witnesses(self, order: Order, lease: Lease) -> list[int]:
        await self._reach()
        registry = self.world.registry(self.world.now() - STARTED)
        good = registry.admissible(
            payer=order.payer,
            signer=order.signer,
            worker=lease.worker,
            numeric_class=lease.numeric_class,
            excluded=(self.account,),
        )
        mine = registry.owner_of(self.account)
        others = sorted(account for account in good if registry.owner_of(account) != mine)
        return [registry.slots.index(account) for account in others][: self.court.terms.quorum]

    async def lock_left(self, lease: Lease) -> int:
        await self._reach()
        return int(self.world.contracts.escrow.lock_left(lease))

    async def tokens(self) -> int:
        await self._reach()
        return int(self.world.contracts.token.balance_of(self.account))

    async def held(self, account: bytes) -> court.Held:
        await self._reach()
        return court.Held(court=self.court.credit_of(account), accusations=self.accusing.credit_of(account))

    # ---- writes

    async def accuse(
        self, order: Order, lease: Lease, charge: court.Charge, witnesses: Sequence[int], *, brings_wei: int | None
    ) -> None:
        one = charge.opening
        said = quarrels.Charge(
            charge.position, _statement(charge.statement), one.unit_id, Signature(*compact(charge.assign)),
            one.start, one.end, one.salt, one.aux, charge.own_start, charge.own_end, charge.steps,
        )  # fmt: skip
        await self._do(
            "accuse", lambda: self.accusing.accuse(self.account, order, lease, said, witnesses), self.accusing.address
        )

    async def fraud(
        self,
        order: Order,
        lease: Lease,
        position: int,
        one: court.Statement,
        other: court.Statement,
        *,
        brings_wei: int | None,
    ) -> None:
        words = _statement(one), _statement(other)
        await self._do("fraud", lambda: self.accusing.fraud(self.account, order, lease, position, *words))

    async def post(self, case: bytes, value: bytes, *, brings_wei: int | None = None) -> None:
        await self._do("post", lambda: self.court.post(self.account, case, value))

    async def answer(self, case: bytes, value: bytes, *, brings_wei: int | None = None) -> None:
        await self._do("answer", lambda: self.court.answer(self.account, case, value))

    async def appeal(self, case: bytes, *, brings_wei: int | None = None) -> None:
        await self._do("appeal", lambda: self.court.appeal(self.account, case), self.court.address)

    async def commit(self, case: bytes, member: court.Member, commitment: bytes, *, brings_wei: int | None) -> None:
        place = member.number, member.attempt
        await self._do("commit", lambda: self.court.commit(self.account, case, *place, commitment))

    async def reveal(
        self, case: bytes, member: int, result: bytes, salt: bytes, *, brings_wei: int | None = None
    ) -> None:
        await self._do("reveal", lambda: self.court.reveal(self.account, case, member, result, salt))

    async def advance(self, case: bytes, *, brings_wei: int | None = None) -> None:
        await self._do("advance", lambda: self.court.advance(self.account, case))

    async def acquit_or_convict(self, lease: Lease, accusation: bytes, *, brings_wei: int | None = None) -> None:
        await self._do("acquit_or_convict", lambda: self.accusing.acquit_or_convict(self.account, lease, accusation))

    async def collect_court(self) -> None:
        await self._do("collect_court", lambda: self.court.withdraw(self.account, self.account))

    async def collect_accusations(self) -> None:
        await self._do("collect_accusations", lambda: self.accusing.withdraw(self.account, self.account))

    async def _do(self, name: str, call: Callable[[], Any], takes: bytes = b"") -> None:
        await self._reach()
        if name in self.refuse:
            code = self.refuse[name]
            raise ChainError(code, f"The test says {code}.", reverted=code != "not_worth_gas")
        token = self.world.contracts.token
        if takes:
            self.world.run(lambda: token.approve(self.account, takes, UNLIMITED))
        self.world.run(call)
        self.sent.append(name)
        self.world.transactions.append((name, self.account))

    async def _events(self, name: str, since: int) -> list[tuple[int, dict[str, Any]]]:
        await self._reach()
        return [(at, event.values) for at, event in self.world.events if event.name == name and at >= since]

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.world.down:
            raise ChainError("chain_unavailable", "The chain does not answer.", reverted=False)


def _statement(said: court.Statement) -> quarrels.Statement:
    return quarrels.Statement(
        quarrels.Word(said.word),
        said.leaf,
        Signature(*compact(said.signature)),
        NO_TALLY if said.tally is None else said.tally,
        said.claim,
        said.path,
    )
