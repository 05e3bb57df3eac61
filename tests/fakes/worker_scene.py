"""A payer that a test drives step by step, and a worker's node built from fakes around a real WorkerService.

The payer keeps a Seat of its own and applies to it what it gets, so a worker that says anything it cannot prove fails
the test. `got` holds every request in its bytes: what a restarted worker repeats is compared with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from fakes.blobs import FakeBlobs, Swarm
from fakes.chain import DOMAINS, STARTED
from fakes.chain import World as ChainWorld
from fakes.executor import FakeExecutor
from fakes.journal import MemoryJournal
from fakes.network import World as NetworkWorld
from tallymesh import exchange, units
from tallymesh.errors import RemoteError, TallymeshError
from tallymesh.exchange import (
    AcceptRequest,
    AssignRequest,
    CloseRequest,
    FailureRequest,
    ForfeitRequest,
    LeaseAnswer,
    LeaseRequest,
    LeaveRequest,
    Nothing,
    ProgressRequest,
    ReceiptRequest,
    ReleaseAnswer,
    SeatedRequest,
    TallyAnswer,
    TallyRequest,
)
from tallymesh.ids import ZERO32, BlobId, blob_id
from tallymesh.messages import Accept, Assign, Cancel, Close, Lease, Leave, Offer, Order, Receipt, Release, Tally
from tallymesh.parameters import Parameters
from tallymesh.plan import Plan
from tallymesh.units import Input, JobSpec, Stage
from tallymesh_ledger import keys, sampling
from tallymesh_ledger.jobs import job_id, seat_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.seat import Seat
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import SignedLease
from tallymesh_node.worker import SettlePolicy, WorkerService
from tallymesh_node.worker.yielding import Allowed

CLASS = b"\x0c" * 32
PROFILE = b"\x0f" * 32
TOKEN = 10**18
PARAMETERS = Parameters(tally_units=4, tally_timed_units=2, tally_time_s=600)
PRICE = 1000


def key_of(number: int) -> AccountKey:
    return AccountKey(bytes([number]) * 32)


class Scene:
    """The world of one test: a chain, a network, who has which blobs."""

    def __init__(self, folder: Path, parameters: Parameters = PARAMETERS) -> None:
        self.folder = folder
        self.parameters = parameters
        self.chain = ChainWorld(DOMAINS, parameters)
        self.network = NetworkWorld()
        self.swarm = Swarm()
        self.accounts: dict[str, bytes] = {}  # bound peer ids

    def blobs(self, peer_id: str) -> FakeBlobs:
        return FakeBlobs(self.folder / peer_id, self.swarm, peer_id)


class Node:
    """A worker's node. `run` may be entered again and again: the journal and the blobs stay."""

    def __init__(self, scene: Scene, number: int = 1, *, slots: int = 2, seconds: float = 1.0) -> None:
        self.scene = scene
        self.key = key_of(number)
        self.peer_id = f"worker-{number}"
        self.blobs = scene.blobs(self.peer_id)
        self.executor = FakeExecutor(self.blobs, seconds={"": seconds})
        self.journal = MemoryJournal()
        self.cores = Cores(2)
        self.policy = SettlePolicy()
        self.offer: Offer | None = self.make_offer()
        self.allowed = Allowed()
        self.base_only = False
        scene.accounts[self.peer_id] = self.key.address
        if slots:
            scene.chain.stake(self.key.address, slots, CLASS)

    def make_offer(self, **changes: Any) -> Offer:
        offer = Offer(
            account=self.key.address,
            peer_id_hash=ZERO32,
            numeric_class=CLASS,
            provisional=False,
            cores=2,
            memory_mib=4096,
            disk_mib=10_000,
            gpus="",
            cpu_score=1000,
            ask_price=PRICE,
            addresses="",
            attestation=ZERO32,
            seq=1,
            issued=STARTED,
            expires=STARTED + 10_000_000,
        )
        return msgspec.structs.replace(offer, **changes)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[WorkerService]:
        network = self.scene.network.join(self.peer_id)
        self.source = network.source
        self.service = WorkerService(
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
            current_offer=lambda: self.offer,
            account_of=self.scene.accounts.get,
            policy=self.policy,
            base_only=self.base_only,
        )
        self.service.allow(self.allowed)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.service.run)
            yield self.service
            nursery.cancel_scope.cancel()


def order_of(payer: bytes, signer: bytes, template: bytes, **changes: Any) -> Order:
    """Small and cheap; anybody may audit, nobody newly come may work."""
    order = Order(
        payer=payer,
        signer=signer,
        template=template,
        numeric_profile=PROFILE,
        cores=1,
        memory_mib=512,
        disk_mib=100,
        gpus=0,
        price_max=10 * PRICE,
        wages=TOKEN,
        audit_reserve=TOKEN,
        lock_per_seat=100,
        claim_bond=0,
        audit_rate_bp=400,
        tally_units=4,
        claim_window=60,
        evidence_window=60,
        auditors=0,
        auditors_root=ZERO32,
        signer_seat_max=TOKEN,
        newcomers=False,
        deadline=STARTED + 1_000_000,
        salt=ZERO32,
    )
    return msgspec.structs.replace(order, **changes)


class Payer:
    """Honest unless a test says otherwise: `secret_of`, `answers` (name -> function that replaces the answer)."""

    def __init__(
        self,
        scene: Scene,
        node: Node,
        *,
        items: int = 12,
        number: int = 50,
        work_ms: int = 1000,
        shared: tuple[Input, ...] = (),
        **order: Any,
    ) -> None:
        self.scene = scene
        self.node = node
        self.key, self.signer = key_of(number), key_of(number + 1)
        self.peer_id = f"payer-{number}"
        self.network = scene.network.join(self.peer_id)
        self.blobs = scene.blobs(self.peer_id)
        self.program = self.blobs.put(b"a program")
        inputs = tuple(self.blobs.put(b"item %d" % i) for i in range(items))
        self.spec = JobSpec("map", self.program, PROFILE, 0, (Stage("map", "m:f", b"{}", work_ms),), inputs, shared)
        self.template = self.blobs.put(units.encode(self.spec))
        self.tasks = list(Plan(self.spec).ready())
        scene.chain.mint(self.key.address, 10 * TOKEN)
        self.order = self.make_order(**order)
        self.seat: Seat
        self.lease: Lease
        self.got: list[tuple[str, bytes]] = []
        self.leaves: list[Leave] = []
        self.failures: list[FailureRequest] = []
        self.progress: list[ProgressRequest] = []
        self.answers: dict[str, Callable[[bytes], bytes]] = {}
        self.news = trio.Event()
        for name in ("receipt", "failure", "tally", "leave", "progress"):
            self.network.serve(name, self._handler(name))

    def make_order(self, **changes: Any) -> Order:
        return order_of(self.key.address, self.signer.address, self.template, **changes)

    def make_lease(self, **changes: Any) -> Lease:
        lease = Lease(
            job=job_id(DOMAINS, self.order),
            worker=self.node.key.address,
            positions=12,
            price=PRICE,
            work_ms=self.spec.stages[0].work_ms,
            numeric_class=CLASS,
            lock=100,
            until=self.scene.chain.now() + 3600,
            seat_by=self.scene.chain.now() + 100,
            secret_1=ZERO32,
            secret_2=ZERO32,
            nonce=1,
        )
        hashes = {"secret_1": self._secret_hash(1), "secret_2": self._secret_hash(2)}
        return msgspec.structs.replace(lease, **{**hashes, **changes})

    # Secrets do not depend on the seat here: the lease is not known when its first two are made.

    def secret(self, number: int) -> bytes:
        return sampling.secret(b"job secret", ZERO32, number)

    def _secret_hash(self, number: int) -> bytes:
        return sampling.secret_hash(self.secret(number))

    # What the payer does.

    async def ask(self, request: Any, *, timeout_s: float = 10.0) -> bytes:
        return await self.network.request(self.node.source, request.NAME, exchange.encode(request), timeout_s=timeout_s)

    def lease_request(self, lease: Lease, **changes: Any) -> LeaseRequest:
        request = LeaseRequest(
            order=self.key.sign(DOMAINS, self.order).body,
            lease=self.signer.sign(DOMAINS, lease).body,
            spec=units.encode(self.spec),
            payer=self.network.source,
        )
        return msgspec.structs.replace(request, **changes)

    async def agree(self, **changes: Any) -> Lease:
        self.lease = self.make_lease(**changes)
        answer = exchange.decode(await self.ask(self.lease_request(self.lease)), LeaseAnswer)
        self.signed = keys.open_signed(DOMAINS, answer.lease, Lease, self.node.key.address)
        assert self.signed.message == self.lease
        self.seat = Seat(seat_id(DOMAINS, self.lease), self.lease, self.order.tally_units)
        return self.lease

    async def put_on_chain(self) -> None:
        chain = self.scene.chain.view(self.key.address)
        both = SignedLease(self.lease, self.signer.sign(DOMAINS, self.lease).signature, self.signed.signature)
        if await chain.job_state(self.lease.job) is None:
            await chain.open(self.order, [both])
        else:
            await chain.seat(self.order, [both])
        assert await chain.seat_state(self.seat.id) is not None, self.scene.chain.refused
        await self.ask(SeatedRequest(self.seat.id, ZERO32))

    async def begin(self, **changes: Any) -> None:
        await self.agree(**changes)
        await self.put_on_chain()

    def assign_request(self, position: int, task: int | None = None, **changes: Any) -> AssignRequest:
        chosen = self.tasks[position if task is None else task]
        message = Assign(seat=self.seat.id, position=position, unit_id=chosen.unit_id)
        message = msgspec.structs.replace(message, **changes)
        return AssignRequest(self.signer.sign(DOMAINS, message).body, units.encode(chosen.unit), {}, ())

    async def assign(self, *positions: int) -> None:
        for position in positions:
            self.seat.assign(position, self.tasks[position].unit_id)
            await self.ask(self.assign_request(position))

    def accept_message(self, number: int, **changes: Any) -> Accept:
        closed = self.seat.tallies[number - 1]
        message = Accept(
            seat=self.seat.id,
            tally=number,
            units=closed.range.end,
            chain=closed.chain,
            next_secret=self._secret_hash(number + 2),
        )
        return msgspec.structs.replace(message, **changes)

    async def accept(self, number: int) -> Release | None:
        message = self.accept_message(number)
        self.seat.accept(message)
        return await self.send_accept(message)

    async def send_accept(self, message: Accept) -> Release | None:
        return self._release(await self.ask(AcceptRequest(self.signer.sign(DOMAINS, message).body)))

    def _release(self, data: bytes) -> Release | None:
        release = exchange.decode(data, ReleaseAnswer).release
        if not release:
            return None
        return keys.open_signed(DOMAINS, release, Release, self.node.key.address).message  # type: ignore[no-any-return]

    async def close(self, position: int, *, final: bool) -> Release | None:
        self.seat.close(position, final=final)
        message = Close(seat=self.seat.id, position=position, final=final)
        return self._release(await self.ask(CloseRequest(close=self.signer.sign(DOMAINS, message).body)))

    async def cancel(self) -> Release | None:
        self.seat.cancel()
        message = Cancel(seat=self.seat.id, at=self.scene.chain.now())
        return self._release(await self.ask(CloseRequest(cancel=self.signer.sign(DOMAINS, message).body)))

    async def forfeit(self) -> None:
        self.seat.forfeit()
        await self.ask(ForfeitRequest(self.seat.id, "mismatch", "Two recomputations found another result."))

    # What the payer gets.

    def _handler(self, name: str) -> Callable[[str, bytes], Any]:
        async def handle(peer: str, body: bytes) -> bytes:
            await trio.lowlevel.checkpoint()
            self.got.append((name, body))
            try:
                answer = self.answers[name](body) if name in self.answers else self.take(name, body)
            finally:
                news, self.news = self.news, trio.Event()
                news.set()
            return answer

        return handle

    def take(self, name: str, body: bytes) -> bytes:
        """The honest answer. Everything is checked before it is believed."""
        worker = self.node.key.address
        if name == "receipt":
            request = exchange.decode(body, ReceiptRequest)
            receipt = keys.open_signed(DOMAINS, request.receipt, Receipt, worker).message
            assert request.opening.aux == blob_id(request.report.metrics)
            for blob, data in request.inline.items():
                assert blob_id(data) == blob
                self.blobs.put(data)
            assert self.node.blobs.synced, "an output must be on disk before its receipt is signed"
            self.seat.receive(receipt.position, receipt.leaf, request.opening)
        elif name == "tally":
            tally = keys.open_signed(DOMAINS, exchange.decode(body, TallyRequest).tally, Tally, worker).message
            assert self.scene.chain.block_hash(tally.block_number) == tally.block_hash
            self.seat.tally(tally)
            secret = self.secret(tally.number)
            self.seat.show_secret(tally.number, secret)
            return exchange.encode(TallyAnswer(secret))
        elif name == "leave":
            leave = keys.open_signed(DOMAINS, exchange.decode(body, LeaveRequest).leave, Leave, worker).message
            self.seat.leave()
            self.leaves.append(leave)
        elif name == "failure":
            self.failures.append(exchange.decode(body, FailureRequest))
        elif name == "progress":
            self.progress.append(exchange.decode(body, ProgressRequest))
        return exchange.encode(Nothing())

    def received(self, name: str) -> list[bytes]:
        """Distinct bodies of one kind, in order."""
        return list(dict.fromkeys(body for kind, body in self.got if kind == name))

    async def wait(self, condition: Callable[[], Any], *, timeout_s: float = 60.0) -> None:
        """Until the condition holds; it is looked at after each request and every second."""
        with trio.fail_after(timeout_s):
            while not condition():
                with trio.move_on_after(1.0):
                    await self.news.wait()

    def output(self, position: int) -> BlobId:
        return BlobId(self.seat.openings[position].end)


async def refusal(awaitable: Any) -> TallymeshError:
    """The refusal that a request ends with."""
    try:
        await awaitable
    except RemoteError as error:
        return error
    raise AssertionError("it was not refused")


def refuse(code: str) -> Callable[[bytes], bytes]:
    """An answer for `Payer.answers`."""

    def answer(body: bytes) -> bytes:
        raise RemoteError(code, f"The test says {code}.")

    return answer
