"""What the tests of the sandbox share: small limits, units of attacker.py, an executor called without async."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from tallymesh.ids import BlobId
from tallymesh.units import Input, Unit, canonical_json
from tallymesh_learning.runtime.profile import profile_hash
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.interfaces import Limits, Outcome
from tallymesh_node.sandbox import SandboxExecutor

INSIDE = Path(__file__).parent.parent / "node/sandbox/inside"
JOB = b"j" * 32
SECRET = "of-the-daemon-alone"  # in its environment when it starts the template
SMALL = Limits(memory_mib=512, wall_s=20.0, processes=16, files=64, file_mib=16, disk_mib=32, output_mib=8, lines=100)

PATIENCE_S = 180.0  # for what takes milliseconds on a machine that does nothing else

T = TypeVar("T")


class Machine:
    """A node's blob store and executor, called from tests that are not async."""

    def __init__(self, executor: SandboxExecutor, store: BlobStore, token: trio.lowlevel.TrioToken) -> None:
        self.executor = executor
        self.store = store
        self.token = token

    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        async def bounded() -> T:
            with trio.fail_after(PATIENCE_S):
                return await function(*arguments)

        return trio.from_thread.run(bounded, trio_token=self.token)

    def inputs(self, unit: Unit) -> dict[BlobId, Path]:
        names = {BlobId(unit.program), *(BlobId(item.blob) for item in unit.inputs)}
        return {name: self.store.path(name) for name in names}

    async def start(self, function: str, limits: Limits = SMALL, job: bytes = JOB, **config: Any) -> Outcome:
        """Run attacker.FUNCTION(**config) as a unit."""
        unit = make_unit(self.store, function, config)
        return await self.executor.run(job, unit, self.inputs(unit), limits)

    def run(self, function: str, limits: Limits = SMALL, job: bytes = JOB, **config: Any) -> Outcome:
        async def start() -> Outcome:
            return await self.start(function, limits, job, **config)

        return self.call(start)

    def said(self, function: str, limits: Limits = SMALL, job: bytes = JOB, **config: Any) -> Any:
        """The same, and what the function returned (JSON)."""
        return json.loads(self.store.get(self.run(function, limits, job, **config).output))


def make_unit(store: BlobStore, function: str, config: Mapping[str, Any], data: bytes = b"the data") -> Unit:
    return Unit(
        program=store.put(b"the program"),
        entry=f"attacker:{function}",
        inputs=(Input("item", store.put(data)),),
        config=canonical_json(dict(config)),
        seed=0,
        profile=profile_hash(),
    )


@contextmanager
def kept_alive(folder: Path, **options: Any) -> Iterator[Machine]:
    """An executor in a thread with a loop of its own, for tests that are not async. (The template dies with the thread
    that started it, so the thread must stay.)"""
    box: list[Machine | BaseException] = []
    started, stop = threading.Event(), trio.Event()

    async def live() -> None:
        store = BlobStore(folder / "blobs")
        executor = SandboxExecutor(folder / "spool", store.put, run="attacker:run_unit", **options)
        async with executor:
            with trio.fail_after(PATIENCE_S):
                await executor.wait_ready()
            box.append(Machine(executor, store, trio.lowlevel.current_trio_token()))
            started.set()
            await stop.wait()

    def main() -> None:
        try:
            trio.run(live)
        except BaseException as error:
            box.append(error)
            started.set()

    thread = threading.Thread(target=main)
    thread.start()
    started.wait()
    first = box[0]
    if isinstance(first, BaseException):
        raise first
    try:
        yield first
    finally:
        first.token.run_sync_soon(stop.set)
        thread.join()
    if isinstance(box[-1], BaseException):
        raise box[-1]
