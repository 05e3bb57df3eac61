"""Control groups: found where the machine lets the node make them, and a limit at once where they are."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tallymesh_node.interfaces import Failure, Limits
from tallymesh_node.sandbox import groups, running
from tallymesh_node.sandbox.logs import Logs


class Machine:
    """Plain files in place of what the kernel shows. (A folder there holds its files as soon as it is made.)"""

    def __init__(self, folder: Path) -> None:
        self.proc, self.mounted = folder / "proc", folder / "cgroup"
        self.proc.mkdir()
        self.mounted.mkdir()

    def says(self, own: str, kind: str, options: str = "rw", root: str = "/") -> None:
        (self.proc / "cgroup").write_text(own)
        (self.proc / "mountinfo").write_text(
            "20 1 8:1 / / rw - ext4 /dev/sda rw\n"
            f"30 20 0:26 {root} {self.mounted} rw,nosuid shared:9 - {kind} {kind} {options}\n"
        )

    def group(self, path: str, **files: str) -> Path:
        folder = self.mounted / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {"cgroup_procs": "", **files}.items():
            (folder / name.replace("_", ".", 1)).write_text(text)
        return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    mkdir = Path.mkdir

    def populated(folder: Path, *arguments: object, **options: object) -> None:
        mkdir(folder, *arguments, **options)  # type: ignore[arg-type]
        if folder.name.startswith(groups.PREFIX):
            for door in ("cgroup.procs", "tasks"):
                (folder / door).touch()

    monkeypatch.setattr(Path, "mkdir", populated)
    return made


def test_version_1_is_used_where_the_memory_controller_is_in_it(machine: Machine) -> None:
    machine.says("9:name=systemd:/x\n4:memory:/service/a\n0::/\n", "cgroup", "rw,memory")
    base = machine.group("service/a")
    found = groups.find(machine.proc)
    assert found is not None
    assert found.base == base
    group = found.open(memory_mib=100, disk_mib=10)
    assert group is not None
    limits = [
        each for each in base.glob(f"{groups.PREFIX}{os.getpid()}-*") if (each / "memory.limit_in_bytes").exists()
    ]
    folder = max(limits, key=lambda each: int((each / "memory.limit_in_bytes").read_text()))
    assert int((folder / "memory.limit_in_bytes").read_text()) >= 110 << 20
    group.close()


def test_a_mount_that_shows_a_part_of_the_groups_is_read_from_there(machine: Machine) -> None:
    machine.says("4:memory:/docker/1f/inner\n", "cgroup", "rw,memory", root="/docker/1f")
    base = machine.group("inner")
    found = groups.find(machine.proc)
    assert found is not None
    assert found.base == base


@pytest.mark.parametrize("alone", [True, False])
def test_version_2_needs_a_group_that_was_delegated_and_the_node_alone_in_it(machine: Machine, alone: bool) -> None:
    """A group with processes has no limits for groups in it: the kernel would say so, and others are not moved."""
    machine.says("0::/user/node.service\n", "cgroup2")
    others = "" if alone else "1\n"
    base = machine.group(
        "user/node.service",
        cgroup_controllers="cpu memory pids\n",
        cgroup_subtree_control="",
        cgroup_procs=f"{others}{os.getpid()}\n",
    )
    found = groups.find(machine.proc)
    moved = (base / groups.NODE / "cgroup.procs").exists()
    assert moved is alone
    assert (base / "cgroup.subtree_control").read_text() == "+memory"
    assert found is not None
    group = found.open(memory_mib=100, disk_mib=10)
    assert group is not None
    made = base.glob(f"{groups.PREFIX}{os.getpid()}-*")
    folder = max(made, key=lambda each: int((each / "memory.max").read_text()))
    assert int((folder / "memory.max").read_text()) >= 100 << 20
    assert (folder / "memory.swap.max").read_text() == "0"
    group.close()


def test_a_node_that_was_moved_aside_makes_groups_beside_itself(machine: Machine) -> None:
    machine.says(f"0::/user/node.service/{groups.NODE}\n", "cgroup2")
    base = machine.group("user/node.service", cgroup_controllers="memory\n", cgroup_subtree_control="memory\n")
    machine.group(f"user/node.service/{groups.NODE}")
    found = groups.find(machine.proc)
    assert found is not None
    assert found.base == base


@pytest.mark.parametrize(
    ("own", "kind", "options", "controllers"),
    [
        ("0::/a\n", "cgroup2", "rw", "cpu pids\n"),  # the memory controller is elsewhere
        ("4:memory:/a\n", "cgroup", "rw,pids", ""),
        ("0::/elsewhere\n", "cgroup2", "rw", "memory\n"),
        ("", "cgroup2", "rw", "memory\n"),
    ],
)
def test_where_there_is_none_it_says_none(
    machine: Machine, own: str, kind: str, options: str, controllers: str
) -> None:
    machine.says(own, kind, options)
    machine.group("a", cgroup_controllers=controllers, cgroup_subtree_control="")
    assert groups.find(machine.proc) is None


def test_a_machine_that_refuses_is_said_once_and_units_run_all_the_same(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    found = groups.Groups(machine.mounted / "gone", groups._V2)
    for _ in range(3):
        assert found.open(memory_mib=1, disk_mib=1) is None
    assert len(caplog.records) == 1


def test_what_the_kernel_counted_is_read_and_groups_of_dead_nodes_go(machine: Machine) -> None:
    for names, text in ((groups._V1, "under_oom 0\noom_kill 2\n"), (groups._V2, "oom 1\noom_kill 1\n")):
        found = groups.Groups(machine.mounted, names)
        folder = machine.mounted / f"{groups.PREFIX}7-ab"
        folder.mkdir(exist_ok=True)
        (folder / names.events).write_text(text)
        assert found.remove(folder)
        (folder / names.events).write_text("oom_kill 0\n")
        assert not found.remove(folder)
    dead, alive = machine.mounted / f"{groups.PREFIX}999999999-ab", machine.mounted / f"{groups.PREFIX}1-ab"
    for folder in (dead, alive):
        os.mkdir(folder)
    found.clear()
    assert not dead.exists()
    assert alive.exists()


async def test_a_unit_that_cannot_be_started_leaves_neither_a_group_nor_a_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []
    owner: Any = SimpleNamespace(remove=removed.append)
    made: Any = SimpleNamespace(
        open=lambda memory_mib, disk_mib: groups.Group(owner, tmp_path, os.open(os.devnull, os.O_WRONLY))
    )
    spool: Any = None
    units = running.Units(spool, lambda data: pytest.fail("nothing was put out"), made, running.Counters())
    pipe, before = os.pipe2, set(os.listdir("/proc/self/fd"))
    left = iter([True])

    def few(flags: int) -> tuple[int, int]:
        if next(left, False):
            return pipe(flags)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pipe2", few)
    nowhere: Any = None
    with pytest.raises(Failure, match="Too many open files") as caught:
        await units._watch(running.Place(nowhere, nowhere), "u1", running.Task({}, {}, Limits(), Logs(0, None, None)))
    assert caught.value.code == "sandbox"
    assert removed == [tmp_path]
    assert set(os.listdir("/proc/self/fd")) == before
