"""What is fetched before a unit runs, and how a missing input is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from fakes.blobs import FakeBlobs, Swarm
from tallymesh import units
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh.ids import ZERO32, BlobId, blob_id
from tallymesh.parameters import Parameters
from tallymesh.units import Input, JobSpec, Stage, Unit
from tallymesh_node import unit_inputs
from tallymesh_node.unit_inputs import Specs, fetch_inputs, names_of, wall_s

THERE = Source("there")


def spec_of(number: int) -> JobSpec:
    return JobSpec("map", b"p" * 32, b"q" * 32, number, (Stage("map", "m:f", b"{}", 1000),), (b"i" * 32,))


@pytest.fixture
def blobs(tmp_path: Path) -> tuple[FakeBlobs, FakeBlobs]:
    swarm = Swarm()
    return FakeBlobs(tmp_path / "here", swarm, "here"), FakeBlobs(tmp_path / "there", swarm, "there")


async def test_program_and_inputs_are_fetched_once_each(blobs: tuple[FakeBlobs, FakeBlobs]) -> None:
    here, there = blobs
    program, one, two = (there.put(data) for data in (b"program", b"one", b"two"))
    here.put(b"one")
    unit = Unit(program, "m:f", (Input("a", one), Input("b", two), Input("c", two)), b"{}", 0, ZERO32)
    assert names_of(unit) == [program, one, two]
    paths = await fetch_inputs(here, unit, [THERE], ticket=b"t", timeout_s=1)
    assert {name: path.read_bytes() for name, path in paths.items()} == {program: b"program", one: b"one", two: b"two"}
    assert sorted(blob for blob, _, _ in here.fetched) == sorted([program, two])


async def test_what_nobody_has_is_named(blobs: tuple[FakeBlobs, FakeBlobs]) -> None:
    here, there = blobs
    missing = blob_id(b"missing")
    unit = Unit(there.put(b"program"), "m:f", (Input("a", missing),), b"{}", 0, ZERO32)
    with pytest.raises(RemoteError) as caught:
        await fetch_inputs(here, unit, [THERE], ticket=b"", timeout_s=1)
    assert caught.value.code == "inputs"
    assert missing[:4].hex() in caught.value.sentence


async def test_a_source_that_hangs_does_not_hold_a_unit_up_for_ever(
    blobs: tuple[FakeBlobs, FakeBlobs], autojump_clock: trio.testing.MockClock
) -> None:
    here, _ = blobs

    async def hang(*args: object, **options: object) -> None:
        await trio.sleep_forever()

    here.fetch = hang  # type: ignore[method-assign,assignment]
    unit = Unit(blob_id(b"x"), "m:f", (), b"{}", 0, ZERO32)
    with pytest.raises(RemoteError) as caught:
        await fetch_inputs(here, unit, [THERE], ticket=b"", timeout_s=30)
    assert caught.value.code == "inputs"
    assert trio.current_time() == pytest.approx(30)


async def test_a_template_is_checked_before_it_takes_room(blobs: tuple[FakeBlobs, FakeBlobs]) -> None:
    here, _ = blobs
    specs, data = Specs(here), units.encode(spec_of(1))
    with pytest.raises(RemoteError) as caught:
        await specs.obtain(blob_id(b"other"), data, (), ticket=b"", timeout_s=1)
    assert caught.value.code == "wrong_spec"
    with pytest.raises(RemoteError):
        await specs.obtain(blob_id(b"junk"), b"junk", (), ticket=b"", timeout_s=1)
    assert not here.has(blob_id(b"junk"))
    assert await specs.obtain(blob_id(data), data, (), ticket=b"", timeout_s=1) == spec_of(1)
    assert here.has(blob_id(data))


async def test_only_a_few_decoded_templates_are_kept(blobs: tuple[FakeBlobs, FakeBlobs]) -> None:
    here, _ = blobs
    specs = Specs(here)
    names = [here.put(units.encode(spec_of(number))) for number in range(unit_inputs.SPECS_KEPT + 2)]
    for name in names:
        specs.get(name)
    assert len(specs._kept) == unit_inputs.SPECS_KEPT
    assert specs.get(names[0]) == spec_of(0)
    with pytest.raises(KeyError):
        specs.get(BlobId(b"n" * 32))


def test_a_unit_may_take_ten_times_its_declared_work_and_the_grace() -> None:
    assert wall_s(Parameters(unit_work_factor=10, unit_grace_s=30), 2500) == 55
