"""Reading what a unit left, when it and everything that it started is dead.

The folder's descriptor was opened before foreign code began; its file system can no longer change. Still the unit
chose what lies there: links are not followed, only plain files are read, and no more than allowed. This module does
not judge whether the work is right.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import RemoteError
from tallymesh.ids import ZERO32
from tallymesh.text import plain
from tallymesh.units import decode_metrics
from tallymesh_node.interfaces import Failure

MAX_METRICS = 1024 * 1024
MAX_REPORT = 64 * 1024
MAX_FAILURE = 256 * 1024
MAX_STEPS_NAMED = 64
MAX_STEP_NAME = 64
MAX_SECONDS = 1e9

# Whatever else a unit says about its failure is the program's: foreign code may have written it, so it cannot blame the
# node or what the node put in place. `form` is what a check says of another unit's output.
_CODES = {"program", "limits", "form"}

# How running into a limit of the kernel looks from inside: allocation, disk, size of a file, descriptors, processes.
_EXHAUSTED = (
    "MemoryError",
    "can't allocate memory",
    "[Errno 12]",
    "[Errno 28]",
    "[Errno 27]",
    "[Errno 24]",
    "[Errno 11]",
    "can't start new thread",
)


class _Report(msgspec.Struct):
    seconds: dict[str, float] = {}
    steps: int = 0


class _Failed(msgspec.Struct):
    code: str
    sentence: str
    traceback: str = ""


class Left(msgspec.Struct, frozen=True):
    """What a unit that ran left."""

    output: bytes
    metrics: bytes
    seconds: Mapping[str, float]
    steps: int
    probe: bytes


def read(folder: int, output_max: int) -> Left:
    """All outputs in directory descriptor `folder`. Failure `program` or `limits` where they are not as agreed."""
    output = read_file(folder, "output", output_max)
    if output is None:
        raise Failure("program", "The unit ended without an output.")
    metrics = read_file(folder, "metrics", MAX_METRICS) or b"{}"
    try:
        decode_metrics(metrics)  # as whoever gets the receipt does
        report = msgspec.json.decode(read_file(folder, "report", MAX_REPORT) or b"{}", type=_Report)
    except (RemoteError, *UNREADABLE) as error:
        raise Failure("program", f"The unit's metrics or report cannot be read: {error}") from None
    named = len(report.seconds) <= MAX_STEPS_NAMED and all(
        len(name) <= MAX_STEP_NAME and name.isprintable() and 0 <= value <= MAX_SECONDS
        for name, value in report.seconds.items()
    )
    if not named or not 0 <= report.steps < 1 << 53:
        raise Failure("program", "The unit's report is out of bounds.")
    probe = read_file(folder, "probe", len(ZERO32)) or ZERO32
    if len(probe) != len(ZERO32):
        raise Failure("program", f"The unit's probe has {len(probe)} bytes instead of {len(ZERO32)}.")
    return Left(output, metrics, report.seconds, report.steps, probe)


def read_failure(folder: int) -> Failure | None:
    """What the runner said about why there is no output, or None."""
    try:
        data = read_file(folder, "failure", MAX_FAILURE)
        said = msgspec.json.decode(data, type=_Failed) if data is not None else None
    except (Failure, *UNREADABLE):
        return Failure("program", "The unit failed and left an account of it that cannot be read.")
    if said is None:
        return None
    code = said.code if said.code in _CODES else "program"
    last = said.traceback.rstrip().rsplit("\n", 1)[-1]
    if code == "program" and any(mark in text for mark in _EXHAUSTED for text in (said.sentence, last)):
        code = "limits"
    return Failure(code, plain(said.sentence[:2000]), plain(said.traceback[-20_000:]))


def read_file(folder: int, name: str, size_max: int) -> bytes | None:
    """Bytes of the plain file `name`, None where there is none. Failure for anything else than a plain file."""
    try:
        # Not followed, and not waited for: a fifo would block the reader for ever.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        what = "a link" if error.errno == errno.ELOOP else f"unreadable ({error.strerror})"
        raise Failure("program", f"The unit left {what} where its {name} belongs.") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise Failure("program", f"The unit left something that is no file where its {name} belongs.")
        if facts.st_size > size_max:
            raise Failure("limits", f"The unit's {name} has {facts.st_size} bytes; {size_max} are allowed.")
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            return file.readall()
    finally:
        os.close(descriptor)
