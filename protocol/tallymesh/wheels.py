"""Packages that travel with a job: how the wheels of ``requires=`` are named among a unit's inputs.

A wheel is an input like any other, under a name that says its place in the set, its size and its file name, so that a
unit's id covers the whole set and every way that moves, checks and pays for inputs covers wheels too. This module
knows the names and the bounds; what is inside a wheel is unpacking.py's business, where wheels come from the client's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from blake3 import blake3

from tallymesh import program
from tallymesh.errors import RemoteError
from tallymesh.ids import BlobId
from tallymesh.units import Input, canonical_json

PREFIX: Final = "wheel/"  # of the inputs' names; place, size and file name follow
BASE_ONLY: Final = "base_only"  # code of a worker's no to a job that brings packages
MAX_WHEELS: Final = 64  # of one job: each is named in every unit, 130 bytes a time
MAX_WHEEL_BYTES: Final = 256 * 1024 * 1024  # the largest that people use beside torch is half of that
MAX_SET_BYTES: Final = 512 * 1024 * 1024  # fetched once by every worker and auditor of the job
MAX_FILE_NAME: Final = 200  # characters
# Modules that no wheel may bring: of the base set, and of what runs the unit.
RESERVED: Final = program.BASE | {"msgspec", "blake3"}

# https://packaging.python.org/en/latest/specifications/binary-distribution-format/#file-name-convention
_FILE: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[A-Za-z0-9_.!+]+)(?:-(?P<build>\d[A-Za-z0-9_.]*))?"
    r"-(?P<python>[A-Za-z0-9_.]+)-(?P<abi>[A-Za-z0-9_.]+)-(?P<platform>[A-Za-z0-9_.]+)\.whl"
)
_INPUT: Final = re.compile(r"wheel/(?P<place>\d\d)/(?P<size>[1-9]\d{0,9})/(?P<file>[^/]+)")


class Wheel(NamedTuple):
    """One wheel of a set: its file name, content id and size in bytes."""

    file: str
    blob: BlobId
    size: int

    @property
    def name(self) -> str:
        """Of the distribution, in its normal form: ``scikit-learn``."""
        return normal(self.file.split("-")[0])

    @property
    def version(self) -> str:
        return self.file.split("-")[1]


class Packages(NamedTuple):
    """A set with its bytes, and the modules that it has to import."""

    wheels: tuple[Wheel, ...] = ()
    blobs: Mapping[BlobId, bytes] = MappingProxyType({})
    modules: frozenset[str] = frozenset()


NONE: Final = Packages()


def normal(name: str) -> str:
    """The form under which two spellings of a distribution's name are equal."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_file(name: str) -> None:
    """ValueError where `name` is not the file name of a wheel."""
    if len(name) > MAX_FILE_NAME or not _FILE.fullmatch(name):
        raise ValueError(f"{name[:MAX_FILE_NAME]!r} is not the file name of a wheel")


def inputs(wheels: Sequence[Wheel]) -> tuple[Input, ...]:
    """How a template names them, for every unit that runs code of the program."""
    return tuple(Input(f"{PREFIX}{at:02d}/{wheel.size}/{wheel.file}", wheel.blob) for at, wheel in enumerate(wheels))


def among(given: Iterable[Input]) -> tuple[Wheel, ...]:
    """The wheels among the inputs of a unit or a template, in their order; RemoteError where they are no set."""
    found = [item for item in given if item.name.startswith(PREFIX)]
    wheels: list[Wheel] = []
    try:
        if len(found) > MAX_WHEELS:
            raise ValueError(f"{len(found)} wheels are more than {MAX_WHEELS}")
        for at, item in enumerate(found):
            match = _INPUT.fullmatch(item.name)
            if match is None or int(match["place"]) != at:
                raise ValueError(f"{item.name[:MAX_FILE_NAME]!r} is not the name of wheel {at}")
            check_file(match["file"])
            wheels.append(Wheel(match["file"], BlobId(item.blob), int(match["size"])))
        if len({wheel.name for wheel in wheels}) != len(wheels):
            raise ValueError("two wheels are of one distribution")
        sizes = [wheel.size for wheel in wheels]
        if max(sizes, default=0) > MAX_WHEEL_BYTES or sum(sizes) > MAX_SET_BYTES:
            raise ValueError(f"{sum(sizes)} bytes of wheels are too many")
    except ValueError as error:
        raise RemoteError("bad_wheels", f"Not a set of wheels: {error}.") from None
    return tuple(wheels)


def set_id(wheels: Sequence[Wheel]) -> str:
    """Names the folder that a set is unpacked into: equal for equal wheels in equal order. Hex."""
    rows = [[wheel.file, wheel.blob.hex(), wheel.size] for wheel in wheels]
    return blake3(b"tallymesh.wheels/" + canonical_json(rows)).hexdigest()
