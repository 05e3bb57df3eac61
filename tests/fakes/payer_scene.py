"""A market in one process: real worker and auditor roles on fakes, scripted bad ones among them, and a real payer.

Peers do wrong through what the world gives them (an executor that lies, a network that is cut) or through handlers that
a test puts in place of a role; the product has no switch for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from fakes.blobs import FakeBlobs, Swarm
from fakes.chain import DOMAINS, STARTED
from fakes.chain import World as ChainWorld
from fakes.executor import FakeExecutor, honest
from fakes.journal import MemoryJournal
from fakes.network import FakeNetwork
from fakes.network import World as NetworkWorld
from tallymesh import api, exchange, units, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import (
    AcceptRequest,
    AssignRequest,
    AuditRequest,
    CloseRequest,
    CommitRequest,
    ForfeitRequest,
    LeaseAnswer,
    LeaseRequest,
    Nothing,
    OpenAnswer,
    Opening,
    ProgressRequest,
    ReceiptRequest,
    ReleaseAnswer,
    Report,
    Source,
    TallyRequest,
    VerdictRequest,
)
from tallymesh.ids import ZERO32, BlobId, UnitId, blob_id
from tallymesh.messages import (
    Accept,
    Assign,
    AuditCommit,
    AuditOrder,
    Lease,
    Offer,
    Open,
    Receipt,
    Result,
    Tally,
    Verdict,
)
from tallymesh.parameters import Parameters
from tallymesh.plan import Plan
from tallymesh.units import JobSpec, Stage, Unit
from tallymesh_learning import options
from tallymesh_ledger import merkle, sampling
from tallymesh_ledger.jobs import seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.seat import Range, Seat
from tallymesh_node.auditor.service import AuditorService
from tallymesh_node.cores import Cores
from tallymesh_node.payer import PayerService
from tallymesh_node.payer.records import Accepted, read
from tallymesh_node.worker import SettlePolicy, WorkerService
from tallymesh_scheduler.matching import Candidate

CLASS = b"\x0c" * 32
PROFILE = b"\x0f" * 32
TOKEN = 10**18
PRICE = 1000  # wei per reference-second
PARAMETERS = Parameters(
    class_accounts_min=1,
    class_stake_bp=0,
    claim_window_s=60,
    evidence_window_s=60,
    lease_max_s=600,
    lock_tail_s=60,
    heartbeat_s=1.0,
)
GARBAGE = b"garbage"  # an output that begins with it has a terrible loss


def key_of(number: int) -> AccountKey:
    return AccountKey(bytes([number]) * 32)


def cheat(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    """Well-formed work that was not done."""
    output, metrics = honest(unit, inputs)
    return b"cheated" + output, metrics


def after_first(bad: Callable[..., Any]) -> Callable[..., Any]:
    """Honest for the first unit that it is given, then `bad`."""
    seen: list[Unit] = []

    def run(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        if not seen or seen[0] == unit:
            seen.append(unit)
            return honest(unit, inputs)
        return bad(unit, inputs)  # type: ignore[no-any-return]

    return run


def loss_check(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    bad = inputs[unit.input("end")].startswith(GARBAGE)
    return b"losses", {"loss_before": 1.0, "loss_after": 100.0 if bad else 0.9}


def evaluate(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
    bad = inputs[unit.input("state")].startswith(GARBAGE)
    return b"metrics", {"loss": 100.0 if bad else 1.0, "accuracy": 0.9}


class PoolBlobs(FakeBlobs):
    """Peers of one scene keep their files in one folder (files are what takes time here); each knows only its own."""

    def __init__(self, folder: Path, swarm: Swarm, peer_id: str) -> None:
        self._mine: set[BlobId] = set()
        super().__init__(folder, swarm, peer_id)

    def has(self, blob: BlobId) -> bool:
        return blob in self._mine

    def put(self, data: bytes) -> BlobId:
        name = blob_id(data)
        file = self.folder / name.hex()
        if not file.exists():
            file.write_bytes(data)
        self._mine.add(name)
        return name


class Scene:
    """The world of one test."""

    def __init__(self, folder: Path, parameters: Parameters = PARAMETERS) -> None:
        self.folder = folder
        self.parameters = parameters
        self.chain = ChainWorld(DOMAINS, parameters)
        self.network = NetworkWorld()
        self.swarm = Swarm()
        self.peers: list[Peer] = []
        self.puppets: dict[str, Puppet] = {}

    def account_of(self, peer_id: str) -> bytes | None:
        return next((peer.key.address for peer in self.peers if peer.peer_id == peer_id), None)

    def join(self, number: int, **options: Any) -> Peer:
        peer = Peer(self, number, **options)
        self.peers.append(peer)
        return peer

    def crowd(self, count: int, **options: Any) -> list[Peer]:
        return [self.join(number, **options) for number in range(1, count + 1)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        async with trio.open_nursery() as nursery:
            for peer in self.peers:
                await nursery.start(self.puppets[peer.peer_id].run if peer.peer_id in self.puppets else peer.run)
            yield nursery
            nursery.cancel_scope.cancel()

    # The offer book of the payer.

    def candidates(self, now: int) -> list[Candidate]:
        registry = self.chain.registry(0)
        found = []
        for peer in self.peers:
            if peer.offers:
                accounts, share = registry.class_weight(peer.numeric_class, besides=peer.key.address)
                slots = registry.slots_of(peer.key.address)
                found.append(
                    Candidate(
                        offer=peer.offer(),
                        peer_id=peer.peer_id,
                        slots=slots,
                        free_stake=slots * self.parameters.slot_wei - self.chain.locked(peer.key.address),
                        owner=peer.key.address,
                        chain_class=registry.classes.get(peer.key.address, b""),
                        class_accounts=accounts,
                        class_share_bp=share,
                        free_cores=peer.cores.count,
                    )
                )
        return found

    def source_of(self, account: bytes) -> Source | None:
        return next((p.network.source for p in self.peers if p.key.address == account and p.offers), None)

    def note_unreachable(self, account: bytes, sentence: str) -> None:
        pass


AuditHandler = Callable[["Peer", AuditRequest], Awaitable[None]]


class Peer:
    """A worker's node with its auditor. `working` and `auditing` are the executors of the two roles, so that a test can
    let one of them lie; `audit` replaces the auditor's role altogether."""

    def __init__(
        self,
        scene: Scene,
        number: int,
        *,
        slots: int = 1,
        cores: int = 1,
        ask: int = PRICE,
        works: bool = True,
        audit: AuditHandler | None = None,
        seconds: float = 1.0,
        numeric_class: bytes = CLASS,
        gpus: str = "",
    ) -> None:
        self.scene = scene
        self.numeric_class = numeric_class
        self.gpus = gpus
        self.key = key_of(number)
        self.peer_id = f"peer-{number}"
        self.network: FakeNetwork = scene.network.join(self.peer_id)
        self.blobs = PoolBlobs(scene.folder / "blobs", scene.swarm, self.peer_id)
        self.working = FakeExecutor(self.blobs, seconds={"": seconds})
        self.auditing = FakeExecutor(self.blobs, seconds={"": seconds})
        self.journal = MemoryJournal()
        self.cores = Cores(cores)
        self.ask = ask
        self.works = works
        self.offers = True
        self.audit = audit
        self.audited: list[AuditOrder] = []
        self.worker: WorkerService  # while it runs
        self.auditor: AuditorService  # the same, unless scripted
        self._nursery: trio.Nursery | None = None
        if slots:
            scene.chain.stake(self.key.address, slots, numeric_class)

    def __repr__(self) -> str:
        return f"<Peer {self.peer_id}>"

    def offer(self) -> Offer:
        return Offer(
            account=self.key.address,
            peer_id_hash=ZERO32,
            numeric_class=self.numeric_class,
            provisional=False,
            cores=self.cores.count,
            memory_mib=4096,
            disk_mib=10_000,
            gpus=self.gpus,
            cpu_score=1000,
            ask_price=self.ask if self.works else 10**15,
            addresses=self.network.addresses[0],
            attestation=ZERO32,
            seq=1,
            issued=STARTED,
            expires=STARTED + 10_000_000,
        )

    async def run(self, *, task_status: Any) -> None:
        """Until cancelled, or killed."""
        chain = self.scene.chain.view(self.key.address)
        shared: dict[str, Any] = dict(
            network=self.network,
            blobs=self.blobs,
            chain=chain,
            journal=self.journal,
            domains=DOMAINS,
            key=self.key,
            parameters=self.scene.parameters,
            clock=self.scene.chain.clock,
            cores=self.cores,
        )
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            worker = WorkerService(
                **shared,
                executor=self.working,
                current_offer=lambda: self.offer() if self.works else None,
                account_of=self.scene.account_of,
                policy=SettlePolicy(),
            )
            self.worker = worker
            await nursery.start(worker.run)
            if self.audit is None:
                self.auditor = AuditorService(**shared, executor=self.auditing)
                await nursery.start(self.auditor.run)
            else:
                self.network.serve(AuditRequest.NAME, self._scripted)
            task_status.started()
            await trio.sleep_forever()

    def kill(self) -> None:
        """As kill -9 does it: no word to anybody, connections refused."""
        self.scene.network.down.add(self.peer_id)
        self.scene.swarm.down.add(self.peer_id)
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    # Scripted auditors.

    async def _scripted(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        request = exchange.decode(body, AuditRequest)
        order: AuditOrder = wire.decode(request.audit_order, AuditOrder).message
        if order not in self.audited:
            self.audited.append(order)
            assert self._nursery is not None
            self._nursery.start_soon(self._script, request)
        return exchange.encode(Nothing())

    async def _script(self, request: AuditRequest) -> None:
        assert self.audit is not None
        with suppress(RemoteError):  # a refusal by the payer is what most of them get
            await self.audit(self, request)

    async def commit(self, request: AuditRequest, end: bytes, *, probe: bytes = ZERO32) -> Open:
        """Commit to `end` (salt zero) and get the worker's opening."""
        order: AuditOrder = wire.decode(request.audit_order, AuditOrder).message
        commitment = sampling.commitment(end, ZERO32, self.key.address, probe)
        message = AuditCommit(audit_order=DOMAINS.digest(order), commitment=commitment)
        body = exchange.encode(CommitRequest(self.key.sign(DOMAINS, message).body))
        source = request.sources[0]
        answer = await self.network.request(source, CommitRequest.NAME, body, timeout_s=10)
        return wire.decode(exchange.decode(answer, OpenAnswer).open, Open).message  # type: ignore[no-any-return]

    async def judge(self, request: AuditRequest, result: Result, end: bytes, *, probe: bytes = ZERO32) -> None:
        order: AuditOrder = wire.decode(request.audit_order, AuditOrder).message
        message = Verdict(audit_order=DOMAINS.digest(order), result=result, end=end, salt=ZERO32, probe=probe)
        body = exchange.encode(VerdictRequest(self.key.sign(DOMAINS, message).body))
        await self.network.request(request.sources[0], VerdictRequest.NAME, body, timeout_s=10)


class PayerNode:
    """The payer under test. `start` may be called again after `crash`: journal and blobs stay."""

    def __init__(self, scene: Scene, *, own: bool = True, funds: int = 100 * TOKEN) -> None:
        self.scene = scene
        self.key = key_of(200)
        self.peer_id = "payer"
        self.network = scene.network.join(self.peer_id)
        self.blobs = PoolBlobs(scene.folder / "blobs", scene.swarm, self.peer_id)
        self.executor: FakeExecutor | None = None
        if own:
            self.executor = FakeExecutor(self.blobs, seconds={"": 1.0, "tallymesh:loss_check": 0.0})
            self.executor.functions = {"tallymesh:loss_check": loss_check, "tallymesh:evaluate": evaluate}
        self.journal = MemoryJournal()
        self.journal.on_append = self._check
        self.accepted: dict[bytes, int] = {}
        self.service: PayerService
        self._scope: trio.CancelScope | None = None
        scene.chain.mint(self.key.address, funds)

    def _check(self, scope: str, kind: str, body: bytes) -> None:
        """Before every line: every wei is somewhere, and nothing is accepted that was not tallied and received."""
        self.scene.chain.check()
        for driver in self.service._drivers.values():
            assert driver.book.free_wages >= 0
            for held in driver.book.all():
                seat = held.seat
                received = len(seat.leaves)
                assert seat.accepted_units <= seat.tallied <= received <= len(seat.assigned) <= held.lease.positions
                assert sum(t.range.count for t in seat.tallies) == seat.tallied
        if kind == "Accepted":
            record = read(kind, body)
            assert isinstance(record, Accepted)
            accept: Accept = wire.decode(record.accept, Accept).message
            assert accept.units > self.accepted.get(accept.seat, 0), "nothing is accepted twice"
            self.accepted[accept.seat] = accept.units

    async def start(self, nursery: trio.Nursery) -> None:
        self.scene.network.down.discard(self.peer_id)
        self.network = self.scene.network.join(self.peer_id)
        self.service = PayerService(
            network=self.network,
            blobs=self.blobs,
            executor=self.executor,
            chain=self.scene.chain.view(self.key.address),
            journal=self.journal,
            domains=DOMAINS,
            key=self.key,
            parameters=self.scene.parameters,
            offers=self.scene,
            clock=self.scene.chain.clock,
            numeric_class=lambda: CLASS if self.executor is not None else b"",
        )
        await nursery.start(self._run)

    async def _run(self, *, task_status: Any) -> None:
        with trio.CancelScope() as self._scope:
            await self.service.run(task_status=task_status)

    def crash(self) -> None:
        """What was not in the journal is gone."""
        self.scene.network.down.add(self.peer_id)
        self.journal = self.journal.copy()
        self.journal.on_append = self._check
        assert self._scope is not None
        self._scope.cancel()

    # Jobs.

    def spec(self, kind: str, *, items: int = 8, rounds: int = 3, work_ms: int = 1000, **more: Any) -> JobSpec:
        program = self.blobs.put(b"program")
        config = options.encode(options.Config(model="m:model", loss="m:loss"))
        inputs = tuple(sorted(self.blobs.put(b"item %d" % i) for i in range(items)))
        if kind == "map":
            spec = JobSpec("map", program, PROFILE, 0, (Stage("map", "m:f", b"{}", work_ms),), inputs)
        elif kind == "sequential":
            stages: tuple[Stage, ...] = (Stage("segment", "tallymesh:segment", config, work_ms),)
            initial = self.blobs.put(b"initial")
            spec = JobSpec(kind, program, PROFILE, 0, stages, inputs[:1], initial=initial, rounds=rounds)
        else:
            stages = (
                Stage("client", "tallymesh:client", config, work_ms),
                Stage("aggregate", "tallymesh:aggregate", config, work_ms // 2 or 1),
            )
            initial = self.blobs.put(b"initial")
            spec = JobSpec(kind, program, PROFILE, 0, stages, inputs, initial=initial, rounds=rounds)
            spec = msgspec.structs.replace(spec, test=self.blobs.put(b"test"))
        return msgspec.structs.replace(spec, **more)

    async def submit(self, spec: JobSpec, *, budget: int = TOKEN, **terms: Any) -> str:
        template = self.blobs.put(units.encode(spec))
        return await self.service.submit(template, api.Terms(budget_wei=str(budget), **terms))

    async def wait(self, job: str, *statuses: str, timeout_s: float = 3000) -> api.JobView:
        """Until the job has one of these statuses ("done" by default)."""
        with trio.fail_after(timeout_s):
            while self.service.job(job).status not in (statuses or ("done",)):  # noqa: ASYNC110
                await trio.sleep(0.1)
        return self.service.job(job)

    async def wait_empty(self, job: str, timeout_s: float = 5000) -> api.JobView:
        """Until nothing of the job is left in the escrow."""
        with trio.fail_after(timeout_s):
            while self.scene.chain.held(bytes.fromhex(job)) or job in self.service._drivers:  # noqa: ASYNC110
                await trio.sleep(1)
        return self.service.job(job)


def honest_result(payer: PayerNode, spec: JobSpec) -> list[BlobId]:
    """What everybody would get who runs the plan alone and honestly."""
    plan = Plan(spec)
    content = {BlobId(item): payer.blobs.get(BlobId(item)) for item in payer_blobs(spec)}
    while not plan.finished:
        for task in list(plan.ready()):
            wanted = {BlobId(task.unit.program), *(BlobId(item.blob) for item in task.unit.inputs)}
            output, _ = honest(task.unit, {key: content[key] for key in wanted})
            name = payer.blobs.put(output)
            content[name] = output
            plan.record(UnitId(task.unit_id), name)
    return [blob for blob in plan.results() if blob is not None]


def payer_blobs(spec: JobSpec) -> set[bytes]:
    return {spec.program, spec.initial, *spec.inputs} - {ZERO32}


def tallies(payer: PayerNode, job: str) -> list[Tally]:
    driver = payer.service._driver(job)
    return [closed.message for held in driver.book.all() for closed in held.seat.tallies]


def result_of(payer: PayerNode, spec: JobSpec, view: api.JobView) -> list[bytes]:
    name = bytes.fromhex(view.result)
    return msgspec.msgpack.decode(payer.blobs.get(BlobId(name))) if spec.kind == "map" else [name]  # type: ignore[no-any-return]


def caught(payer: PayerNode, job: str) -> list[tuple[str, str]]:
    return [(e.data["peer"], e.data["check"]) for e in payer.service.events(job, 0) if e.kind == "caught"]


def paid_units(scene: Scene, peer: Peer) -> int:
    return sum(seat.paid_units for seat in scene.chain.seats.values() if seat.worker == peer.key.address)


class Puppet:
    """A worker whose every word the test says: it signs leases and keeps what it is given, and does nothing else."""

    def __init__(self, scene: Scene, number: int, *, ask: int = PRICE // 10) -> None:
        self.scene = scene
        self.peer = scene.join(number, ask=ask)
        scene.puppets[self.peer.peer_id] = self
        self.key = self.peer.key
        self.lease: Lease
        self.assigned: dict[int, AssignRequest] = {}
        self.closes: list[CloseRequest] = []
        self.accepts: list[Accept] = []
        self.forfeits: list[ForfeitRequest] = []
        self.alive = True

    async def run(self, *, task_status: Any) -> None:
        network = self.peer.network
        network.serve("lease", self._lease)
        network.serve("seated", self._nothing)
        network.serve("assign", self._assign)
        network.serve("accept", self._accept)
        network.serve("close", self._close)
        network.serve("forfeit", self._forfeit)
        task_status.started()
        sequence = 0
        while True:
            await trio.sleep(1)
            sequence += 1
            if self.alive and hasattr(self, "lease"):
                with suppress(RemoteError):
                    await self.say(ProgressRequest(self.seat, sequence))

    @property
    def seat(self) -> bytes:
        return seat_id(DOMAINS, self.lease)

    async def wait(self, count: int) -> None:
        """Until so many units are assigned."""
        with trio.fail_after(30):
            while len(self.assigned) < count:  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def say(self, request: Any, *, peer: FakeNetwork | None = None) -> bytes:
        network = peer or self.peer.network
        payer = self.scene.network.networks["payer"].source
        return await network.request(payer, request.NAME, exchange.encode(request), timeout_s=20)

    def opening(self, position: int, output: bytes = b"output", metrics: bytes = b"{}") -> Opening:
        unit = units.decode_unit(self.assigned[position].unit)
        return Opening(units.unit_id(unit), unit.start, blob_id(output), bytes(32), blob_id(metrics))

    def receipt(self, position: int, output: bytes = b"output", **changes: Any) -> ReceiptRequest:
        opening = msgspec.structs.replace(self.opening(position, output), **changes)
        leaf = merkle.leaf(self.seat, position, opening)
        message = Receipt(seat=self.seat, position=position, leaf=leaf)
        return ReceiptRequest(self.key.sign(DOMAINS, message).body, opening, Report(), {blob_id(output): output})

    def tally(self, seat: Seat, count: int, **changes: Any) -> TallyRequest:
        """Of the payer's own picture of the seat."""
        covered = Range(len(seat.tallies) + 1, seat.tallied, count)
        number = max(0, self.scene.chain.now() - STARTED - self.scene.parameters.confirmations)
        message = Tally(
            seat=self.seat,
            number=covered.number,
            previous=seat.chain,
            start=covered.start,
            count=count,
            root=seat.root_of(covered),
            block_number=number,
            block_hash=self.scene.chain.block_hash(number),
        )
        return TallyRequest(self.key.sign(DOMAINS, msgspec.structs.replace(message, **changes)).body)

    async def _lease(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        request = exchange.decode(body, LeaseRequest)
        self.lease = wire.decode(request.lease, Lease).message
        return exchange.encode(LeaseAnswer(self.key.sign(DOMAINS, self.lease).body))

    async def _assign(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        request = exchange.decode(body, AssignRequest)
        self.assigned[wire.decode(request.assign, Assign).message.position] = request
        return exchange.encode(Nothing())

    async def _accept(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.accepts.append(wire.decode(exchange.decode(body, AcceptRequest).accept, Accept).message)
        return exchange.encode(ReleaseAnswer())

    async def _close(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.closes.append(exchange.decode(body, CloseRequest))
        return exchange.encode(ReleaseAnswer())

    async def _forfeit(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        self.forfeits.append(exchange.decode(body, ForfeitRequest))
        return exchange.encode(Nothing())

    async def _nothing(self, peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return exchange.encode(Nothing())
