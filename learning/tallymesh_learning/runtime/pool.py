"""Runs units on this machine without a sandbox: for backend="local", for preparing a job, for tests of one's own code.

A child process is started under the numeric profile and warmed; each unit is a fork of it (forks.py). This is the
caller's side, which imports no torch. It isolates nothing: foreign code belongs into the node's sandbox.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, NoReturn, Self

import msgspec

from tallymesh import unpacking, wheels
from tallymesh.errors import LocalError
from tallymesh.ids import BlobId, blob_id
from tallymesh.units import Unit, encode
from tallymesh.unpacking import Given
from tallymesh.wheels import Wheel
from tallymesh_learning.runtime import profile
from tallymesh_learning.runtime.forks import MAX_PACKET, SCORE
from tallymesh_learning.runtime.work import PACKAGES, UnitFailure

LIVE: Final = ("line", "metric", "round")  # kinds of events that do not end a unit
START_S: Final = 120.0  # importing torch takes 2 s; a loaded machine is given a minute and a half more
END_S: Final = 5.0  # for killing its forks
PASSED: Final = ("PATH", "HOME", "TMPDIR", "LANG", "PYTHONPATH", "VIRTUAL_ENV")  # of the caller's environment


class Done(NamedTuple):
    """What a unit left."""

    output: bytes
    metrics: bytes  # canonical JSON
    seconds: dict[str, float]
    steps: int
    probe: bytes
    cpu_s: float  # of the whole fork


class Event(NamedTuple):
    """`ticket` names the unit. kinds: "line" (text), "metric" ([name, value]), "round" (steps/batched.py), "done"
    (Done), "failed" (dict with code, sentence, traceback)."""

    ticket: int
    kind: str
    payload: Any


class UnitPool:
    """Up to `workers` units side by side. A context manager; not for several threads.

    Inputs are given once with `put` and kept as files in a folder that vanishes with the pool: in `home` where one is
    given, which then also has what units leave under TMPDIR. A process that was handed the end of another's pool
    (`fileno`, `let_go`) goes on with it in the same `home`; there the child is not its own, and is warm already.
    """

    def __init__(
        self, workers: int | None = None, *, home: Path | None = None, channel: socket.socket | None = None
    ) -> None:
        self.workers = max(1, workers or len(os.sched_getaffinity(0)))
        self.home = home
        self._folder = home / "pool" if home else Path(tempfile.mkdtemp(prefix="tallymesh-local-"))
        (self._folder / "blobs").mkdir(parents=True, exist_ok=channel is not None)
        self._tickets = 0
        self._running: dict[int, Path] = {}
        self._waiting: list[tuple[int, Path]] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = channel
        self._ready = channel is not None
        self._let_go = False
        self._score = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Blobs

    def put(self, data: bytes) -> BlobId:
        name = blob_id(data)
        path = self.path(name)
        if not path.exists():
            draft = path.with_suffix(".part")
            draft.write_bytes(data)
            os.replace(draft, path)
        return name

    def get(self, blob: bytes) -> bytes:
        """KeyError where the blob is not here."""
        try:
            return self.path(blob).read_bytes()
        except FileNotFoundError:
            raise KeyError(blob.hex()) from None

    def path(self, blob: bytes) -> Path:
        return self._folder / "blobs" / blob.hex()

    # Units

    def submit(self, unit: Unit, *, probe_key: bytes = b"") -> int:
        """Run the unit as soon as a place is free; its ticket. KeyError where an input was not put before."""
        self._wait_ready()
        self._tickets += 1
        work = self._folder / f"unit-{self._tickets}"
        (work / "in" / "blobs").mkdir(parents=True)
        (work / "in" / "unit").write_bytes(encode(unit))
        if probe_key:
            (work / "in" / "probe").write_bytes(probe_key)
        for blob in {unit.program, *(item.blob for item in unit.inputs)}:
            if not self.path(blob).exists():
                raise KeyError(blob.hex())
            os.link(self.path(blob), work / "in" / "blobs" / blob.hex())
        wanted = wheels.among(unit.inputs)
        if wanted:
            os.symlink(self._packages(wanted), work / "in" / PACKAGES)
        self._waiting.append((self._tickets, work))
        self._fill()
        return self._tickets

    def _packages(self, wanted: Sequence[Wheel]) -> Path:
        """The folder of a set of wheels, unpacked once."""
        folder = self._folder / "packages" / wheels.set_id(wanted)
        if not folder.exists():
            draft = folder.with_suffix(".part")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            unpacking.unpack([Given(wheel, self.path(wheel.blob)) for wheel in wanted], draft)
            draft.rename(folder)
        return folder

    @property
    def busy(self) -> int:
        """Units in work or waiting."""
        return len(self._running) + len(self._waiting)

    def next_event(self, timeout_s: float | None = None) -> Event | None:
        """The next thing that happens, or None when nothing did in time. LocalError where the child process died."""
        assert self._socket is not None, "no unit was submitted"
        self._socket.settimeout(timeout_s)
        while True:
            try:
                packet = self._socket.recv(MAX_PACKET)
            except TimeoutError:
                return None
            except ConnectionResetError:
                packet = b""
            if not packet:
                self._died()
            ticket, kind, payload = json.loads(packet)
            if ticket not in self._running:
                continue
            if kind in LIVE:
                return Event(ticket, kind, payload)
            work = self._running.pop(ticket)
            self._fill()
            event = _collect(ticket, work, payload)
            shutil.rmtree(work, ignore_errors=True)
            return event

    def run(self, unit: Unit, *, probe_key: bytes = b"", on_event: Callable[[Event], None] | None = None) -> Done:
        """Run one unit and wait for it. UnitFailure where it gives no output."""
        assert not self.busy, "run() is for one unit at a time"
        self.submit(unit, probe_key=probe_key)
        while True:
            event = self.next_event()
            assert event is not None
            if event.kind == "done":
                done: Done = event.payload
                return done
            if event.kind == "failed":
                raise failure(event)
            if on_event is not None:
                on_event(event)

    def fileno(self) -> int:
        """Of this side's end of the warm child, for a process that is to go on with it."""
        self._wait_ready()
        assert self._socket is not None
        return self._socket.fileno()

    def let_go(self) -> subprocess.Popen[bytes]:
        """Another process has our end now: this side can do no more than to wait for the child, whose parent it is."""
        assert self._socket is not None
        assert self._process is not None, "its parent lets it go"
        assert not self.busy, "what runs would tell nobody"
        self._socket.close()
        process, self._socket, self._process, self._let_go = self._process, None, None, True
        return process

    def close(self) -> None:
        """End the child and its forks, and remove the folder. Idempotent."""
        if self._let_go:
            return
        if self._socket is not None:
            if self._process is None:
                self._wait_gone()
            self._socket.close()  # the child ends when our end is closed, and takes its forks with it
            self._socket = None
        if self._process is not None:
            try:
                # Before it is ready it has no forks, and would only look up after importing torch.
                self._process.wait(timeout=END_S if self._ready else 0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_gone(self) -> None:
        """Until another's child and all its forks are gone: each of them holds the other end."""
        assert self._socket is not None
        with contextlib.suppress(OSError):  # TimeoutError among them: its parent sees to it
            self._socket.settimeout(END_S)
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(MAX_PACKET):
                pass

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.workers:
            ticket, work = self._waiting.pop(0)
            self._running[ticket] = work
            self._send(json.dumps({"ticket": ticket, "work": str(work)}).encode())

    def start(self) -> None:
        """Start the child without waiting until it is ready (2 to 3 s). `submit` does it too."""
        if self._process is not None or self._socket is not None:
            return
        if not sys.platform.startswith("linux"):
            raise LocalError("no_local", "Running units here needs Linux.", remedy="Use a container, WSL2, or a node.")
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: os.environ[name] for name in PASSED if name in os.environ} | profile.environment()
        if self.home is not None:
            environment["TMPDIR"] = str(self.home)
        # -P: a module of the user in the current folder must come from the archive, never from here.
        command = [sys.executable, "-P", "-m", "tallymesh_learning.runtime.forks", str(theirs.fileno())]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is answered by its owner, who ends it
        )
        theirs.close()
        self._socket = mine

    @property
    def cpu_score(self) -> int:
        """Speed of one core under the profile, in thousandths of the reference core; not while a unit runs."""
        self._wait_ready()
        if not self._score:
            assert not self.busy, "units beside it would be measured, too"
            self._send(SCORE)
            self._score = int(json.loads(self._told())["cpu_score"])
        return self._score

    def _wait_ready(self) -> None:
        self.start()
        if not self._ready:
            self._told()
            self._ready = True

    def _send(self, packet: bytes) -> None:
        assert self._socket is not None
        try:
            self._socket.send(packet)
        except OSError:
            self._died()

    def _told(self) -> bytes:
        """The child's next word, where it is not about a unit."""
        assert self._socket is not None
        self._socket.settimeout(START_S)
        try:
            word = self._socket.recv(MAX_PACKET)
        except (TimeoutError, ConnectionResetError):
            word = b""
        if not word:
            self._died()
        return word

    def _died(self) -> NoReturn:
        process = self._process
        self.close()
        how = "" if process is None else f" (status {process.returncode})"  # its parent alone is told
        remedy = "See what it printed; where it printed nothing, it may have been killed for want of memory."
        raise LocalError("no_runner", f"The process that runs units ended{how}.", remedy=remedy)


def failure(event: Event) -> UnitFailure:
    """The failure in a "failed" event, with its traceback in the sentence."""
    told = event.payload
    sentence = f"{told['sentence']}\n{told['traceback']}".rstrip()
    return UnitFailure(told["code"], sentence)


def _collect(ticket: int, work: Path, ended: dict[str, Any]) -> Event:
    out = work / "out"
    try:
        if (out / "failure").exists():
            told = msgspec.json.decode((out / "failure").read_bytes(), type=dict[str, str])
            return Event(ticket, "failed", {"code": "program", "sentence": "", "traceback": "", **told})
        report = json.loads((out / "report").read_bytes())
        probe = (out / "probe").read_bytes() if (out / "probe").exists() else b""
        done = Done(
            (out / "output").read_bytes(),
            (out / "metrics").read_bytes(),
            report["seconds"],
            report["steps"],
            probe,
            ended["cpu_s"],
        )
        return Event(ticket, "done", done)
    except (OSError, ValueError, KeyError, msgspec.DecodeError):
        status = ended["status"]
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        told = {"code": "limits", "sentence": f"The unit's process ended {how} without an output.", "traceback": ""}
        return Event(ticket, "failed", told)
