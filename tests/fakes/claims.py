"""`ClaimsChain` over the contracts' model (tallymesh_ledger.model): one account's view of fakes.chain's world.

A chain that takes a claim back, and a Court that has spoken, are the test's to say: `take_back`, `decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio
from msgspec.structs import replace

from fakes.chain import STARTED, UNLIMITED, World
from tallymesh.errors import ChainError
from tallymesh.messages import Lease, Order
from tallymesh.wire import Signed
from tallymesh_ledger import merkle
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.claims import RANKS, Claim, ClaimState, Draw, Finding, Heard, Sample, Shown, SignedOpening, Terms
from tallymesh_ledger.model import quarrels, trials
from tallymesh_ledger.model.panels import CourtTerms
from tallymesh_ledger.model.rulings import ClaimTerms
from tallymesh_ledger.model.signatures import Signature

WINDOWS = ClaimTerms(commit_window=100, open_window=100, reveal_window=100, challenge_window=200)
COURT = CourtTerms(3, 3, 5, 20, 50, 50, 50, 50)  # quorum, panels, a member's fee, windows
BOND = 600  # of both sides in these tests: more than the fee of the Court, and ten auditors' pay at a price of 50


def short_windows(world: World) -> None:
    """The network under test: windows of minutes, a Court of three."""
    world.contracts.claims.terms, world.contracts.court.terms = WINDOWS, COURT


def take_back(world: World, claim: bytes) -> None:
    """A reorganisation: the claim, its bonds, its hold on the seat and its seed are gone."""
    model, token = world.contracts.claims, world.contracts.token
    found = model.claim_of(claim)
    lease = world.leases[found.seat]
    world.run(lambda: world.contracts.escrow.let_go(model.address, lease))
    for sample in range(found.k):
        taken = model.sample_of(claim, sample)
        if taken.heard == Heard.COMMITTED:
            world.run(lambda to=taken.auditor: token.transfer(model.address, to, found.bond))  # type: ignore[misc]
        model._samples[claim, sample] = quarrels.Sample()
    world.run(lambda: token.transfer(model.address, found.claimer, found.bond))
    model._claims[claim] = quarrels.Claim()
    model._quarrels[found.seat] = quarrels.Quarrels()
    world.events = [(at, event) for at, event in world.events if event.values.get("claim") != claim]


def decide(world: World, case: bytes, ruling: trials.Ruling) -> None:
    """The Court has spoken; its members took nothing."""
    court = world.contracts.court
    court._cases[case] = replace(court.case_of(case), state=trials.State.RULED, ruling=ruling)


class FakeClaims:
    """The `ClaimsChain` of one account. `refuse` makes a call fail: name -> the error's code."""

    def __init__(self, world: World, account: bytes) -> None:
        self.world, self.account = world, account
        self.model = world.contracts.claims
        self.refuse: dict[str, str] = {}
        self.sent: list[str] = []
        # What the real one reads out of calls: who opened what is the world's knowledge.
        self._shown: dict[bytes, list[tuple[SignedOpening, int]]] = world.contracts.claims.__dict__.setdefault(
            "shown", {}
        )

    async def terms(self) -> Terms:
        await self._reach()
        windows, court = self.model.terms, self.world.contracts.court
        return Terms(
            commit_s=windows.commit_window,
            open_s=windows.open_window,
            reveal_s=windows.reveal_window,
            challenge_s=windows.challenge_window,
            court_fee=court.fee(),
            quorum=court.terms.quorum,
        )

    async def head(self) -> int:
        await self._reach()
        return self.world.now() - STARTED

    async def claim_of(self, claim: bytes) -> Claim | None:
        await self._reach()
        found = self._claim(claim)
        return found if found.state is not ClaimState.NONE else None

    def _claim(self, claim: bytes) -> Claim:
        values = msgspec.structs.asdict(self.model.claim_of(claim))
        return Claim(**{**values, "state": ClaimState(values["state"])})

    async def quarrels(self, seat: bytes) -> tuple[bytes, int]:
        await self._reach()
        found = self.model.quarrels_of(seat)
        return (found.claim if any(found.claim) else b""), found.claimed_to

    async def samples(self, claim: bytes, k: int) -> list[Sample]:
        await self._reach()
        found = [msgspec.structs.asdict(self.model.sample_of(claim, sample)) for sample in range(k)]
        return [Sample(**{**each, "heard": Heard(each["heard"])}) for each in found]

    async def draws(self, claim: bytes, k: int) -> list[Draw]:
        await self._reach()
        self.world.at_now()
        found = []
        for sample in range(k):
            for rank in range(RANKS):
                account, attempt = self.model.auditor_at(claim, sample, rank)
                if any(account):
                    found.append(Draw(sample, rank, attempt, account))
        return found

    async def captured(self, since: int) -> list[bytes]:
        await self._reach()
        return [e.values["claim"] for at, e in self.world.events if e.name == "Captured" and at >= since]

    async def leaf(self, claim: bytes, sample: int, since_block: int) -> tuple[bytes, bytes] | None:
        await self._reach()
        for _, event in self.world.events:
            if event.name == "LeafOpened" and (event.values["claim"], event.values["sample"]) == (claim, sample):
                return event.values["start"], event.values["end"]
        return None

    async def shown(self, claim: bytes, seat: bytes, since_block: int) -> list[Shown]:
        await self._reach()
        return [
            Shown(position, merkle.leaf(seat, position, each.opening), tuple(each.path))
            for each, position in self._shown.get(claim, ())
        ]

    async def lease_of(self, claim: bytes, since_block: int) -> Lease | None:
        await self._reach()
        return self.world.leases.get(self.model.claim_of(claim).seat)

    async def witnesses(self, order: Order, lease: Lease) -> list[int]:
        await self._reach()
        registry = self.world.registry(self.world.now() - STARTED)
        good = registry.admissible(
            payer=order.payer, signer=order.signer, worker=lease.worker, numeric_class=lease.numeric_class, excluded=()
        )
        return [registry.slots.index(account) for account in sorted(good)][: COURT.quorum]

    async def ruled(self, case: bytes) -> bool:
        await self._reach()
        found = self.world.contracts.court.case_of(case)
        return found.state == trials.State.RULED and not found.taken

    async def tokens(self) -> int:
        await self._reach()
        return int(self.world.contracts.token.balance_of(self.account))

    async def held(self, account: bytes) -> int:
        await self._reach()
        return int(self.model.credit_of(account))

    async def claim(
        self, order: Order, lease: Lease, tally: Signed, witnesses: Sequence[int], *, bond: int, brings_wei: int
    ) -> None:
        signature = Signature(*compact(tally.signature))
        await self._do(
            "claim", lambda: self.model.claim(self.account, order, lease, tally.message, signature, witnesses), bond
        )

    async def capture(self, claim: bytes) -> None:
        await self._do("capture", lambda: self.model.capture(self.account, claim))

    async def commit(self, claim: bytes, draw: Draw, commitment: bytes, *, bond: int, brings_wei: int) -> None:
        place = draw.sample, draw.rank, draw.attempt
        await self._do("commit", lambda: self.model.commit(self.account, claim, *place, commitment), bond)

    async def show(self, claim: bytes, openings: Sequence[SignedOpening]) -> None:
        shown = [
            quarrels.Opening(
                each.sample,
                *(each.opening.unit_id, each.opening.start, each.opening.end, each.opening.salt, each.opening.aux),
                Signature(*compact(each.assign)),
                each.path,
            )
            for each in openings
        ]
        await self._do("show", lambda: self.model.open(self.account, claim, shown))
        positions = self._claim(claim).positions()
        self._shown.setdefault(claim, []).extend((each, positions[each.sample]) for each in openings)

    async def reveal(self, claim: bytes, sample: int, finding: Finding) -> None:
        said = quarrels.Finding(*msgspec.structs.astuple(finding))
        await self._do("reveal", lambda: self.model.reveal(self.account, claim, sample, said))

    async def rule(self, lease: Lease, claim: bytes, sample: int) -> None:
        await self._do("rule", lambda: self.model.rule(self.account, lease, claim, sample))

    async def conclude(self, lease: Lease, claim: bytes, *, brings_wei: int | None = None) -> None:
        await self._do("conclude", lambda: self.model.conclude(self.account, lease, claim))

    async def collect(self) -> None:
        await self._do("collect", lambda: self.model.withdraw(self.account, self.account))

    async def _do(self, name: str, call: Callable[[], Any], bond: int = 0) -> None:
        await self._reach()
        if name in self.refuse:
            code = self.refuse[name]
            raise ChainError(code, f"The test says {code}.", reverted=code != "not_worth_gas")
        token = self.world.contracts.token
        if bond:
            self.world.run(lambda: token.approve(self.account, self.model.address, UNLIMITED))
        self.world.run(call)
        self.sent.append(name)
        self.world.transactions.append((name, self.account))

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.world.down:
            raise ChainError("chain_unavailable", "The chain does not answer.", reverted=False)
