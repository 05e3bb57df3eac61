"""Job packages: what is refused before any money moves, how data is dealt out, and that the local backend agrees."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from programs import training
from programs.bench import Bench
from tallymesh import program, values
from tallymesh.errors import CallerError, RemoteError
from tallymesh.ids import ZERO32, blob_id
from tallymesh.plan import Plan, belongs
from tallymesh.prepare import PreparedJob, prepare_map
from tallymesh.units import decode_spec, encode
from tallymesh_learning import data as shards
from tallymesh_learning import partition, reading, tensors
from tallymesh_learning.local import Event, LocalRun
from tallymesh_learning.prepare import prepare_training
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.pool import UnitPool

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


LOCAL = {"epochs": 2, "batch": 8, "lr": 0.1}


def examples(count: int = 90, seed: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def train(pool: UnitPool, *positional: Any, **changes: Any) -> PreparedJob:
    settings: dict[str, Any] = {"rounds": 2, "clients": 4, "partition": "dirichlet:0.5", "local": LOCAL, "seed": 11}
    given_data = positional or (training.mlp, training.cross_entropy, TensorDataset(*examples()))
    return prepare_training(*given_data, pool=pool, **{**settings, **changes})


def run(job: PreparedJob, pool: UnitPool) -> tuple[list[Event], LocalRun]:
    with LocalRun(job, pool=pool) as local:
        return list(local.events()), local


# The local backend


def test_the_local_backend_equals_a_plain_loop_with_the_same_order_of_reduction(bench: Bench, pool: UnitPool) -> None:
    job = train(pool, test=None)
    _, local = run(job, pool)
    found = [shards.decode(job.blobs[blob]).columns for blob in sorted(job.spec.inputs)]
    item = {"shards": [[part["0"], part["1"]] for part in found], "rounds": 2, "seed": 11, **LOCAL}
    weights = bench.call("plain_federated", item)
    state = {f"model.{name}": tensor for name, tensor in weights.items()} | {"step": torch.tensor(2)}
    assert local.plan.state == blob_id(tensors.encode(state))


@pytest.mark.parametrize("algorithm", ["fedavg", "sequential"])
def test_what_prepares_batches_follows_the_units_seed_and_leaves_the_held_out_data_alone(
    pool: UnitPool, algorithm: str
) -> None:
    """It is what the same lines inside the loss give, bit for bit, in weights and in metrics."""
    test = TensorDataset(*examples(40, 8))
    data = TensorDataset(*examples())
    made = []
    for loss, changes in (
        (training.cross_entropy, {"prepare": training.noisy}),
        (training.noisy_loss, {}),
        (training.cross_entropy, {}),
    ):
        _, local = run(train(pool, training.mlp, loss, data, test, algorithm=algorithm, **changes), pool)
        made.append((local.plan.state, local.metrics))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_a_transform_that_cannot_travel_or_work_is_refused(pool: UnitPool) -> None:
    with pytest.raises(CallerError, match="prepare= is a Dropout that exists already") as caught:
        train(pool, prepare=torch.nn.Dropout())
    assert "def prepare(batch):" in caught.value.remedy
    with pytest.raises(CallerError, match="prepare= is a int, not a function"):
        train(pool, prepare=3)
    with pytest.raises(CallerError, match=r"train calls broken\(batch\)") as caught:
        train(pool, prepare=training.broken)
    assert "def prepare(batch):" in caught.value.remedy


def test_a_run_gives_the_same_model_every_time_and_in_every_order(
    pool: UnitPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = train(pool, test=TensorDataset(*examples(40, 8)))
    events, local = run(job, pool)
    monkeypatch.setattr(pool, "workers", 1)  # one unit at a time: another order of arrival
    again, other = run(job, pool)
    assert other.plan.state == local.plan.state
    assert [event.data for event in again if event.kind == "done"] == [e.data for e in events if e.kind == "done"]
    counts = Counter(event.kind for event in events)
    assert (counts["unit"], counts["round"], counts["done"]) == (10, 2, 1)
    assert counts["metric"] > 0
    states = {event.data["round"]: event.data["state"] for event in events if event.kind == "round"}
    assert [states[number] for number in sorted(states)] == [blob.hex() for blob in local.plan.checkpoints()][1:]
    last = events[-1].data
    assert last["result"] == local.plan.state.hex()
    assert set(last["metrics"]) == {"loss", "accuracy", "examples"}
    for event in events:
        if event.kind == "unit":
            assert set(event.data["seconds"]) == {"load", "import", "compute", "save"}


def test_a_prepared_job_is_one_that_others_accept(pool: UnitPool) -> None:
    job = train(pool, per_round=2, test=TensorDataset(*examples(40, 8)))
    assert decode_spec(encode(job.spec)) == job.spec
    named = {job.spec.program, job.spec.initial, job.spec.test, *job.spec.inputs}
    assert named == set(job.blobs)
    for task in Plan(job.spec).ready():
        assert belongs(job.spec, task.unit)
    assert all(stage.work_ms >= 1 for stage in job.spec.stages)
    program.unpack(job.blobs[blob_id(job.blobs[job.spec.program])])  # type: ignore[index]


def test_sequential_training_has_one_result_however_many_segments(pool: UnitPool) -> None:
    states = set()
    for segments in (1, 5):
        job = train(pool, algorithm="sequential", segments=segments)
        assert job.spec.rounds == min(segments, 2 * 12)
        _, local = run(job, pool)
        states.add(local.plan.state)
    assert len(states) == 1


def test_a_seed_decides_weights_shards_and_result(pool: UnitPool) -> None:
    one, same, other = (train(pool, seed=seed, work=1.0) for seed in (1, 1, 2))
    assert replace(one.spec, stages=()) == replace(same.spec, stages=())
    assert one.spec.initial != other.spec.initial
    assert one.spec.inputs != other.spec.inputs


def test_a_map_runs_locally_in_input_order(pool: UnitPool) -> None:
    job = prepare_map(training.square, [3, 1, 2, 1], {"scale": 2.0})
    assert job.spec.profile == ZERO32
    _, local = run(job, pool)
    outputs = [values.decode(local.blob(blob)) for blob in local.plan.results() if blob]
    assert [output["value"] for output in outputs] == [18, 2, 8, 2]


def test_a_failing_unit_ends_a_local_run_with_the_users_traceback(pool: UnitPool) -> None:
    with pytest.raises(CallerError, match=r"cannot use 5[\s\S]*programs/training\.py"):
        run(prepare_map(training.raises, [5]), pool)


def test_a_job_of_another_profile_is_refused(pool: UnitPool) -> None:
    with pytest.raises(CallerError, match="another numeric profile"):
        LocalRun(prepare_map(training.square, [1], profile=bytes(range(32))), pool=pool)


@pytest.mark.slow
def test_a_saved_package_runs_from_the_command_line(tmp_path: Path, pool: UnitPool) -> None:
    job = train(pool)
    job.save(tmp_path)
    assert PreparedJob.load(tmp_path) == job
    _, local = run(job, pool)
    command = [sys.executable, "-m", "tallymesh_learning.local", str(tmp_path), "--workers", "1"]
    lines = subprocess.check_output(command, text=True, timeout=120).splitlines()
    done = json.loads(lines[-1])
    assert done["kind"] == "done"
    assert done["data"]["result"] == local.plan.state.hex()
    assert (tmp_path / "blobs" / done["data"]["result"]).read_bytes() == local.blob(local.plan.state)


def test_a_saved_package_with_a_changed_blob_is_refused(tmp_path: Path) -> None:
    prepare_map(training.square, [1]).save(tmp_path)
    path = next((tmp_path / "blobs").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(RemoteError, match="does not hold what its name says"):
        PreparedJob.load(tmp_path)


# Refusals of models and losses


def test_an_instance_is_refused_with_the_two_lines_to_write(pool: UnitPool) -> None:
    with pytest.raises(CallerError, match="exists already") as caught:
        train(pool, torch.nn.Linear(6, 3), training.cross_entropy, TensorDataset(*examples()))
    assert "def model():\n        return torch.nn.Linear(...)" in caught.value.remedy
    with pytest.raises(CallerError, match="loss= is a MSELoss") as caught:
        train(pool, training.mlp, torch.nn.MSELoss(), TensorDataset(*examples()))
    assert "return torch.nn.MSELoss()(net(batch[0]), batch[1])" in caught.value.remedy


@pytest.mark.parametrize(
    ("model", "loss", "says"),
    [
        (training.mlp, training.broken, r"cannot train: IndexError[\s\S]*return net\(batch\[7\]\)"),
        (training.not_a_model, training.cross_entropy, "not an nn.Module"),
        (training.mlp, training.exploding, "inf"),
        (lambda: None, training.cross_entropy, "lambda"),
        (training.mlp, 3, "not a function"),
    ],
    ids=["loss", "model", "infinite", "lambda", "number"],
)
def test_what_cannot_work_fails_before_anything_is_sent(pool: UnitPool, model: Any, loss: Any, says: str) -> None:
    with pytest.raises(CallerError, match=says):
        train(pool, model, loss, TensorDataset(*examples()))


def test_a_model_or_a_loss_with_other_arguments_is_refused_at_once(pool: UnitPool) -> None:
    data = TensorDataset(*examples())
    with pytest.raises(
        CallerError, match=r"train calls Linear\(\), and that does not take it: missing a required"
    ) as caught:
        train(pool, torch.nn.Linear, training.cross_entropy, data)
    assert "def model():" in caught.value.remedy
    with pytest.raises(CallerError, match=r"train calls noisy\(net, batch\)") as caught:
        train(pool, training.mlp, training.noisy, data)
    assert "def loss(net, batch):" in caught.value.remedy


def test_held_out_data_that_cannot_be_measured_is_refused_before_anything_is_sent(pool: UnitPool) -> None:
    x, y = examples(20, 8)
    with pytest.raises(CallerError, match=r"cannot be measured on test=: RuntimeError[\s\S]*cross_entropy"):
        train(pool, test=TensorDataset(x[:, :2], y))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "fedprx"}, "fedprx"),
        ({"local": {"optimizer": "rmsprop"}}, "optimizer: sgd, adam, adamw"),
        ({"clients": 0}, "clients"),
        ({"rounds": 1.5}, "rounds"),
        ({"per_round": 9}, "per_round|cannot be drawn"),
        ({"partition": "dirichlet:x"}, "dirichlet:x"),
        ({"local": {"lr": 0}}, "lr"),
        ({"seed": -1}, "seed"),
        ({"clients": 80}, "cannot be dealt"),
        ({"work": 0}, "work"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(pool: UnitPool, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(CallerError, match=says):
        train(pool, **changes)


def test_map_arguments_that_are_wrong_are_named() -> None:
    for positional, changes, says in (
        ((training.square, []), {}, "no inputs"),
        ((training.square, 5), {}, "list of inputs"),
        ((training.square, [object()]), {}, "input 0"),
        ((training.square, [1], {"scale": object()}), {}, "keyword arguments"),
        ((training.square, [1]), {"work": -1}, "work"),
        ((training.square, [1]), {"seed": "x"}, "seed"),
    ):
        with pytest.raises(CallerError, match=says):
            prepare_map(*positional, **changes)  # type: ignore[arg-type]


def test_large_arguments_travel_as_a_shared_input() -> None:
    small, large = (prepare_map(training.square, [1], {"scale": numpy.zeros(size)}) for size in (10, 100_000))
    assert not small.spec.shared
    assert [item.name for item in large.spec.shared] == ["kwargs"]
    assert large.spec.shared[0].blob in large.blobs


# Reading data


class Items(Dataset):  # type: ignore[misc, type-arg]
    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Endless(IterableDataset):  # type: ignore[misc, type-arg]
    def __iter__(self) -> Iterator[int]:
        yield 1


def read(data: Any, **changes: Any) -> reading.Shards:
    settings: dict[str, Any] = {"clients": 1, "method": partition.parse("iid"), "seed": 0}
    return reading.read(data, None, **{**settings, **changes})


def columns_of(data: Any) -> dict[str, Any]:
    found = read(data)
    return dict(shards.decode(found.blobs[found.shards[0][0]]).columns)


def test_items_become_columns_as_a_dataloader_collates_them() -> None:
    items = [(numpy.float32([i, i]), i, float(i), i % 2 == 0, torch.tensor(i), f"t{i}") for i in range(4)]
    found = columns_of(items)
    wanted = next(iter(DataLoader(Items(items), batch_size=4)))
    for name, column in enumerate(wanted):
        mine = found[str(name)]
        if isinstance(mine, list):
            assert tuple(mine) == tuple(column)
        else:
            assert mine.dtype == column.dtype
            assert torch.equal(mine, column)


def test_dicts_single_tensors_and_whole_arrays_are_read_too() -> None:
    assert set(columns_of([{"x": torch.zeros(2), "y": 1}] * 2)) == {"key.x", "key.y"}
    assert columns_of(torch.arange(3.0))["item"].tolist() == [0, 1, 2]
    x, y = examples(10)
    assert columns_of((x.numpy(), y.numpy())).keys() == {"0", "1"}
    assert read((x, y)).shards == read(TensorDataset(x, y)).shards == read(Items(list(zip(x, y, strict=True)))).shards


def test_reading_leaves_the_callers_generators_alone() -> None:
    items = Items([(torch.zeros(2) + i, 1) for i in range(4)])
    torch.manual_seed(1)
    numpy.random.seed(1)
    wanted = (torch.rand(1).item(), numpy.random.rand())
    torch.manual_seed(1)
    numpy.random.seed(1)
    read(items)
    assert (torch.rand(1).item(), numpy.random.rand()) == wanted


class Failing(Items):
    def __getitem__(self, index: int) -> Any:
        raise OSError("disk is gone")


class Dying(Items):
    def __getitem__(self, index: int) -> Any:
        os._exit(3)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (Endless(), "not_map_style"),
        (iter([1, 2]), "not_map_style"),
        ("text", "not_map_style"),
        ([], "no_data"),
        ([(torch.zeros(2), 1), (torch.zeros(3), 1)], "ragged_data"),
        ([(torch.zeros(2), 1), (torch.zeros(2), 1.5)], "ragged_data"),
        ([(1, 2), (1,)], "ragged_data"),
        ((torch.zeros(3, 2), torch.zeros(2)), "ragged_data"),
        ([object()] * 2, "bad_item"),
        ([([1, 2], 0)] * 2, "bad_item"),
        (([numpy.zeros(2, numpy.uint16)] * 2), "bad_item"),
        ((torch.zeros(2, 2, dtype=torch.complex64),), "bad_item"),
        ({"x": torch.zeros(2)}, "not_map_style"),
        ([1, 2**70], "bad_data"),
        ([{1: 2}] * 2, "bad_item"),
        (Failing([1]), "bad_data"),
        (Dying([1]), "bad_data"),
    ],
    ids=[
        "iterable",
        "iterator",
        "text",
        "empty",
        "shape",
        "dtype",
        "parts",
        "lengths",
        "object",
        "list",
        "uint16",
        "complex",
        "arrays",
        "number",
        "keys",
        "raises",
        "dies",
    ],
)
def test_data_that_cannot_be_read_is_refused(data: Any, code: str) -> None:
    with pytest.raises(CallerError) as caught:
        read(data)
    assert caught.value.code == code


def test_a_loader_is_refused_with_the_data_set_to_pass_instead() -> None:
    with pytest.raises(CallerError) as caught:
        read(DataLoader(Items([1, 2])))
    assert "loader.dataset" in caught.value.remedy


def test_a_failure_while_reading_names_the_line() -> None:
    with pytest.raises(
        CallerError, match=r"Reading data\[0\] failed: .*test_preparing\.py:\d+: OSError\('disk is gone'\)"
    ):
        read(Failing([1]))


class Garbled(Items):
    def __getitem__(self, index: int) -> Any:
        return json.loads("[1" if index == 2 else "[1]")  # fails inside the standard library


def test_a_failure_below_the_readers_code_names_the_readers_line_and_the_item() -> None:
    with pytest.raises(CallerError) as caught:
        read(Garbled([1, 2, 3]))
    first, *way = caught.value.sentence.splitlines()
    assert re.match(r"Reading data\[2\] failed: .*test_preparing\.py:\d+: JSONDecodeError", first)
    assert "json.loads" in way[2], "the way begins in the reader's code"
    assert "reading.py" not in "".join(way)


# Data by URL


def reads(url: str) -> dict[str, Any]:
    found = read(url)
    (shard,) = found.shards
    return dict(shards.decode(found.blobs[shard[0]]).columns)


def test_arrays_behind_a_url_are_columns_and_several_files_are_one_data_set(tmp_path: Path) -> None:
    x, y = (numpy.arange(12.0, dtype=numpy.float32).reshape(6, 2), numpy.arange(6))
    numpy.savez(tmp_path / "1.npz", x=x[:4], y=y[:4])
    numpy.savez(tmp_path / "2.npz", x=x[4:], y=y[4:])
    (tmp_path / "all.safetensors").write_bytes(
        safetensors.torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)})
    )
    for name in ("*.npz", "all.safetensors"):
        columns = reads(f"file://{tmp_path}/{name}")
        assert columns.keys() == {"key.x", "key.y"}
        assert torch.equal(columns["key.x"], torch.from_numpy(x))
        assert torch.equal(columns["key.y"], torch.from_numpy(y))


def test_lines_behind_a_url_are_items(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('[[1.5, 2], "a", 0]\n[[3, 4.5], "b", 1]\n')
    columns = reads(f"file://{tmp_path}/rows.jsonl")
    assert torch.equal(columns["0"], torch.tensor([[1.5, 2.0], [3.0, 4.5]]))
    assert (columns["1"], columns["2"].tolist()) == (["a", "b"], [0, 1])


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("x.csv", b"1,2\n", "bad_url"),
        ("x.npz", b"no zip", "bad_url"),
        ("x.safetensors", b"\x00" * 9, "bad_url"),
        ("x.jsonl", b"", "no_data"),
        ("x.jsonl", b'[[1, "a"], 0]\n', "bad_item"),
        ("y.jsonl", None, "bad_url"),
    ],
    ids=["ending", "npz", "safetensors", "empty", "list", "missing"],
)
def test_a_url_without_data_is_refused(name: str, content: bytes | None, code: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CallerError) as caught:
        read(f"file://{tmp_path}/{name}")
    assert caught.value.code == code


def test_pickled_arrays_behind_a_url_are_never_loaded(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "x.npz", x=numpy.array([Items([1])], dtype=object), allow_pickle=True)
    with pytest.raises(CallerError, match="allow_pickle=False"):
        read(f"file://{tmp_path}/x.npz")


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        ((torch.zeros(3, 2), torch.zeros(2)), "a tuple, each with the same number of examples"),
        ([torch.zeros(3, 2), torch.zeros(3)], "Whole arrays are passed as a tuple"),
        ({"x": torch.zeros(2), "y": torch.zeros(2)}, "data=(x, y)"),
        ([([1, 2], 0)] * 2, "numpy.array"),
        ([numpy.zeros(2, numpy.uint16)] * 2, ".to(torch.int32)"),
    ],
    ids=["lengths", "list of arrays", "dict of arrays", "list in an item", "uint16"],
)
def test_odd_data_is_refused_with_what_to_pass_instead(data: Any, remedy: str) -> None:
    with pytest.raises(CallerError) as caught:
        read(data)
    assert remedy in caught.value.remedy


def test_numpys_text_is_text() -> None:
    assert columns_of([(1.0, numpy.str_("a")), (2.0, numpy.str_("b"))])["1"] == ["a", "b"]


def test_equal_shards_are_refused() -> None:
    with pytest.raises(CallerError) as caught:
        read([(torch.zeros(2), 1)] * 8, clients=2)
    assert caught.value.code == "equal_shards"


def test_natural_shards_are_taken_as_they_come() -> None:
    parts = [TensorDataset(*examples(10 + i, i)) for i in range(3)]
    found = read(parts, clients=3, method=partition.parse("natural"))
    assert sorted(count for _, count in found.shards) == [10, 11, 12]
    with pytest.raises(CallerError):
        read(parts[0], method=partition.parse("natural"))


# Dealing


@given(
    st.sampled_from(["iid", "dirichlet:0.1", "dirichlet:100", "shard:2", "shard:5", "pathological:3"]),
    st.lists(st.integers(0, 4), min_size=30, max_size=200).filter(lambda labels: len(set(labels)) == 5),
    st.integers(2, 12),
    st.integers(0, 1000),
)
def test_every_example_is_dealt_once_and_nobody_is_left_out(
    text: str, labels: list[int], clients: int, seed: int
) -> None:
    method = partition.parse(text)
    hands = partition.deal(method, len(labels), labels, clients, seed)
    assert sorted(row for hand in hands for row in hand) == list(range(len(labels)))
    assert min(map(len, hands)) >= partition.MIN_SHARD
    assert hands == partition.deal(method, len(labels), labels, clients, seed)


def distinct(text: str, clients: int = 10) -> float:
    labels = [i % 10 for i in range(2000)]
    hands = partition.deal(partition.parse(text), len(labels), labels, clients, 3)
    return sum(len({labels[row] for row in hand}) for hand in hands) / clients


def test_methods_skew_labels_as_they_say() -> None:
    assert distinct("iid") == 10
    assert distinct("pathological:2") == 2
    assert distinct("shard:2") <= 3
    assert distinct("dirichlet:0.05") < distinct("dirichlet:100") == 10
    assert distinct("shard:1", 20) <= 2


@pytest.mark.parametrize("text", ["", "iid:3", "dirichlet:-1", "dirichlet:nan", "shard:1.5", "shard:0", "random"])
def test_unknown_methods_are_refused(text: str) -> None:
    with pytest.raises(CallerError, match="partition="):
        partition.parse(text)


def test_dealing_by_label_needs_labels_and_enough_hands() -> None:
    with pytest.raises(CallerError, match="no second part"):
        partition.deal(partition.parse("shard"), 10, None, 2, 0)
    with pytest.raises(CallerError, match="cannot hold"):
        partition.deal(partition.parse("pathological:2"), 100, [i % 10 for i in range(100)], 3, 0)
    with pytest.raises(CallerError, match="cannot be dealt"):
        partition.deal(partition.parse("iid"), 3, None, 2, 0)


def test_labels_are_found_where_data_sets_keep_them() -> None:
    whole: Callable[..., Any] = reading.labels
    assert whole({"0": torch.zeros(2, 3), "1": torch.tensor([1, 0])}) == [1, 0]
    assert whole({"key.x": torch.zeros(2), "key.label": ["a", "b"]}) == ["a", "b"]
    assert whole({"0": torch.zeros(2), "1": torch.zeros(2)}) is None
    assert whole({"item": torch.zeros(2)}) is None


def test_a_job_for_gpus_is_tried_here_on_the_cpu_and_differs_by_its_profile_alone(pool: UnitPool) -> None:
    usual, on_gpus = (train(pool, gpu=gpu, work=1.0) for gpu in (False, True))
    assert on_gpus.spec.profile == profile.profile_hash(profile.GPU)
    pairs = zip(usual.spec.stages, on_gpus.spec.stages, strict=True)
    timed = tuple(replace(mine, work_ms=theirs.work_ms) for mine, theirs in pairs)
    assert replace(on_gpus.spec, profile=usual.spec.profile) == replace(usual.spec, stages=timed)
    assert on_gpus.blobs == usual.blobs
    with pytest.raises(CallerError, match="another numeric profile"):
        run(on_gpus, pool)
