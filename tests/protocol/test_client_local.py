"""backend="local": the same Job, in child processes; and job files, which name what programs pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tallymesh
from fakes import area as programs
from fakes import wheels as made
from tallymesh import CallerError
from tallymesh.client import jobfile, local
from tallymesh.client.job import Job
from tallymesh.client.local import LocalSource


@pytest.fixture(autouse=True)
def _local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TALLYMESH_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TALLYMESH_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def done() -> Job:
    return tallymesh.map(programs.told, [1, 2, 3], scale=2.0, backend="local").wait()


@pytest.mark.slow  # imports torch
def test_a_map_runs_without_node_and_budget(done: Job) -> None:
    assert sorted((unit.index, unit.output["area"], unit.peer) for unit in done.stream()) == [
        (0, 2.0, "local"),
        (1, 8.0, "local"),
        (2, 18.0, "local"),
    ]
    assert done.results() == [{"area": 2.0}, {"area": 8.0}, {"area": 18.0}]
    assert (done.status, done.cost, done.audits, done.receipts) == ("done", "0 MESH", [], [])
    assert "nobody to check" in str(done.checks)
    assert done.id in done.report()


@pytest.mark.slow  # imports torch
def test_packages_travel_with_a_local_job_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = made.build("plot", "1.0", {"plot/__init__.py": made.MODULE})
    made.offer(made.index(tmp_path / "index", ("plot", "1.0", wheel)), monkeypatch)
    with pytest.raises(CallerError) as caught:
        tallymesh.map(programs.doubled, [1, 2], backend="local")
    assert 'requires=["plot"]' in caught.value.remedy
    job = tallymesh.map(programs.doubled, [1, 2], requires=["plot==1.*"], backend="local").wait()
    assert [values[0] for values in job.results()] == [2, 4]
    assert "/packages/" in job.results()[0][1]
    assert "plot" not in sys.modules


@pytest.mark.slow  # imports torch
def test_it_leaves_no_files_and_no_process(done: Job) -> None:
    source = done._source
    assert isinstance(source, LocalSource)
    child, folder = source._child, source._folder
    assert sorted(str(line) for line in done.logs(follow=True)) == [f"hello from {n}" for n in (1, 2, 3)]
    source._end()
    assert child.poll() is not None
    assert not folder.exists()


@pytest.mark.slow  # imports torch
def test_what_the_program_raised_is_shown() -> None:
    job = tallymesh.map(programs.fail, [1], backend="local")
    with pytest.raises(CallerError, match="the tyres are flat"):
        job.wait()
    assert "the tyres are flat" in job.why()[0]


def test_cancelling_ends_it_at_once() -> None:
    job = tallymesh.map(programs.sleep, [60], backend="local")
    source = job._source
    assert isinstance(source, LocalSource)
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 60
    assert source._child.poll() is not None
    with pytest.raises(CallerError, match="cancelled"):
        job.wait()


@pytest.mark.slow  # imports torch
def test_it_dies_with_the_program_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time, tallymesh; from fakes import area\n"
        "job = tallymesh.map(area.linger, [sys.argv[1]], backend='local')\n"
        "print(job._source._child.pid, flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.05)\n"
        "time.sleep(0.2)  # by now it waits for the unit's answer\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code, str(tmp_path / "started")]
    parent = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert parent.returncode == -signal.SIGKILL
    child = int(parent.stdout)
    deadline = time.monotonic() + 90
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["started"], "its folder went with it"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


# -- job files


def write(folder: Path, text: str) -> Path:
    (folder / "shapes.py").write_text("def area(x, scale=1.0):\n    return scale * x * x\n")
    path = folder / "job.toml"
    path.write_text(text)
    return path


@pytest.mark.slow  # imports torch
def test_a_job_file_names_the_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "items.json").write_text("[2, 3]")
    path = write(tmp_path, 'map = "shapes.py:area"\ninputs = "items.json"\nbackend = "local"\narguments.scale = 0.5\n')
    assert jobfile.main([str(path), "--json"]) == 0
    assert '"outputs":[2.0,4.5]' in capsys.readouterr().out


def test_a_job_file_takes_urls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    gone = f"file://{tmp_path}/gone.jsonl"
    path = write(tmp_path, f'map = "shapes.py:area"\ninputs = "{gone}"\nbackend = "local"\n')
    assert jobfile.main([str(path)]) == 1
    assert f"{gone} cannot be read: FileNotFoundError" in capsys.readouterr().err
    assert jobfile._find(path, tmp_path, "s3://bucket/part-*.npz") == "s3://bucket/part-*.npz", "data = and test ="


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputs = [1]\n", "exactly one of"),
        ('map = "shapes.py:area"\ntrain = "shapes.py:area"\n', "exactly one of"),
        ('map = "shapes.py:volume"\ninputs = [1]\n', "cannot be found"),
        ('map = "gone.py:area"\ninputs = [1]\n', "there is no file"),
        ('map = "area"\ninputs = [1]\n', "not file.py:name"),
        ('map = "shapes.py:area"\n', "it needs inputs"),
        ('map = "shapes.py:area"\ninputs = "gone.json"\n', "cannot be read"),
        ('map = "shapes.py:area"\ninputs = [1]\nbugdet = "2"\n', "no option 'bugdet'"),
        ('train = "shapes.py:area"\n', "loss"),
        ("map = \n", "not TOML"),
    ],
)
def test_a_job_file_that_is_wrong_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = write(tmp_path, text)
    assert jobfile.main([str(path)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert str(path) in shown
    assert words in shown


# -- the examples are run as they stand


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("map_area.py", "[{'area': 0.0}, {'area': 2.0}, {'area': 8.0}] 0 MESH <0 audits>"),
        ("train_digits.py", "| checkpoint |"),
    ],
)
def test_an_example_runs_on_the_local_backend(name: str, words: str, tmp_path: Path) -> None:
    path = Path(__file__).resolve().parents[2] / "examples" / name
    command = [sys.executable, "-m", "tallymesh_node.cli", "run", str(path), "--backend", "local"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    left = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert not [each for each in left if not each.startswith("torchinductor")], "that is a cache of torch's own"
    if name == "train_digits.py":
        assert float(done.stdout.split()[0]) > 0.85


@pytest.mark.slow  # imports torch
def test_a_trained_model_is_loaded_with_its_weights_and_leaves_the_generators_alone() -> None:
    import torch

    from fakes import training

    job = tallymesh.train(
        training.model, training.loss, training.data(), test=training.data(), rounds=2, clients=2, backend="local"
    )
    assert [done.index for done in job.stream()] == [1, 2]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    net = job.result.load()
    assert torch.equal(torch.rand(3), expected)
    assert not net.training
    x, y = training.data().tensors
    accuracy = float((net(x).argmax(1) == y).float().mean())
    assert accuracy == pytest.approx(job.metrics["accuracy"])
    assert job.result.model_sha in job.result.card
    with pytest.raises(CallerError, match=r"job\.result"):
        job.results()
    source = job._source
    assert isinstance(source, LocalSource)
    folder, warm = source._folder, source._warm
    assert warm is not None, "it was tried in a process that its job goes on with"
    assert source._child.args[-1] == str(folder)  # type: ignore[index]
    source._end()
    assert warm.returncode == 0
    assert not folder.exists()


def test_a_training_that_cannot_begin_leaves_no_folder() -> None:
    with pytest.raises(ZeroDivisionError), local.warmed(True) as pool:
        pool.workers = pool.home.is_dir() / 0
    assert not pool.home.exists()
    with local.warmed(False) as pool:
        assert pool is None
