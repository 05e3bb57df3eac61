"""GPUs: what is said of them to the owner and to others, and which files of /dev belong to which, so that a sandbox can
be shown the cards that are leased and no other.

None is offered: a unit computes on the CPU (its numeric profile hides every GPU, and its system call filter lets
nothing talk to a driver), and an offer that lists what no unit can use would be paid for nothing. `binds` serves
`scripts/gpu_check`, which shows what a card gives twice. See docs/decisions/units-on-gpus.md.

By what NVIDIA's driver says in /proc/driver/nvidia (documented in its README, "The proc interface"). This module binds
nothing. Cards that are split (MIG) are left out: their parts have files of their own, under /dev/nvidia-caps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tallymesh.errors import CallerError
from tallymesh_node.machine import Gpu

_PROC = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")
SHARED = ("nvidiactl", "nvidia-uvm")  # of the driver itself: every process that computes opens both
MAX_CARDS = 64
MAX_TEXT = 64 * 1024


def told(present: Sequence[Gpu]) -> str:
    """For the owner of a machine with GPUs; "" without any."""
    if not present:
        return ""
    names = ", ".join(f"{gpu.name} ({gpu.memory_mib} MiB, driver {gpu.driver})" for gpu in present)
    return f"{names}: not offered, for units compute on the CPU"


def check_order(count: int) -> None:
    """CallerError `no_gpus` for a job that asks for some: it would wait for ever, or be paid and computed on CPUs."""
    if count:
        raise CallerError(
            "no_gpus",
            f"The job asks for {count} GPU{'s' * (count != 1)}, and units compute on the CPU.",
            remedy="Leave gpu= out of Require.",
        )


class Card(msgspec.Struct, frozen=True):
    """One GPU: its unique name, as `nvidia-smi` and CUDA_VISIBLE_DEVICES have it, and its file's number."""

    uuid: str
    minor: int


def cards(proc: Path = _PROC) -> tuple[Card, ...]:
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


def binds(leased: Sequence[Card], devices: Path = _DEVICES) -> list[str]:
    """Arguments of bubblewrap, to stand after its `--dev`: the files of these cards and what all cards share. Nothing
    at all where none is leased: the driver alone is a large door."""
    if not leased:
        return []
    names = [*SHARED, *(f"nvidia{card.minor}" for card in leased)]
    return [word for name in names for word in ("--dev-bind", str(devices / name), f"/dev/{name}")]


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(MAX_TEXT)
    except OSError:
        return ""
