"""Wheels made by hand, good and hostile, and a folder of them that stands for an index."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from tallymesh.ids import blob_id
from tallymesh.wheels import Wheel

PURE: Final = "py3-none-any"
MODULE: Final = b"VALUE = 42\n\ndef double(x):\n    return 2 * x\n"


def hashed(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def metadata(name: str, version: str, requires: Sequence[str] = ()) -> bytes:
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    return ("\n".join(lines) + "\n").encode()


def build(
    name: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    requires: Sequence[str] = (),
    tag: str = PURE,
    record: Mapping[str, str | None] | None = None,
    members: Sequence[zipfile.ZipInfo] = (),
) -> bytes:
    """A wheel's bytes. `record` changes its RECORD: a hash in place of the right one, None for no line. `members` take
    the place of the plain entries of their names."""
    info = f"{name}-{version}.dist-info"
    whole = {
        **files,
        f"{info}/METADATA": metadata(name, version, requires),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    said: dict[str, str | None] = {path: hashed(data) for path, data in whole.items()} | dict(record or {})
    lines = [f"{path},{digest}," for path, digest in said.items() if digest is not None]
    whole[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    special = {member.filename: member for member in members}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in whole.items():
            archive.writestr(special.get(path) or zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def file_name(name: str, version: str, tag: str = PURE) -> str:
    return f"{name}-{version}-{tag}.whl"


def wheel(name: str, version: str, data: bytes, tag: str = PURE) -> Wheel:
    return Wheel(file_name(name, version, tag), blob_id(data), len(data))


def index(folder: Path, *made: tuple[str, str, bytes] | tuple[str, str, bytes, str]) -> Path:
    """`folder` with these wheels, for --find-links."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, version, data, *tag in made:
        (folder / file_name(name, version, *tag)).write_bytes(data)
    return folder


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `folder` all that pip sees, also in programs that are started, with a cache beside it."""
    for name, value in settings(folder).items():
        monkeypatch.setenv(name, value)


def settings(folder: Path) -> dict[str, str]:
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
    }
