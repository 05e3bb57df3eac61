"""Units that behave: what they get, what they give, how fast they start."""

from __future__ import annotations

import json
import signal
from contextlib import suppress

import msgspec
import psutil
import pytest
import trio

from fakes.sandboxed import JOB, SMALL, Machine, make_unit
from tallymesh.ids import ZERO32
from tallymesh_learning.runtime.unit import NICE
from tallymesh_node.interfaces import Failure, Outcome
from tallymesh_node.sandbox import running
from tallymesh_node.sandbox.running import KILL_S


def test_a_unit_gives_output_metrics_seconds_and_probe(machine: Machine) -> None:
    lines: list[str] = []
    metrics: list[tuple[str, float]] = []
    unit = make_unit(machine.store, "echo", {})

    async def run() -> Outcome:
        return await machine.executor.run(
            JOB,
            unit,
            machine.inputs(unit),
            SMALL,
            probe_key=bytes(range(32)),
            on_line=lines.append,
            on_metric=lambda name, value: metrics.append((name, value)),
        )

    outcome = machine.call(run)
    blobs = sorted((name.hex(), machine.store.get(name)) for name in machine.inputs(unit))
    assert machine.store.get(outcome.output) == b"".join(data for _, data in blobs)
    assert outcome.metrics == b'{"loss":0.5}'
    assert outcome.seconds["compute"] == 0.25
    assert outcome.seconds["start"] > 0
    assert outcome.steps == 3
    assert outcome.probe == bytes(range(32))[::-1]
    assert outcome.cpu_s > 0
    assert sorted(lines) == ["on the console", "through emit"]
    assert metrics == [("loss", 0.5)]


def test_without_a_probe_key_there_is_no_probe(machine: Machine) -> None:
    assert machine.run("echo").probe == ZERO32


def test_torch_works_and_gives_the_same_bits(machine: Machine) -> None:
    first = machine.said("train")
    second = machine.said("train")
    assert first["sum"] == second["sum"]


def test_processes_pipes_and_an_event_loop_work(machine: Machine) -> None:
    assert machine.said("several") == [1, 2, 3, 4, 5]


def test_a_large_output_is_stored(machine: Machine) -> None:
    outcome = machine.run("echo", times=300_000)
    assert len(machine.store.get(outcome.output)) == 300_000 * len(b"the datathe program")


def test_units_of_one_job_share_a_sandbox_and_jobs_do_not(machine: Machine) -> None:
    opened = machine.executor.pool.sandboxes_opened
    for _ in range(2):
        machine.run("echo", job=b"one")
    assert machine.executor.pool.sandboxes_opened == opened + 1
    machine.run("echo", job=b"two")
    assert machine.executor.pool.sandboxes_opened == opened + 2
    for job in (b"one", b"two", b"never"):
        machine.call(machine.executor.close_job, job)
    machine.run("echo", job=b"one")
    assert machine.executor.pool.sandboxes_opened == opened + 3
    machine.call(machine.executor.close_job, b"one")


def test_a_missing_input_is_refused_before_anything_runs(machine: Machine) -> None:
    unit = make_unit(machine.store, "echo", {})
    inputs = dict(list(machine.inputs(unit).items())[:1])

    async def run() -> Outcome:
        return await machine.executor.run(JOB, unit, inputs, SMALL)

    with pytest.raises(Failure) as caught:
        machine.call(run)
    assert caught.value.code == "inputs"


def test_a_unit_of_another_numeric_profile_is_refused(machine: Machine) -> None:
    unit = msgspec.structs.replace(make_unit(machine.store, "echo", {}), profile=bytes(32))

    async def run() -> Outcome:
        return await machine.executor.run(JOB, unit, machine.inputs(unit), SMALL)

    with pytest.raises(Failure, match="numeric profile 00000000"):
        machine.call(run)


def test_the_programs_own_error_is_told_with_its_traceback(machine: Machine) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("die", how="raise")
    assert caught.value.code == "program"
    assert caught.value.sentence == "RuntimeError: the program's own error"
    assert "in die" in caught.value.traceback


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("exit", "program", "status 3"),
        ("segv", "program", "SIGSEGV"),
        ("blame", "program", "not my fault"),
        ("garbage", "program", "cannot be read"),
        ("setup", "program", "status 97"),
        ("nothing", "program", "without an output"),
    ],
)
def test_a_unit_that_ends_badly_is_judged_by_how(machine: Machine, how: str, code: str, words: str) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("die", how=how)
    assert caught.value.code == code
    assert words in caught.value.sentence


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics", '{"b": 1}'),
        ("metrics", "[1]"),
        ("metrics", "[" * 5000),
        ("report", '{"seconds":{"x":"y"}}'),
        ("report", '{"steps":-1}'),
        ("report", json.dumps({"seconds": {str(n): 1.0 for n in range(100)}})),
        ("probe", "short"),
    ],
)
def test_what_is_not_as_agreed_is_the_programs_fault(machine: Machine, name: str, text: str) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("lie", name=name, text=text)
    assert caught.value.code == "program"


def test_cancelling_kills_the_unit_at_once_and_the_job_goes_on(machine: Machine) -> None:
    async def cancelled() -> float:
        asleep = trio.Event()
        unit = make_unit(machine.store, "sleep", {})

        async def sleep() -> None:
            await machine.executor.run(b"cancel", unit, machine.inputs(unit), SMALL, on_line=lambda line: asleep.set())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await asleep.wait()
            before = trio.current_time()
            nursery.cancel_scope.cancel()
        taken = trio.current_time() - before
        async with machine.executor.pool.job(b"cancel") as sandbox:
            assert sandbox.units == {}  # the job's process has buried it
        await machine.start("echo", job=b"cancel")
        return taken

    opened = machine.executor.pool.sandboxes_opened
    assert machine.call(cancelled) < KILL_S
    assert machine.executor.pool.sandboxes_opened == opened + 1
    assert machine.executor.running == 0
    machine.call(machine.executor.close_job, b"cancel")


def test_no_more_units_run_at_once_than_there_are_slots(machine: Machine) -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(
                most, sum(len(slot.sandbox.units) for slot in machine.executor.pool._jobs.values() if slot.sandbox)
            )
            await trio.sleep(0.01)

    async def crowd() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as units:
                for index in range(6):
                    units.start_soon(lambda i=index: machine.start("sleep", job=b"crowd%d" % (i % 2), seconds=0.2))
            nursery.cancel_scope.cancel()

    machine.call(crowd)
    assert most == 3
    for index in range(2):
        machine.call(machine.executor.close_job, b"crowd%d" % index)


def test_closing_a_job_ends_its_units_and_no_others(machine: Machine) -> None:
    said: list[str] = []

    async def sleep(job: bytes, seconds: float) -> None:
        try:
            await machine.start("sleep", job=job, seconds=seconds)
            said.append("slept")
        except Failure as failure:
            said.append(failure.code)

    async def both() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep, b"closed", 60.0)
            nursery.start_soon(sleep, b"other", 0.5)
            jobs = machine.executor.pool._jobs
            while not (b"closed" in jobs and jobs[b"closed"].sandbox and jobs[b"closed"].sandbox.units):  # noqa: ASYNC110
                await trio.sleep(0.01)
            await machine.executor.close_job(b"closed")

    machine.call(both)
    assert sorted(said) == ["sandbox", "slept"]
    machine.call(machine.executor.close_job, b"other")


def test_spool_and_store_hold_nothing_of_finished_units(machine: Machine) -> None:
    machine.run("echo", job=b"tidy")
    machine.call(machine.executor.close_job, b"tidy")
    assert not [path for path in machine.executor.pool._spool.folder.glob("*/u*")]


def test_a_warm_unit_starts_within_a_fraction_of_a_fresh_interpreter(machine: Machine) -> None:
    machine.run("echo")
    machine.executor.counters.start_s.clear()
    for _ in range(5):
        machine.run("echo")
    # `scripts/bench warm` measures the bar of 50 ms; here only that nothing imports torch anew, which takes seconds.
    assert sorted(machine.executor.counters.start_s)[2] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("answers", [False, True], ids=["never", "late"])
def test_a_unit_whose_sandbox_cannot_keep_its_time_ran_too_long(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """A fork bomb starves the job's process, too. That is no sandbox that broke: the next machine's would, as well.
    One that answers late is kept, with the other unit in it; one that never does is given up, and that unit with it."""
    monkeypatch.setattr(running, "GRACE_S", 0.3)
    monkeypatch.setattr(running, "KILL_S", 60.0 if answers else 0.3)
    zygote = machine.executor.pool.zygote
    assert zygote is not None
    outermost = psutil.Process(zygote.pid)
    before = set(outermost.children(recursive=True))
    opened = machine.executor.pool.sandboxes_opened
    said: dict[str, tuple[str, str]] = {}

    async def sleeper(name: str, begin: trio.Event, asleep: trio.Event, **limits: float) -> None:
        unit = make_unit(machine.store, "sleep", {"seconds": 3.0 if answers and name == "neighbour" else 60.0})
        wanted = msgspec.structs.replace(SMALL, **limits)
        await begin.wait()
        try:
            await machine.executor.run(
                b"starved", unit, machine.inputs(unit), wanted, on_line=lambda line: asleep.set()
            )
            said[name] = ("", "")
        except Failure as failure:
            said[name] = (failure.code, failure.sentence)

    async def starved() -> None:
        go, one, two = trio.Event(), trio.Event(), trio.Event()
        go.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: sleeper("neighbour", go, one))
            nursery.start_soon(lambda: sleeper("bomb", one, two, wall_s=1.5))
            await two.wait()
            ours = set(outermost.children(recursive=True)) - before
            for process in ours:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGSTOP)
            if answers:
                await trio.sleep(2.5)  # the bomb's time and GRACE_S are over
                for process in ours:
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGCONT)

    machine.call(starved)
    assert said["bomb"] == ("limits", "It ran longer than 1.5 s.")
    assert said["neighbour"][0] == ("" if answers else "limits")
    assert answers or "Another unit of its job" in said["neighbour"][1]
    assert machine.executor.running == 0
    machine.run("echo", job=b"starved")
    assert machine.executor.pool.sandboxes_opened == opened + (1 if answers else 2)
    machine.call(machine.executor.close_job, b"starved")


def test_what_watches_a_unit_comes_before_it(machine: Machine) -> None:
    """Else a fork bomb keeps the job's process from its watch."""
    zygote = machine.executor.pool.zygote
    assert zygote is not None
    outermost = psutil.Process(zygote.pid)
    niceness: list[int] = []

    async def look() -> None:
        asleep = trio.Event()
        unit = make_unit(machine.store, "sleep", {})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: machine.executor.run(
                    b"watched", unit, machine.inputs(unit), SMALL, on_line=lambda line: asleep.set()
                )
            )
            await asleep.wait()
            niceness.extend(process.nice() for process in outermost.children(recursive=True))
            nursery.cancel_scope.cancel()

    machine.call(look)
    node = outermost.parent()
    assert node is not None
    assert set(niceness) == {node.nice(), min(node.nice() + NICE, 19)}
    assert niceness.count(min(node.nice() + NICE, 19)) == 1 or node.nice() == 19
    machine.call(machine.executor.close_job, b"watched")
