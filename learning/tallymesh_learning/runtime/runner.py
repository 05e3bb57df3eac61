"""Runs one unit: the same function in a node's sandbox, for the payer's own recomputation and for backend="local".

It reads and writes the files that work.py names and never raises for what the unit did: a failure is a file too. The
process must have been started with the profile's environment, for a unit of any other profile is refused. Isolation
is not its business.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from tallymesh import logs, program, wheels
from tallymesh.errors import TallymeshError
from tallymesh.units import Unit, canonical_json, decode_unit
from tallymesh_learning.runtime import packages, profile
from tallymesh_learning.runtime.work import PROBE_KEY_BYTES, Emit, Result, UnitFailure, Work

MAX_LINE: Final = 4000  # characters of one printed line; a longer one is cut into several
MAX_TRACEBACK: Final = 20_000  # characters
MAX_SAID: Final = 1600  # characters of what an exception says; with the item beside it a node takes 2,000
MAX_METRICS: Final = 100  # names of one unit: they become columns
RUNTIME: Final = "tallymesh"  # module name in the entries of the runtime's own steps
STEPS: Final = ("initialise", "segment", "client", "aggregate", "evaluate", "loss_check")
SIMULATED: Final = ("batched",)  # what only a submitter's own machine runs: nobody could check it to the bit


def run_unit(folder: Path, emit: Emit, steps: Sequence[str] = STEPS) -> bool:
    """Run the unit in `folder`; True where it left an output, False where it left a failure.

    `steps` are those of the runtime that it may be. `emit` gets ``("line", text)`` for what is printed and ``("metric",
    [name, value])``, live.
    """
    out = folder / "out"
    out.mkdir(exist_ok=True)
    logged: dict[str, float] = {}

    def metric(name: str, value: float) -> None:
        if name in logged or len(logged) < MAX_METRICS:
            logged[name] = value
            emit("metric", [name, value])

    work: Work | None = None
    lines = _Lines(emit)
    # A whole text stream: programs use its `buffer` and `encoding`, too. It stays open, for handlers that hold it.
    console = io.TextIOWrapper(cast(BinaryIO, lines), "utf-8", "backslashreplace", newline="\n", write_through=True)
    try:
        with contextlib.redirect_stdout(console), contextlib.redirect_stderr(console), logs.sink(metric):
            work = _open(folder, emit)
            result = _run(work, steps)
            metrics = canonical_json({name: v for name, v in {**logged, **result.metrics}.items() if math.isfinite(v)})
    except (Exception, SystemExit) as error:
        _write(out / "failure", canonical_json(_failure(error, work.about if work is not None else "")))
        return False
    finally:
        lines.finish()
    with work.timed("save"):
        _write(out / "output", result.output)
        _write(out / "metrics", metrics)
        if result.probe:
            _write(out / "probe", result.probe)
    _write(out / "report", json.dumps({"seconds": work.seconds, "steps": result.steps}).encode())
    return True


def _open(folder: Path, emit: Emit) -> Work:
    try:
        unit = decode_unit((folder / "in" / "unit").read_bytes())
    except (OSError, TallymeshError) as error:
        raise UnitFailure("inputs", f"The unit cannot be read: {error}") from None
    kind = profile.kind_of(unit.profile)
    if not kind:
        mine, asked = profile.profile_hash().hex()[:8], unit.profile.hex()[:8]
        raise UnitFailure("sandbox", f"The unit asks for the numeric profile {asked}, this machine has {mine}.")
    wrong = profile.missing_environment(kind)
    if wrong:
        raise UnitFailure("sandbox", f"This process was not started under the numeric profile: {', '.join(wrong)}.")
    key_file = folder / "in" / "probe"
    key = key_file.read_bytes() if key_file.exists() else b""
    if key and len(key) != PROBE_KEY_BYTES:
        raise UnitFailure("inputs", f"A probe's key has {PROBE_KEY_BYTES} bytes, not {len(key)}.")
    return Work(folder, unit, emit, key)


def _run(work: Work, steps: Sequence[str]) -> Result:
    with work.timed("load"):
        try:
            archive = program.unpack(work.blob(work.unit.program))
        except TallymeshError as error:
            raise UnitFailure("inputs", str(error)) from None
    with work.timed("import"):
        step = _step(work.unit, steps)
        from tallymesh_learning.runtime import numeric

        numeric.apply(profile.kind_of(work.unit.profile))
        numeric.reseed(work.unit.seed, "import")
    with _packages(work), program.importable(archive):
        result: Result = step(work)
        return result


def _packages(work: Work) -> AbstractContextManager[None]:
    """Those that travel with the job, where whoever started this process unpacked them."""
    try:
        wanted = wheels.among(work.unit.inputs)
    except TallymeshError as error:
        raise UnitFailure("inputs", str(error)) from None
    if not wanted:
        return contextlib.nullcontext()
    if not work.packages.is_dir():
        raise UnitFailure("sandbox", "The unit's packages are not here.")
    return packages.importable(work.packages)


def _step(unit: Unit, steps: Sequence[str]) -> Any:
    """The function that runs this unit."""
    module, _, name = unit.entry.partition(":")
    if module != RUNTIME:
        from tallymesh_learning.steps import map as mapping

        return mapping.run
    if name not in steps:
        raise UnitFailure("inputs", f"The runtime has no step {name[:50]!r}.")
    from importlib import import_module

    return import_module(f"tallymesh_learning.steps.{name}").run


def _failure(error: BaseException, about: str = "") -> dict[str, str]:
    if isinstance(error, UnitFailure):
        return {"code": error.code, "sentence": _plain(error.sentence), "traceback": _plain(_user_frames(error))}
    text = _text(error)[:MAX_SAID]
    code, sentence = "program", f"{type(error).__name__}: {text}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in text):
        code, sentence = "limits", f"Not enough memory: {sentence}"
    elif isinstance(error, TallymeshError):
        sentence = text
    elif isinstance(error, SystemExit):
        sentence = f"The program ended itself with sys.exit({text})."
    if about:
        sentence = f"{sentence}{'' if sentence.endswith(('.', '!', '?')) else '.'} {about}"
    return {"code": code, "sentence": _plain(sentence), "traceback": _plain(_user_frames(error))}


def _text(error: BaseException) -> str:
    """The user's exception may fail at this, too."""
    try:
        return repr(error.code) if isinstance(error, SystemExit) else str(error)
    except Exception:
        return "(an exception that cannot be shown as text)"


def _plain(text: str) -> str:
    """Without lone surrogates, which no message can carry: file names and broken decoders put them into errors."""
    return text.encode("utf-8", "backslashreplace").decode()


def _user_frames(error: BaseException) -> str:
    """The traceback without frames of the runtime and of libraries: what the program's author can act on."""
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if frame.filename.startswith(program.PREFIX)]
    )
    if not shown.stack and not isinstance(error, SyntaxError):
        return ""
    return "".join(shown.format(chain=False))[-MAX_TRACEBACK:]


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


class _Lines(io.RawIOBase):
    """What the program prints, as bytes that come in any pieces, line by line. Its last line needs no end."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._take(self._decoder.decode(bytes(data)))
        return len(data)

    def _take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._send(line)
        while len(self._rest) > MAX_LINE:
            self._send(self._rest[:MAX_LINE])
            self._rest = self._rest[MAX_LINE:]

    def _send(self, line: str) -> None:
        for start in range(0, max(len(line), 1), MAX_LINE):
            self._emit("line", line[start : start + MAX_LINE])

    def finish(self) -> None:
        self._take(self._decoder.decode(b"", final=True))
        if self._rest:
            self._send(self._rest)
            self._rest = ""
