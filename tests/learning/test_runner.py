"""The unit runner's file contract: what goes in, what comes out, and how each kind of failure looks."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
import torch

from fakes import area
from programs.bench import Bench, config
from tallymesh import values
from tallymesh.capture import capture
from tallymesh.errors import LocalError
from tallymesh.units import Input, Unit, canonical_json, encode
from tallymesh_learning.runtime import canary, profile, runner
from tallymesh_learning.runtime.pool import UnitPool
from tallymesh_learning.runtime.runner import run_unit
from tallymesh_learning.runtime.work import UnitFailure
from tallymesh_learning.steps import map as mapping


def test_a_map_unit_returns_its_value_and_what_it_logged(bench: Bench) -> None:
    import base64

    kwargs = base64.b64encode(values.encode({"scale": 2.0})).decode()
    unit = bench.unit(
        "programs.training:square", json.dumps({"kwargs": kwargs}).encode(), inputs={"item": values.encode(3)}
    )
    done = bench.run(unit)
    assert values.decode(done.output) == {"value": 18.0}
    assert done.metrics == b'{"half":1.5,"item":3.0}'
    assert [event.payload for event in bench.events if event.kind == "line"] == ["squaring 3", "no end"]
    assert [event.payload for event in bench.events if event.kind == "metric"] == [["item", 3.0], ["half", 1.5]]
    assert set(done.seconds) == {"load", "import", "compute", "save"}
    assert (done.steps, done.probe) == (0, b"")


def test_arguments_too_large_for_the_config_come_as_an_input(bench: Bench) -> None:
    inputs = {"item": values.encode(3), "kwargs": values.encode({"scale": 10})}
    done = bench.run(bench.unit("programs.training:square", inputs=inputs))
    assert values.decode(done.output) == {"value": 90}


def test_arrays_and_tensors_go_in_and_out(bench: Bench) -> None:
    found = bench.call("arrays", numpy.arange(4, dtype="float32"))
    assert found["sum"] == numpy.float32(6)
    assert found["tensor"].tolist() == [0, 2, 4, 6]


def test_every_generator_follows_from_the_units_seed(bench: Bench) -> None:
    first, again, other = bench.call("numbers", 1), bench.call("numbers", 1), bench.call("numbers", 1, seed=2)
    assert first == again
    assert all(a != b for a, b in zip(first[:3], other[:3], strict=True))


def test_long_lines_are_cut_and_the_error_stream_is_a_line_too(bench: Bench) -> None:
    bench.call("talks")
    lines = [event.payload for event in bench.events]
    assert [len(line) for line in lines] == [4000, 4000, 1000, len("to stderr")]


def test_bytes_may_be_printed_and_what_is_no_text_is_escaped(bench: Bench) -> None:
    bench.call("writes_bytes")
    shown = [event.payload for event in bench.events]
    assert shown == ["half a char: ü; broken: \\xff", "a lone surrogate: \\udc80 in utf-8"]


@pytest.mark.parametrize(
    ("function", "code", "says"),
    [
        ("raises", "program", "ValueError: cannot use 5. The item was 5."),
        ("leaves", "program", "sys.exit(3). The item was 5."),
        ("returns_object", "program", "returned value['a']"),
        ("dies", "limits", "by signal 9"),
        ("missing", "program", "AttributeError"),
    ],
)
def test_a_failing_function_says_whose_fault_it_is(bench: Bench, function: str, code: str, says: str) -> None:
    with pytest.raises(UnitFailure) as caught:
        bench.call(function, 5)
    assert caught.value.code == code
    assert says in caught.value.sentence


def test_the_item_of_a_failing_call_is_shown_in_a_few_words_however_big_it_is() -> None:
    shown = mapping.shown
    assert shown([5, 0]) == "[5, 0]"
    assert shown("x" * 100_000) == "'" + "x" * 27 + "..." + "x" * 28 + "'"
    assert shown(bytes(10**6)) == "b'" + "\\x00" * 20 + "'… (1000000 bytes)"
    assert shown(numpy.zeros((3, 4))) == "an array of float64 of shape (3, 4)"
    assert shown({"image": torch.zeros(2, 2)}) == "{'image': a tensor of torch.float32 of shape (2, 2)}"
    deep: Any = ["x" * 50] * 1000
    for _ in range(60):
        deep = [deep, deep]
    assert len(shown(deep)) <= mapping.SHOWN_MAX
    assert len(shown([["y" * 60] * 6] * 6)) == mapping.SHOWN_MAX


def test_a_traceback_shows_the_users_frames_and_no_others(bench: Bench) -> None:
    with pytest.raises(UnitFailure) as caught:
        bench.call("raises", 5)
    files = [line.split('"')[1] for line in caught.value.sentence.splitlines() if line.startswith("  File ")]
    assert files == ["<program>/programs/training.py"] * 2
    assert 'raise ValueError(f"cannot use {item}")' in caught.value.sentence


@pytest.mark.parametrize("step", ["train", "client:run", "../segment", ""])
def test_a_step_that_the_runtime_does_not_have_is_refused(bench: Bench, step: str) -> None:
    with pytest.raises(UnitFailure) as caught:
        bench.step(step, None)
    assert caught.value.code == "inputs"


def test_an_input_that_is_missing_or_changed_is_refused(bench: Bench, pool: UnitPool) -> None:
    unit = bench.unit("programs.training:square", inputs={"item": values.encode(4)})
    with pytest.raises(UnitFailure, match="no input named item") as caught:
        bench.run(msgspec.structs.replace(unit, inputs=()))
    assert caught.value.code == "inputs"
    forged = bytes(32)
    pool.path(forged).write_bytes(values.encode(4))
    try:
        with pytest.raises(UnitFailure, match="does not match its name"):
            bench.run(msgspec.structs.replace(unit, inputs=(Input("item", forged),)))
    finally:
        pool.path(forged).unlink()


def test_an_item_that_is_no_value_is_refused(bench: Bench) -> None:
    with pytest.raises(UnitFailure) as caught:
        bench.run(bench.unit("programs.training:square", inputs={"item": b"\xc1"}))
    assert caught.value.code == "inputs"


def test_a_unit_of_another_profile_is_refused(bench: Bench) -> None:
    with pytest.raises(UnitFailure, match="numeric profile") as caught:
        bench.call("square", 1, profile=bytes(32))
    assert caught.value.code == "sandbox"


def run_here(folder: Path, unit: Unit, environment: dict[str, str] | None = None) -> tuple[bool, list[Any]]:
    """Run a unit in this process."""
    (folder / "in" / "blobs").mkdir(parents=True)
    (folder / "in" / "unit").write_bytes(encode(unit))
    events: list[Any] = []
    return run_unit(folder, lambda kind, payload: events.append((kind, payload))), events


def test_a_process_without_the_profiles_environment_runs_nothing(tmp_path: Path, bench: Bench) -> None:
    assert profile.missing_environment(), "the tests themselves do not run under the profile"
    fine, _ = run_here(tmp_path, bench.unit("programs.training:square", inputs={"item": values.encode(1)}))
    assert not fine
    told = json.loads((tmp_path / "out" / "failure").read_bytes())
    assert told["code"] == "sandbox"
    assert "OMP_NUM_THREADS" in told["sentence"]
    assert not (tmp_path / "out" / "output").exists()


def test_units_side_by_side_keep_their_events_apart(pool: UnitPool, bench: Bench) -> None:
    tickets = {
        pool.submit(bench.unit("programs.training:square", inputs={"item": values.encode(item)})): item
        for item in range(6)
    }
    lines: dict[int, list[str]] = {ticket: [] for ticket in tickets}
    while pool.busy:
        event = pool.next_event(timeout_s=60)
        assert event is not None
        if event.kind == "line":
            lines[event.ticket].append(event.payload)
        elif event.kind == "done":
            assert values.decode(event.payload.output) == {"value": float(tickets[event.ticket] ** 2)}
    assert lines == {ticket: [f"squaring {item}", "no end"] for ticket, item in tickets.items()}


def test_a_pool_leaves_nothing_behind(bench: Bench) -> None:
    with UnitPool(1) as other:
        other.start()
        process, folder = other._process, other._folder
        assert process is not None
    assert process.returncode is not None
    assert not folder.exists()


@pytest.mark.slow
def test_another_process_goes_on_with_a_warm_pool_and_ends_it(tmp_path: Path) -> None:
    """What a local training does: the child that runs the job takes over what the job was tried with."""
    first = UnitPool(1, home=tmp_path)
    channel = socket.fromfd(first.fileno(), socket.AF_UNIX, socket.SOCK_SEQPACKET)  # as a child gets it
    process = first.let_go()
    first.close()
    assert process.poll() is None
    started = tmp_path / "started"
    with UnitPool(1, home=tmp_path, channel=channel) as second:
        bench = Bench(second)
        assert bench.call("square", 3) == {"value": 9.0}
        captured = capture(area.linger)
        item = Input("item", second.put(values.encode(str(started))))
        program = second.put(captured.archive)
        second.submit(Unit(program, captured.entries[0], (item,), b"{}", 1, profile.profile_hash()))
        while not started.exists():  # its fork is at work when the end comes
            assert process.poll() is None
            time.sleep(0.01)
    assert process.wait(60) == 0
    assert list(tmp_path.iterdir()) == [started]


def test_a_pool_whose_process_ended_says_so_and_how_where_it_is_its_own(tmp_path: Path) -> None:
    with UnitPool(1) as own:
        own.start()
        assert own._process is not None
        own._process.kill()
        with pytest.raises(LocalError, match=r"units ended \(status -9\)\."):
            assert own.cpu_score
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with (
        UnitPool(1, home=tmp_path, channel=mine) as other,
        pytest.raises(LocalError, match=r"units ended\.") as caught,
    ):
        assert other.cpu_score
    assert caught.value.code == "no_runner"
    assert caught.value.remedy


_LINGERS = """
import os, socket, sys, time
from tallymesh_learning.runtime import forks, runner

def linger(work, emit, steps):
    emit("line", "at work")
    emit("line", "nobody reads this")
    time.sleep(600)

runner.run_unit = linger
forks._Server(socket.socket(fileno=int(sys.argv[1]))).serve()
"""


@pytest.mark.parametrize("end", ["the caller goes and leaves words unread", "the child is killed"])
def test_no_unit_outlives_what_forked_it_however_that_ends(end: str) -> None:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    held, holds = os.pipe()  # whoever lives holds its other end
    with subprocess.Popen(
        [sys.executable, "-c", _LINGERS, str(theirs.fileno())],
        pass_fds=[theirs.fileno(), holds],
        stderr=subprocess.PIPE,
    ) as child:
        theirs.close()
        os.close(holds)
        mine.send(json.dumps({"ticket": 1, "work": "/nowhere"}).encode())
        assert json.loads(mine.recv(4096)) == [1, "line", "at work"]
        mine.recv(4096, socket.MSG_PEEK)  # it is there, and stays
        if end == "the child is killed":
            child.kill()
        else:
            mine.close()
        assert select.select([held], [], [], 120)[0], "a fork is still at work"
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait() == (-signal.SIGKILL if end == "the child is killed" else 0)
    os.close(held)
    mine.close()


def test_the_profile_is_known_without_importing_torch() -> None:
    code = (
        "import sys; from tallymesh_learning.runtime import profile, pool, runner, work; "
        "from tallymesh_learning import side, options, local; profile.profile_hash(); "
        "assert not {'torch', 'numpy'} & set(sys.modules); print(profile.profile_hash().hex())"
    )
    found = subprocess.check_output([sys.executable, "-c", code], text=True, env={**os.environ, "OMP_NUM_THREADS": "7"})
    assert found.strip() == profile.profile_hash().hex()


def test_a_changed_profile_has_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    base = profile.profile_hash()
    seen = {base}
    for key in profile.describe():
        changed = {**profile.describe(), key: "other"}
        monkeypatch.setattr(profile, "describe", lambda kind, changed=changed: changed)
        seen.add(profile.profile_hash.__wrapped__())
        monkeypatch.undo()
    assert len(seen) == 1 + len(profile.describe())


def test_the_canary_runs_under_the_profile_alone() -> None:
    with pytest.raises(LocalError) as caught:
        canary.measure()
    assert caught.value.code == "no_profile"


def test_a_config_with_an_unknown_option_is_refused(bench: Bench) -> None:
    unit = bench.unit("tallymesh:initialise", b'{"model":"programs.training:mlp","extra":1}')
    with pytest.raises(UnitFailure, match="config") as caught:
        bench.run(unit)
    assert caught.value.code == "inputs"
    assert bench.step("initialise", config()).steps == 0


def test_errors_that_no_message_can_carry_are_still_told() -> None:
    class Unshown(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    for error, says in ((ValueError("file \udcff"), "ValueError: file \\udcff"), (Unshown(), "Unshown: (an exception")):
        told = runner._failure(error)
        canonical_json(told)
        assert says in told["sentence"]
