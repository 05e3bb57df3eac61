"""What is said of GPUs, and which files one brings along, by the driver's text in its documented form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tallymesh.errors import CallerError
from tallymesh_learning.runtime import profile
from tallymesh_node import gpus
from tallymesh_node.capacity import from_machine
from tallymesh_node.config import load
from tallymesh_node.doctor import machine as doctor
from tallymesh_node.gpus import CUDA_LIBRARY, Card, binds, cards, check_order, names, obstacle, told
from tallymesh_node.machine import Gpu, Machine

UUID = "GPU-5a2c9b1e-0d3f-4e6a-9b7c-1122334455{:02x}"
TEXT = """Model: \t\t NVIDIA H200
IRQ:   \t\t 341
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.bc.00.02
Bus Type: \t PCIe
DMA Size: \t 52 bits
DMA Mask: \t 0xfffffffffffff
Bus Location: \t {bus}
Device Minor: \t {minor}
GPU Firmware: \t 570.86.15
GPU Excluded:\t {excluded}
"""


def add(proc: Path, bus: str, minor: int, excluded: str = "No", **changes: str) -> None:
    (proc / bus).mkdir(parents=True)
    text = TEXT.format(uuid=UUID.format(minor), bus=bus, minor=minor, excluded=excluded)
    for old, new in changes.items():
        text = text.replace(old, new)
    (proc / bus / "information").write_text(text)


def test_cards_are_numbered_as_their_files_and_not_as_the_bus(tmp_path: Path) -> None:
    add(tmp_path, "0000:4e:00.0", 1)
    add(tmp_path, "0000:d1:00.0", 0)
    assert cards(tmp_path) == (Card(UUID.format(0), 0), Card(UUID.format(1), 1))


@pytest.mark.parametrize("change", [{"GPU-5a": "GPU-xx"}, {"Device Minor: \t 1": "Device Minor: \t"}, {"GPU": "Card"}])
def test_what_is_not_as_documented_is_left_out(tmp_path: Path, change: dict[str, str]) -> None:
    add(tmp_path, "0000:4e:00.0", 1, **change)
    add(tmp_path, "0000:4f:00.0", 2, excluded="Yes")
    add(tmp_path, "0000:50:00.0", 3)
    assert [card.minor for card in cards(tmp_path)] == [3]


def test_without_a_driver_there_are_none(tmp_path: Path) -> None:
    assert cards(tmp_path / "none") == ()


def test_only_the_leased_cards_are_shown_and_none_without_a_lease(tmp_path: Path) -> None:
    leased = [Card(UUID.format(3), 3)]
    arguments = binds(leased, tmp_path)
    assert arguments[::3] == ["--dev-bind"] * 3
    assert arguments[2::3] == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia3"]
    assert arguments[1::3] == [str(tmp_path / name) for name in ("nvidiactl", "nvidia-uvm", "nvidia3")]
    assert binds([], tmp_path) == []


def test_a_gpu_that_is_not_sold_is_told_to_its_owner_and_offered_to_nobody(tmp_path: Path) -> None:
    found = Gpu("NVIDIA H200", 143_771, "570.86.15")
    here = Machine(cores=4, memory_mib=8192, disk_mib=10_240, cpu="x", architecture="x", gpus=(found, found))
    config = load({"home": tmp_path}, environment={})
    assert from_machine(here, config, None, confirmed=False).gpus == ""
    sentence = told(here.gpus)
    assert sentence.count("NVIDIA H200 (143771 MiB, driver 570.86.15)") == 2
    assert sentence.endswith("not offered; node start --sell gpu lends them instead of cores")
    assert [(each.state, each.sentence) for each in doctor.gpus(here, config)] == [("note", sentence)]
    none = Machine(cores=4, memory_mib=8192, disk_mib=10_240, cpu="x", architecture="x")
    assert told(none.gpus) == ""
    assert doctor.gpus(none, config) == []
    assert told(here.gpus, "2*H200").endswith("offered, as 2*H200")


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A machine with one card and all that it needs, as files of this user."""
    add(tmp_path / "proc", "0000:4e:00.0", 1)
    (tmp_path / "dev").mkdir()
    for name in names([Card(UUID.format(1), 1)]):
        (tmp_path / "dev" / name).touch()
        (tmp_path / "dev" / name).chmod(0o666)
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "lib" / CUDA_LIBRARY).touch()
    return tmp_path


def code(place: Path, *, bounded: bool = True) -> str:
    found = obstacle(cards(place / "proc"), bounded=bounded, devices=place / "dev", torch=place / "torch")
    if found is None:
        return ""
    assert found.sentence
    assert found.remedy
    return found.code


def test_a_machine_that_has_everything_may_try_its_cards(ready: Path) -> None:
    assert code(ready) == ""


def test_without_a_card_none_is_lent(ready: Path) -> None:
    (ready / "proc" / "0000:4e:00.0" / "information").unlink()
    assert code(ready) == "no_gpus"


def test_with_torch_for_cpus_none_is_lent(ready: Path) -> None:
    (ready / "torch" / "lib" / CUDA_LIBRARY).unlink()
    assert code(ready) == "torch_without_cuda"


@pytest.mark.parametrize("name", ["nvidiactl", "nvidia-uvm", "nvidia1"])
def test_without_one_of_the_drivers_files_none_is_lent(ready: Path, name: str) -> None:
    (ready / "dev" / name).unlink()
    assert code(ready) == "gpu_files"


def test_files_that_only_root_may_use_are_closed_to_jobs_though_the_node_is_roots(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert code(ready) == ""
    (ready / "dev" / "nvidia1").chmod(0o600)
    assert code(ready) == "gpu_files"


def test_where_no_control_group_bounds_memory_none_is_lent(ready: Path) -> None:
    assert code(ready, bounded=False) == "no_groups"


def test_doctor_says_what_is_in_the_way_of_selling_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Machine(cores=4, memory_mib=8192, disk_mib=10_240, cpu="x", architecture="x")
    config = load({"home": tmp_path, "sell": "gpu"}, environment={})
    monkeypatch.setattr(doctor, "cards", lambda: ())
    (found,) = doctor.gpus(here, config)
    assert (found.state, found.code) == ("fix", "no_gpus")
    assert found.remedy


@pytest.mark.parametrize("runs", [False, True])
def test_doctor_does_not_take_its_own_control_groups_for_those_of_the_node_that_runs(
    ready: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """A service's are delegated to the service, and not to the shell that asks."""
    here = Machine(cores=4, memory_mib=8192, disk_mib=10_240, cpu="x", architecture="x")
    config = load({"home": ready, "sell": "gpu"}, environment={})
    monkeypatch.setattr(doctor, "cards", lambda: cards(ready / "proc"))
    monkeypatch.setattr(
        doctor,
        "obstacle",
        lambda found, bounded: obstacle(found, bounded=bounded, devices=ready / "dev", torch=ready / "torch"),
    )
    monkeypatch.setattr(doctor.groups, "find", lambda: None)
    (found,) = doctor.gpus(here, config, runs=runs)
    assert (found.state, found.code) == (("note", "") if runs else ("fix", "no_groups"))


CPU, GPU = (profile.profile_hash(kind) for kind in profile.KINDS)


@pytest.mark.parametrize(
    ("count", "ordered", "memory_gib", "refused"),
    [
        (0, CPU, 1.0, ""), (1, GPU, 4.0, ""), (1, CPU, 4.0, "no_gpus"), (1, b"?" * 32, 4.0, "no_gpus"),
        (0, GPU, 4.0, "no_gpus"), (2, GPU, 4.0, "too_many_gpus"), (1, GPU, 3.9, "bad_terms"),
    ],
)  # fmt: skip
def test_what_a_job_asks_for_and_what_its_units_need_go_together(
    count: int, ordered: bytes, memory_gib: float, refused: str
) -> None:
    if not refused:
        check_order(count, ordered, memory_gib)
        return
    with pytest.raises(CallerError) as caught:
        check_order(count, ordered, memory_gib)
    assert caught.value.code == refused
    assert caught.value.remedy


def test_the_tools_of_profilers_are_shown_to_nobody() -> None:
    """They read and write the memory of other processes."""
    assert "nvidia-uvm-tools" not in gpus.names([Card(UUID.format(0), 0)])
