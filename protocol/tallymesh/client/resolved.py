"""Resolutions that were made before: the same requirements beside the same base set give the same wheels again.

    <cache>/tallymesh/packages/sets/<key> | wheels/<content id>

What is read is compared with its name; what is missing or changed is resolved anew. Losing the folder loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

from tallymesh.ids import blob_id
from tallymesh.units import canonical_json

SETS_KEPT: Final = 32  # the newest; wheels that none of them names go too
# What decides where pip looks, beside its own files: another index may have other bytes under the same name.
_SETTINGS: Final = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_CONSTRAINT",
    "PIP_PRE",
)


class _Row(msgspec.Struct, frozen=True, array_like=True):
    file: str
    blob: str  # hex


_rows = msgspec.json.Decoder(list[_Row])


def folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tallymesh" / "packages"


def key(requires: Sequence[str], base: Mapping[str, str]) -> str:
    """Of everything that a resolution follows from."""
    settings = {name: os.environ.get(name, "") for name in _SETTINGS}
    return blake3(b"tallymesh.resolution/" + canonical_json([list(requires), dict(base), settings])).hexdigest()


def load(name: str) -> dict[str, bytes] | None:
    """File name -> bytes, or None where it is not here whole."""
    try:
        rows = _rows.decode((folder() / "sets" / name).read_bytes())
        found = {row.file: (folder() / "wheels" / row.blob).read_bytes() for row in rows}
        if any(blob_id(found[row.file]).hex() != row.blob for row in rows):
            return None
        os.utime(folder() / "sets" / name)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None
    return found


def store(name: str, found: Mapping[str, bytes]) -> None:
    """A disk that takes nothing costs the next call its time and this one nothing."""
    with contextlib.suppress(OSError):
        rows = [_Row(file, blob_id(data).hex()) for file, data in sorted(found.items())]
        for row in rows:
            _write(folder() / "wheels" / row.blob, found[row.file])
        _write(folder() / "sets" / name, msgspec.json.encode(rows))
        _prune()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as draft:
        draft.write(data)
    os.replace(draft.name, path)


def _prune() -> None:
    sets = sorted((folder() / "sets").iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in sets[SETS_KEPT:]:
        old.unlink(missing_ok=True)
    named: set[str] = set()
    for kept in sets[:SETS_KEPT]:
        with contextlib.suppress(msgspec.MsgspecError):
            named.update(row.blob for row in _rows.decode(kept.read_bytes()))
    for path in (folder() / "wheels").iterdir():
        if path.name not in named:
            path.unlink(missing_ok=True)
