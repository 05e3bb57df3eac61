"""A payer with a tallied seat, and an auditor's node around a real AuditorService: a test changes one thing of a call.

The worker exists as its messages only; its outputs are those of the honest fake executor unless a test gives others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from fakes.chain import DOMAINS, STARTED
from fakes.executor import FakeExecutor, honest
from fakes.journal import MemoryJournal
from fakes.worker_scene import CLASS, PARAMETERS, PRICE, PROFILE, TOKEN, Scene, key_of
from tallymesh import exchange, units, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import (
    AuditRequest,
    CommitRequest,
    Nothing,
    OpenAnswer,
    Opening,
    Source,
    VerdictRequest,
)
from tallymesh.ids import ZERO32, blob_id
from tallymesh.messages import (
    Assign,
    AuditCommit,
    AuditOrder,
    AuditReason,
    Lease,
    Open,
    Order,
    Tally,
    Verdict,
)
from tallymesh.plan import Plan
from tallymesh.units import JobSpec, Stage
from tallymesh_ledger import keys, merkle, sampling
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.auditor import AuditorService
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import SignedLease

FEE = PRICE * PARAMETERS.auditor_fee_bp // 10_000
COUNT = 8  # units of tally 2: positions 1 … 8
WORKER = key_of(30)


class Auditor:
    """The node under test; `run` may be entered again: journal and blobs stay."""

    def __init__(self, scene: Scene, number: int = 1, *, slots: int = 3) -> None:
        self.scene = scene
        self.key = key_of(number)
        self.peer_id = f"auditor-{number}"
        self.blobs = scene.blobs(self.peer_id)
        self.executor = FakeExecutor(self.blobs, seconds={"": 1.0})
        self.journal = MemoryJournal()
        self.cores = Cores(1)
        self.source = Source(self.peer_id)
        scene.chain.stake(self.key.address, slots, CLASS)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[AuditorService]:
        network = self.scene.network.join(self.peer_id)
        self.service = AuditorService(
            network=network,
            blobs=self.blobs,
            executor=self.executor,
            chain=self.scene.chain.view(self.key.address),
            journal=self.journal,
            domains=DOMAINS,
            key=self.key,
            parameters=self.scene.parameters,
            clock=lambda: STARTED + trio.current_time(),
            cores=self.cores,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(self.service.run)
            yield self.service
            nursery.cancel_scope.cancel()


class AuditPayer:
    """Knows everything; hands the opening over only for a commitment. `ends` replaces what the worker claims."""

    def __init__(self, scene: Scene, auditor: Auditor, *, positions: int = 20, **order: Any) -> None:
        self.scene, self.auditor = scene, auditor
        self.key, self.signer, self.worker = key_of(50), key_of(51), WORKER
        self.peer_id = "payer-50"
        self.network = scene.network.join(self.peer_id)
        self.blobs = scene.blobs(self.peer_id)
        program = self.blobs.put(b"a program")
        inputs = tuple(self.blobs.put(b"item %d" % i) for i in range(positions))
        self.spec = JobSpec("map", program, PROFILE, 0, (Stage("map", "m:f", b"{}", 1000),), inputs)
        self.tasks = list(Plan(self.spec).ready())
        scene.chain.stake(key_of(40).address, 3, CLASS)  # two other auditors
        scene.chain.stake(key_of(41).address, 3, CLASS)
        scene.chain.stake(self.worker.address, 1, CLASS)
        scene.chain.mint(self.key.address, 10 * TOKEN)
        self.order = self._order(**order)
        self.ends: dict[int, bytes] = {}
        self.commits: list[AuditCommit] = []
        self.verdicts: list[Verdict] = []
        self.got: list[tuple[str, bytes]] = []
        self.open_changes: dict[str, Any] = {}
        self.answers: dict[str, Callable[[bytes], bytes]] = {}
        self.network.serve("commit", self._commit)
        self.network.serve("verdict", self._verdict)

    def _order(self, **changes: Any) -> Order:
        order = Order(
            payer=self.key.address, signer=self.signer.address, template=self.blobs.put(units.encode(self.spec)),
            numeric_profile=PROFILE, cores=1, memory_mib=512, disk_mib=100, gpus=0, price_max=10 * PRICE, wages=TOKEN,
            audit_reserve=TOKEN, lock_per_seat=100, claim_bond=0, audit_rate_bp=2500, tally_units=COUNT,
            claim_window=60, evidence_window=60, auditors=0, auditors_root=ZERO32, signer_seat_max=TOKEN,
            newcomers=False, deadline=STARTED + 1_000_000, salt=ZERO32,
        )  # fmt: skip
        return msgspec.structs.replace(order, **changes)

    def secret(self, number: int) -> bytes:
        return sampling.secret(b"job secret", ZERO32, number)

    @property
    def lease(self) -> Lease:
        return Lease(
            job=job_id(DOMAINS, self.order), worker=self.worker.address, positions=len(self.tasks), price=PRICE,
            work_ms=1000, numeric_class=CLASS, lock=100, until=STARTED + 3600, seat_by=STARTED + 100,
            secret_1=sampling.secret_hash(self.secret(1)), secret_2=sampling.secret_hash(self.secret(2)), nonce=1,
        )  # fmt: skip

    @property
    def seat(self) -> bytes:
        return seat_id(DOMAINS, self.lease)

    def opening(self, position: int) -> Opening:
        """What the worker committed to; never shown to an auditor that has not."""
        unit = self.tasks[position].unit
        names = [unit.program, *(item.blob for item in unit.inputs)]
        output, _ = honest(unit, {name: self.blobs.get(name) for name in names})  # type: ignore[misc]
        end = self.ends.get(position, blob_id(output))
        salt = merkle.salt(self.worker.secret, self.seat, position)
        return Opening(self.tasks[position].unit_id, unit.start, end, salt, b"a" * 32)

    def tally(self, number: int, *, ago: int = 10) -> Tally:
        start, count = (0, 1) if number == 1 else (1, COUNT)
        leaves = [merkle.leaf(self.seat, p, self.opening(p)) for p in range(start, start + count)]
        block = max(0, self.scene.chain.now() - STARTED - ago)
        return Tally(
            seat=self.seat, number=number, previous=ZERO32 if number == 1 else b"c" * 32, start=start, count=count,
            root=merkle.root(leaves), block_number=block, block_hash=self.scene.chain.block_hash(block),
        )  # fmt: skip

    async def open_job(self) -> None:
        both = SignedLease(
            self.lease,
            self.signer.sign(DOMAINS, self.lease).signature,
            self.worker.sign(DOMAINS, self.lease).signature,
        )
        await self.scene.chain.view(self.key.address).open(self.order, [both])
        await trio.sleep(20)  # blocks become final

    def seed(self, tally: Tally) -> bytes:
        return sampling.tally_seed(self.seat, tally.number, tally.root, self.secret(tally.number))

    def drawn(self, tally: Tally) -> list[int]:
        """Positions."""
        k = sampling.sample_count(self.seed(tally), tally.count, self.order.audit_rate_bp)
        return [tally.start + index for index in sampling.draw_units(self.seed(tally), tally.count, k)]

    def attempt(self, tally: Tally, position: int, draw: int = 0, *, mine: bool = True) -> int:
        """The first attempt that hits the auditor (or, if not `mine`, misses it)."""
        registry = self.scene.chain.registry(tally.block_number)
        me = self.auditor.key.address
        for attempt in range(1000):
            slot = sampling.auditor_slot(self.seed(tally), position - tally.start, draw, attempt, len(registry.slots))
            if (registry.slots[slot] == me) is mine:
                return attempt
        raise AssertionError("never drawn")

    def request(
        self,
        *,
        number: int = 2,
        position: int | None = None,
        reason: AuditReason | None = None,
        draw: int = 0,
        tally: Tally | None = None,
        signed_by: AccountKey | None = None,
        **changes: Any,
    ) -> AuditRequest:
        """An honest call, with `changes` to its AuditOrder."""
        tally = tally or self.tally(number)
        position = self.drawn(tally)[0] if position is None else position
        default = AuditReason.FIRST if number == 1 else AuditReason.DRAWN
        order = AuditOrder(
            seat=self.seat, tally=number, position=position, unit_id=self.tasks[position].unit_id,
            reason=int(default if reason is None else reason), draw=draw,
            attempt=changes.pop("attempt", self.attempt(tally, position, draw)), auditor=self.auditor.key.address,
            fee=FEE, commit_by=self.scene.chain.now() + 40,
        )  # fmt: skip
        order = msgspec.structs.replace(order, **changes)
        assign = Assign(seat=self.seat, position=position, unit_id=self.tasks[position].unit_id)
        return AuditRequest(
            audit_order=(signed_by or self.signer).sign(DOMAINS, order).body,
            order=self.key.sign(DOMAINS, self.order).body,
            lease=self.worker.sign(DOMAINS, self.lease).body,
            tally=self.worker.sign(DOMAINS, tally).body,
            secret=self.secret(number),
            assign=self.signer.sign(DOMAINS, assign).body,
            unit=units.encode(self.tasks[position].unit),
            spec=units.encode(self.spec),
            sources=(self.network.source,),
        )

    async def ask(self, request: AuditRequest) -> bytes:
        return await self.network.request(self.auditor.source, request.NAME, exchange.encode(request), timeout_s=10)

    async def wait(self, condition: Callable[[], Any], *, timeout_s: float = 60.0) -> None:
        with trio.fail_after(timeout_s):
            while not condition():  # noqa: ASYNC110 - under virtual time looking costs nothing
                await trio.sleep(0.25)

    # What the auditor sends.

    async def _commit(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.got.append(("commit", body))
        if "commit" in self.answers:
            return self.answers["commit"](body)
        commit: AuditCommit = keys.open_signed(
            DOMAINS, exchange.decode(body, CommitRequest).commit, AuditCommit, self.auditor.key.address
        ).message
        if commit not in self.commits:
            self.commits.append(commit)
        return exchange.encode(OpenAnswer(self.opened(commit)))

    def opened(self, commit: AuditCommit) -> bytes:
        called = self.called
        opening = self.opening(called.position)
        message = Open(
            audit_order=commit.audit_order, commit=DOMAINS.digest(commit), end=opening.end, salt=opening.salt,
            aux=opening.aux, recheck=b"r" * 32,
        )  # fmt: skip
        return self.signer.sign(DOMAINS, msgspec.structs.replace(message, **self.open_changes)).body

    async def call(self, **options: Any) -> AuditOrder:
        """Send an honest call and remember what it was for."""
        request = self.request(**options)
        self.called: AuditOrder = wire.decode(request.audit_order, AuditOrder).message
        await self.ask(request)
        return self.called

    async def _verdict(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.got.append(("verdict", body))
        if "verdict" in self.answers:
            return self.answers["verdict"](body)
        verdict = keys.open_signed(
            DOMAINS, exchange.decode(body, VerdictRequest).verdict, Verdict, self.auditor.key.address
        ).message
        if verdict not in self.verdicts:
            self.verdicts.append(verdict)
        return exchange.encode(Nothing())

    def received(self, name: str) -> list[bytes]:
        return list(dict.fromkeys(body for kind, body in self.got if kind == name))


async def refused(awaitable: Any) -> str:
    """The code of the refusal."""
    try:
        await awaitable
    except RemoteError as error:
        return error.code
    raise AssertionError("it was not refused")
