"""ClientTrainer and ServerAggregator: what a program puts in their place runs as units like any other, equal to plain
training where it does the same, and is told what is wrong with it by its own line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from programs import clinic, training
from programs.bench import Bench, config
from tallymesh.capture import capture
from tallymesh.errors import CallerError
from tallymesh.prepare import PreparedJob
from tallymesh.units import Input, Unit, canonical_json
from tallymesh_learning import ClientTrainer, ServerAggregator, Shard, data, tensors
from tallymesh_learning.local import LocalRun
from tallymesh_learning.prepare import prepare_training
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.pool import Done, UnitPool
from tallymesh_learning.runtime.work import UnitFailure

LOCAL = {"epochs": 2, "batch": 8, "lr": 0.1}
KEY = bytes(range(32))


def examples(count: int = 50, seed: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def shard(count: int = 50, seed: int = 4) -> bytes:
    return data.encode(Shard(dict(zip("01", examples(count, seed), strict=True))))


def unit(bench: Bench, step: str, settings: bytes, **inputs: bytes) -> Unit:
    """Of a program that holds the clinic, too."""
    classes = [each for each in vars(clinic).values() if getattr(each, "__module__", "") == clinic.__name__]
    program = bench.pool.put(capture(training.mlp, training.cross_entropy, *classes).archive)
    named = tuple(Input(name, bench.pool.put(blob)) for name, blob in inputs.items())
    return Unit(program, f"tallymesh:{step}", named, settings, 7, profile.profile_hash())


def client(bench: Bench, trainer: str, probe_key: bytes = b"", model: str = "mlp") -> Done:
    from tallymesh_learning import options

    named = f"{clinic.__name__}:{trainer}" if trainer else ""
    settings = options.encode(config(model, local=LOCAL, trainer=named))
    return bench.run(unit(bench, "client", settings, state=bench.initial(model), data=shard()), probe_key=probe_key)


def aggregate(bench: Bench, aggregator: str, state: bytes, *updates: bytes) -> Done:
    settings = canonical_json({"aggregator": f"{clinic.__name__}:{aggregator}"} if aggregator else {})
    named = {f"update/{index}": update for index, update in enumerate(updates)}
    return bench.run(unit(bench, "aggregate", settings, state=state, **named))


def line_of(kind: type, method: str) -> str:
    code = vars(kind)[method].__code__
    return f"programs/clinic.py:{code.co_firstlineno}: {kind.__qualname__}.{method}"


# The same bits


@pytest.mark.slow
def test_a_trainer_that_does_what_plain_training_does_gives_its_bits(bench: Bench) -> None:
    plain = client(bench, "", KEY)
    for trainer in ("Same", "Loop"):
        done = client(bench, trainer, KEY)
        assert (done.output, done.metrics, done.steps) == (plain.output, plain.metrics, plain.steps)
        assert len(done.probe) == 32, "an auditor can prove that it computed it"
    assert client(bench, "Same", KEY).probe == plain.probe


@pytest.mark.slow
def test_a_trainer_of_ones_own_is_a_pure_function_of_its_unit(bench: Bench) -> None:
    """The random numbers of a trainer follow from the unit: whoever computes it again gets the same bits."""
    done = client(bench, "Noisy")
    assert done.output == client(bench, "Noisy").output
    assert done.output != client(bench, "").output


@pytest.mark.slow
def test_a_trainer_weighs_the_examples_it_used_and_logs(bench: Bench) -> None:
    done = client(bench, "Prox")
    assert int(tensors.decode(done.output)["examples"]) == 49
    metrics = json.loads(done.metrics)
    assert (metrics["round"], metrics["steps"]) == (1, 14)
    assert 0 < metrics["draw"] < 1
    assert metrics["loss"] > 0
    told = [event.payload for event in bench.events if event.kind == "metric" and event.payload[0] == "loss"]
    assert 1 < len(told) <= 8
    settings = config(local=LOCAL, trainer=f"{clinic.__name__}:Prox")
    from tallymesh_learning import options

    checked = unit(
        bench, "loss_check", options.encode(settings), state=bench.initial("mlp"), end=done.output, data=shard()
    )
    found = json.loads(bench.run(checked).metrics)
    assert found["loss_after"] < found["loss_before"]


@pytest.mark.slow
def test_an_aggregator_that_does_what_plain_aggregation_does_gives_its_bits(bench: Bench) -> None:
    start = bench.initial("mlp")
    updates = [client(bench, trainer).output for trainer in ("", "Prox", "Noisy")]
    assert aggregate(bench, "SameMean", start, *updates).output == aggregate(bench, "", start, *updates).output


@pytest.mark.slow
def test_what_an_aggregator_remembers_is_there_in_the_next_round(bench: Bench) -> None:
    start, update = bench.initial("mlp"), client(bench, "Prox").output
    first = aggregate(bench, "Momentum", start, update)
    second = aggregate(bench, "Momentum", first.output, update)
    states = [tensors.decode(blob) for blob in (start, first.output, second.output)]
    name = "model.0.weight"
    goal = tensors.decode(update)[name]
    speed = 0.9 * (goal - states[0][name]) + (goal - states[1][name])
    assert torch.allclose(states[2][name], states[1][name] + speed, atol=1e-6)
    assert torch.allclose(states[2]["server.0.weight"], speed, atol=1e-6)
    assert [json.loads(done.metrics)["round"] for done in (first, second)] == [1, 2]


# What is wrong is told with the line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (clinic.Forgets, "returned a NoneType, not weights and a number of examples"),
        (clinic.Diverges, "returned NaN or infinity in 0.bias"),
        (clinic.Widens, "0.bias is torch.float64 [16], not torch.float32 [16]; return model.state_dict()"),
        (clinic.Parameters, "returned a list for the weights"),
        (clinic.Boasts, "returned 500 (int) for the number of examples, which is a whole number from 1 to 50"),
    ],
)
def test_what_a_trainer_may_not_return_is_told_with_its_line(bench: Bench, kind: type, says: str) -> None:
    with pytest.raises(UnitFailure) as caught:
        client(bench, kind.__name__)
    assert caught.value.code == "program"
    assert line_of(kind, "train") in caught.value.sentence
    assert says in caught.value.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (clinic.Lists, "returned a list for the weights: return a dict with a tensor for each name in ctx.weights"),
        (clinic.Drops, "0.bias is missing"),
        (clinic.Hoards, "left 'rounds' (int) in ctx.memory"),
    ],
)
def test_what_an_aggregator_may_not_return_is_told_with_its_line(bench: Bench, kind: type, says: str) -> None:
    with pytest.raises(UnitFailure) as caught:
        aggregate(bench, kind.__name__, bench.initial("mlp"), client(bench, "").output)
    assert caught.value.code == "program"
    assert line_of(kind, "aggregate") in caught.value.sentence
    assert says in caught.value.sentence


@pytest.mark.slow
def test_an_entry_that_is_no_trainer_is_refused_where_it_runs(bench: Bench) -> None:
    with pytest.raises(UnitFailure, match="is not a subclass of ClientTrainer"):
        client(bench, "Stranger")


def prepare(pool: UnitPool, **changes: Any) -> PreparedJob:
    given = {"rounds": 2, "clients": 4, "local": LOCAL, "seed": 11, **changes}
    return prepare_training(training.mlp, training.cross_entropy, TensorDataset(*examples(60)), pool=pool, **given)


@pytest.mark.slow
def test_a_trainer_that_fails_does_so_before_anything_is_sent(pool: UnitPool) -> None:
    with pytest.raises(CallerError, match=r"cannot train[\s\S]*the ward is closed[\s\S]*programs/clinic\.py"):
        prepare(pool, trainer=clinic.Raises)
    with pytest.raises(CallerError, match=r"cannot be averaged: programs/clinic\.py:\d+: Drops\.aggregate"):
        prepare(pool, aggregator=clinic.Drops)


@pytest.mark.parametrize(
    ("changes", "says", "remedy"),
    [
        ({"trainer": clinic.Same()}, "trainer= is a Same that exists already", "trainer=Same"),
        ({"trainer": clinic.Stranger}, "is no subclass of ClientTrainer", "class Mine(ClientTrainer)"),
        ({"trainer": clinic.SameMean}, "is no subclass of ClientTrainer", "def train(self, model, data, ctx)"),
        ({"trainer": "Prox"}, "is no subclass of ClientTrainer", "class Mine"),
        ({"aggregator": clinic.Same}, "is no subclass of ServerAggregator", "def aggregate(self, updates, ctx)"),
        ({"trainer": clinic.Picky}, "A unit calls Picky(), and that does not take it", "def train"),
        ({"trainer": clinic.Short}, "A unit calls Short().train(model, data, ctx)", "def train"),
        ({"trainer": clinic.Same, "algorithm": "sequential"}, "has none", "fedavg"),
    ],
)
def test_what_cannot_stand_in_for_them_is_refused_before_a_process_is_started(
    changes: Any, says: str, remedy: str
) -> None:
    with pytest.raises(CallerError) as caught:
        prepare_training(training.mlp, training.cross_entropy, TensorDataset(*examples(60)), **changes)
    assert says in caught.value.sentence
    assert remedy in caught.value.remedy


@pytest.mark.slow
def test_a_job_with_both_of_ones_own_runs_and_the_bases_change_nothing(pool: UnitPool) -> None:
    plain = prepare(pool, work=1.0)
    assert (
        prepare(pool, work=1.0, trainer=ClientTrainer, aggregator=ServerAggregator).spec.stages[0]
        == plain.spec.stages[0]
    )
    ends = []
    for job in (plain, prepare(pool, trainer=clinic.Same, aggregator=clinic.SameMean)):
        with LocalRun(job, pool=pool) as run:
            *_, last = run.events()
        ends.append(last.data["result"])
    assert ends[0] == ends[1], "one hash, whoever wrote the loop"


def test_a_shard_is_a_data_set_of_its_items() -> None:
    x, y = examples(5)
    pairs = Shard({"0": x, "1": y})
    assert len(pairs) == 5
    assert torch.equal(pairs[3][0], x[3])
    assert [len(batch[0]) for batch in DataLoader(pairs, batch_size=2)] == [2, 2, 1]  # type: ignore[arg-type]
    assert Shard({"key.text": ["a", "b"]})[1] == {"text": "b"}
    assert torch.equal(Shard({"item": x})[-1], x[4])
    with pytest.raises(IndexError):
        pairs[5]


def test_the_learning_package_gives_its_classes_without_importing_torch_for_the_rest() -> None:
    import subprocess
    import sys

    code = (
        "import sys, tallymesh_learning\nfrom tallymesh_learning import options, side\n"
        "assert 'torch' not in sys.modules\nassert 'ClientTrainer' in dir(tallymesh_learning)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600, cwd=Path(inspect.getfile(clinic)).parent)
