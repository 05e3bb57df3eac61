"""A node as its HTTP API sees it (`NodeFacade`), with jobs that the test drives, and the API served from a thread.

The blob store is the real one; the payer's service keeps its jobs in memory and does what the test tells it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from tallymesh.api import (
    AuditView,
    EventView,
    JobView,
    NodeView,
    OfferView,
    PeerView,
    Problem,
    ReceiptView,
    Terms,
    WithdrawRequest,
    WithdrawView,
)
from tallymesh.errors import CallerError, RemoteError
from tallymesh.ids import BlobId
from tallymesh.units import decode_spec
from tallymesh_node.blobs import BlobStore
from tallymesh_node.blobs.room import Room
from tallymesh_node.http import ApiServer
from tallymesh_node.http.crowd import Crowd

ACCOUNT = "0x" + "ab" * 20
PEER = "12D3KooWFake"
PROFILE = b"\x19" * 32
GPU_PROFILE = b"\x1a" * 32


class FakePayer:
    """`on_submit` is called with the new job's id, in the server's thread: the test's script of what happens."""

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs
        self.views: dict[str, JobView] = {}
        self.terms: dict[str, Terms] = {}
        self.log: dict[str, list[EventView]] = {}
        self.dropped = 0  # up to this sequence no events are kept
        self.audit_rows: dict[str, list[AuditView]] = {}
        self.receipt_rows: dict[str, list[ReceiptView]] = {}
        self.cancelled: list[str] = []
        self.lack = "too little memory"  # of the offers, which `why` complains about
        self.on_submit: Callable[[str], None] = lambda job_id: None
        self.waiting = 0  # readers in wait_events
        self._news = trio.Event()

    # -- what the API asks

    async def submit(self, spec_blob: BlobId, terms: Terms) -> str:
        spec = decode_spec(self.blobs.get(spec_blob))
        job_id = f"{len(self.views) + 1:064x}"
        self.terms[job_id] = terms
        self.views[job_id] = JobView(
            id=job_id,
            name=spec.name,
            kind=spec.kind,
            status="matching",
            created=1.7e9,
            rounds=spec.rounds,
            units=len(spec.inputs),
            budget_wei=terms.budget_wei,
            spec=spec_blob.hex(),
        )
        self.say(job_id, "status", status="matching")
        self.on_submit(job_id)
        await trio.lowlevel.checkpoint()
        return job_id

    def jobs(self) -> Sequence[JobView]:
        return list(reversed(self.views.values()))

    def job(self, job_id: str) -> JobView:
        if job_id not in self.views:
            raise CallerError("no_job", f"There is no job {job_id[:80]}.", remedy="See 'tallymesh ls'.")
        return self.views[job_id]

    def why(self, job_id: str) -> Any:
        view = self.job(job_id)
        if view.status in ("done", "failed", "cancelled"):
            return [view.problem] if view.problem is not None else []
        return [Problem(code="matching", sentence=f"Job {view.id[-4:]}: 3 offers have {self.lack}.")]

    def events(self, job_id: str, after: int) -> Sequence[EventView]:
        self.job(job_id)
        return [event for event in self.log[job_id] if event.sequence > max(after, self.dropped)]

    def events_kept(self, job_id: str) -> tuple[int, int]:
        log = self.log[job_id]
        return self.dropped, log[-1].sequence if log else 0

    async def wait_events(self, job_id: str, after: int) -> Sequence[EventView]:
        self.waiting += 1
        try:
            while not self.events(job_id, after):
                await self._news.wait()
        finally:
            self.waiting -= 1
        return self.events(job_id, after)

    def receipts(self, job_id: str) -> Sequence[ReceiptView]:
        self.job(job_id)
        return self.receipt_rows.get(job_id, [])

    def audits(self, job_id: str) -> Sequence[AuditView]:
        self.job(job_id)
        return self.audit_rows.get(job_id, [])

    async def cancel(self, job_id: str) -> None:
        self.job(job_id)
        self.cancelled.append(job_id)
        await trio.lowlevel.checkpoint()
        self.change(job_id, status="cancelled")
        self.say(job_id, "done", status="cancelled")

    # -- what the test says

    def change(self, job_id: str, **fields: Any) -> None:
        self.views[job_id] = msgspec.structs.replace(self.views[job_id], **fields)

    def say(self, job_id: str, kind: str, **data: Any) -> None:
        events = self.log.setdefault(job_id, [])
        events.append(EventView(sequence=len(events) + 1, at=1.7e9 + len(events), kind=kind, data=data))
        news, self._news = self._news, trio.Event()
        news.set()

    def finish_map(self, job_id: str, outputs: Sequence[bytes]) -> None:
        """Units come in one by one, then the job is done and paid."""
        names = [self.blobs.put(output) for output in outputs]
        for index, name in enumerate(names):
            self.say(job_id, "unit", stage="map", round=0, index=index, account=ACCOUNT, peer=PEER, output=name.hex())
        result = self.blobs.put(msgspec.msgpack.encode(names))
        self.finish(job_id, result=result.hex(), units_done=len(names), audits=1)

    def finish(self, job_id: str, *, status: str = "done", **fields: Any) -> None:
        peer = PeerView(
            account=ACCOUNT,
            peer_id=PEER,
            seat="ee" * 32,
            stage="map",
            phase="closed",
            price_wei="1000",
            assigned=3,
            received=3,
            accepted=3,
            paid=3,
        )
        self.change(job_id, **{"status": status, "finished": 1.7e9 + 5, "peers": (peer,), "cost_wei": "3300", **fields})
        self.say(job_id, "done", status=status)


class FakeNode:
    def __init__(self, home: Path, *, submits: bool = True) -> None:
        self.home = home
        self.store = BlobStore(home / "blobs")
        self.room = Room(self.store, limit=lambda: 1 << 40, disk_free=lambda: 1 << 40)
        self.room.open()
        self.fake_payer = FakePayer(self.store)
        self.submits = submits
        self.is_ready = True
        self.stopped = threading.Event()
        self.withdrawn: list[WithdrawRequest] = []
        self.carriers = True
        self.network_file: Path | None = None
        self.problems: tuple[Problem, ...] = ()
        self.known_offers: list[OfferView] = []

    def view(self) -> NodeView:
        return NodeView(
            version="0.1.0",
            network="fake",
            account=ACCOUNT,
            peer_id=PEER,
            addresses=("/ip4/127.0.0.1/tcp/4001",),
            roles=("submit",) if self.submits else ("worker",),
            started=1.7e9,
            peers=3,
            staked=True,
            slots=1,
            numeric_class="7f" * 32,
            provisional=False,
            sandbox="bubblewrap ok",
            reachable="yes",
            offer={},
            numeric_profile=PROFILE.hex(),
            gpu_profile=GPU_PROFILE.hex(),
            problems=self.problems,
            counters={"units_done_total": 7.0, "leases_open": 2.0},
        )

    def offers(self) -> Sequence[OfferView]:
        return self.known_offers

    def ready(self) -> bool:
        return self.is_ready

    @property
    def payer(self) -> FakePayer | None:
        return self.fake_payer if self.submits else None

    @property
    def blobs(self) -> BlobStore:
        return self.store

    async def withdraw(self, request: WithdrawRequest) -> WithdrawView:
        await trio.lowlevel.checkpoint()
        self.withdrawn.append(request)
        if not self.carriers:
            raise RemoteError("no_carrier", "Nobody carried it: no staked peer is known.")
        return WithdrawView(transaction="ab" * 32, fee_wei=str(10**16), carrier="12D3KooWCarrier")

    def stop(self) -> None:
        self.stopped.set()


class Served:
    """A node whose API runs in a thread of its own, for programs that block. `do` runs a function in that thread."""

    def __init__(
        self, node: FakeNode, url: str, token: str, token_of_trio: trio.lowlevel.TrioToken, end: Callable[[], None]
    ) -> None:
        self.end = end  # to be called in the server's thread
        self.node = node
        self.payer = node.fake_payer
        self.url = url
        self.token = token
        self.crowd: Crowd
        self._trio = token_of_trio

    def do(self, function: Callable[[], Any]) -> Any:
        return trio.from_thread.run_sync(function, trio_token=self._trio)


@contextmanager
def serve(node: FakeNode) -> Iterator[Served]:
    started = threading.Event()
    holder: dict[str, Any] = {}

    async def main() -> None:
        server = holder["server"] = ApiServer(node, node.home, network=node.network_file)
        async with trio.open_nursery() as nursery:
            holder["url"] = await nursery.start(server.run)
            holder["token"] = server.token
            holder["trio"] = trio.lowlevel.current_trio_token()
            holder["scope"] = nursery.cancel_scope
            started.set()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # shown by the test that waits for the server
            holder["error"] = error
            raise
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(120)
    assert "error" not in holder, holder["error"]
    try:
        made = Served(node, holder["url"], holder["token"], holder["trio"], holder["scope"].cancel)
        made.crowd = holder["server"].crowd
        yield made
    finally:
        try:
            trio.from_thread.run_sync(holder["scope"].cancel, trio_token=holder["trio"])
        except trio.RunFinishedError:
            pass  # the test ended it itself
        thread.join(120)
        assert not thread.is_alive()
