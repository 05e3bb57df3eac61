"""backend="local": the same job package through the same unit runner, in child processes on this machine; with
backend="ray" in those of a Ray cluster, which the child of this program gives them to (tallymesh_learning.on_ray).

Sandbox, network and money are left out, nothing else, so the result has the same content id. The job lives as long as
this program; its files vanish with it. No unit runs in this interpreter.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from tallymesh import units
from tallymesh.api import AuditView, EventView, JobView, Problem, ReceiptView, ResultsView
from tallymesh.client.local_child import END
from tallymesh.client.source import ENDED, fold
from tallymesh.errors import CallerError, LocalError
from tallymesh.ids import BlobId, blob_id
from tallymesh.prepare import PreparedJob

POLL_S: Final = 0.03  # between looks at the child's events
END_S: Final = 2.0  # a child that was asked to end cleans up in well under a second; killed, its own processes notice
END_RAY_S: Final = 20.0  # … and one that takes its tasks back from a cluster, or ends its own
TAIL: Final = 2_000  # characters of the child's last words that an error shows


class Warm(Protocol):
    """What a training was tried with, a process that has torch and forks units: its job goes on with the same one, for
    it takes 2 s to start (`tallymesh_learning.runtime.pool.UnitPool`)."""

    @property
    def home(self) -> Path | None: ...
    def fileno(self) -> int: ...
    def let_go(self) -> subprocess.Popen[bytes]: ...


class _Line(msgspec.Struct):
    kind: str
    data: dict[str, Any] = {}


class LocalSource:
    """One job in a child process. Starts it; where it has started, `warm` and the folder that is its home are ours."""

    outlives = False

    def __init__(
        self,
        spec: units.JobSpec,
        name: BlobId,
        blobs: Mapping[BlobId, bytes],
        *,
        batched: bool = False,
        backend: str = "local",
        warm: Warm | None = None,
    ) -> None:
        self.backend = backend
        self._folder = folder() if warm is None or warm.home is None else warm.home
        PreparedJob(spec, dict(blobs)).save(self._folder)
        command = [sys.executable, "-P", "-m", "tallymesh.client.local_child", *(["--batched"] if batched else [])]
        command += ["--ray"] if backend == "ray" else []
        command += [f"--pool={warm.fileno()}"] if warm else []
        with (self._folder / "events").open("wb") as out, (self._folder / "errors").open("wb") as errors:
            # -P: a module of the user in the current folder must come from the archive, never from here.
            self._child = subprocess.Popen(  # noqa: S603 - our own module
                [*command, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                pass_fds=[warm.fileno()] if warm else [],
                start_new_session=True,  # Ctrl-C is answered here
                # What it and the units leave goes with the folder, also where they are stopped while they clean up.
                env={**os.environ, **(cluster() if backend == "ray" else {}), "TMPDIR": str(self._folder)},
            )
        self._warm = warm.let_go() if warm else None
        self._lines: IO[bytes] = (self._folder / "events").open("rb")
        self._rest = b""
        self._events: list[EventView] = []
        self._outputs: tuple[str, ...] = ()
        self._cancelled = False
        self.job_id = f"local-{name.hex()[:16]}"
        self._view = JobView(
            id=self.job_id,
            name=spec.name,
            kind=spec.kind,
            status="preparing",
            created=time.time(),
            rounds=spec.rounds,
            units=unit_count(spec),
            spec=name.hex(),
            approximate=batched,
        )
        self._end_s = END_RAY_S if backend == "ray" else END_S
        self._end = weakref.finalize(self, _clean_up, self._child, self._warm, self._lines, self._folder, self._end_s)

    def __repr__(self) -> str:
        return f"<LocalSource {self.job_id} pid={self._child.pid} {self._view.status}>"

    def view(self) -> JobView:
        self._read()
        return self._view

    def events(self, after: int = 0, *, follow: bool = True) -> Iterator[EventView]:
        while True:
            self._read()
            over = self._view.status in ENDED
            while after < len(self._events):
                after += 1
                yield self._events[after - 1]
            if over or not follow:
                return
            time.sleep(POLL_S)

    def why(self) -> list[Problem]:
        view = self.view()
        if view.problem is not None:
            return [view.problem]
        where = "your Ray cluster" if self.backend == "ray" else "this machine"
        return [Problem(code="local", sentence=f"The job runs on {where} and is {view.status}.")]

    def receipts(self) -> list[ReceiptView]:
        return []  # nobody signs anything here

    def audits(self) -> list[AuditView]:
        return []

    def results(self) -> ResultsView:
        view = self.view()
        if view.status != "done":
            raise CallerError("not_finished", f"Job {view.id} is {view.status}: it has no result yet.")
        return ResultsView(kind=view.kind, outputs=self._outputs, checkpoint=view.result)

    def blob(self, name: str) -> bytes:
        try:
            data = (self._folder / "blobs" / name).read_bytes()
        except OSError:
            raise LocalError("no_blob", f"Blob {name[:8]}… is not part of this job.") from None
        if blob_id(data).hex() != name:
            raise LocalError("wrong_blob", f"Blob {name[:8]}… changed on disk.")
        return data

    def cancel(self) -> None:
        self._cancelled = True
        _stop(self._child, self._warm, self._end_s)
        self._read()

    async def ended(self) -> None:
        import anyio

        while self.view().status not in ENDED:  # noqa: ASYNC110 - another process writes a file
            await anyio.sleep(POLL_S)

    def aside(self) -> None:
        return None  # everything runs here, and begins at once

    def close(self) -> None:
        pass  # its files vanish with it

    # -- the child

    def _read(self) -> None:
        """Take in what the child has said since the last time."""
        if self._view.status in ENDED:
            return
        gone = self._child.poll() is not None  # asked first: what it said before it went is in the file by now
        *lines, self._rest = (self._rest + self._lines.read()).split(b"\n")
        for line in lines:
            said = msgspec.json.decode(line, type=_Line)
            self._take(said.kind, said.data)
        if gone and self._view.status not in ENDED:
            self._ended_early()

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "failed":
            problem = {"code": "program", "sentence": "", **data}
            kind, data = "done", {"status": "failed", "problem": problem}
        elif kind == "done":
            self._outputs = tuple(data.pop("outputs", ()))
            data = {**data, "status": "done"}
        elif self._view.status == "preparing":
            self._add("status", {"status": "running"})
        self._add(kind, data)

    def _add(self, kind: str, data: dict[str, Any]) -> None:
        event = EventView(sequence=len(self._events) + 1, at=time.time(), kind=kind, data=data)
        self._events.append(event)
        self._view = fold(self._view, event)

    def _ended_early(self) -> None:
        if self._cancelled:
            self._add("done", {"status": "cancelled"})
            return
        words = (self._folder / "errors").read_text(errors="replace")[-TAIL:].strip()
        sentence = f"The process that ran the job ended with status {self._child.returncode}: {words}"
        self._add("done", {"status": "failed", "problem": {"code": "local_ended", "sentence": sentence}})


def unit_count(spec: units.JobSpec) -> int:
    """How many units a job has when nothing has to be done again."""
    if spec.kind == "federated":
        return spec.rounds * ((spec.per_round or len(spec.inputs)) + 1)
    return len(spec.inputs) if spec.kind == "map" else spec.rounds


def cluster() -> dict[str, str]:
    """Where this program's own Ray is, for a child that is to use the same; nothing where it has none, or says so."""
    ray: Any = sys.modules.get("ray")
    if ray is None or "RAY_ADDRESS" in os.environ or not ray.is_initialized():
        return {}
    return {"RAY_ADDRESS": str(ray.get_runtime_context().gcs_address)}


def folder() -> Path:
    """Of a job: all that it and its units leave on disk. Its maker removes it."""
    return Path(tempfile.mkdtemp(prefix="tallymesh-job-"))


@contextlib.contextmanager
def warmed(wanted: bool) -> Iterator[Any]:
    """A pool of units that a training is tried with and its job goes on with; ended where no job began. None where it
    is not `wanted`."""
    if not wanted:
        yield None
        return
    from tallymesh_learning.runtime.pool import UnitPool

    home = folder()
    try:
        with UnitPool(1, home=home) as pool:
            yield pool
    except BaseException:  # a job that began has the folder: nothing fails after that
        shutil.rmtree(home, ignore_errors=True)
        raise


def _stop(child: subprocess.Popen[bytes], warm: subprocess.Popen[bytes] | None, end_s: float) -> None:
    """It is told to end, and does at the end of its standard input; killed where it does not. The warm process, whose
    only other end it has, goes with it."""
    if child.stdin is not None and not child.stdin.closed:
        with contextlib.suppress(OSError):  # it has ended
            child.stdin.write(END)
            child.stdin.close()
    for each in (child, warm):
        if each is None:
            continue
        try:
            each.wait(end_s)
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


def _clean_up(
    child: subprocess.Popen[bytes],
    warm: subprocess.Popen[bytes] | None,
    lines: IO[bytes],
    place: Path,
    end_s: float,
) -> None:
    _stop(child, warm, end_s)
    lines.close()
    shutil.rmtree(place, ignore_errors=True)
