"""`tallymesh build`: a program's first job as far as its package, which is kept and not sent.

The command sets TALLYMESH_BUILD to a folder and runs the program as `tallymesh run` would. `map` and `train` then read,
capture and try everything as always, leave the package there and end the program: what comes after it may need results
that there are none of. No node, budget or network is needed. This module does not know the command line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tallymesh import api, program, units, wheels
from tallymesh.client import resolving
from tallymesh.client.local import unit_count
from tallymesh.errors import CallerError
from tallymesh.ids import BlobId, blob_id
from tallymesh.prepare import PreparedJob

VARIABLE: Final = "TALLYMESH_BUILD"
_TERMS: Final = "terms"


class Built(SystemExit):
    """Ends the program once its package is kept. Not an Exception: a program that catches those goes no further."""

    def __init__(self) -> None:
        super().__init__(0)


class File(msgspec.Struct, frozen=True):
    """One file of the program: its path in the archive, its size, and its content id (BLAKE3, hex)."""

    path: str
    bytes: int
    hash: str


class Part(msgspec.Struct, frozen=True):
    """A stage: what it calls, and its declared work, in seconds on the reference core."""

    name: str
    entry: str
    work_s: float


class Travelling(msgspec.Struct, frozen=True):
    """A package that travels with the job. `requirement` gives this very file again."""

    name: str
    version: str
    file: str
    bytes: int
    hash: str
    requirement: str


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """What would be sent. `job` is the content id of the template, which names everything else by content too."""

    job: str
    name: str
    kind: str
    units: int
    rounds: int
    seed: int
    numeric_profile: str
    program: str
    files: list[File]
    stages: list[Part]
    packages: list[Travelling]
    inputs: int  # items of a map, shards of a training
    inputs_bytes: int
    test_bytes: int
    initial_bytes: int
    bytes: int  # of everything, the template included
    budget_wei: str = "0"
    verify: str = "sampled"
    runs: int = 0  # units that workers are paid for: each twice with verify="replicate"


def folder() -> Path | None:
    """Where the package is wanted, None where the job is to be submitted."""
    wanted = os.environ.get(VARIABLE)
    return Path(wanted) if wanted else None


def keep(prepared: PreparedJob, terms: api.Terms, where: Path) -> None:
    """Write the package; readable by `PreparedJob.load` and `read`."""
    prepared.save(where)
    (where / _TERMS).write_bytes(msgspec.json.encode(terms))


def read(where: Path) -> Package:
    """The package in a folder. CallerError `no_job` where the program made none."""
    if not (where / "spec").exists():
        raise CallerError(
            "no_job", "The program ended without a job.", remedy="It has to call tallymesh.map or tallymesh.train."
        )
    prepared = PreparedJob.load(where)
    return describe(prepared, msgspec.json.decode((where / _TERMS).read_bytes(), type=api.Terms))


def describe(prepared: PreparedJob, terms: api.Terms) -> Package:
    """What is in a package, with hashes and sizes."""
    spec, blobs = prepared
    body = units.encode(spec)
    archive = program.unpack(blobs[BlobId(spec.program)])
    packages = wheels.among(spec.shared)
    return Package(
        job=blob_id(body).hex(),
        name=spec.name,
        kind=spec.kind,
        units=unit_count(spec),
        rounds=spec.rounds,
        seed=spec.seed,
        numeric_profile=spec.profile.hex(),
        program=spec.program.hex(),
        files=[File(path, len(data), blob_id(data).hex()) for path, data in sorted(archive.items())],
        stages=[Part(stage.name, stage.entry, stage.work_ms / 1000) for stage in spec.stages],
        packages=[
            Travelling(
                each.name, each.version, each.file, each.size, each.blob.hex(), resolving.pinned(each, blobs[each.blob])
            )
            for each in packages
        ],
        inputs=len(spec.inputs),
        inputs_bytes=_size(blobs, {*spec.inputs, *(each.blob for each in spec.shared)} - {w.blob for w in packages}),
        test_bytes=_size(blobs, {spec.test}),
        initial_bytes=_size(blobs, {spec.initial}),
        bytes=len(body) + sum(map(len, blobs.values())),
        budget_wei=terms.budget_wei,
        verify=terms.verify,
        runs=unit_count(spec) * (2 if terms.verify == "replicate" else 1),
    )


def _size(blobs: Mapping[BlobId, bytes], names: set[bytes]) -> int:
    return sum(len(blobs[BlobId(name)]) for name in names if name in blobs)
