"""From what a submitter types to a job package: a template and the blobs that it names. Nothing is sent here.

`prepare_map` needs neither torch nor numpy; training is prepared by `tallymesh_learning.prepare`, which gives the same
kind of package.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tallymesh import values, wheels
from tallymesh.capture import capture
from tallymesh.errors import CallerError, RemoteError
from tallymesh.ids import ZERO32, BlobId, blob_id
from tallymesh.units import MAX_CONFIG_BYTES, MAX_SPEC_BYTES, Input, JobSpec, Stage, canonical_json, decode_spec, encode
from tallymesh.wheels import Packages

MAP_WORK_S: Final = 1.0  # declared work of a map unit where the submitter says nothing, reference-seconds
MAX_WORK_S: Final = 24 * 3600.0  # of one unit; longer ones are cut into several


class PreparedJob(NamedTuple):
    """A job package: the template, and every blob that it names."""

    spec: JobSpec
    blobs: dict[BlobId, bytes]

    def save(self, folder: Path) -> None:
        """Write ``spec`` and ``blobs/<hex id>`` into `folder`."""
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        for name, data in self.blobs.items():
            (folder / "blobs" / name.hex()).write_bytes(data)
        (folder / "spec").write_bytes(encode(self.spec))

    @classmethod
    def load(cls, folder: Path) -> PreparedJob:
        """The package in `folder`; RemoteError where its template or a blob is not what its name says."""
        spec = decode_spec((folder / "spec").read_bytes())
        blobs: dict[BlobId, bytes] = {}
        for path in sorted((folder / "blobs").iterdir()):
            data = path.read_bytes()
            if blob_id(data).hex() != path.name:
                raise RemoteError("bad_blob", f"{path} does not hold what its name says.")
            blobs[blob_id(data)] = data
        return cls(spec, blobs)


def prepare_map(
    function: Any,
    inputs: Iterable[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    profile: bytes = ZERO32,
    seed: int = 0,
    work: float = MAP_WORK_S,
    name: str = "",
    packages: Packages = wheels.NONE,
) -> PreparedJob:
    """A job that calls ``function(item, **kwargs)`` for each of `inputs`.

    `profile` is the hash of the numeric profile under which it is to run, as the payer's node says; `work` is declared
    in reference-seconds a unit; `packages` travel with the job. CallerError where the function, an item or an argument
    cannot travel.
    """
    _check_returns(function)
    captured = capture(function, packages=packages.modules)
    program = blob_id(captured.archive)
    blobs = {program: captured.archive, **packages.blobs}
    items: list[bytes] = []
    try:
        iterator = iter(inputs)
    except TypeError:
        raise CallerError(
            "no_inputs",
            f"map needs a list of inputs, and {repr(inputs)[:60]} is none.",
            remedy="Pass a list or a range.",
        ) from None
    for index, item in enumerate(iterator):
        data = values.encode(item, what=f"input {index}")
        items.append(blob_id(data))
        blobs[BlobId(items[-1])] = data
    if not items:
        raise CallerError("no_inputs", "map was given no inputs.", remedy="Pass at least one.")
    arguments = values.encode(dict(kwargs or {}), what="keyword arguments")
    config = b"{}"
    shared = wheels.inputs(packages.wheels)
    if kwargs:
        config = canonical_json({"kwargs": base64.b64encode(arguments).decode()})
        if len(config) > MAX_CONFIG_BYTES:
            # Too large to be repeated in every unit: they name it instead.
            config, shared = b"{}", (Input("kwargs", blob_id(arguments)), *shared)
            blobs[blob_id(arguments)] = arguments
    stage = Stage("map", captured.entries[0], config, work_ms(work))
    title = name or getattr(function, "__qualname__", "map")
    spec = JobSpec("map", program, profile, check_seed(seed), (stage,), tuple(items), shared, name=title)
    if len(encode(spec)) > MAX_SPEC_BYTES:
        raise CallerError("too_many_inputs", f"{len(items)} inputs do not fit into one job.", remedy="Make two jobs.")
    return PreparedJob(spec, blobs)


def _check_returns(function: Any) -> None:
    """A call of these gives no value but something that would have to be run first."""
    for found, what, remedy in (
        (inspect.iscoroutinefunction, "async", "Write it with def; what it awaits has no network in a unit anyway."),
        (inspect.isasyncgenfunction, "an async generator", "Write it with def, and return a list."),
        (inspect.isgeneratorfunction, "a generator", "Return a list in place of yielding its items."),
    ):
        if found(function):
            code = inspect.unwrap(function).__code__
            where = f"{code.co_filename}:{code.co_firstlineno}: {function.__qualname__}"
            raise CallerError("no_value", f"{where} is {what}: a call of it gives no value.", remedy=remedy)


def work_ms(seconds: float) -> int:
    """Declared work in reference-milliseconds, rounded up. CallerError where it is not a sensible number."""
    if not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_WORK_S:
        raise CallerError(
            "bad_work",
            f"work={seconds!r} is not a number of seconds between 0 and {MAX_WORK_S:.0f}.",
            remedy="work=1.0",
        )
    return max(1, -int(-seconds * 1000 // 1))


def check_seed(seed: int) -> int:
    if type(seed) is not int or not 0 <= seed < 1 << 64:
        raise CallerError("bad_seed", f"seed={seed!r} is not a whole number of at most 64 bits.", remedy="seed=0")
    return seed
