"""One executor, with one warm template, for all tests of the session: it lives in a thread with a loop of its own.

(The template dies with the thread that started it, so the thread must stay.)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import trio

from fakes.sandboxed import INSIDE, SECRET, Machine
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.sandbox import SandboxExecutor


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    os.environ["TALLYMESH_PASSWORD"] = SECRET
    folder = tmp_path_factory.mktemp("sandbox")
    box: list[Machine | BaseException] = []
    started, stop = threading.Event(), trio.Event()

    async def live() -> None:
        store = BlobStore(folder / "blobs")
        executor = SandboxExecutor(
            folder / "spool", store.put, slots=3, run="attacker:run_unit", warm="attacker:warm", extra=[INSIDE]
        )
        async with executor:
            with trio.fail_after(60.0):
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
    yield first
    first.token.run_sync_soon(stop.set)
    thread.join()
    if isinstance(box[-1], BaseException):
        raise box[-1]
    del os.environ["TALLYMESH_PASSWORD"]
