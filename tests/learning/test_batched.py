"""batched=True: clients computed together differ from the loop by rounding, or are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch.utils.data import TensorDataset

import tallymesh
from programs import clinic, training
from programs.bench import Bench
from tallymesh.client.job import Job
from tallymesh.client.local import LocalSource
from tallymesh.errors import CallerError
from tallymesh.ids import blob_id
from tallymesh.prepare import PreparedJob
from tallymesh.units import Unit, encode
from tallymesh_learning import data, options, side, tensors
from tallymesh_learning.cohort import TOLERANCE, Cohort, difference
from tallymesh_learning.local import LocalRun
from tallymesh_learning.options import Local
from tallymesh_learning.prepare import prepare_training
from tallymesh_learning.runtime import runner
from tallymesh_learning.runtime.pool import UnitPool
from tallymesh_learning.runtime.work import UnitFailure
from tallymesh_learning.training import Trainer

LOCAL = {"epochs": 2, "batch": 8, "lr": 0.1}
RECIPES: dict[str, Any] = {
    "some of them, random batches": {"model": training.mlp, "per_round": 3, "prepare": training.noisy},
    "momentum, decay, tied": {"model": training.Tied, "local": {**LOCAL, "momentum": 0.9, "weight_decay": 0.01}},
    "nesterov, clip, cosine, an aggregator of its own": {
        "model": training.mlp,
        "local": {**LOCAL, "momentum": 0.9, "nesterov": True, "clip": 0.3, "schedule": "cosine", "warmup": 2},
        "aggregator": clinic.Momentum,
    },
    "buffers, a fixed layer": {"model": training.convolutions},
}


def examples(count: int = 90, seed: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()


def prepare(
    pool: UnitPool, model: Any = training.mlp, loss: Any = training.cross_entropy, **changes: Any
) -> PreparedJob:
    given = {"rounds": 2, "clients": 6, "partition": "dirichlet:0.5", "local": LOCAL, "seed": 11, "work": 1.0}
    sets = {"data": TensorDataset(*examples()), "test": TensorDataset(*examples(40, 8))}
    return prepare_training(model, loss, pool=pool, **{**sets, **given, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_computed_together_they_come_as_near_to_the_loop_as_rounding_allows(pool: UnitPool, recipe: str) -> None:
    job = prepare(pool, **RECIPES[recipe])
    found = []
    for batched in (False, True):
        with LocalRun(job, pool=pool, batched=batched) as run:
            events = list(run.events())
            found.append(tensors.decode(run.blob(bytes.fromhex(events[-1].data["result"]))))
    exact, together = found
    assert tensors.same_form(together, exact) == ""
    assert difference(together, exact) <= TOLERANCE
    rounds = [event.data for event in events if event.kind == "round"]
    assert [each["round"] for each in rounds] == [1, 2]
    assert sum(each["units"] for each in rounds) == run.plan.total
    assert events[-1].data["metrics"]["accuracy"] > 0.3


@pytest.mark.slow
def test_each_client_is_as_near_to_its_own_loop() -> None:
    """Of a cohort: not only their mean."""
    made = [examples(count, seed) for seed, count in enumerate((30, 17, 9, 30))]
    shards = [data.Shard({"0": x, "1": y}) for x, y in made]
    local, seeds = Local(epochs=3, batch=8, lr=0.2, momentum=0.5), [5, 6, 7, 8]
    torch.manual_seed(1)
    net = training.mlp()
    stacks = Cohort(net, local, training.cross_entropy, shards).train([0, 1, 2, 3], seeds)
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for place, (shard, seed) in enumerate(zip(shards, seeds, strict=True)):
        net.load_state_dict(start)
        trainer = Trainer(net, local, training.cross_entropy, shard, seed=seed)
        total = 3 * trainer.steps_per_epoch
        assert len(list(trainer.run(total, total))) == total
        own = {name: stack[place] for name, stack in stacks.items()}
        assert difference(own, net.state_dict()) <= TOLERANCE
        assert difference(own, start) > 100 * TOLERANCE, "it did train"


def test_a_difference_is_of_all_weights_and_of_each_whole_number() -> None:
    one = {"a": torch.tensor([3.0, 4.0]), "n": torch.tensor(3)}
    assert difference(one, one) == 0
    assert difference({**one, "a": torch.tensor([3.0, 4.5])}, one) == pytest.approx(0.1)
    assert difference({**one, "n": torch.tensor(4)}, one) == float("inf")
    assert difference({**one, "a": torch.tensor([3.0, float("nan")])}, one) != 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": training.restless}, "draws random numbers (dropout, torch.rand), and each client needs its own"),
        ({"loss": training.looking}, "takes a value out of a tensor (.item(), if, a loop over it)"),
        ({"model": training.Recurrent}, "torch cannot compute aten::gru.input for several clients at once"),
        ({"loss": training.outside}, "away from the loop, and 1e-05 is rounding"),
        (
            {
                "loss": training.dict_loss,
                "data": [{"x": row, "y": 1, "text": str(i)} for i, row in enumerate(examples()[0])],
            },
            "their data holds text",
        ),
    ],
    ids=["dropout", "item", "gru", "numpy", "text"],
)
def test_what_cannot_be_computed_together_is_refused_before_it_starts(pool: UnitPool, changes: Any, says: str) -> None:
    if "data" in changes:
        changes = {**changes, "test": None, "partition": "iid"}
    with pytest.raises(CallerError, match="batched=True does not work for this job") as caught:
        prepare(pool, batched=True, **changes)
    assert says in caught.value.sentence
    assert "leave out batched=True" in caught.value.sentence
    if "loss" in changes and changes["loss"] is training.looking:
        assert "programs/training.py" in caught.value.sentence, "with the line"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"algorithm": "sequential"}, "has none"),
        ({"trainer": clinic.Prox}, "a trainer= of your own is a loop"),
        ({"local": {"optimizer": "adam", "lr": 0.01}}, "not adam"),
    ],
)
def test_what_is_never_computed_together_is_refused_at_once(changes: Any, says: str) -> None:
    with pytest.raises(CallerError, match=says) as caught:
        prepare_training(training.mlp, training.cross_entropy, TensorDataset(*examples()), batched=True, **changes)
    assert "Leave out batched=True" in caught.value.remedy


def test_it_is_refused_where_others_check_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALLYMESH_BACKEND", raising=False)
    with pytest.raises(CallerError, match="has to give the same bits") as caught:
        tallymesh.train(training.mlp, training.cross_entropy, TensorDataset(*examples()), batched=True, budget="1.0")
    assert 'backend="local"' in caught.value.remedy
    with pytest.raises(CallerError, match="True or False"):
        tallymesh.train(training.mlp, training.cross_entropy, [], batched=1, backend="local")  # type: ignore[arg-type]


def test_no_node_runs_it(bench: Bench, tmp_path: Any) -> None:
    """A runner without the word of a pool on the submitter's machine has no such step."""
    unit = bench.unit("tallymesh:batched")
    with pytest.raises(UnitFailure, match="no step 'batched'"):
        runner._step(unit, runner.STEPS)
    assert "batched" not in runner.STEPS


@pytest.mark.slow
def test_a_diverging_client_is_named(bench: Bench, pool: UnitPool) -> None:
    job = prepare(pool)
    stage = job.spec.stages[0]
    wild = replace(options.decode(stage.config), local=Local(epochs=2, batch=8, lr=1e30))
    spec = replace(job.spec, stages=(replace(stage, config=options.encode(wild)), job.spec.stages[1]))
    for blob in job.blobs.values():
        pool.put(blob)
    unit: Unit = side.batched(spec, pool.put(encode(spec)))
    with pytest.raises(UnitFailure, match=r"at step \d+ of client \d+ is (nan|inf)"):
        pool.run(unit)


@pytest.mark.slow
def test_an_approximate_result_says_so_wherever_it_is_shown(pool: UnitPool) -> None:
    job = prepare(pool, per_round=3)
    body = encode(job.spec)
    source = LocalSource(job.spec, blob_id(body), {**job.blobs, blob_id(body): body}, batched=True)
    found = Job(source.job_id, source).wait(progress=False)
    assert found.result.approximate
    assert "approximate" in repr(found.result)
    assert "approximate: clients were computed together" in found.result.card
    assert "- approximate: clients were computed together" in str(found.checks)
    assert (found.view.rounds_done, found.view.units_done) == (2, found.view.units)
    assert [done.index for done in found.stream()] == [1, 2]
    assert isinstance(found.result.load(), torch.nn.Module)
    source._end()
