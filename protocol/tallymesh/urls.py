"""Inputs and data by URL: whatever fsspec opens (file, http, s3, gs, zip, memory …), read on the submitter's side.

Workers never see the URL: they have no network, and a unit's inputs are named by their content. Readers for more
protocols are packages of fsspec's (s3fs, gcsfs, aiohttp …); it names the one that is missing.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError, LocalError

FILES_MAX: Final = 100_000  # that one pattern may match: more do not fit into one job's template
BYTES_MAX: Final = 4 * 1024**3  # of all files of one URL: they are held in memory while they are packed
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://", re.ASCII)


def is_url(value: object) -> bool:
    """``s3://bucket/x``, ``zip://x::file:///tmp/a.zip``; a path without a protocol is none."""
    return isinstance(value, str) and _URL.match(value) is not None


def read(url: str) -> list[tuple[str, bytes]]:
    """Path and bytes of each file that the URL names, in the order of their paths; ``*`` matches many. Compressed ones
    (.gz, .bz2, .xz) are unpacked. CallerError `bad_url` where it cannot be read."""
    try:
        import fsspec
    except ImportError:
        raise LocalError("no_fsspec", "Reading a URL needs fsspec.", remedy="pip install fsspec") from None
    try:
        files = fsspec.open_files(url, "rb", compression="infer")
        if len(files) > FILES_MAX:
            raise CallerError("too_many_files", f"{url} names {len(files)} files, and at most {FILES_MAX} are read.")
        found: list[tuple[str, bytes]] = []
        left = BYTES_MAX
        for each in sorted(files, key=lambda file: str(file.path)):
            with each as file:
                data = file.read(left + 1)
            left -= len(data)
            if left < 0:
                raise CallerError("too_large", f"{url} is over {BYTES_MAX} bytes.", remedy="Make several jobs of it.")
            found.append((str(each.path), data))
    except CallerError:
        raise
    except Exception as error:  # each protocol raises its own
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise CallerError("bad_url", f"{url} cannot be read: {what}") from None
    if not found:
        raise CallerError("bad_url", f"{url} names no file.")
    return found


def items(url: str) -> list[Any]:
    """Inputs of a map: the values in a ``.json`` file (a list) or in the lines of ``.jsonl`` files, else the bytes of
    each file."""
    made: list[Any] = []
    for path, data in read(url):
        ending = kind(path)
        if ending == ".jsonl":
            made += lines(path, data)
        elif ending == ".json":
            found = _json(path, data)
            if not isinstance(found, list):
                raise CallerError("bad_url", f"{path} holds no JSON list.")
            made += found
        else:
            made.append(data)
    return made


def lines(path: str, data: bytes) -> list[Any]:
    """The values in the lines of a ``.jsonl`` file; empty ones are left out."""
    return [_json(f"{path}:{number}", line) for number, line in enumerate(data.splitlines(), 1) if line.strip()]


def kind(path: str) -> str:
    """How the file's name ends, without what says that it is compressed: ``.jsonl`` of ``rows.jsonl.gz``."""
    name = re.sub(r"\.(gz|bz2|xz)$", "", path.rpartition("/")[2])
    return name[name.rfind(".") :] if "." in name else ""


def _json(where: str, data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except UNREADABLE as error:
        raise CallerError("bad_url", f"{where} is not JSON: {error}") from None
