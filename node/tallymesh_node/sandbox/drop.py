"""Run as a script, by root, in front of bubblewrap: become an ordinary user who can still reach what the sandbox needs.

    python -I -S drop.py '{"paths": [...], "argv": [...]}'

Where a Python prefix, a clone or a data folder lies below a directory that others may not enter (`/root` has mode
0700), the ordinary user could not even start bubblewrap. So, in a mount namespace of its own: keep a handle on each
path, cover the closed directory with an empty one that may be entered, and show the paths at their old places again.
Nothing else of the closed directory is there any more. Then all root is given up and bubblewrap takes this process
over. Standard library only: it runs before anything else is trusted. It prints one sentence and exits with 1 where a
step fails.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys

SANDBOX_ID = 65534
_CLONE_NEWNS = 0x0002_0000
_MS_BIND_REC, _MS_REC_PRIVATE, _MS_NOSUID_NODEV = 4096 | 16384, 16384 | (1 << 18), 2 | 4
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def main(argument: str) -> None:
    wanted = json.loads(argument)
    covers = closed_directories(wanted["paths"])
    if covers:
        uncover(covers)
    os.setgroups([])
    os.setresgid(SANDBOX_ID, SANDBOX_ID, SANDBOX_ID)
    os.setresuid(SANDBOX_ID, SANDBOX_ID, SANDBOX_ID)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(value) for value in (1, 0, 0, 0)))
    os.chdir("/")
    os.execve(wanted["argv"][0], wanted["argv"], {})  # noqa: S606 - an empty environment: /proc/1/environ shows it


def closed_directories(paths: list[str]) -> dict[str, list[str]]:
    """First directory on the way to a path that others may not enter -> the real paths below it."""
    found: dict[str, list[str]] = {}
    for path in sorted({os.path.realpath(path) for path in paths}):
        parts = path.split("/")[1:-1]
        for count in range(1, len(parts) + 1):
            directory = "/" + "/".join(parts[:count])
            if not os.stat(directory).st_mode & stat.S_IXOTH:
                found.setdefault(directory, []).append(path)
                break
    return found


def uncover(covers: dict[str, list[str]]) -> None:
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"", b"/", None, _MS_REC_PRIVATE, None)
    for directory, paths in covers.items():
        # Handles are opened after `unshare`: the kernel binds only from mounts of its own namespace.
        handles = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in paths]
        folders = {path for path in paths if os.path.isdir(path)}
        _call("mount", b"tmpfs", directory.encode(), b"tmpfs", _MS_NOSUID_NODEV, b"size=64k,mode=755")
        for path, handle in handles:
            if path in folders:
                os.makedirs(path, exist_ok=True)
            else:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            _call("mount", f"/proc/self/fd/{handle}".encode(), path.encode(), None, _MS_BIND_REC, None)
            os.close(handle)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


if __name__ == "__main__":
    try:
        os.umask(0o022)
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"giving up root failed: {error}")
