"""The strict backend: no two jobs are forks of one process. What differs from the usual one, and that it holds."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from fakes.sandboxed import INSIDE, PATIENCE_S, SMALL, Machine, make_unit
from tallymesh.errors import CallerError, LocalError
from tallymesh_node import config
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.daemon import Node
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox import SandboxExecutor, command, executor, strict

Open = Callable[..., AbstractAsyncContextManager[Machine]]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Templates import no torch: each is ready in a fraction of a second."""

    @asynccontextmanager
    async def opener() -> AsyncIterator[Machine]:
        store = BlobStore(tmp_path / "blobs")
        async with SandboxExecutor(
            tmp_path / "spool", store.put, slots=3, run="attacker:run_unit", warm="", extra=[INSIDE], strict=True
        ) as running:
            with trio.fail_after(PATIENCE_S):
                yield Machine(running, store, trio.lowlevel.current_trio_token())

    return opener


def template_of(machine: Machine, job: bytes) -> Any:
    sandbox = machine.executor.pool._jobs[job].sandbox
    assert sandbox is not None
    return sandbox.zygote


@pytest.mark.slow
async def test_every_job_has_a_template_that_nobody_used_before_or_uses_after_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Path] = []
    build = executor.build

    def spied(spool: Path, **options: Any) -> command.Command:
        shown.append(spool)
        return build(spool, **options)

    monkeypatch.setattr(executor, "build", spied)
    async with opened() as machine:
        for _ in range(2):
            await machine.start("echo", job=b"one")
        await machine.start("echo", job=b"two")
        one, two = template_of(machine, b"one"), template_of(machine, b"two")
        assert one is not two
        assert machine.executor.pool.sandboxes_opened == 2
        await machine.executor.close_job(b"one")
        assert one.dead.is_set()
        assert two.alive
        await machine.start("echo", job=b"one")
        assert template_of(machine, b"one") not in (one, two)
        pool = machine.executor.pool
        # Each sees a folder of its own, with the inputs of its job alone.
        assert len(shown) == len(set(shown)) == pool.templates_started
        assert {folder.parent for folder in shown} == {pool._spool.folder}
        assert {template.pid for template in pool.templates} >= {two.pid, template_of(machine, b"one").pid}
        assert one.pid not in {template.pid for template in pool.templates}


@pytest.mark.slow
async def test_a_template_that_dies_takes_its_own_job_and_no_other(opened: Open) -> None:
    async with opened() as machine:
        said: dict[bytes, str] = {}
        patient = msgspec.structs.replace(SMALL, wall_s=PATIENCE_S)
        asleep = {job: trio.Event() for job in (b"one", b"two")}

        async def sleep(job: bytes, seconds: float) -> None:
            unit = make_unit(machine.store, "sleep", {"seconds": seconds})
            try:
                await machine.executor.run(
                    job, unit, machine.inputs(unit), patient, on_line=lambda line: asleep[job].set()
                )
                said[job] = "slept"
            except Failure as failure:
                said[job] = failure.code

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep, b"one", PATIENCE_S)
            nursery.start_soon(sleep, b"two", 1.0)
            for event in asleep.values():
                await event.wait()
            os.kill(template_of(machine, b"one").pid, signal.SIGKILL)
        assert said == {b"one": "sandbox", b"two": "slept"}
        await machine.start("echo", job=b"one")


@pytest.mark.slow
async def test_a_template_that_died_unused_is_given_to_nobody(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict, "SPARES", 1)
    async with opened() as machine:
        first = await machine.executor.pool.wait_ready()
        os.kill(first.pid, signal.SIGKILL)
        await first.dead.wait()
        machine.executor.pool._taken.set()  # type: ignore[attr-defined] # else it is noticed within a minute
        await machine.start("echo")
        assert template_of(machine, b"j" * 32) is not first


@pytest.mark.slow
async def test_want_of_room_closes_the_longest_idle_job_and_its_template(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict, "JOBS_MAX", 1)
    monkeypatch.setattr(strict, "SPARES", 1)
    async with opened() as machine:
        await machine.start("echo", job=b"one")
        one = template_of(machine, b"one")
        await machine.start("echo", job=b"two")
        assert one.dead.is_set()
        assert machine.executor.pool.open_jobs == 1
    assert [path.name for path in machine.executor.pool._spool.folder.iterdir()] == ["lock"]


async def test_without_bubblewrap_it_refuses_as_well(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(command.shutil, "which", lambda name: None)
    async with opened() as machine:
        with pytest.raises(LocalError) as caught:
            await machine.start("echo")
        assert caught.value.code == "no_sandbox"


@pytest.mark.slow
async def test_what_hostile_units_try_fails_there_too(opened: Open) -> None:
    async with opened() as machine:
        for attempt in ("make_a_user_namespace", "kill_everything", "write_to_the_root", "open_a_connection"):
            with pytest.raises(Failure) as caught:
                await machine.start(attempt)
            assert caught.value.code == "program"
        assert machine.executor.pool.sandboxes_opened == 1


def test_an_owner_chooses_it_by_one_key(tmp_path: Path) -> None:
    for text, chosen in (("warm", False), ("strict", True)):
        wanted = config.load({"home": tmp_path}, environment={"TALLYMESH_SANDBOX": text})
        node: Any = SimpleNamespace(config=wanted, room=SimpleNamespace(admit=None), _base_only=None)
        made = Node.open_executor(node, tmp_path / "spool", SimpleNamespace(put=None), 1)  # type: ignore[arg-type]
        assert made._strict is chosen
    with pytest.raises(CallerError, match="warm, strict"):
        config.load({"home": tmp_path}, environment={"TALLYMESH_SANDBOX": "none"})
