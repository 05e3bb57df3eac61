"""The client over real HTTP against a fake node: finding it, submitting, following, and what goes wrong."""

from __future__ import annotations

import builtins
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest

import tallymesh
from fakes.area import area
from fakes.node import ACCOUNT, GPU_PROFILE, PROFILE, FakeNode, Served, serve
from tallymesh import CallerError, ChainError, LocalError, RemoteError, TallymeshError, values
from tallymesh.api import AuditView, EventView, JobView, PeerView, Problem, ReceiptView
from tallymesh.client import discover, progress, session, submit, waiting
from tallymesh.client.outputs import Rows
from tallymesh.client.report import outcome
from tallymesh.client.session import Session, parse, refusal
from tallymesh.ids import blob_id
from tallymesh.units import decode_spec
from tallymesh_learning.runtime import profile


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No node of this machine, no config of its user."""
    for name in list(os.environ):
        if name.startswith("TALLYMESH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))
    yield
    discover.disconnect()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(FakeNode(tmp_path / "home")) as running:
        yield running


def areas(scale: float, count: int) -> list[bytes]:
    return [values.encode(area(x, scale)) for x in range(count)]


def finishing(served: Served, outputs: list[bytes]) -> None:
    served.payer.on_submit = lambda job_id: served.payer.finish_map(job_id, outputs)


# -- importing


@pytest.mark.slow
def test_importing_it_is_light() -> None:
    code = "import sys, tallymesh; tallymesh.log(x=1); print(*sys.modules)"
    loaded = {name.split(".")[0] for name in subprocess.check_output([sys.executable, "-c", code], text=True).split()}
    assert not loaded & {"torch", "numpy", "trio", "libp2p", "web3", "httpx", "rich", "aiohttp", "asyncio"}
    code = "import sys, tallymesh; tallymesh.map, tallymesh.train, tallymesh.Job, tallymesh.attach; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in subprocess.check_output([sys.executable, "-c", code], text=True).split()}
    assert not loaded & {"torch", "numpy", "trio", "libp2p", "web3", "rich", "aiohttp", "tallymesh_node"}


def test_every_public_name_is_there() -> None:
    for name in tallymesh.__all__:
        assert getattr(tallymesh, name) is not None
    with pytest.raises(AttributeError):
        tallymesh.nothing_of_that_name  # noqa: B018


# -- finding a node


def test_without_a_node_it_says_what_to_run_and_never_runs_here() -> None:
    with pytest.raises(CallerError) as caught:
        tallymesh.map(area, range(3), budget="1")
    assert caught.value.sentence.startswith("No node runs ")
    assert caught.value.remedy == discover.REMEDY
    for command in ("tallymesh up", "tallymesh node start --submit", "--backend local"):
        assert command in caught.value.remedy
    assert caught.value.code == "no_node"


def test_a_node_that_was_killed_is_not_found(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    home = tmp_path / "home"
    home.mkdir()
    (home / "api.json").write_bytes(msgspec.json.encode({"url": "http://127.0.0.1:1", "token": "t", "pid": dead.pid}))
    with pytest.raises(CallerError, match="No node"):
        discover.find()


def test_the_environment_wins_over_the_config_over_a_node_that_runs_here(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert discover.find().url == served.url
    config = tmp_path / "home" / "config.toml"
    (tmp_path / "home" / "their.token").write_text("theirs\n")
    config.write_text("[client]\nnode = 'http://node.example:1/'\ntoken_file = 'their.token'\n")
    assert discover.find() == discover.Address("http://node.example:1", "theirs", str(config))
    monkeypatch.setenv("TALLYMESH_NODE", served.url)
    assert discover.find().token == served.token  # its token lies here
    monkeypatch.setenv("TALLYMESH_NODE", "https://other.example")
    with pytest.raises(CallerError, match="TALLYMESH_TOKEN"):
        discover.find()
    monkeypatch.setenv("TALLYMESH_TOKEN", "secret")
    assert discover.find() == discover.Address("https://other.example", "secret", "TALLYMESH_NODE")
    assert "secret" not in repr(discover.find())
    tallymesh.connect(served.url, served.token)
    assert discover.find().url == served.url
    with pytest.raises(CallerError, match="not a URL"):
        tallymesh.connect("node.example", "t")


def test_a_local_network_is_found(tmp_path: Path) -> None:
    with serve(FakeNode(tmp_path / "home" / "up" / "payer")) as served:
        assert discover.find().url == served.url


# -- terms


def never() -> Iterator[int]:
    raise AssertionError("the inputs were read before the terms were checked")
    yield 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, "no_budget"),
        ({"budget": 2.0}, "bad_amount"),
        ({"budget": "-1"}, "bad_amount"),
        ({"budget": "1", "max_price": 0.1}, "bad_amount"),
        ({"budget": "1", "max_price": "0"}, "bad_amount"),
        ({"budget": "1", "max_price": "0.000000000000003599"}, "bad_amount"),
        ({"budget": "1", "verify": "trust me"}, "bad_terms"),
        ({"budget": "1", "workers": -1}, "bad_terms"),
        ({"budget": "1", "workers": 1.5}, "bad_terms"),
        ({"budget": "1", "deadline_s": 10**30}, "bad_terms"),
        ({"budget": "1", "require": {"memory_gib": 1.0}}, "bad_terms"),
        ({"budget": "1", "require": tallymesh.Require(memory_gib=math.nan)}, "bad_terms"),
        ({"budget": "1", "name": "half a pair \udc80"}, "bad_name"),
        ({"budget": "1", "name": "two\nlines"}, "bad_name"),
        ({"budget": "1", "name": "n" * 201}, "bad_name"),
        ({"budget": "1", "backend": "cloud"}, "bad_backend"),
        ({"budget": "1", "verify": "replicate", "workers": 1}, "bad_terms"),
    ],
)
def test_terms_are_checked_before_anything_is_read(served: Served, options: dict[str, Any], code: str) -> None:
    with pytest.raises(CallerError) as caught:
        tallymesh.map(area, never(), **options)
    assert caught.value.code == code
    assert caught.value.remedy or code == "bad_terms"
    assert not served.payer.views


def test_newcomers_are_allowed_by_the_call_or_the_environment_and_never_else(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishing(served, areas(1.0, 1))

    def allowed(**options: Any) -> bool:
        job = tallymesh.map(area, [0], budget="1", **options)
        return served.payer.terms[job.id].newcomers

    assert not allowed()
    assert allowed(newcomers=True)
    monkeypatch.setenv("TALLYMESH_NEWCOMERS", "1")
    assert allowed()
    assert not allowed(newcomers=False), "the call wins"
    with pytest.raises(CallerError, match="newcomers"):
        tallymesh.map(area, [0], budget="1", newcomers=1)


def test_the_environment_gives_defaults_and_the_call_wins(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    finishing(served, areas(1.0, 1))
    monkeypatch.setenv("TALLYMESH_BUDGET", "3")
    require = tallymesh.Require(cores=2, memory_gib=4)
    first = tallymesh.map(area, [0], max_price="0.036", require=require, workers=5)
    second = tallymesh.map(area, [0], budget="1.5")
    terms = served.payer.terms[first.id]
    assert (terms.budget_wei, served.payer.terms[second.id].budget_wei) == (str(3 * 10**18), str(15 * 10**17))
    assert (terms.max_price_wei, terms.require, terms.workers_max) == (str(10**13), require, 5)
    monkeypatch.setenv("TALLYMESH_BACKEND", "cloud")
    with pytest.raises(CallerError, match="backend"):
        tallymesh.map(area, [0])


def test_a_parameter_that_would_be_swallowed_is_refused(served: Served) -> None:
    def priced(x: int, budget: int = 3) -> int:
        return x * budget

    with pytest.raises(CallerError, match="'budget'"):
        tallymesh.map(priced, [1], budget="1")


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [({"scale": 1.0, "scla": 2.0}, "unexpected keyword argument 'scla'"), ({}, "missing a required argument: 'scale'")],
)
def test_a_call_that_python_would_refuse_is_refused_before_it_is_paid_for(
    served: Served, kwargs: dict[str, Any], says: str
) -> None:
    def scaled(x: int, *, scale: float) -> float:
        return x * scale

    with pytest.raises(CallerError) as caught:
        tallymesh.map(scaled, never(), budget="1", **kwargs)
    assert caught.value.code == "bad_arguments"
    assert says in caught.value.sentence
    assert "scaled(x, *, scale)" in caught.value.sentence
    assert not served.payer.views


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda: tallymesh.map(area, [1], bugdet="1"), "Did you mean budget=?"),
        (lambda: tallymesh.map(area, [1], budget="1", max_prise="1"), "Did you mean max_price=?"),
        (lambda: tallymesh.map(area, [1], budget="1", scael=2.0), "Did you mean scale=?"),
        (lambda: tallymesh.map(area, [1], budget="1", colour="red"), "Pass its other arguments to map by name"),
        (lambda: tallymesh.train(area, area, [1], bugdet="1"), "Did you mean budget=?"),  # type: ignore[call-arg]
        (lambda: tallymesh.train(area, area, [1], epochz=3), "help(tallymesh.train) lists them."),  # type: ignore[call-arg]
    ],
    ids=[
        "map",
        "map beside a right one",
        "the function's own",
        "map, nothing like it",
        "train",
        "train, nothing like it",
    ],
)
def test_a_keyword_that_nobody_knows_is_refused_with_the_one_that_was_meant(
    served: Served, call: Callable[[], Any], remedy: str
) -> None:
    with pytest.raises(CallerError) as caught:
        call()
    assert caught.value.code == "bad_arguments"
    assert remedy in caught.value.remedy
    assert not served.payer.views


def test_a_call_that_is_wrong_in_another_way_is_pythons_to_refuse() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'inputs'"):
        tallymesh.map(area)  # type: ignore[call-arg]


async def waits(x: int) -> int:
    return x


def yields(x: int) -> Iterator[int]:
    yield x


@pytest.mark.parametrize(
    ("function", "says"), [(waits, "is async"), (yields, "is a generator")], ids=["async", "yield"]
)
def test_a_function_whose_call_gives_no_value_is_refused(served: Served, function: Any, says: str) -> None:
    with pytest.raises(CallerError, match=rf"test_client\.py:\d+: \w+ {says}") as caught:
        tallymesh.map(function, [1], budget="1")
    assert caught.value.remedy
    assert not served.payer.views, "nothing was sent"


def test_a_refusal_shows_the_users_line_and_not_our_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    def files() -> list[str]:
        with pytest.raises(CallerError) as caught:
            tallymesh.map(area, [1], budget=2.0)  # type: ignore[arg-type]
        return [Path(entry.path).name for entry in caught.traceback]

    assert files() == ["test_client.py", "edge.py"]
    monkeypatch.setenv("TALLYMESH_TRACEBACK", "full")
    assert files()[-2:] == ["submit.py", "amounts.py"]


@pytest.mark.parametrize("requires", ["scikit-learn", ["-e ."], [1]], ids=str)
def test_requirements_that_cannot_be_read_are_refused_before_anything_else(requires: Any) -> None:
    for call in (
        lambda: tallymesh.map(area, [1], budget="1", requires=requires),
        lambda: tallymesh.train(area, area, [1], budget="1", requires=requires),
    ):
        with pytest.raises(CallerError) as caught:
            call()
        assert caught.value.code == "bad_requirement"
        assert "scikit-learn==1.9.*" in caught.value.remedy


def test_what_comes_later_says_what_to_do_now() -> None:
    for function in (tallymesh.private, tallymesh.deploy):
        with pytest.raises(CallerError) as caught:
            function("ward-notes", group="hospitals")
        assert caught.value.code == "not_yet"
        assert caught.value.remedy


# -- the six lines


def test_map_submits_streams_and_gives_results_in_input_order(served: Served) -> None:
    finishing(served, areas(2.0, 40))
    job = tallymesh.map(area, range(40), scale=2.0, budget="2.0")
    seen = {unit.index: unit.output["area"] for unit in job.stream()}
    assert seen == {x: 2.0 * x * x for x in range(40)}
    assert job.results()[:3] == [{"area": 0.0}, {"area": 2.0}, {"area": 8.0}]
    assert (job.status, job.cost, job.cost_wei, job.audits) == ("done", "<0.000000001 MESH", 3300, [])
    spec = decode_spec(served.node.store.get(blob_of(job.view.spec)))
    assert (spec.profile, len(spec.inputs), spec.name) == (PROFILE, 40, "area")
    assert all(served.node.store.has(blob_of(blob.hex())) for blob in (spec.program, *spec.inputs))


def test_a_job_that_asks_for_a_gpu_has_units_for_one_on_the_network_and_nowhere_else(served: Served) -> None:
    finishing(served, areas(1.0, 1))
    job = tallymesh.map(area, [0], require=tallymesh.Require(gpu=1), budget="1")
    assert decode_spec(served.node.store.get(blob_of(job.view.spec))).profile == GPU_PROFILE
    wanting = submit._terms("1", None, tallymesh.Require(gpu=1), "sampled", 0, 60, None, None)
    assert [submit._on_gpus(wanting, backend) for backend in (None, "network", "local")] == [True, True, False]
    assert submit._profile("local", gpu=True) == profile.profile_hash(profile.GPU)
    assert submit._profile("local", gpu=False) == profile.profile_hash()


def test_arrays_come_back_as_arrays(served: Served) -> None:
    finishing(served, [values.encode({"x": numpy.arange(3.0)})])
    (result,) = tallymesh.map(area, [1], budget="1").results()
    assert isinstance(result["x"], numpy.ndarray)


def test_units_that_the_node_no_longer_remembers_are_streamed_too(served: Served) -> None:
    def forget_early_events(job_id: str) -> None:
        served.payer.finish_map(job_id, areas(1.0, 5))
        served.payer.log[job_id] = served.payer.log[job_id][4:]

    served.payer.on_submit = forget_early_events
    job = tallymesh.map(area, range(5), budget="1")
    assert sorted(unit.index for unit in job.stream()) == [0, 1, 2, 3, 4]


def test_a_unit_that_was_void_comes_again(served: Served) -> None:
    def redo(job_id: str) -> None:
        void = served.payer.blobs.put(values.encode({"area": -1.0}))
        served.payer.say(job_id, "unit", stage="map", index=0, account=ACCOUNT, output=void.hex())
        served.payer.finish_map(job_id, areas(1.0, 1))

    served.payer.on_submit = redo
    job = tallymesh.map(area, [0], budget="1")
    assert [unit.output["area"] for unit in job.stream()] == [-1.0, 0.0]
    assert job.results() == [{"area": 0.0}]


def test_only_what_is_missing_travels(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    send = Session._send
    monkeypatch.setattr(
        Session, "_send", lambda self, method, path, **more: sent.append(path) or send(self, method, path, **more)
    )
    monkeypatch.setattr(session, "BUNDLE_BLOBS", 20)
    line = Session()
    blobs = {blob_id(data): data for data in (b"b" * (session.SMALL_BYTES + 1), *map(bytes, range(30)))}
    line.upload(blobs)
    assert sent.count("/v1/blobs") == 2
    assert len([path for path in sent if path.startswith("/v1/blobs/") and path != "/v1/blobs/missing"]) == 1
    sent.clear()
    line.upload(blobs)
    assert sent == ["/v1/blobs/missing"]
    line.close()


# -- attaching, cancelling, failing


def test_attach_finds_a_job_by_the_beginning_of_its_id(served: Served) -> None:
    ids = [tallymesh.map(area, [x], budget="1").id for x in range(2)]
    assert tallymesh.attach(ids[0]).id == ids[0]
    assert tallymesh.attach(ids[1]).status == "matching"
    with pytest.raises(CallerError, match="2 jobs begin"):
        tallymesh.attach("000")
    for wrong in ("f00", "", "f" * 64):
        with pytest.raises(CallerError) as caught:
            tallymesh.attach(wrong)
        assert caught.value.code == "no_job"


@pytest.mark.slow
def test_a_job_is_attached_to_after_its_program_was_killed(served: Served) -> None:
    code = (
        "import os, signal, tallymesh; from fakes.area import area\n"
        "job = tallymesh.map(area, range(3), budget='1')\n"
        "print(job.id, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code]
    killed = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    job = tallymesh.attach(killed.stdout.strip())
    assert job.status == "matching", "the node drives it, not the program"
    served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 3)))
    assert job.results() == [{"area": 0.0}, {"area": 1.0}, {"area": 4.0}]


def test_why_and_report_are_for_people(served: Served) -> None:
    job = tallymesh.map(area, [1], budget="1")
    assert "too little memory" in job.why()[0]
    served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 1)))
    audit = AuditView(
        seat="", account=ACCOUNT, tally=1, position=0, unit="", reason="first", draw=0, auditor="payer", state="done",
        result="match",
    )  # fmt: skip
    served.payer.audit_rows[job.id] = [audit]
    assert (job.checks.audits, job.checks.matched, job.checks.by_payer) == (1, 1, 1)
    assert "too few auditors could" in str(job.checks)
    assert job.why() == [
        "It cost <0.000000001 MESH of a budget of 1 MESH; the rest came back.",
        "1 of its 1 unit was computed again (1 match): 1 by the payer's own node.",
    ]
    assert str(job.audits) == "<1 audit: 1 match>"
    assert list(job.audits) == job.audits == [audit]
    report = job.report()
    assert ACCOUNT in report
    assert "1 of 1 units were computed again" in report


@pytest.mark.parametrize(
    ("sentence", "hint"),
    [
        ("FileNotFoundError: [Errno 2] No such file or directory: 'prices.csv'", True),
        ("URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", True),
        ("ZeroDivisionError: division by zero", False),
    ],
)
def test_a_program_that_reached_out_of_its_sandbox_is_told_so(served: Served, sentence: str, hint: bool) -> None:
    problem = Problem(code="program", sentence=sentence)
    served.payer.on_submit = lambda job_id: served.payer.finish(job_id, status="failed", problem=problem)
    with pytest.raises(CallerError) as caught:
        tallymesh.map(area, [1], budget="1").wait()
    assert ("without your files" in caught.value.remedy) == hint


def test_a_program_that_raised_raises_here_with_its_traceback(served: Served) -> None:
    problem = Problem(code="program", sentence="Unit 0 failed.", remedy="Mend it.", traceback='File "m.py", line 3')
    served.payer.on_submit = lambda job_id: served.payer.finish(job_id, status="failed", problem=problem)
    job = tallymesh.map(area, [1], budget="1")
    for ask in (job.wait, job.results, lambda: list(job.stream())):
        with pytest.raises(CallerError, match=r"line 3\nMend it"):
            ask()


def test_somebody_elses_failure_is_a_remote_error(served: Served) -> None:
    problem = Problem(code="no_auditor", sentence="Nobody may audit.")
    served.payer.on_submit = lambda job_id: served.payer.finish(job_id, status="failed", problem=problem)
    with pytest.raises(RemoteError, match="Nobody may audit"):
        tallymesh.map(area, [1], budget="1").wait()


def test_a_cancelled_job_says_what_comes_back(served: Served) -> None:
    job = tallymesh.map(area, [1], budget="1")
    job.cancel()
    with pytest.raises(CallerError, match="1 MESH comes back"):
        job.wait()


def test_what_a_cancelled_job_cost_is_not_the_last_word_while_it_is_settled(served: Served) -> None:
    budget = 10**18
    served.payer.on_submit = lambda job_id: served.payer.finish(
        job_id, status="cancelled", cost_wei=str(budget // 4), escrow_wei=str(budget // 2)
    )
    with pytest.raises(CallerError, match=r"so far it cost 0\.25 MESH, up to 0\.75 MESH comes back"):
        tallymesh.map(area, [1], budget="1").wait()


def test_the_wrong_question_is_refused(served: Served) -> None:
    with pytest.raises(CallerError, match="no model"):
        _ = tallymesh.map(area, [1], budget="1").result


# -- waiting


def test_logs_are_one_stream(served: Served) -> None:
    job = tallymesh.map(area, [1], budget="1")
    served.do(lambda: served.payer.say(job.id, "log", line="hello", account=ACCOUNT, index=4))
    (line,) = job.logs()
    assert (str(line), line.account, line.index) == ("hello", ACCOUNT, 4)


def test_progress_is_a_line_per_change_where_nobody_sees_a_bar(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(job_id: str) -> None:
        served.payer.say(job_id, "audit", account=ACCOUNT, result="match")
        served.payer.say(job_id, "round", round=1, metrics={"accuracy": 0.5})
        served.payer.say(job_id, "caught", account=ACCOUNT, sentence="Its update did not match.")
        served.payer.say(job_id, "redo", units=3)
        served.payer.finish(job_id)

    job = tallymesh.map(area, [1], budget="1")
    served.payer.change(job.id, kind="federated", rounds=2)
    threading.Timer(0.05, lambda: served.do(lambda: train(job.id))).start()
    job.wait(progress=True)
    shown = capsys.readouterr().err.splitlines()
    assert shown[1:] == [
        "round 1/2 · 0 peers · 1 audit · accuracy 0.5",
        "caught 0xabababab…: Its update did not match.",
        "3 units are computed again, and every round that used one",
        "done",
    ]
    assert shown[0] == f"job {job.id[:12]}: matching"


def test_a_pipe_sees_progress_without_asking_and_nothing_where_none_is_wanted(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    for shown, lines in ((None, 2), (False, 0)):
        job = tallymesh.map(area, [1], budget="1")
        threading.Timer(0.05, lambda name=job.id: served.do(lambda: served.payer.finish(name))).start()
        job.wait(progress=shown)
        assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_log_has_no_line_for_each_of_many_fast_rounds_or_units(capsys: pytest.CaptureFixture[str]) -> None:
    view = JobView(id="ab" * 32, name="", kind="federated", status="running", created=0.0, rounds=1000, units=11_000)
    for kind, event, least in (("federated", "round", 2), ("map", "unit", 0)):
        lines = progress._Lines(msgspec.structs.replace(view, kind=kind, units=1000))
        capsys.readouterr()
        for number in range(1, 1001):
            data = {"round": number, "index": number}
            lines.show(EventView(sequence=number, at=0.0, kind=event, data=data))
        shown = capsys.readouterr().err.splitlines()
        assert least <= len(shown) < 20
        assert (not least) or shown[-1].startswith("round 1000/1000"), "the last one is always told"


# -- waiting for others


def waits(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0.02)
    why, looks = served.payer.why, threading.Semaphore(0)

    def seen(job_id: str) -> Any:
        looks.release()
        return why(job_id)

    served.payer.why = seen  # type: ignore[method-assign]

    def look() -> None:
        """A few times, so that each reason was there twice and told, however slow the machine."""
        for _ in range(4):
            assert looks.acquire(timeout=300)

    def end() -> None:
        look()
        served.payer.lack = "no numeric class"
        look()
        served.do(lambda: [served.payer.finish_map(name, areas(1.0, 1)) for name in served.payer.views])

    threading.Thread(target=end, daemon=True).start()


REASONS = ["waiting: Job 0001: 3 offers have too little memory.", "waiting: Job 0001: 3 offers have no numeric class."]


@pytest.mark.parametrize(
    "ask",
    [lambda job: list(job.stream()), lambda job: job.results(), lambda job: job.wait()],
    ids=["stream", "results", "wait"],
)
def test_a_job_that_waits_says_why_once_per_reason_where_there_is_no_terminal(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ask: Any
) -> None:
    job = tallymesh.map(area, [0], budget="1")
    waits(served, monkeypatch)
    ask(job)
    shown = capsys.readouterr()
    assert [line for line in shown.err.splitlines() if line.startswith("waiting")] == REASONS
    assert shown.out == ""
    assert not [thread for thread in threading.enumerate() if thread.name == "tallymesh-reasons"]


@pytest.mark.slow
def test_a_program_that_awaits_is_told_too(served: Served) -> None:
    job = tallymesh.map(area, [0], budget="1")
    code = (
        "import asyncio, sys, tallymesh\nfrom tallymesh.client import waiting\nwaiting.LOOK_S = 0.02\n"
        f"async def main(): await tallymesh.attach({job.id!r})\nasyncio.run(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == REASONS[0] + "\n"
    served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 1)))
    assert process.communicate(timeout=300) == (None, "")


def test_a_reason_is_news_when_it_stays_and_is_another_one() -> None:
    news = waiting.News()

    def found(*lines: str, at: float) -> list[str]:
        return news.of(list(lines), at)

    assert found("Offer 1 ran out 5 s ago.", at=0) == [], "it may be gone at the next look"
    assert found("Offer 1 ran out 8 s ago.", at=2.5) == ["Offer 1 ran out 8 s ago."]
    assert found("Offer 2 ran out 9 s ago.", at=5) == [], "only its numbers changed"
    assert found("The chain does not answer.", at=7.5) == []
    assert found("The chain does not answer.", "0x1f of 0.5 MESH", at=10) == ["The chain does not answer."]
    for at in range(12, 1000, 2):
        assert found(f"Offer 3 ran out {at} s ago.", at=at) == [], "it came back, and then it only lasts"
    assert found("The chain does not answer.", at=1000) == []
    assert found("The chain does not answer.", at=1001) == ["The chain does not answer."], "long ago: worth a line"
    for at in range(1000, 3000):
        for _ in range(2):
            found("reason " + "x" * at, at=at)
    assert len(news._said_at) <= waiting.KEPT


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_awaiting_works_under_asyncio_and_trio(served: Served, loop: str) -> None:
    # In a process of its own: trio-asyncio, which the fake node runs on, replaces asyncio's loop in this one.
    job = tallymesh.map(area, [0], budget="1")
    code = f"""
import {loop}, tallymesh
ticks = 0
async def main():
    async def tick():
        global ticks
        while True:
            await {loop}.sleep(0.01)
            ticks += 1
    {"task = asyncio.create_task(tick())" if loop == "asyncio" else ""}
    done = await tallymesh.attach({job.id!r})
    print(done.status, done.results())
{loop}.run(main{"()" if loop == "asyncio" else ""})
assert ticks or {loop!r} == "trio"
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not served.payer.waiting and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 1)))
    assert process.communicate(timeout=60)[0] == "done [{'area': 0.0}]\n"


class Interrupted:
    """Ctrl-C while waiting, on a terminal, with what the owner answers."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch, answer: str | type[BaseException]) -> None:
        self.job = tallymesh.map(area, [0], budget="1")
        self.asked: list[str] = []
        follow = type(self.job)._follow
        waits = iter([KeyboardInterrupt])

        def interrupted(job: Any, progress: bool | None) -> None:
            for error in waits:
                raise error
            if not served.payer.cancelled:
                served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 1)))
            follow(job, progress)

        def ask(prompt: str) -> str:
            self.asked.append(prompt)
            if isinstance(answer, str):
                return answer
            raise answer

        monkeypatch.setattr(type(self.job), "_follow", interrupted)
        monkeypatch.setattr(builtins, "input", ask)
        monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())


def test_ctrl_c_asks_and_detaching_leaves_the_job_alone(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Interrupted(served, monkeypatch, "d")
    with pytest.raises(KeyboardInterrupt):
        case.job.wait()
    assert case.asked
    assert "detach" in case.asked[0].replace("[d]", "d")
    assert not served.payer.cancelled
    assert case.job.id in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["c", KeyboardInterrupt])
def test_ctrl_c_twice_or_the_answer_cancels_and_refunds(
    served: Served, monkeypatch: pytest.MonkeyPatch, answer: str | type[BaseException]
) -> None:
    case = Interrupted(served, monkeypatch, answer)
    with pytest.raises(CallerError, match="comes back"):
        case.job.wait()
    assert served.payer.cancelled == [case.job.id]


def test_ctrl_c_can_be_taken_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Interrupted(served, monkeypatch, "")
    assert case.job.wait().status == "done"


def test_ctrl_c_while_results_stream_says_that_the_job_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tallymesh.map(area, [0], budget="1")

    def interrupted(*args: Any, **options: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(type(job._source), "events", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(job.stream())
    assert f"the job goes on. Follow it with 'tallymesh logs -f {job.id[:12]}'" in capsys.readouterr().err
    assert not served.payer.cancelled


def test_ctrl_c_without_a_terminal_detaches(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Interrupted(served, monkeypatch, "c")
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    with pytest.raises(KeyboardInterrupt):
        case.job.wait()
    assert not case.asked
    assert not served.payer.cancelled
    sys.stdin.close()


# -- the line


def test_a_stream_that_breaks_goes_on_where_it_was(served: Served) -> None:
    job = tallymesh.map(area, [0], budget="1")
    events = served.payer.events
    broken = iter([True, False, True])

    def flaky(job_id: str, after: int) -> Any:
        found = events(job_id, after)
        if found and next(broken, False):
            raise ZeroDivisionError  # cuts the line
        return found[:2]

    served.payer.events = flaky  # type: ignore[method-assign]
    served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 4)))
    assert [event.sequence for event in job.events()] == [1, 2, 3, 4, 5, 6]


def test_a_node_that_comes_back_elsewhere_is_found_again(tmp_path: Path) -> None:
    node = FakeNode(tmp_path / "home")
    with serve(node):
        job = tallymesh.map(area, [0], budget="1")
        stream = job.events()
        next(stream)
    again = FakeNode(tmp_path / "home")
    again.fake_payer.views, again.fake_payer.log = node.fake_payer.views, node.fake_payer.log
    with serve(again) as served:
        served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 1)))
        assert [event.kind for event in stream] == ["unit", "done"]
        assert job.results() == [{"area": 0.0}]


def test_a_stream_waits_a_minute_for_a_node_that_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(session.time, "sleep", waited.append)
    with serve(FakeNode(tmp_path / "home")):
        job = tallymesh.map(area, [0], budget="1")
    with pytest.raises(LocalError):
        list(job.events())
    assert len(waited) == session.RETRIES
    assert 50 < sum(waited) < 70
    assert max(waited) <= session.PAUSE_MAX_S


def test_a_stream_goes_on_after_what_the_node_kept_no_more(served: Served) -> None:
    job = tallymesh.map(area, [0], budget="1")
    served.do(lambda: [served.payer.say(job.id, "log", line=str(at)) for at in range(5)])
    served.payer.dropped = 4
    served.do(lambda: served.payer.finish_map(job.id, areas(1.0, 1)))
    assert [(event.sequence, event.kind) for event in job.events()][:2] == [(4, "warning"), (5, "log")]
    served.payer.dropped = 0
    assert [event.kind for event in job.events(10**6)] == ["warning"]


def test_a_node_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "RETRIES", 1)
    with serve(FakeNode(tmp_path / "home")) as served:
        job = tallymesh.map(area, [0], budget="1")
    for ask in (lambda: job.status, lambda: list(job.events())):
        with pytest.raises(LocalError, match=served.url) as caught:
            ask()
        assert caught.value.code == "node_unreachable"
        assert "tallymesh node status" in caught.value.remedy


def test_bytes_that_are_not_what_their_name_says_are_refused(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    name = served.node.store.put(b"right")
    path = served.node.store.path(name)
    path.chmod(0o600)
    path.write_bytes(b"wrong")
    with pytest.raises(LocalError, match="something else"):
        Session().blob(name.hex())


def test_errors_come_back_as_they_were_raised() -> None:
    def told(**fields: Any) -> TallymeshError:
        return refusal(400, msgspec.json.encode({"code": "c", "sentence": "s", **fields}))

    assert isinstance(told(kind="caller", remedy="r"), CallerError)
    assert told(remedy="r").remedy == "r"
    assert isinstance(told(kind="local"), LocalError)
    remote, chain = told(kind="remote", peer="12D3"), told(kind="chain", reverted=True)
    assert isinstance(remote, RemoteError)
    assert remote.peer == "12D3"
    assert isinstance(chain, ChainError)
    assert chain.reverted
    assert refusal(502, b"<html>").code == "bad_answer"


def test_server_sent_events_are_parsed_as_the_standard_says() -> None:
    lines = [
        ": comment",
        "id: 7",
        "event: log",
        'data: {"sequence": 7, "at": 1.0,',
        'data: "kind": "log", "data": {}}',
        "",
    ]
    (event,) = parse([*lines, "", "retry: 5", "data: {", "no end"])
    assert (event.sequence, event.kind) == (7, "log")


def blob_of(name: str) -> Any:
    return bytes.fromhex(name)


def test_views_of_a_newer_node_are_read() -> None:
    newer = {"id": "j", "name": "", "kind": "map", "status": "running", "created": 1.0, "colour": "blue"}
    assert msgspec.json.decode(msgspec.json.encode(newer), type=JobView).status == "running"


def test_rows_and_views_are_short_when_they_are_printed() -> None:
    audit = AuditView(
        seat="ee" * 32, account=ACCOUNT, tally=1, position=3, unit="11" * 32, reason="drawn", draw=0,
        auditor="payer", state="done", result="mismatch",
    )  # fmt: skip
    awaited = msgspec.structs.replace(audit, auditor="0x" + "cd" * 20, state="ordered", result="")
    silent = msgspec.structs.replace(awaited, state="silent")
    assert repr(audit) == "<Audit 0xabababab…'s unit 3 (drawn) by the payer's own node: mismatch>"
    assert repr(awaited) == "<Audit 0xabababab…'s unit 3 (drawn) by 0xcdcdcdcd…: awaited>"
    assert repr(Rows("audit", [audit, awaited, silent, silent])) == ("<4 audits: 1 awaited, 1 mismatch, 2 unanswered>")
    receipt = ReceiptView(
        seat="ee" * 32, account=ACCOUNT, position=3, unit="11" * 32, end="22" * 32, leaf="33" * 32, tally=1,
        accepted=True, void=False,
    )  # fmt: skip
    assert repr(receipt) == "<Receipt unit 3 by 0xabababab… accepted end=22222222>"
    assert repr(Rows("receipt", [receipt, msgspec.structs.replace(receipt, accepted=False, void=True)])) == (
        "<2 receipts: 1 accepted, 1 void>"
    )
    assert repr(Rows("receipt")) == "<0 receipts>"
    view = JobView(id="ab" * 32, name="area", kind="map", status="running", created=1.0, units=9, units_done=4)
    assert repr(view) == "<JobView abababababab area running 4/9 units peers=0>"


def ended(**fields: Any) -> JobView:
    terms = {"budget_wei": str(2 * 10**18), "cost_wei": str(123 * 10**14), "units": 40, "units_done": 40}
    return JobView(id="ab" * 32, name="", kind="map", created=1.0, **{"status": "done", **terms, **fields})


def test_an_ended_job_says_what_it_cost_and_who_checked_what() -> None:
    auditors = ["payer", *(f"0x{number:02x}" + "cd" * 19 for number in (1, 1, 1, 2, 2, 3, 4, 5, 6))]
    rows = [
        AuditView(
            seat="", account=ACCOUNT, tally=1, position=at, unit="", reason="drawn", draw=0, auditor=who, state="done",
            result="mismatch" if at == 1 else "match",
        )
        for at, who in enumerate(auditors)
    ]  # fmt: skip
    rows.append(msgspec.structs.replace(rows[0], result="", state="silent"))
    liar = PeerView(
        account=ACCOUNT, peer_id="", seat="", stage="map", phase="forfeited", price_wei="1", assigned=9, received=9,
        accepted=0, paid=0, problem=Problem(code="cheat", sentence="Unit 1 was recomputed with another result."),
    )  # fmt: skip
    view = ended(escrow_wei=str(10**17), peers=(liar,), redone=5)
    assert outcome(view, rows, "network") == [
        "It cost 0.0123 MESH of a budget of 2 MESH; 0.1 MESH are still in escrow and come back in a while.",
        "10 of its 40 units were computed again (9 match, 1 mismatch): "
        "3 by 0x01cdcdcd…, 2 by 0x02cdcdcd…, 1 by the payer's own node, 1 by 0x03cdcdcd…, 3 by 3 others.",
        "Caught: 0xabababab…: Unit 1 was recomputed with another result.",
        "5 units had to be done again.",
    ]
    assert outcome(ended(status="cancelled", cost_wei="0", units_done=0), [], "network") == ["It cost nothing."]
    assert "None of its 40 units was computed again." in outcome(ended(), [], "network")
    twice = [rows[2], msgspec.structs.replace(rows[2], auditor="payer")]
    assert "1 of its 40 units was computed again (2 match): 1 by" in outcome(ended(), twice, "network")[1]
    assert "nobody to check" in outcome(ended(), [], "local")[0]
