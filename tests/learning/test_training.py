"""Segments, clients, aggregation, evaluation: the same bits however the work is cut, repeated, or ordered."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from programs.bench import Bench, config
from tallymesh import values
from tallymesh.units import Input, encode
from tallymesh_learning import data, options, tensors, training
from tallymesh_learning.federated import average
from tallymesh_learning.runtime import numeric, profile
from tallymesh_learning.runtime.pool import Done
from tallymesh_learning.runtime.work import UnitFailure, probe_step
from tallymesh_learning.steps.common import REPORTS

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


STEPS = 20
RECIPES: dict[str, Any] = {
    "plain sgd": {"model": "mlp", "local": {"batch": 8, "lr": 0.1}},
    "momentum": {"model": "restless", "local": {"batch": 8, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}},
    "adam, cosine": {
        "model": "restless",
        "local": {"batch": 7, "optimizer": "adam", "lr": 0.01, "schedule": "cosine", "warmup": 3, "clip": 0.5},
    },
    "adamw, tied": {"model": "Tied", "local": {"batch": 16, "optimizer": "adamw", "lr": 0.01}},
}


def shard(examples: int = 50, seed: int = 5) -> bytes:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, 6, generator=generator)
    return data.encode(data.Shard({"0": x, "1": (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()}))


def segment(bench: Bench, recipe: str, state: bytes, steps: int, **more: Any) -> Done:
    settings = config(**RECIPES[recipe], steps=steps, total=STEPS)
    return bench.step("segment", settings, state=state, data=shard(), **more)


@pytest.mark.parametrize("steps", [1, 8, 9, 15, 20])
def test_a_unit_tells_its_loss_a_few_times_and_the_last_step_always(bench: Bench, steps: int) -> None:
    whole = segment(bench, "plain sgd", bench.initial("mlp"), steps)
    told = [event.payload for event in bench.events if event.kind == "metric"]
    assert 1 <= len(told) <= REPORTS
    assert {name for name, _ in told} == {"loss"}
    assert whole.steps == steps
    if steps == 1:
        assert told == [["loss", pytest.approx(json.loads(whole.metrics)["loss"])]]
    shorter = segment(bench, "plain sgd", bench.initial("mlp"), steps - 1) if steps > 1 else None
    if shorter is not None:  # the newest value is of the last step: a run without that step does not have it
        assert told[-1] not in [event.payload for event in bench.events]


@pytest.mark.parametrize("recipe", RECIPES)
def test_how_a_training_is_cut_into_segments_changes_no_bit(bench: Bench, recipe: str) -> None:
    start = bench.initial(RECIPES[recipe]["model"])
    whole = segment(bench, recipe, start, STEPS).output
    assert segment(bench, recipe, start, STEPS).output == whole, "a repeat has the same bits"
    state = start
    for index in range(3):  # the last one is shorter
        state = segment(bench, recipe, state, 7, seed=index).output  # a segment's own seed plays no part
    assert state == whole


def test_a_training_that_is_over_has_no_further_segment(bench: Bench) -> None:
    end = segment(bench, "plain sgd", bench.initial("mlp"), STEPS).output
    with pytest.raises(UnitFailure, match="over at step 20"):
        segment(bench, "plain sgd", end, 5)


def test_the_state_holds_all_that_a_successor_needs(bench: Bench) -> None:
    state = tensors.decode(segment(bench, "adam, cosine", bench.initial("restless"), 9).output)
    assert int(state["step"]) == 9
    assert (int(state["data.epoch"]), int(state["data.position"])) == (1, 2)  # 50 examples by 7: 7 batches, 8 - 1
    assert {name.split(".")[0] for name in state} == {"model", "optimizer", "data", "step"}
    assert state["model.1.num_batches_tracked"].shape == ()
    assert "optimizer.0.weight.exp_avg_sq" in state
    assert not any("noise" in name for name in state)


@pytest.mark.parametrize("recipe", ["momentum", "adam, cosine"])
def test_a_probe_is_the_keyed_hash_of_the_whole_state_after_its_step(bench: Bench, recipe: str) -> None:
    start = bench.initial("restless")
    unwatched = segment(bench, recipe, start, 12).output
    keys = [blake3(f"key {number}".encode()).digest() for number in range(2)]
    assert len({probe_step(key, 12) for key in keys}) == 2
    for key in keys:
        done = segment(bench, recipe, start, 12, probe_key=key)
        state = segment(bench, recipe, start, probe_step(key, 12)).output
        assert done.probe == blake3(state, key=key).digest()
        assert done.output == unwatched, "looking changes nothing"


@given(st.binary(min_size=32, max_size=32), st.integers(1, 1000))
def test_probes_are_taken_in_the_second_half(key: bytes, steps: int) -> None:
    assert steps / 2 < probe_step(key, steps) <= steps


def test_a_clients_probe_covers_the_optimizer_that_its_update_leaves_out(bench: Bench) -> None:
    settings = config("restless", local={"batch": 8, "lr": 0.1, "momentum": 0.9})
    start, key = bench.initial("restless"), bytes(range(32))
    done = bench.step("client", settings, state=start, data=shard(), probe_key=key)
    assert len(done.probe) == 32
    assert done.probe != blake3(done.output, key=key).digest()
    assert bench.step("client", settings, state=start, data=shard()).probe == b""
    assert bench.step("client", settings, state=start, data=shard(), probe_key=key).probe == done.probe


def test_a_cold_interpreter_gives_the_bits_and_the_class_of_a_warm_fork(bench: Bench, tmp_path: Path) -> None:
    settings = config(**RECIPES["adam, cosine"], steps=STEPS, total=STEPS)
    inputs = {"state": bench.initial("restless"), "data": shard()}
    unit = bench.unit("tallymesh:segment", options.encode(settings), inputs=inputs)
    (tmp_path / "in" / "blobs").mkdir(parents=True)
    (tmp_path / "in" / "unit").write_bytes(encode(unit))
    for blob in (unit.program, *(item.blob for item in unit.inputs)):
        (tmp_path / "in" / "blobs" / blob.hex()).write_bytes(bench.pool.get(blob))
    code = (
        "import sys; from pathlib import Path; from tallymesh_learning.runtime import canary, runner; "
        "fine = runner.run_unit(Path(sys.argv[1]), lambda kind, payload: None); canary.main(); sys.exit(not fine)"
    )
    environment = {"PATH": os.environ["PATH"], **profile.environment()}
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    report = json.loads(subprocess.check_output(command, env=environment, timeout=120))
    assert bytes.fromhex(report["class"]) == bench.call("canary")
    assert bytes.fromhex(report["profile"]) == profile.profile_hash()
    assert report["cpu_score"] > 0
    assert (tmp_path / "out" / "output").read_bytes() == bench.run(unit).output


def test_a_clients_update_is_the_whole_model_and_its_number_of_examples(bench: Bench) -> None:
    start = bench.initial("mlp")
    done = bench.step("client", config(local={"batch": 8, "epochs": 2}), state=start, data=shard(50))
    update = tensors.decode(done.output)
    assert int(update.pop("examples")) == 50
    assert tensors.same_form(update, {k: v for k, v in tensors.decode(start).items() if k != "step"}) == ""
    assert done.steps == 14
    assert b'"examples":50.0' in done.metrics
    other = bench.step("client", config(local={"batch": 8, "epochs": 2}), seed=2, state=start, data=shard(50))
    assert other.output != done.output, "the order of the data follows from the unit's seed"


# Aggregation


Updates = tuple[bytes, list[tuple[str, bytes]]]


@pytest.fixture(scope="module")
def updates(bench: Bench) -> Updates:
    """A checkpoint, and what four participants made of it."""
    start = bench.initial("restless")
    settings = config("restless")
    found = []
    for index in range(4):
        part = shard(11 + 3 * index, seed=index)
        update = bench.step("client", settings, seed=index, state=start, data=part).output
        found.append((blake3(part).hexdigest(), update))
    return start, sorted(found)


def test_an_aggregate_does_not_depend_on_the_order_in_which_updates_are_named(bench: Bench, updates: Updates) -> None:
    start, found = updates
    names = {f"update/{name}": update for name, update in found}
    unit = bench.unit("tallymesh:aggregate", inputs={"state": start, **names})
    wanted = bench.run(unit).output
    for order in itertools.islice(itertools.permutations(unit.inputs), 3, 100, 40):
        assert bench.run(replace(unit, inputs=tuple(order))).output == wanted
    state = tensors.decode(wanted)
    assert int(state["step"]) == 1
    assert "examples" not in state


def test_an_aggregate_is_the_weighted_mean(bench: Bench, updates: Updates) -> None:
    start, found = updates
    done = bench.step("aggregate", None, state=start, **{f"update/{name}": update for name, update in found})
    decoded = [tensors.decode(update) for _, update in found]
    total = sum(int(update["examples"]) for update in decoded)
    for name, tensor in tensors.decode(done.output).items():
        if tensor.is_floating_point():
            mean = sum(update[name].double() * int(update["examples"]) / total for update in decoded)
            assert torch.allclose(tensor.double(), mean, rtol=1e-6)
    assert done.metrics == b'{"clients":4.0,"examples":%d.0}' % total


def test_whole_numbers_and_booleans_are_averaged_without_becoming_fractions() -> None:
    large = (1 << 60) + 1
    assert average([torch.tensor(large)] * 3, [1, 2, 3]).item() == large
    assert average([torch.tensor(1), torch.tensor(4)], [1, 1]).item() == 2  # 2.5 to the even neighbour
    assert average([torch.tensor(1), torch.tensor(4)], [1, 2]).item() == 3
    assert average([torch.tensor([True, False])] * 2, [1, 1]).tolist() == [True, False]
    assert average([torch.tensor([True, True]), torch.tensor([False, True])], [1, 2]).tolist() == [False, True]


@given(st.lists(st.tuples(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 1000)), min_size=1, max_size=20))
def test_the_mean_of_equal_updates_is_that_update(rows: list[tuple[float, int]]) -> None:
    counts = [count for _, count in rows]
    value = torch.tensor([rows[0][0]])
    assert torch.equal(average([value] * len(rows), counts), value)


def spoil(update: bytes, **changes: Any) -> bytes:
    state = tensors.decode(update)
    for name, change in changes.items():
        key = {"weight": "model.0.weight", "extra": "model.9.weight"}.get(name, name)
        state[key] = change(state.get(key))
    return tensors.encode({name: tensor for name, tensor in state.items() if tensor is not None})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": lambda t: t * float("nan")}, "NaN"),
        ({"weight": lambda t: t[:1]}, r"model\.0\.weight is torch\.float32"),
        ({"weight": lambda t: t.double()}, "float64"),
        ({"weight": lambda t: None}, "does not hold the tensors"),
        ({"extra": lambda t: torch.zeros(1)}, "does not hold the tensors"),
        ({"examples": lambda t: torch.tensor(0)}, "impossible number"),
        ({"examples": lambda t: torch.tensor(1 << 40)}, "impossible number"),
        ({"examples": lambda t: t.float()}, "impossible number"),
    ],
    ids=["nan", "shape", "dtype", "missing", "extra", "none", "many", "float"],
)
def test_an_update_of_another_form_is_refused_and_named(
    bench: Bench, updates: Updates, changes: Any, says: str
) -> None:
    start, ((name, update), (other, fine), *_) = updates
    inputs = {f"update/{name}": spoil(update, **changes), f"update/{other}": fine}
    with pytest.raises(UnitFailure, match=says) as caught:
        bench.step("aggregate", None, state=start, **inputs)
    assert caught.value.code == "inputs"
    assert name in caught.value.sentence


def test_bytes_that_are_no_tensors_are_refused(bench: Bench) -> None:
    with pytest.raises(UnitFailure, match="cannot be read") as caught:
        bench.step("aggregate", None, state=bench.initial("mlp"), **{"update/a": b"garbage"})
    assert caught.value.code == "inputs"


# Refusals while training


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": "exploding"}, "at step 1 is"),
        ({"loss": "not_scalar"}, "not a scalar"),
        ({"loss": "broken"}, "IndexError"),
        ({"local": {"batch": 8, "lr": 1e30}}, "lower learning rate"),
        ({"model": "not_a_model"}, "not an nn.Module"),
    ],
    ids=["inf", "shape", "error", "diverges", "model"],
)
def test_what_cannot_be_trained_fails_as_the_programs_fault(bench: Bench, changes: Any, says: str) -> None:
    with pytest.raises(UnitFailure, match=says) as caught:
        bench.step("client", config(**changes), state=bench.initial("mlp"), data=shard())
    assert caught.value.code == "program"


def test_a_state_with_nan_or_of_another_model_is_refused(bench: Bench) -> None:
    start = bench.initial("mlp")
    for state, says in (
        (spoil(start, weight=lambda t: t * float("inf")), "NaN or infinity"),
        (bench.initial("restless"), "not of this model"),
        (start[:-1], "cannot be read"),
    ):
        with pytest.raises(UnitFailure, match=says) as caught:
            bench.step("client", config(), state=state, data=shard())
        assert caught.value.code == "inputs"


def test_a_model_without_shapes_is_refused(bench: Bench) -> None:
    with pytest.raises(UnitFailure, match="has no shape yet"):
        bench.initial("lazy")


# Looking at a checkpoint


def test_evaluation_gives_loss_and_accuracy(bench: Bench) -> None:
    trained = segment(bench, "plain sgd", bench.initial("mlp"), STEPS).output
    done = bench.step("evaluate", config(batch=16), state=trained, data=shard(70, seed=9))
    metrics = values.decode(done.output)
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    state = tensors.decode(trained)
    net.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    held = data.decode(shard(70, seed=9))
    answers = net(held.columns["0"]).detach()
    assert metrics["examples"] == 70
    assert metrics["accuracy"] == pytest.approx(float((answers.argmax(1) == held.columns["1"]).float().mean()))
    loss = float(torch.nn.functional.cross_entropy(answers, held.columns["1"]))
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    again = bench.step("evaluate", config(batch=16), state=trained, data=shard(70, seed=9))
    assert again.output == done.output


def test_items_with_text_are_trained_and_evaluated_without_accuracy(bench: Bench) -> None:
    held = data.decode(shard(10))
    named = {"key.x": held.columns["0"], "key.y": held.columns["1"], "key.text": [str(i) * 3 for i in range(10)]}
    blob = data.encode(data.Shard(named))
    settings = config(loss="dict_loss")
    update = bench.step("client", settings, state=bench.initial("mlp"), data=blob)
    assert update.steps == 2
    metrics = values.decode(bench.step("evaluate", settings, state=bench.initial("mlp"), data=blob).output)
    assert sorted(metrics) == ["examples", "loss"]


def test_the_loss_check_tells_work_from_noise(bench: Bench) -> None:
    start = bench.initial("mlp")
    settings = config(local={"batch": 8, "lr": 0.3, "epochs": 10})
    honest = bench.step("client", settings, state=start, data=shard()).output
    noise = spoil(honest, weight=lambda t: t + 30 * torch.randn(t.shape, generator=torch.Generator().manual_seed(1)))
    after = {}
    for name, end in (("honest", honest), ("noise", noise)):
        found = values.decode(bench.step("loss_check", settings, state=start, end=end, data=shard()).output)
        after[name] = found["loss_after"] - found["loss_before"]
    assert after["honest"] < 0 < after["noise"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": lambda t: t * float("nan")}, "NaN"),
        ({"weight": lambda t: t[:2]}, "model.0.weight"),
        ({"extra": lambda t: torch.zeros(1)}, "not expected"),
        ({"examples": lambda t: None}, "nothing stands where"),
        ({"optimistic": lambda t: torch.zeros(1)}, "optimistic"),
        ({"examples": lambda t: t * 1000}, "as many as the shard holds"),
        ({"examples": lambda t: t.float()}, "as many as the shard holds"),
        ({"optimizer.0.weight.exp_avg": lambda t: torch.zeros(1)}, "stands where"),
        ({"examples": lambda t: None, "step": lambda t: torch.tensor(1)}, "step stands where"),
    ],
    ids=["nan", "shape", "extra", "no examples", "other name", "many examples", "float", "optimizer", "a whole state"],
)
def test_the_loss_check_refuses_a_wrong_form(bench: Bench, changes: Any, says: str) -> None:
    start = bench.initial("mlp")
    end = spoil(bench.step("client", config(), state=start, data=shard()).output, **changes)
    with pytest.raises(UnitFailure, match=says) as caught:
        bench.step("loss_check", config(), state=start, end=end, data=shard())
    assert caught.value.code == "form"


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_loss_check_takes_every_honest_segment(bench: Bench, recipe: str) -> None:
    state = bench.initial(RECIPES[recipe]["model"])
    settings = config(**RECIPES[recipe], steps=12, total=STEPS)
    for _ in range(2):  # the second one is cut short by the end of the training
        end = bench.step("segment", settings, state=state, data=shard()).output
        found = values.decode(bench.step("loss_check", settings, state=state, end=end, data=shard()).output)
        assert sorted(found) == ["loss_after", "loss_before"]
        state = end


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step": lambda t: t + 1}, "at step"),
        ({"data.position": lambda t: t * 0 + 1}, "step"),
        ({"data.epoch": lambda t: None}, "stands where"),
        ({"examples": lambda t: torch.tensor(50)}, "examples"),
        ({"optimizer.0.weight.exp_avg": lambda t: t[:2]}, "does not keep"),
        ({"optimizer.0.weight.exp_avg": lambda t: t.long()}, "does not keep"),
        ({"optimizer.0.weight.exp_avg": lambda t: None}, "lacks a part"),
        ({"optimizer.0.weight.momentum_buffer": lambda t: torch.zeros(16, 6)}, "does not keep"),
        ({"optimizer.7.weight.exp_avg": lambda t: torch.zeros(1)}, "no such parameter"),
        ({"weight": lambda t: t * float("nan")}, "NaN"),
    ],
)
def test_the_loss_check_refuses_a_segment_that_the_next_one_cannot_resume(
    bench: Bench, changes: Any, says: str
) -> None:
    start = bench.initial("mlp")
    settings = config(local={"batch": 8, "lr": 0.1, "optimizer": "adam"}, steps=10, total=STEPS)
    end = spoil(bench.step("segment", settings, state=start, data=shard()).output, **changes)
    with pytest.raises(UnitFailure, match=says) as caught:
        bench.step("loss_check", settings, state=start, end=end, data=shard())
    assert caught.value.code == "form"


# Bytes of states and shards

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int8, torch.uint8, torch.bool]


@given(
    st.dictionaries(
        st.text('ab."\\ä', max_size=4),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)),
        max_size=5,
    )
)
def test_our_bytes_of_tensors_are_the_librarys(forms: dict[str, tuple[torch.dtype, list[int]]]) -> None:
    state = {name: torch.ones(shape).to(dtype) for name, (dtype, shape) in forms.items()}
    blob = tensors.encode(state)
    assert blob == safetensors.torch.save(state)
    back = tensors.decode(blob)
    assert tensors.same_form(back, state) == ""
    assert all(torch.equal(back[name], state[name]) for name in state)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_shard_and_a_state_or_are_refused(blob: bytes) -> None:
    for decode in (tensors.decode, data.decode):
        try:
            decode(blob)
        except tensors.BadTensors:
            continue


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"0": torch.zeros(3), "2": torch.zeros(3)},
        {"0": torch.zeros(3), "1": torch.zeros(4)},
        {"item": torch.tensor(1.0)},
        {"item": torch.zeros(0, 2)},
        {"key.a": torch.zeros(2), "0": torch.zeros(2)},
    ],
    ids=["nothing", "gap", "lengths", "scalar", "empty", "mixed"],
)
def test_columns_that_are_no_shard_are_refused(columns: dict[str, torch.Tensor]) -> None:
    with pytest.raises(tensors.BadTensors):
        data.decode(tensors.encode(columns))


@given(st.integers(1, 200), st.integers(1, 50))
def test_batches_cover_every_example_once_and_none_is_a_single_one(examples: int, batch: int) -> None:
    spans = data.spans(examples, batch)
    assert [row for start, end in spans for row in range(start, end)] == list(range(examples))
    assert len(spans) == options.steps_per_epoch(examples, batch)
    if batch > 1 and examples > 1:
        assert all(end - start > 1 for start, end in spans)
    order = data.order(examples, 3, 1)
    assert sorted(order) == list(range(examples))
    assert order == data.order(examples, 3, 1)


def test_options_are_checked_by_name() -> None:
    from tallymesh.errors import CallerError

    for given_options, says in (
        ({"epoch": 1}, "epoch"),
        ({"lr": -1}, "lr"),
        ({"batch": 0}, "batch"),
        ({"optimizer": "sgdd"}, "optimizer"),
        ({"lr": float("nan")}, "lr"),
        ({"nesterov": True}, "nesterov"),
        ("epochs=1", "a str"),
    ):
        with pytest.raises(CallerError, match=says) as caught:
            options.local(given_options)
        assert caught.value.remedy


def test_inputs_named_twice_are_refused() -> None:
    from tallymesh.errors import RemoteError
    from tallymesh.units import Unit, decode_unit

    unit = Unit(bytes(32), "tallymesh:aggregate", (Input("update/a", bytes(32)),) * 2, b"{}", 0, bytes(32))
    with pytest.raises(RemoteError, match="one name"):
        decode_unit(encode(unit))


class Pair(NamedTuple):
    x: torch.Tensor
    y: Any


def test_batches_and_optimizers_go_where_the_unit_computes_and_texts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown with a device that has no memory: no card is here."""
    batch = [torch.zeros(2, 3), ["one", "two"], {"mask": torch.ones(2), "text": ["a", "b"]}]
    assert training.to_device(batch) is batch, "on the CPU nothing is touched"
    monkeypatch.setattr(numeric, "_device", torch.device("meta"))
    moved = training.to_device(batch)
    assert [moved[0].device.type, moved[2]["mask"].device.type] == ["meta", "meta"]
    assert (moved[0].shape, moved[1], moved[2]["text"]) == ((2, 3), ["one", "two"], ["a", "b"])
    packed = torch.nn.utils.rnn.pack_sequence([torch.ones(2, 3)])
    named = training.to_device(Pair(torch.ones(2), packed))
    assert type(named) is Pair
    assert [named.x.device.type, named.y.data.device.type] == ["meta", "meta"]
    net = torch.nn.Linear(3, 1).to("meta")
    local = options.Local(optimizer="adam", batch=2)
    trainer = training.Trainer(net, local, lambda *_: None, data.Shard({"item": torch.zeros(4, 3)}), seed=1)  # type: ignore[arg-type, return-value]
    state = {name: torch.tensor(number) for name, number in (("step", 1), ("data.epoch", 0), ("data.position", 1))}
    for name, parameter in net.named_parameters():
        for key in training.OPTIMIZER_KEYS["adam"]:
            shape = () if key == "step" else parameter.shape
            state[f"optimizer.{name}.{key}"] = torch.ones(shape)
    trainer.resume(state)
    kept = trainer._optimizer.state[net.weight]
    assert {key: value.device.type for key, value in kept.items()} == {
        "step": "cpu", "exp_avg": "meta", "exp_avg_sq": "meta",
    }  # fmt: skip
