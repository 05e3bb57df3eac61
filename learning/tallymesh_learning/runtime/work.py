"""What a step of the runtime is given, and what it gives back. This module imports no torch.

The files: `in/unit`, `in/blobs/<hex>`, maybe `in/probe` and the folder `in/packages`; `out/output`, `out/metrics`,
`out/report`, maybe `out/probe` - or `out/failure`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from blake3 import blake3

from tallymesh.ids import BlobId, blob_id
from tallymesh.units import Unit

Emit = Callable[[str, Any], None]

PROBE_KEY_BYTES: Final = 32
PACKAGES: Final = "packages"


class UnitFailure(Exception):
    """A unit that gives no output. `code`: ``program`` (the user's code or what it computed), ``inputs``, ``sandbox``
    (this machine), ``limits``."""

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        self.sentence = sentence
        super().__init__(code, sentence)


class Result(NamedTuple):
    output: bytes
    metrics: dict[str, float]
    steps: int = 0
    probe: bytes = b""


class Work:
    """One unit at work: its inputs as files, its clock, where live events go."""

    def __init__(self, folder: Path, unit: Unit, emit: Emit, probe_key: bytes) -> None:
        self.unit = unit
        self.emit = emit
        self.probe_key = probe_key
        self.seconds: dict[str, float] = {}
        self.about = ""  # a sentence on what the user's code was given, for whoever reads why it failed
        self._folder = folder

    def blob(self, blob: bytes) -> bytes:
        """The bytes that `blob` names; UnitFailure where the file is missing or holds something else."""
        data = self.path(blob).read_bytes()
        if blob_id(data) != blob:
            raise UnitFailure("inputs", f"The input {blob.hex()[:8]} does not match its name.")
        return data

    def path(self, blob: bytes) -> Path:
        path = self._folder / "in" / "blobs" / blob.hex()
        if not path.is_file():
            raise UnitFailure("inputs", f"The input {blob.hex()[:8]} is not here.")
        return path

    @property
    def packages(self) -> Path:
        """Where the unit's wheels lie unpacked, if it has some."""
        return self._folder / "in" / PACKAGES

    def has(self, name: str) -> bool:
        return any(item.name == name for item in self.unit.inputs)

    def input(self, name: str) -> bytes:
        """The bytes of the input `name`."""
        return self.blob(self.id(name))

    def id(self, name: str) -> BlobId:
        try:
            return self.unit.input(name)
        except KeyError:
            raise UnitFailure("inputs", f"The unit has no input named {name}.") from None

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the wall seconds of the block to `step` of the report."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began


def probe_step(key: bytes, steps: int) -> int:
    """The step (1-based, after which the state is hashed) that the key draws in the second half of `steps`."""
    assert len(key) == PROBE_KEY_BYTES
    later = steps - steps // 2
    drawn = int.from_bytes(blake3(b"tallymesh.probe", key=key).digest(8), "little")
    return steps - drawn % later


def probe_of(key: bytes, state: bytes) -> bytes:
    """BLAKE3 keyed with the auditor's key over the whole state: the bytes are needed, their hash does not help."""
    return blake3(state, key=key).digest()
