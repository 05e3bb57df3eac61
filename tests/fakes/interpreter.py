"""A Python that has torch loaded, and forks: what a short program of a user pays most for is paid once.

Each program is a process of its own, in its own folder and environment, run as `python PROGRAM` runs it: a fresh
`__main__`, its folder first on the path, a traceback without a line of ours. Nothing of Tallymesh is loaded before.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

TESTS = Path(__file__).resolve().parent.parent


class Interpreter:
    """Runs one program at a time."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(
        self, program: Sequence[str], *, cwd: Path, environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """`python PROGRAM` there. TimeoutExpired, with the program killed, as `subprocess.run` has it."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {"program": list(program), "cwd": str(cwd), "environment": dict(environment),
                       "out": str(out), "err": str(err), "timeout_s": timeout_s}  # fmt: skip
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            answer = self._server.stdout.readline()
            assert answer, "the interpreter ended"
            code: int | None = json.loads(answer)
            printed, complained = out.read_text(), err.read_text()
        if code is None:
            raise subprocess.TimeoutExpired(list(program), timeout_s, printed, complained)
        return subprocess.CompletedProcess(list(program), code, printed, complained)


@contextmanager
def start() -> Iterator[Interpreter]:
    """One for as long as the block lasts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TALLYMESH_", "PYTHON"))}
    command = [sys.executable, "-m", "fakes.interpreter"]
    with subprocess.Popen(
        command, cwd=TESTS, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield Interpreter(server)
        server.communicate()  # it ends where its input does


# ---- the other side


def serve() -> dict[str, Any] | None:
    """Fork for each request and say how it ended. Returns in the fork, with the request; None at the end."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if not pid:
            return request
        handle = os.pidfd_open(pid)
        in_time = bool(select.select([handle], [], [], request["timeout_s"])[0])
        if not in_time:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(code if in_time else None), flush=True)
    return None


def become(request: dict[str, Any]) -> None:
    """What `python PROGRAM` does with a new process, up to its end, which is the interpreter's."""
    for descriptor, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT),
        (2, request["err"], os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    path = Path.cwd() / request["program"][0]
    sys.argv = request["program"]
    own = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path = [str(path.parent), *own, *(entry for entry in sys.path if Path(entry or ".").resolve() != TESTS)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "fakes"]:
        del sys.modules[name]
    main = ModuleType("__main__")
    loader = SourceFileLoader("__main__", str(path))
    vars(main).update(__file__=str(path), __loader__=loader, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    code = loader.source_to_code(path.read_bytes(), str(path))
    shown = sys.excepthook

    def without_us(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        while trace is not None and trace.tb_frame.f_code is not code:
            trace = trace.tb_next
        shown(kind, error.with_traceback(trace), trace)

    sys.excepthook = without_us
    exec(code, vars(main))


if __name__ == "__main__":
    import numpy  # noqa: F401 - what programs pay for
    import torch  # noqa: F401

    if (asked := serve()) is not None:
        become(asked)
