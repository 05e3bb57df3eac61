"""From a fork of the job's process to the first instruction of foreign code: everything is given up here, in order.

Descriptors, then the file tree, then user namespace, capabilities, limits, and last the system call filter. Only then
`run(work, emit)` is called (the unit runner, or a task of the runtime). A step that fails ends the process: code never
runs half isolated.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tallymesh_learning.runtime import isolate, seccomp, view

Emit = Callable[[str, Any], None]
Run = Callable[[Path, Emit], object]  # the runner's contract: files in, files out

EVENTS = 3  # descriptor of the pipe on which `emit` writes
MAX_EVENT = 4096  # bytes with the newline: what a pipe takes whole (PIPE_BUF), whoever writes at the same time
SETUP_FAILED = 97  # exit status: isolation failed, nothing of the job's code ran

_THREADS_MIN = 64  # the limit on processes counts threads too; without forks it bounds only those
_LOCKED_MEMORY = 64 * 1024
_STACK = 64 * 1024 * 1024  # hard limit; the soft one stays at the system's
_SIGNALS_QUEUED = 256  # also bounds timers
# The owner's own programs and the node come before units, and so does the process that watches them: with the same
# priority a fork bomb would leave it a sixtieth of a core, and look like a sandbox that broke.
NICE = 5
_OOM_FIRST = 1000  # when the machine runs out of memory units go first


def become(
    name: str,
    limits: dict[str, Any],
    *,
    events: int,
    console: int,
    forks: bool,
    run: Run,
    task: str,
    kept: Sequence[str],
    begin: str | None = None,
) -> NoReturn:
    """Turn this process into unit `name`. `task` names another function of the runtime to call instead of `run`;
    `kept` is what view.enter_job returned. `begin` is not None where the job has a card, and then names what wakes it
    (module:function; "" for nothing): where that fails, the machine is at fault and not the unit."""
    os.setsid()
    os.nice(NICE)
    _redirect(events, console)
    with open(f"{view.JOB_PROC}/self/oom_score_adj", "w") as file:
        file.write(str(_OOM_FIRST))
    proc = view.enter_unit(name, kept)
    isolate.unshare(isolate.CLONE_NEWUSER)  # its mounts belong to the job's namespace now, where it has no rights
    isolate.map_own_ids(proc)
    os.close(proc)
    os.umask(0o022)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _limit(limits, forks, card=begin is not None)
    isolate.drop_privileges()
    seccomp.install(forks=forks, card=begin is not None)
    if begin:
        resolve(begin)()
    emit("begin", time.monotonic())
    try:
        if task:
            run_task(task)
        else:
            run(Path(view.WORK), emit)
    except BaseException as error:
        fail("program", f"{type(error).__name__}: {error}", traceback.format_exc())
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def enter_group(entrance: int, *, must: bool = False) -> None:
    """Into the control group that bounds this unit's memory, with all that it starts, and without knowing its name.
    OSError where it `must` get in and does not."""
    try:
        os.write(entrance, b"0")
    except OSError:  # kernels before 5.16 let only their opener in: there the watchdog is alone
        if must:
            raise
    isolate.unshare(isolate.CLONE_NEWCGROUP)


def emit(kind: str, payload: Any) -> None:
    """One event, as a line of JSON. A text that a pipe does not take whole goes in several."""
    data = json.dumps([kind, payload], ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    if len(data) <= MAX_EVENT:
        with contextlib.suppress(OSError):
            os.write(EVENTS, data)
    elif isinstance(payload, str):
        middle = len(payload) // 2
        emit(kind, payload[:middle])
        emit(kind, payload[middle:])


def run_task(name: str) -> None:
    """Call `module:function` with the payload and leave what it returns (bytes) as the output."""
    payload = Path(view.WORK, "in", "payload").read_bytes()
    function = resolve(name)
    output = function(payload) if payload else function()
    Path(view.WORK, "out", "output").write_bytes(output)


def resolve(name: str) -> Callable[..., Any]:
    """The function that `module:function` names. The name comes from the node, never from a job."""
    module, _, attribute = name.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


def fail(code: str, sentence: str, trace: str) -> None:
    """What the runner leaves when a unit fails, for errors of the runner itself."""
    text = json.dumps({"code": code, "sentence": sentence[:2000], "traceback": trace[-20_000:]})
    with contextlib.suppress(OSError):
        Path(view.WORK, "out", "failure").write_text(text)


def _redirect(events: int, console: int) -> None:
    """Descriptors 0 to 3 and no other: those of the node, the template and the job are closed."""
    high = [fcntl.fcntl(number, fcntl.F_DUPFD, 10) for number in (events, console)]
    null = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((null, 0), (high[1], 1), (high[1], 2), (high[0], EVENTS)):
        os.dup2(source, target)
    isolate.close_all_but({0, 1, 2, EVENTS})


def _limit(limits: dict[str, Any], forks: bool, *, card: bool) -> None:
    mebibyte = 1 << 20
    # CUDA reserves terabytes of addresses and uses next to none: there the control group is what bounds memory.
    address_space = isolate.virtual_memory_bytes() + limits["memory_mib"] * mebibyte
    for kind, value in (
        *([] if card else [(resource.RLIMIT_AS, address_space)]),
        (resource.RLIMIT_NPROC, limits["processes"] if forks else max(limits["processes"], _THREADS_MIN)),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_FSIZE, limits["file_mib"] * mebibyte),
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_MEMLOCK, _LOCKED_MEMORY),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, _SIGNALS_QUEUED),
        (resource.RLIMIT_RTPRIO, 0),
    ):
        isolate.limit(kind, value)
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    top = _STACK if hard == resource.RLIM_INFINITY else min(hard, _STACK)
    soft = resource.getrlimit(resource.RLIMIT_STACK)[0]
    resource.setrlimit(resource.RLIMIT_STACK, (top if soft == resource.RLIM_INFINITY else min(soft, top), top))
