"""GPUs: which cards the driver runs, which files of /dev belong to which, so that a sandbox can be shown the card that
is leased and no other, and what stands in the way of lending them at all.

By what NVIDIA's driver says in /proc/driver/nvidia (documented in its README, "The proc interface"). This module runs
and binds nothing: whether a card computes, proving.py finds out. Cards that are split (MIG) are left out: their parts
have files of their own, under /dev/nvidia-caps. See docs/decisions/units-on-gpus.md.
"""

from __future__ import annotations

import importlib.util
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tallymesh.api import Problem
from tallymesh.errors import CallerError
from tallymesh_learning.runtime import profile
from tallymesh_node.machine import Gpu

PROC = Path("/proc/driver/nvidia/gpus")
DEVICES = Path("/dev")
# Of the driver itself: every process that computes opens both. nvidia-uvm-tools stays away: it is for profilers, and
# reads other processes.
SHARED = ("nvidiactl", "nvidia-uvm")
# Of the machine's memory, for a unit with a card: CUDA's libraries alone take one gigabyte or two. What less than this
# is enough for nobody tried: cards are proven with it.
LEAST_MIB = 4096
MAX_CARDS = 64
MAX_TEXT = 64 * 1024
_OTHERS = stat.S_IROTH | stat.S_IWOTH
CUDA_LIBRARY = "libtorch_cuda.so"  # only builds of torch for CUDA bring it


def told(present: Sequence[Gpu], sold: str = "", *, selling: bool = False) -> str:
    """For the owner of a machine with GPUs; "" without any. `sold` is what the offer says of them; `selling` whether
    the owner wants it to."""
    if not present:
        return ""
    listed = ", ".join(f"{gpu.name} ({gpu.memory_mib} MiB, driver {gpu.driver})" for gpu in present)
    if sold:
        return f"{listed}: offered, as {sold}"
    return f"{listed}: not offered" + ("" if selling else "; node start --sell gpu lends them instead of cores")


def check_order(count: int, ordered: bytes, memory_gib: float) -> None:
    """CallerError where what a job asks for and what its units compute under (`ordered`, a profile's hash) do not go
    together: it would wait for ever, or be paid for a card and computed without one."""
    of_cards = profile.kind_of(ordered) == profile.GPU
    if count > 1:
        raise CallerError(
            "too_many_gpus", f"A unit computes on one card, and the job asks for {count}.", remedy="Require(gpu=1)"
        )
    if count and not of_cards:
        raise CallerError(
            "no_gpus",
            "The job asks for a GPU, and its units were prepared for CPUs.",
            remedy="Prepare it again with require=tallymesh.Require(gpu=1), or leave gpu= out.",
        )
    if count and memory_gib * 1024 < LEAST_MIB:
        raise CallerError(
            "bad_terms",
            f"A unit on a GPU needs {LEAST_MIB} MiB of the machine's memory or more, and the job asks for less.",
            remedy="require=tallymesh.Require(gpu=1, memory_gib=4)",
        )
    if of_cards and not count:
        raise CallerError(
            "no_gpus",
            "The job's units were prepared for a GPU, and it asks for none.",
            remedy="Prepare it again without gpu=, or ask for one: require=tallymesh.Require(gpu=1).",
        )


def obstacle(
    found: Sequence[Card], *, bounded: bool, devices: Path = DEVICES, torch: Path | None = None
) -> Problem | None:
    """What keeps every card here from being lent, as far as can be seen without trying; None where nothing does.
    `bounded`: whether control groups bound units' memory. `torch`: its folder, by default that of this installation."""
    if not found:
        return Problem(
            code="no_gpus",
            sentence="The driver runs no card here that could be lent.",
            remedy="Install NVIDIA's driver (nvidia-smi must list the card; cards split by MIG are not lent), or start "
            "without --sell gpu.",
        )
    if not (_torch_folder() if torch is None else torch).joinpath("lib", CUDA_LIBRARY).exists():
        return Problem(
            code="torch_without_cuda",
            sentence="The installed torch is built for CPUs only, so no unit could use a card.",
            remedy="Install torch's build for CUDA into the node's environment, of the same release.",
        )
    closed = [name for name in names(found) if not _open(devices / name)]
    if closed:
        listed = ", ".join(closed)
        return Problem(
            code="gpu_files",
            sentence=f"These files of the driver are missing in {devices}, or closed to what runs jobs: {listed}.",
            remedy="nvidia-modprobe -u -c 0 makes them; others must be able to read and write them (mode 0666).",
        )
    if not bounded:
        return Problem(
            code="no_groups",
            sentence="This machine makes no control groups for the node, and nothing else bounds the memory of a unit "
            "that uses a card.",
            remedy="Run the node as root, or as the only process of a service with Delegate=memory.",
        )
    return None


def _open(device: Path) -> bool:
    """Whether the user that jobs run as may use the file. Of a node of root's that is another one (sandbox/drop.py), of
    any other node its own."""
    if os.geteuid():
        return os.access(device, os.R_OK | os.W_OK)
    try:
        return device.stat().st_mode & _OTHERS == _OTHERS
    except OSError:
        return False


def _torch_folder() -> Path:
    spec = importlib.util.find_spec("torch")
    return Path(spec.origin).parent if spec is not None and spec.origin else Path("/nonexistent")


class Card(msgspec.Struct, frozen=True):
    """One GPU: its unique name, as `nvidia-smi` and CUDA_VISIBLE_DEVICES have it, and its file's number."""

    uuid: str
    minor: int


def cards(proc: Path = PROC) -> tuple[Card, ...]:
    """Those that the driver runs, by number. Without a driver there are none."""
    found = []
    for place in sorted(proc.glob("*/information"))[:MAX_CARDS]:
        card = _parse(_text(place))
        if card is not None:
            found.append(card)
    return tuple(sorted(found, key=lambda card: card.minor))


def _parse(text: str) -> Card | None:
    """None for a card that the driver excluded, that fell off the bus, or whose lines are not as documented."""
    values = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        values[name.strip()] = value.strip()
    uuid, minor = values.get("GPU UUID", ""), values.get("Device Minor", "")
    if values.get("GPU Excluded", "No") != "No" or not minor.isdigit():
        return None
    return Card(uuid, int(minor)) if re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid) else None


def names(leased: Sequence[Card]) -> list[str]:
    """Of the files of these cards and of what all cards share. Nothing at all where none is leased: the driver alone is
    a large door."""
    return [*SHARED, *(f"nvidia{card.minor}" for card in leased)] if leased else []


def binds(leased: Sequence[Card], devices: Path = DEVICES) -> list[str]:
    """Arguments of bubblewrap, to stand after its `--dev`, that show these files."""
    return [word for name in names(leased) for word in ("--dev-bind", str(devices / name), f"/dev/{name}")]


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(MAX_TEXT)
    except OSError:
        return ""
