"""A Python that has the node and the command line loaded, and forks: what each start of them pays first, their imports
(a second of CPU, as much as all else until a node listens), the many starts of the end-to-end tests pay once.

Each fork is a process of its own, with its own folder, environment, session and open files, killed and waited for by
its id: what `python -m MODULE ARGUMENTS` is, but for the interpreter's start. That start is shown where processes are
started as users do it: the demo, the kills, `node start` by its command, and the tests of single commands.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

TESTS = Path(__file__).resolve().parent.parent
REQUEST_BYTES = 1 << 17  # an environment and a command line; the kernel carries messages of 200 kB between two sockets
START_S = 240.0  # for the imports, on a machine that is busy


class Fork:
    """What the network's processes need of a `subprocess.Popen`."""

    stdout = None

    def __init__(self, forks: Forks, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._forks = forks
        self._handle = os.pidfd_open(pid)  # its parent waits for it only when it is asked to: the number is its own

    def poll(self) -> int | None:
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            gone = select.poll()
            gone.register(self._handle, select.POLLIN)
            if gone.poll(None if timeout_s is None else timeout_s * 1000):
                self.returncode = int(self._forks.ask({"wait": self.pid}))
                os.close(self._handle)
        return self.returncode


class Forks:
    """Starts forks of one server. Any thread may."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._one = threading.Lock()

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> Any:
        message = json.dumps(request).encode()
        assert len(message) <= REQUEST_BYTES, "an environment that is too large to be sent"
        with self._one:
            socket.send_fds(self._line, [message], list(descriptors))
            answer = self._line.recv(REQUEST_BYTES)
        assert answer, "the server of forks ended"
        return json.loads(answer)

    def popen(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        start_new_session: bool,
        cwd: Path | None = None,
    ) -> Fork:
        """As `subprocess.Popen`, for `python -m MODULE ARGUMENTS`."""
        python, dash_m, *module = command
        assert (python, dash_m, stdin) == (sys.executable, "-m", subprocess.DEVNULL), command
        request = {"module": module, "cwd": str(cwd or Path.cwd()), "environment": dict(env),
                   "session": start_new_session}  # fmt: skip
        with open(os.devnull, "rb") as nothing:
            return Fork(self, self.ask(request, [nothing.fileno(), stdout.fileno(), stderr.fileno()]))

    def run(
        self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` that captures the output. TimeoutExpired, with the process killed."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            fork = self.popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                              start_new_session=False, cwd=cwd)  # fmt: skip
            try:
                code = fork.wait(timeout_s)
            except BaseException:
                fork.kill()
                fork.wait()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(command), code, out.read().decode(), err.read().decode())


@contextmanager
def start() -> Iterator[Forks]:
    """For as long as the block lasts. Its forks may outlive it: whoever started them ends them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TALLYMESH_")}
    path = os.pathsep.join([str(TESTS), *filter(None, [environment.get("PYTHONPATH")])])
    with (
        ours,
        theirs,
        subprocess.Popen(
            [sys.executable, "-m", "fakes.forks", str(theirs.fileno())],
            env={**environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C reaches the tests alone, which end their processes in order
        ) as server,
    ):
        theirs.close()
        ours.settimeout(START_S)
        forks = Forks(ours)
        assert forks.ask({"ready": True}) is True
        yield forks
        ours.close()
        server.wait()


# ---- the other side


def serve(line: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Returns in each fork, with the request and its open files; None at the end."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(line, REQUEST_BYTES, 3)
        if not message:
            return None
        request: dict[str, Any] = json.loads(message)
        answer: Any = True
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif "module" in request:
            if not (answer := os.fork()):
                return request, descriptors
            for descriptor in descriptors:
                os.close(descriptor)
        line.send(json.dumps(answer).encode())


def become(request: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """What `python -m MODULE ARGUMENTS` does with a new process."""
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)
        os.close(descriptor)
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = list(request["module"])
    code: Any = 0
    try:
        runpy.run_module(request["module"][0], run_name="__main__", alter_sys=True)
    except SystemExit as said:
        code = said.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # As at the end of any Python, but for taking all modules apart, which would copy each page that the forks share.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    import tallymesh_node.cli.app
    import tallymesh_node.daemon  # noqa: F401

    gc.freeze()  # or the first collection of each fork copies all of it
    with socket.socket(fileno=int(sys.argv[1])) as own:
        asked = serve(own)
    if asked is not None:
        become(*asked)
