"""`python -m tallymesh_learning.runtime.trial`, started by the node in an outer sandbox: does isolation hold here?

Opens one job and runs one unit in it through the very code that real ones go through, without torch. The unit tries
what must fail. Prints one line of JSON: {"error": sentence or "", "holes": [what succeeded], "facts": {…}}.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tallymesh_learning.runtime import isolate, job, template
from tallymesh_learning.runtime.unit import Emit

JOB, UNIT = "job", "unit"  # folders that the node made in the spool
_LIMITS = {"memory_mib": 64, "wall_s": 10.0, "processes": 4, "files": 64, "file_mib": 1, "disk_mib": 1}


def attempt(work: Path, emit: Emit) -> None:
    """The unit: what succeeded of what must not."""
    attempts: dict[str, Callable[[], object]] = {
        "sockets": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "namespaces": lambda: isolate.unshare(isolate.CLONE_NEWUSER),
        "mounts": lambda: isolate.mount("tmpfs", "/tmp", "tmpfs"),  # noqa: S108
        "shared memory without a file": lambda: os.memfd_create("hole"),
        "writing to its inputs": lambda: (work / "in" / "hole").write_text("hole"),
        "writing to the system": lambda: Path("/hole").write_text("hole"),
    }
    holes = []
    for name, action in attempts.items():
        try:
            action()
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.EROFS):
                holes.append(f"{name} ({error.strerror})")
        else:
            holes.append(name)
    if len(list(Path("/proc").glob("[0-9]*"))) != 1:
        holes.append("other processes")
    (work / "out" / "output").write_text(json.dumps(holes))


def main() -> dict[str, Any]:
    """Play the node's part."""
    began = time.monotonic()
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        control.close()
        isolate.adopt_orphans()
        template.Template(theirs, attempt).serve()
        os._exit(0)
    theirs.close()
    channel, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(90.0)  # before the node, which waits longer, takes silence for a broken sandbox
    socket.send_fds(control, [json.dumps({"do": "open", "job": JOB}).encode()], [inner.fileno()])
    inner.close()
    opened = json.loads(channel.recv(job.MAX_MESSAGE))
    if "ready" not in opened:
        return {"error": opened.get("error", "no job"), "holes": [], "facts": {}}
    null = os.open("/dev/null", os.O_WRONLY)
    console, writer = os.pipe()
    request = {"do": "run", "unit": UNIT, "limits": _LIMITS, "task": ""}
    socket.send_fds(channel, [json.dumps(request).encode()], [null, writer])
    os.close(writer)
    folder = -1
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, job.MAX_MESSAGE, 1)
        message = json.loads(data)
        if "ended" in message:
            break
        (folder,) = descriptors
    ended = message["ended"]
    if ended["error"] or ended["status"]:
        said = os.read(console, 4096).decode(errors="replace").strip().rsplit("\n", 1)[-1]
        return {"error": ended["error"] or f"a unit could not be isolated: {said}", "holes": [], "facts": {}}
    with open(os.open("output", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)) as file:
        holes = json.load(file)
    forks = "yes" if job.kernel() >= job.NOBODY_FORKS_BEFORE else "no (Linux before 5.14)"
    return {"error": "", "holes": holes, "facts": {"seconds": round(time.monotonic() - began, 3), "forks": forks}}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()) + "\n")
    sys.stdout.flush()
    os._exit(0)
