"""The life of the template and of its jobs' sandboxes: death, restart, want of room, machines without a sandbox."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import tallymesh_node.sandbox.pool as pool_module
import tallymesh_node.sandbox.strict as strict_module
from fakes.sandboxed import INSIDE, PATIENCE_S, Machine
from tallymesh.errors import LocalError
from tallymesh_learning.runtime import unit
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox import SandboxExecutor, SandboxStatus, check_sandbox, command, drop
from tallymesh_node.sandbox.spool import Spool

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


ROOT = Path(__file__).resolve().parents[3]
Open = Callable[..., AbstractAsyncContextManager[Machine]]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """An executor of the test's own, whose template imports no torch: it is ready in a fraction of a second."""

    @asynccontextmanager
    async def opener(warm: str = "", **options: Any) -> AsyncIterator[Machine]:
        store = BlobStore(tmp_path / "blobs")
        async with SandboxExecutor(
            tmp_path / "spool", store.put, slots=2, run="attacker:run_unit", warm=warm, extra=[INSIDE], **options
        ) as executor:
            yield Machine(executor, store, trio.lowlevel.current_trio_token())

    return opener


def test_this_machine_has_a_sandbox() -> None:
    """Everything else here depends on it, so that it is no reason to skip."""
    status = check_sandbox()
    assert status.available, f"{status.sentence} {status.remedy}"
    assert status.backend.startswith("bubblewrap")
    assert status.facts["kernel"] == os.uname().release


async def test_a_template_that_dies_fails_its_units_and_is_started_again(opened: Open) -> None:
    async with opened() as machine:
        pool = machine.executor.pool
        first = await pool.wait_ready()
        async with trio.open_nursery() as nursery:

            async def sleep() -> None:
                with pytest.raises(Failure) as caught:
                    await machine.start("sleep")
                assert caught.value.code == "sandbox"

            nursery.start_soon(sleep)
            while not any(slot.sandbox and slot.sandbox.units for slot in pool._jobs.values()):  # noqa: ASYNC110
                await trio.sleep(0.01)
            os.kill(first.pid, signal.SIGKILL)
        await first.dead.wait()
        second = await pool.wait_ready()
        assert second is not first
        assert pool.templates_started == 2
        outcome = await machine.start("several")
        assert machine.store.get(outcome.output) == b"[1,2,3,4,5]"


@pytest.mark.parametrize("strict", [False, True])
async def test_a_disk_without_room_for_a_jobs_folder_is_this_machines_fault_and_not_for_ever(
    opened: Open, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    monkeypatch.setattr(pool_module, "RECHECK_S", 0.01)
    monkeypatch.setattr(strict_module, "RESTART_S", (0.01,))
    make, full = Spool._make, [True]

    def limited(self: Spool, folder: Path) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        make(self, folder)

    monkeypatch.setattr(Spool, "_make", limited)
    async with opened(strict=strict) as machine:
        with trio.fail_after(PATIENCE_S):
            with pytest.raises(LocalError, match="No space left"):
                await machine.start("echo")
            full.clear()
            while True:
                with contextlib.suppress(LocalError):
                    await machine.start("echo")
                    break
                await trio.sleep(0.01)


@pytest.mark.parametrize("strict", [False, True])
async def test_a_node_that_lends_nothing_has_no_template_before_it_runs_something(opened: Open, strict: bool) -> None:
    async with opened(at_once=False, strict=strict) as machine:
        pool = machine.executor.pool
        while pool.status is None:  # noqa: ASYNC110 - the check runs in a thread
            await trio.sleep(0.01)
        assert pool.status.available, "whether there is a sandbox is known from the beginning"
        assert pool.templates == []
        assert pool.templates_started == 0
        outcome = await machine.start("several")
        assert machine.store.get(outcome.output) == b"[1,2,3,4,5]"
        assert pool.templates_started >= 1


async def test_a_template_that_cannot_start_is_said_with_its_last_words(opened: Open) -> None:
    async with opened(warm="attacker:no_such_function") as machine:
        with pytest.raises(LocalError) as caught:
            await machine.executor.wait_ready()
        assert caught.value.code == "no_sandbox"
        assert "no_such_function" in caught.value.sentence


async def test_without_bubblewrap_foreign_code_is_refused_with_the_reason(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(command.shutil, "which", lambda name: None)
    async with opened() as machine:
        with pytest.raises(LocalError) as caught:
            await machine.start("echo")
        assert caught.value.code == "no_sandbox"
        assert "bubblewrap is not installed" in caught.value.sentence
        assert "pip install" in caught.value.remedy
        assert machine.executor.status is not None
        assert not machine.executor.status.available


async def test_a_sandbox_that_does_not_hold_is_not_used(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    leaky = SandboxStatus(available=False, sentence="The sandbox does not hold here: sockets.")
    monkeypatch.setattr(pool_module, "check_sandbox", lambda: leaky)
    monkeypatch.setattr(pool_module.Pool.__init__, "__defaults__", (lambda: leaky,))
    async with opened() as machine:
        with pytest.raises(LocalError, match="does not hold"):
            await machine.start("echo")
        assert machine.executor.pool.templates_started == 0


@pytest.mark.parametrize("script", ["echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1", "exit 1"])
def test_a_sandbox_that_fails_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    for place in (program, tmp_path):
        place.chmod(0o755)
    monkeypatch.setattr(command, "bubblewrap", lambda: program)
    status = check_sandbox()
    assert not status.available
    if "uid map" in script:
        assert "setting up uid map" in status.sentence
        assert "apparmor" in status.remedy


async def test_want_of_room_closes_the_longest_idle_job(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "JOBS_MAX", 2)
    async with opened() as machine:
        pool = machine.executor.pool
        for job in (b"a", b"b", b"a", b"c"):
            await machine.start("echo", job=job)
            assert pool.open_jobs <= 2
        assert set(pool._jobs) == {b"a", b"c"}

        async with pool.job(b"a"), pool.job(b"c"):
            with pytest.raises(Failure, match="2 jobs run here already"):
                async with pool.job(b"d"):
                    pass


async def test_cores_that_are_not_for_jobs_are_out_of_their_reach_and_whatever_else_runs_comes_first(
    tmp_path: Path,
) -> None:
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + unit.NICE, 19)
    mine = min(os.sched_getaffinity(0))
    store = BlobStore(tmp_path / "blobs")
    async with SandboxExecutor(
        tmp_path / "spool", store.put, slots=1, run="attacker:run_unit", warm="", extra=[INSIDE], cpus=[mine]
    ) as executor:
        machine = Machine(executor, store, trio.lowlevel.current_trio_token())
        said = json.loads(store.get((await machine.start("affinity")).output))
    assert said == {"cores": [mine], "widening": "EPERM", "core": [1, 1], "dumping": "ValueError", "nice": nice}


async def test_two_executors_do_not_share_a_spool(opened: Open, tmp_path: Path) -> None:
    async with opened():
        with pytest.raises(LocalError) as caught:
            async with SandboxExecutor(tmp_path / "spool", lambda data: None, slots=1):  # type: ignore[arg-type,return-value]
                pass
        assert caught.value.code == "spool_busy"


async def test_leaving_the_executor_leaves_no_process_and_no_input(opened: Open, tmp_path: Path) -> None:
    async with opened() as machine:
        zygote = await machine.executor.pool.wait_ready()
        await machine.start("echo")
        with trio.move_on_after(0.2):
            await machine.start("sleep", job=b"other")
    assert zygote.dead.is_set()
    with pytest.raises(ProcessLookupError):
        os.kill(zygote.pid, 0)
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]


def test_a_node_that_is_killed_takes_its_sandboxes_along(tmp_path: Path) -> None:
    code = f"""
        import sys, trio
        sys.path.insert(0, {str(ROOT / "tests")!r})
        from pathlib import Path
        from fakes.sandboxed import INSIDE, SMALL, Machine, make_unit
        from tallymesh_node.blobs.store import BlobStore
        from tallymesh_node.sandbox import SandboxExecutor

        async def main():
            folder = Path({str(tmp_path)!r})
            store = BlobStore(folder / "blobs")
            async with SandboxExecutor(folder / "spool", store.put, slots=1, run="attacker:run_unit", warm="",
                                       extra=[INSIDE]) as executor:
                machine = Machine(executor, store, None)
                zygote = await executor.pool.wait_ready()
                unit = make_unit(store, "sleep", {{}})
                await executor.run(b"job", unit, machine.inputs(unit), SMALL,
                                   on_line=lambda line: print(zygote.pid, flush=True))
        trio.run(main)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        outermost = int(node.stdout.readline())
        family = descendants(outermost)
        assert len(family) >= 5  # bubblewrap twice, template, job, unit
        node.kill()
    end = time.monotonic() + 120.0
    while alive := {pid for pid in family if Path(f"/proc/{pid}").exists() and not zombie(pid)}:
        assert time.monotonic() < end, alive
        time.sleep(0.01)


def test_it_works_for_an_ordinary_user_too(tmp_path: Path) -> None:
    """Root becomes one by the node's own helper, and then runs a unit as that user."""
    code = f"""
        import os, sys, trio
        sys.path.insert(0, {str(ROOT / "tests")!r})
        from pathlib import Path
        from fakes.sandboxed import INSIDE, PATIENCE_S, Machine
        from tallymesh_node.blobs.store import BlobStore
        from tallymesh_node.sandbox import SandboxExecutor

        async def main():
            folder = Path({str(tmp_path / "home")!r})
            store = BlobStore(folder / "blobs")
            async with SandboxExecutor(folder / "spool", store.put, slots=1, run="attacker:run_unit", warm="",
                                       extra=[INSIDE]) as executor:
                machine = Machine(executor, store, None)
                outcome = await machine.start("several")
                tampered = await machine.start("tamper")
                print(os.geteuid(), executor.status.backend, store.get(outcome.output), store.get(tampered.output))
        trio.run(main)
    """
    home = tmp_path / "home"
    home.mkdir()
    search = ":".join(str(ROOT / part) for part in ("protocol", "scheduler", "ledger", "learning", "node"))
    argv = ["/usr/bin/env", f"HOME={home}", f"PYTHONPATH={search}", sys.executable, "-c", textwrap.dedent(code)]
    if os.geteuid() == 0:
        os.chown(home, drop.SANDBOX_ID, drop.SANDBOX_ID)
        paths = [sys.prefix, sys.base_prefix, str(ROOT), str(home)]
        argv = [sys.executable, "-I", "-S", drop.__file__, json.dumps({"paths": paths, "argv": argv})]
    done = subprocess.run(
        argv,
        env={},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[0]
    assert said.startswith(f"{os.geteuid() or drop.SANDBOX_ID} bubblewrap b'[1,2,3,4,5]'")
    assert set(json.loads(said.rsplit("b'", 1)[1].rstrip("'"))) <= {"EROFS", "EXDEV", "EACCES"}


def descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            parents[int(name)] = int(stat[stat.rindex(")") + 2 :].split()[1])
    members = {root}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members


def zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat[stat.rindex(")") + 2] == "Z"
