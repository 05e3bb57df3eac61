"""Packages of jobs on a node: unpacked once in a sandbox, shown read-only, dropped when nobody needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes import wheels as made
from fakes.sandboxed import JOB, SMALL, Machine, make_unit
from tallymesh import wheels
from tallymesh.errors import LocalError
from tallymesh.ids import BlobId, blob_id
from tallymesh.units import Input, Unit
from tallymesh.wheels import Wheel
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox import packages
from tallymesh_node.sandbox.packages import Packages

EROFS = "EROFS"


def put(machine: Machine, name: str, files: dict[str, bytes], **options: Any) -> Wheel:
    data = made.build(name, "1.0", files, **options)
    machine.store.put(data)
    return made.wheel(name, "1.0", data)


def unit_of(machine: Machine, function: str, found: Sequence[Wheel], **config: Any) -> Unit:
    unit = make_unit(machine.store, function, config)
    return Unit(unit.program, unit.entry, (*unit.inputs, *wheels.inputs(found)), unit.config, 0, unit.profile)


def run(machine: Machine, unit: Unit) -> bytes:
    outcome = machine.call(machine.executor.run, JOB, unit, machine.inputs(unit), SMALL)
    return machine.store.get(outcome.output)


def test_a_unit_imports_its_packages_and_cannot_change_them(machine: Machine) -> None:
    import json

    plot = put(machine, "plot", {"plot/__init__.py": made.MODULE})
    before = machine.executor.packages.unpacked
    for _ in range(2):
        said = json.loads(run(machine, unit_of(machine, "use_packages", [plot], module="plot")))
        assert said["value"] == 42
        assert said["file"] == "/.tallymesh/work/in/packages/plot/__init__.py"
        assert (said["version"], said["gone"]) == ("1.0", True)
        assert "/in/packages/" not in said["torch"]
        assert said["folders"] == ["plot", "plot-1.0.dist-info"]
        assert said["writes"][:4] == [EROFS] * 4
        assert said["writes"][4] in ("EXDEV", "EBUSY", EROFS)
        assert said["writes"][5] == EROFS
        assert said["writes"][6] in ("EXDEV", EROFS, "EPERM")
    assert machine.executor.packages.unpacked == before + 1, "the second unit found them there"
    assert machine.executor.packages.bytes_used > 0
    folder = machine.executor.packages.folder / wheels.set_id([plot])
    assert (folder / "plot/__init__.py").read_bytes() == made.MODULE


def test_a_unit_without_packages_sees_none_of_others(machine: Machine) -> None:
    plot = put(machine, "plot", {"plot/__init__.py": made.MODULE})
    run(machine, unit_of(machine, "use_packages", [plot], module="plot"))
    seen = machine.said("surroundings")
    assert seen["ours"]["packages"] == []
    assert "packages" not in seen["ours"]["work"]


def refused(machine: Machine, found: Sequence[Wheel]) -> str:
    with pytest.raises(Failure) as caught:
        run(machine, unit_of(machine, "use_packages", found, module="plot"))
    assert caught.value.code == "program", "every machine would say so: it is the job's fault"
    left = machine.executor.packages.folder
    assert not list(left.glob("*.part"))
    assert not (left / wheels.set_id(found)).exists()
    return caught.value.sentence


def test_a_hostile_wheel_is_the_jobs_fault_and_leaves_nothing(machine: Machine) -> None:
    escape = put(machine, "plot", {"../../escaped.py": b""})
    assert "not a path below a folder" in refused(machine, [escape])
    shadow = put(machine, "plot", {"torch/__init__.py": b""})
    assert "would hide the module torch" in refused(machine, [shadow])
    other = put(machine, "plot", {"plot.py": b"x"}, record={"plot.py": made.hashed(b"y")})
    assert "does not have the hash" in refused(machine, [other])
    plot = put(machine, "plot", {"plot/__init__.py": made.MODULE})
    assert "bytes, not the" in refused(machine, [plot._replace(size=plot.size + 1)])
    unit = unit_of(machine, "use_packages", [plot], module="plot")
    named = Unit(unit.program, unit.entry, (Input("wheel/00/1/x", plot.blob),), unit.config, 0, unit.profile)
    with pytest.raises(Failure, match="Not a set of wheels"):
        run(machine, named)


async def test_an_owner_who_allows_the_base_set_only_runs_no_unit_with_packages(tmp_path: Path) -> None:
    from tallymesh_node.blobs.store import BlobStore
    from tallymesh_node.sandbox import SandboxExecutor

    store = BlobStore(tmp_path / "blobs")
    executor = SandboxExecutor(tmp_path / "spool", store.put, slots=1, base_only=lambda job: job == JOB)
    data = made.build("plot", "1.0", {})
    store.put(data)
    unit = make_unit(store, "use_packages", {})
    inputs = (*unit.inputs, *wheels.inputs([made.wheel("plot", "1.0", data)]))
    unit = Unit(unit.program, unit.entry, inputs, unit.config, 0, unit.profile)
    names = {BlobId(unit.program), *(BlobId(item.blob) for item in inputs)}
    with pytest.raises(Failure) as caught:
        await executor.run(JOB, unit, {name: store.path(name) for name in names}, SMALL)
    assert (caught.value.code, caught.value.sentence) == ("sandbox", packages.BASE_ONLY)


# -- what is kept


class Kept:
    """A `Packages` whose unpacking is a folder with as many bytes as the wheel says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int = 1 << 40) -> None:
        self.limit = limit
        self.sets = Packages(folder / "sets", self.admit)
        self.blobs = folder / "blobs"
        self.blobs.mkdir()
        self.grows = 1  # so many times what a wheel has is in its files
        self.opened = 0
        monkeypatch.setattr(self.sets, "_unpack", self.unpack)

    def admit(self, size: int) -> None:
        if self.sets.bytes_used + size > self.limit:
            raise LocalError("disk_limit", "too many")

    async def unpack(self, draft: Path, wanted: Sequence[Wheel], inputs: dict[BlobId, Path]) -> None:
        self.opened += 1
        for wheel in wanted:
            (draft / wheel.file).write_bytes(bytes(wheel.size * self.grows))

    def wheel(self, number: int, size: int = 4096) -> tuple[list[Wheel], dict[BlobId, Path]]:
        data = number.to_bytes(size, "big")
        path = self.blobs / str(number)
        path.write_bytes(data)
        found = Wheel(made.file_name(f"p{number}", "1.0"), blob_id(data), size)
        return [found], {found.blob: path}

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.sets.folder.iterdir() if path.suffix != ".gone"}


async def test_unused_sets_go_when_the_owners_limit_needs_room_and_used_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, monkeypatch, limit=3 * 4096)
    async with kept.sets.used(*kept.wheel(1)) as one:
        async with kept.sets.used(*kept.wheel(2)) as two:
            pass
        async with kept.sets.used(*kept.wheel(3)) as three:
            assert kept.names == {one, two, three}
        async with kept.sets.used(*kept.wheel(4)) as four:
            assert kept.names == {one, three, four}, "the one that was not used for longest"
            with pytest.raises(LocalError, match="too many"):
                async with kept.sets.used(*kept.wheel(5, 3 * 4096)):
                    pass
            assert kept.names == {one, four}
            assert kept.sets.bytes_used == 2 * 4096


@pytest.mark.parametrize(("wheel", "grows", "opened"), [(3 * 4096, 1, 0), (4096, 3, 1)], ids=["packed", "unpacked"])
async def test_a_set_that_is_over_the_owners_limit_is_refused_packed_or_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheel: int, grows: int, opened: int
) -> None:
    """What an archive grows to is known afterwards, but no archive is opened that has no room as it is."""
    kept = Kept(tmp_path, monkeypatch, limit=2 * 4096)
    kept.grows = grows
    with pytest.raises(LocalError, match="too many"):
        async with kept.sets.used(*kept.wheel(1, wheel)):
            pass
    assert (kept.opened, kept.names, kept.sets.bytes_used) == (opened, set(), 0)


async def test_the_set_that_was_not_used_for_longest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path, monkeypatch, limit=2 * 4096)
    for number in (1, 2, 1):
        async with kept.sets.used(*kept.wheel(number)) as first:
            pass
    async with kept.sets.used(*kept.wheel(3)) as third:
        assert kept.names == {first, third}


async def test_a_disk_that_fails_is_this_machines_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path, monkeypatch)

    async def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept.sets, "_unpack", full)
    with pytest.raises(LocalError) as caught:
        async with kept.sets.used(*kept.wheel(1)):
            pass
    assert (caught.value.code, kept.names) == ("disk", set())


async def test_an_archive_that_is_not_unpacked_in_time_is_this_machines_failure_and_its_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = Packages(tmp_path / "sets", lambda size: None)
    data = made.build("plot", "1.0", {})
    place = tmp_path / "plot"
    place.write_bytes(data)
    wheel = made.wheel("plot", "1.0", data)
    monkeypatch.setattr(packages.command, "build", lambda *_, **__: SimpleNamespace(argv=["sleep", "1000"]))
    monkeypatch.setattr(packages, "UNPACK_S", 0.0)
    with pytest.raises(LocalError) as caught:
        async with sets.used([wheel], {wheel.blob: place}):
            pass
    assert (caught.value.code, list(sets.folder.iterdir())) == ("slow", [])


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("bad_wheel: It lies.", Failure, "program"),
        ("disk: no space", LocalError, "disk"),
        ("", LocalError, "no_sandbox"),
    ],
)
def test_whose_fault_it_is_that_nothing_was_unpacked(said: str, kind: type[Exception], code: str) -> None:
    with pytest.raises(kind) as caught:
        packages._complain(said, 1)
    assert getattr(caught.value, "code", "") == code


async def test_what_nobody_used_for_long_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    import trio

    kept = Kept(tmp_path, monkeypatch)
    async with kept.sets.used(*kept.wheel(1)) as one, trio.open_nursery() as nursery:
        nursery.start_soon(kept.sets.run)
        async with kept.sets.used(*kept.wheel(2)) as two:
            pass
        await trio.sleep(packages.UNUSED_S / 2)
        assert kept.names == {one, two}
        await trio.sleep(packages.UNUSED_S)
        assert kept.names == {one}
        while len(list(kept.sets.folder.iterdir())) > 1:  # noqa: ASYNC110 - a thread deletes the files
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    for number in range(packages.SETS_KEPT + 5):
        async with kept.sets.used(*kept.wheel(number)):
            pass
    assert len(kept.names) == packages.SETS_KEPT


async def test_a_folder_that_a_killed_node_left_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "sets/old/plot").mkdir(parents=True)
    (tmp_path / "sets/draft.part").mkdir()
    assert not list(Packages(tmp_path / "sets", lambda size: None).folder.iterdir())
