"""Measuring the machine: containers' limits count, GPUs are what the driver says, nothing is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tallymesh_node import machine
from tallymesh_node.machine import Gpu, measure, parse_gpus


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /proc and /sys/fs/cgroup of a machine with 8 GiB."""
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\n")
    return tmp_path


def put(tree: Path, path: str, text: str) -> None:
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text(text)


def test_this_machine_is_measured(tmp_path: Path) -> None:
    found = measure(tmp_path / "not" / "there" / "yet")
    assert 1 <= found.cores <= len(os.sched_getaffinity(0))
    assert found.memory_mib > 256
    assert found.disk_mib > 0
    assert found.cpu
    assert found.architecture == os.uname().machine


def test_without_control_groups_the_machine_counts(tree: Path) -> None:
    assert machine.cores() == 8
    assert machine.memory_mib() == 8192


def test_limits_of_a_container_count(tree: Path) -> None:
    put(tree, "proc/self/cgroup", "0::/\n")
    put(tree, "cgroup/cpu.max", "250000 100000\n")
    put(tree, "cgroup/memory.max", f"{3 << 30}\n")
    assert machine.cores() == 2
    assert machine.memory_mib() == 3072


def test_limits_of_an_outer_group_count(tree: Path) -> None:
    put(tree, "proc/self/cgroup", "0::/user.slice/session\n")
    put(tree, "cgroup/user.slice/session/cpu.max", "max 100000\n")
    put(tree, "cgroup/user.slice/cpu.max", "300000 100000\n")
    put(tree, "cgroup/user.slice/session/memory.max", "max\n")
    put(tree, "cgroup/user.slice/memory.max", f"{1 << 30}\n")
    assert machine.cores() == 3
    assert machine.memory_mib() == 1024


def test_limits_of_version_1_count(tree: Path) -> None:
    put(tree, "proc/self/cgroup", "5:memory:/pod\n3:cpu,cpuacct:/pod\n0::/\n")
    put(tree, "cgroup/cpu/pod/cpu.cfs_quota_us", "150000\n")
    put(tree, "cgroup/cpu/pod/cpu.cfs_period_us", "100000\n")
    put(tree, "cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    put(tree, "cgroup/cpu/cpu.cfs_period_us", "100000\n")
    put(tree, "cgroup/memory/pod/memory.limit_in_bytes", f"{2 << 30}\n")
    put(tree, "cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert machine.cores() == 1
    assert machine.memory_mib() == 2048


def test_less_than_a_core_is_one_core(tree: Path) -> None:
    put(tree, "proc/self/cgroup", "0::/\n")
    put(tree, "cgroup/cpu.max", "20000 100000\n")
    assert machine.cores() == 1


def test_the_processor_is_named_by_itself_or_by_its_architecture(tree: Path) -> None:
    assert machine.cpu() == os.uname().machine
    put(tree, "proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD  EPYC 9555\n")
    assert machine.cpu() == "AMD EPYC 9555"


def test_gpus_are_named_as_the_driver_does() -> None:
    found = parse_gpus("NVIDIA H200, 143771, 570.86.15\nNVIDIA GeForce RTX 4070, 12282, 570.86.15\n")
    assert found == (
        Gpu("NVIDIA H200", 143771, "570.86.15"),
        Gpu("NVIDIA GeForce RTX 4070", 12282, "570.86.15"),
    )


@pytest.mark.parametrize("text", ["", "No devices were found\n", "NVIDIA H200, [N/A], 570\n", "a,b\n", ", 5, 6\n"])
def test_what_is_no_gpu_is_left_out(text: str) -> None:
    assert parse_gpus(text) == ()


@pytest.mark.parametrize("script", ["exit 9", "printf 'x, 1, \\377\\n'", "echo NVIDIA T4, 15360, 550.54; exit 0"])
def test_a_driver_that_fails_is_a_machine_without_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    expected = (Gpu("NVIDIA T4", 15360, "550.54"),) if "T4" in script else ()
    assert machine.gpus() == expected


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == ()


@pytest.mark.slow
def test_measuring_imports_no_torch() -> None:
    code = "import sys, tallymesh_node.machine, tallymesh_node.sandbox; print({'torch', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
