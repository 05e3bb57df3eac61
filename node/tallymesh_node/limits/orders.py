"""The owner's word to a node, running or not: `limits.json` in the node's folder, written by `tallymesh node pause` and
`tallymesh node limit`, read by the node at each look.

A file and no request: it outlives a restart, it can be given before the first start, and who may write it is who owns
the folder. It is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import LocalError

NAME = "limits.json"
MAX_BYTES = 16 * 1024  # a dozen keys
LATEST = 253_402_300_799.0  # Unix time of the last second that a calendar of four digits has: for ever


class Pause(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`until` in Unix seconds, infinite until the owner says `resume`. `at_once`: what runs is not waited for."""

    until: float
    at_once: bool = False


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    until: float | None = None  # JSON knows no infinity: None, where `paused`
    at_once: bool = False
    paused: bool = False
    changes: dict[str, int | float | bool | tuple[str, ...]] = {}


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """`changes` are settings by their names in config.toml, which they take the place of."""

    pause: Pause | None = None
    changes: dict[str, int | float | bool | tuple[str, ...]] = {}


def load(folder: Path) -> Orders:
    """What the owner said last; nothing where there is no file. LocalError `bad_orders` where it is not ours."""
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise msgspec.DecodeError(f"over {MAX_BYTES} bytes")
        written = msgspec.json.decode(data, type=_Written)
    except FileNotFoundError:
        return Orders()
    except OSError as error:
        raise LocalError("bad_orders", f"{path} cannot be read: {error.strerror}.") from None
    except UNREADABLE as error:
        raise LocalError(
            "bad_orders",
            f"{path} does not say what the owner allows: {error}.",
            remedy="Remove it, and say it again with 'tallymesh node limit' or 'tallymesh node pause'.",
        ) from None
    until = float("inf") if written.until is None or written.until > LATEST else written.until
    return Orders(pause=Pause(until, written.at_once) if written.paused else None, changes=written.changes)


def save(folder: Path, orders: Orders) -> None:
    """LocalError `disk` where it cannot be written: then what was said before holds."""
    pause = orders.pause
    until = None if pause is None or pause.until == float("inf") else pause.until
    written = _Written(until, pause is not None and pause.at_once, pause is not None, orders.changes)
    draft = folder / f"{NAME}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with draft.open("wb") as file:
            file.write(msgspec.json.encode(written) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, folder / NAME)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise LocalError("disk", f"{folder / NAME} cannot be written: {error.strerror}.") from None


def stamp(folder: Path) -> tuple[int, int, int]:
    """Changes with each `save`, and costs one system call."""
    try:
        found = os.stat(folder / NAME)
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)
