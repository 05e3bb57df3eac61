"""A unit as a row of values: cutting a training changes no bit, the last value stays, and nothing runs twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from fakes.court_scene import CourtScene
from tallymesh import units
from tallymesh.errors import LocalError
from tallymesh.units import Unit
from tallymesh_ledger.claims import NO_OUTPUT
from tallymesh_node.interfaces import Failure
from tallymesh_node.quarrels.values import SEGMENT, Values, cut, steps_of


def values(scene: CourtScene) -> Values:
    return scene.payer.tools().values(b"c" * 32, scene.order, scene.lease.work_ms, scene.unit)


async def test_each_value_is_the_end_of_the_unit_cut_there(scene: CourtScene) -> None:
    found = values(scene)
    assert [await found.at(i) for i in range(scene.steps + 1)] == scene.honest
    assert await found.at(1000) == scene.honest[-1], "after the last step nothing changes any more"
    assert found.runs == [1] * scene.steps


async def test_a_bisection_runs_no_step_twice_that_it_need_not(scene: CourtScene) -> None:
    found = values(scene)
    for index in (4, 6, 5):
        assert await found.at(index) == scene.honest[index]
    assert found.runs == [4, 2, 1]
    assert await found.at(4) == scene.honest[4]
    assert len(found.runs) == 3


async def test_a_state_that_is_gone_is_made_again(scene: CourtScene) -> None:
    found = values(scene)
    await found.at(4)
    (scene.payer.blobs.folder / scene.honest[4].hex()).unlink()
    assert await found.at(6) == scene.honest[6]
    assert found.runs == [4, 6]


async def test_one_step_is_run_from_the_state_that_was_agreed_on(scene: CourtScene) -> None:
    found = values(scene)
    assert await found.between(scene.honest[5], 5, 6) == scene.honest[6]
    assert found.runs == [1]
    part = cut(scene.unit, scene.honest[5], 5, 6)
    assert isinstance(part, Unit)
    assert part.start == scene.honest[5]
    assert json.loads(part.config)["steps"] == 1
    assert replace(part, inputs=scene.unit.inputs, config=scene.unit.config) == scene.unit, "nothing else differs"


def test_the_start_is_what_the_unit_says_whatever_was_agreed(scene_unit: Unit) -> None:
    assert cut(scene_unit, b"f" * 32, 0, 0) == scene_unit.start
    part = cut(scene_unit, b"f" * 32, 0, 3)
    assert isinstance(part, Unit)
    assert part.inputs == scene_unit.inputs


def test_the_whole_unit_is_the_unit(scene_unit: Unit) -> None:
    assert cut(scene_unit, b"f" * 32, 0, 8) == scene_unit
    assert cut(scene_unit, b"f" * 32, 0, 1 << 20) == scene_unit
    assert cut(scene_unit, b"f" * 32, 0, 1, last=True) == scene_unit


def test_the_last_value_is_the_end_however_few_steps_were_counted(scene_unit: Unit) -> None:
    part = cut(scene_unit, b"f" * 32, 2, 3, last=True)
    assert isinstance(part, Unit)
    assert json.loads(part.config)["steps"] == 6


def test_what_ended_stays_as_it_is(scene_unit: Unit) -> None:
    assert cut(scene_unit, b"f" * 32, 8, 9) == b"f" * 32
    assert cut(scene_unit, NO_OUTPUT, 3, 4) == NO_OUTPUT
    assert cut(scene_unit, NO_OUTPUT, 3, 4, last=True) == NO_OUTPUT


@pytest.mark.parametrize("config", [b"{}", b"[1]", b"x", b'{"steps":"8"}', b'{"steps":0}', b'{"steps":null}', b"1"])
def test_a_config_without_steps_counts_as_one(scene_unit: Unit, config: bytes) -> None:
    assert steps_of(replace(scene_unit, config=config)) == 1


def test_other_entries_are_one_step(scene_unit: Unit) -> None:
    unit = replace(scene_unit, entry="m:f")
    assert steps_of(unit) == 1
    assert cut(unit, b"f" * 32, 0, 1) == unit
    assert cut(unit, b"f" * 32, 1, 2) == b"f" * 32


async def test_a_program_that_raises_gives_no_output_from_there_on(scene: CourtScene) -> None:
    found = values(scene)
    await found.at(3)
    scene.payer.executor.fail[SEGMENT] = Failure("program", "It raised.")
    assert await found.at(5) == NO_OUTPUT
    assert await found.at(6) == NO_OUTPUT
    assert await found.at(3) == scene.honest[3]


async def test_a_training_that_is_over_at_the_agreed_state_stays_there(scene: CourtScene) -> None:
    scene.payer.executor.fail[SEGMENT] = Failure("inputs", "The training of 100 steps is over at step 100.")
    assert await values(scene).between(scene.honest[5], 5, 6) == scene.honest[5]


@pytest.mark.parametrize("code", ["sandbox", "limits", "inputs"])
async def test_a_machine_at_fault_has_no_value(scene: CourtScene, code: str) -> None:
    scene.payer.executor.fail[SEGMENT] = Failure(code, "No room.")
    with pytest.raises(LocalError) as caught:
        await values(scene).at(3)
    assert caught.value.code == "own_fault"


async def test_a_state_that_is_not_here_is_this_machines_fault(scene: CourtScene) -> None:
    with pytest.raises(LocalError):
        await values(scene).between(b"f" * 32, 5, 6)


@pytest.fixture
def scene_unit(tmp_path: Path) -> Unit:
    unit = CourtScene(tmp_path)._unit()
    assert units.unit_id(unit)
    return unit
