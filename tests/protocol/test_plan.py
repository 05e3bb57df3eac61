"""Plans: units follow from the template and known outputs alone, in whatever order outputs become known."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from tallymesh.ids import BlobId, UnitId
from tallymesh.plan import AGGREGATE, Plan, Task, belongs, build_unit, derive_seed, participants
from tallymesh.units import Input, JobSpec, Stage


def digest(text: str) -> bytes:
    return blake3(text.encode()).digest()


def federated(clients: int = 4, rounds: int = 3, per_round: int = 0, seed: int = 7) -> JobSpec:
    stages = (Stage("client", "tallymesh:client", b"{}", 1), Stage("aggregate", "tallymesh:aggregate", b"{}", 1))
    shards = tuple(sorted(digest(f"shard {i}") for i in range(clients)))
    return JobSpec(
        "federated",
        digest("program"),
        digest("profile"),
        seed,
        stages,
        shards,
        initial=digest("zero"),
        rounds=rounds,
        per_round=per_round,
    )


def sequential(rounds: int = 5) -> JobSpec:
    stage = (Stage("segment", "tallymesh:segment", b"{}", 1),)
    shard = (digest("data"),)
    return JobSpec(
        "sequential", digest("program"), digest("profile"), 7, stage, shard, initial=digest("0"), rounds=rounds
    )


def mapping(items: int = 6) -> JobSpec:
    stage = (Stage("map", "module:function", b"{}", 1),)
    blobs = tuple(digest(f"item {i % 4}") for i in range(items))  # two items are equal: still two units
    return JobSpec("map", digest("program"), digest("profile"), 7, stage, blobs, (Input("kwargs", digest("kwargs")),))


SPECS = {"federated": federated(), "drawn": federated(6, 3, 2), "sequential": sequential(), "map": mapping()}


def output_of(task: Task) -> BlobId:
    return BlobId(blake3(b"output of" + task.unit_id).digest())


def finish(plan: Plan, order: random.Random | None = None) -> list[Task]:
    done = []
    while not plan.finished:
        tasks = list(plan.ready())
        assert tasks, "a plan that is not finished has something to run"
        if order is not None:
            order.shuffle(tasks)
            tasks = tasks[: order.randint(1, len(tasks))]
        for task in tasks:
            plan.record(task.unit_id, output_of(task))
            done.append(task)
    return done


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_unit_runs_once_and_belongs_to_the_job(spec: JobSpec) -> None:
    plan = Plan(spec)
    done = finish(plan)
    assert len(done) == len({task.unit_id for task in done}) == plan.total
    assert not list(plan.ready())
    for task in done:
        assert belongs(spec, task.unit)


@pytest.mark.slow
@given(st.sampled_from(sorted(SPECS)), st.randoms(use_true_random=False))
def test_the_order_in_which_outputs_arrive_changes_nothing(name: str, order: random.Random) -> None:
    spec = SPECS[name]
    straight, shuffled = Plan(spec), Plan(spec)
    wanted = {task.unit_id for task in finish(straight)}
    assert {task.unit_id for task in finish(shuffled, order)} == wanted
    assert shuffled.results() == straight.results()
    assert shuffled.state == straight.state


@pytest.mark.slow
@given(st.sampled_from(sorted(SPECS)), st.randoms(use_true_random=False))
def test_forgotten_outputs_are_run_again_and_only_what_used_them_changes(name: str, order: random.Random) -> None:
    spec = SPECS[name]
    plan = Plan(spec)
    done = finish(plan)
    void = order.sample(done, order.randint(1, len(done)))
    plan.forget({task.unit_id for task in void})
    assert not plan.finished
    known = {task.unit_id for task in done} - {task.unit_id for task in void}
    again = finish(plan)
    assert {task.unit_id for task in again} == {task.unit_id for task in void}  # honest outputs are the same
    assert not {task.unit_id for task in again} & known
    assert plan.results() == _finished(spec).results()


def test_what_used_a_void_output_is_computed_again_from_the_honest_one() -> None:
    plan = Plan(federated())
    first = list(plan.ready())
    cheat = first[1]
    for task in first:
        plan.record(task.unit_id, BlobId(digest("noise")) if task is cheat else output_of(task))
    tainted = finish(plan)
    plan.forget({cheat.unit_id})
    assert plan.rounds_done == 0
    assert [task.unit_id for task in plan.ready()] == [cheat.unit_id]
    again = finish(plan)
    assert not {task.unit_id for task in again} & {task.unit_id for task in tainted}
    assert plan.results() == _finished(federated()).results()
    assert len(again) == plan.total - len(first) + 1


@pytest.mark.slow
@given(st.sampled_from(sorted(SPECS)), st.randoms(use_true_random=False))
def test_recording_and_forgetting_twice_is_recording_and_forgetting_once(name: str, order: random.Random) -> None:
    spec = SPECS[name]
    once, twice = Plan(spec), Plan(spec)
    for task in finish(Plan(spec)):
        if order.random() < 0.7:
            once.record(task.unit_id, output_of(task))
            twice.record(task.unit_id, output_of(task))
            twice.record(task.unit_id, output_of(task))
    twice.forget({UnitId(digest("unknown"))})
    assert [task.unit_id for task in once.ready()] == [task.unit_id for task in twice.ready()]
    assert once.state == twice.state


def test_an_aggregate_names_its_updates_by_shard_in_order() -> None:
    spec = federated()
    aggregate = next(task for task in finish(Plan(spec)) if task.node.stage == AGGREGATE)
    names = [item.name for item in aggregate.unit.inputs]
    assert names == ["state", *(f"update/{shard.hex()}" for shard in spec.inputs)]


def test_a_unit_of_another_job_does_not_belong() -> None:
    spec = federated()
    task = next(iter(Plan(spec).ready()))
    assert belongs(spec, task.unit)
    for other in (federated(seed=8), federated(rounds=0), sequential(), mapping()):
        assert not belongs(other, task.unit)
    foreign = build_unit(federated(clients=9), task.node, BlobId(spec.initial))
    assert foreign.inputs != task.unit.inputs
    assert not belongs(spec, foreign)


def test_participants_are_drawn_by_the_seed_without_repetition() -> None:
    spec = federated(10, 50, 3)
    draws = [participants(spec, r) for r in range(50)]
    assert all(len(set(draw)) == 3 and draw == sorted(draw) for draw in draws)
    assert {i for draw in draws for i in draw} == set(range(10))
    assert draws != [participants(federated(10, 50, 3, seed=8), r) for r in range(50)]


def test_seeds_differ_by_place_and_not_by_time() -> None:
    seeds = {derive_seed(1, "client", r, i) for r in range(20) for i in range(20)}
    assert len(seeds) == 400
    assert derive_seed(1, "client", 2, 3) == 9_195_483_712_753_411_536  # golden: it decides what every unit computes


def _finished(spec: JobSpec) -> Plan:
    plan = Plan(spec)
    finish(plan)
    return plan
