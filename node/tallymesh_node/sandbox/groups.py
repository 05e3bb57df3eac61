"""A unit's memory bounded by the kernel, on machines where the node may make control groups.

The watchdog inside the sandbox adds up what a unit uses, 50 ms late; a control group refuses at once, and counts what
the watchdog cannot see: buffers of sockets and pipes, names of files. Root may make them (version 1 or 2), an ordinary
user where a service manager delegated them (version 2: `Delegate=memory`, alone in its group). Where neither holds
there is the watchdog alone. Source: Linux, Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.

This module knows nothing of sandboxes: it makes a folder, writes a number, and says what the kernel counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

log = logging.getLogger(__name__)

PREFIX: Final = "tallymesh-"
NODE: Final = PREFIX + "node"  # where the node itself goes, for only groups without processes have groups in them
# What the kernel keeps for a unit beside its own pages: page tables, stacks, buffers of 256 descriptors. Room enough
# for those of an honest one; the exact limit on its own pages is the watchdog's.
OVERHEAD_MIB: Final = 64
LEFT_MAX: Final = 64  # groups that could not be removed yet: the kernel lets go of a dead process a moment late


class _Names(NamedTuple):
    """Files of a group: its limit, the same with swap, further settings, where killed processes are counted, and where
    one comes in. In version 1 a lone thread may use a door of its own, and does not wait for the kernel to have looked
    at all processes of the machine (10 ms, as often as a unit starts)."""

    limit: str
    swap: str
    swap_is_total: bool
    together: str
    events: str
    entrance: str


_V1: Final = _Names("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", True, "", "memory.oom_control", "tasks")
_V2: Final = _Names("memory.max", "memory.swap.max", False, "memory.oom.group", "memory.events", "cgroup.procs")


class Group:
    """One unit's. `entrance` is a descriptor: a process of one thread that writes "0" to it is in, with all that it
    starts."""

    def __init__(self, groups: Groups, folder: Path, entrance: int) -> None:
        self._groups = groups
        self._folder = folder
        self.entrance = entrance

    def shut(self) -> None:
        """Nobody else comes in. Idempotent."""
        if self.entrance >= 0:
            os.close(self.entrance)
            self.entrance = -1

    def close(self) -> bool:
        """When all its processes are dead. Whether the kernel killed one of them for want of memory."""
        self.shut()
        return self._groups.remove(self._folder)


class Groups:
    """Makes groups in the folder `base`, of which `names` says the version."""

    def __init__(self, base: Path, names: _Names) -> None:
        self.base = base
        self._names = names
        self._left: deque[Path] = deque(maxlen=LEFT_MAX)
        self._broken = False

    def __repr__(self) -> str:
        return f"<Groups {self.base} version={1 if self._names is _V1 else 2}>"

    def open(self, memory_mib: int, disk_mib: int) -> Group | None:
        """A group for one unit, whose files lie in memory, too. None where the machine refuses, which is said once."""
        folder = self.base / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        most = (memory_mib + disk_mib + OVERHEAD_MIB) << 20
        try:
            folder.mkdir()
        except OSError as error:
            self._say(error)
            return None
        try:
            (folder / self._names.limit).write_text(str(most))
            with contextlib.suppress(OSError):  # a kernel without swap accounting has none of these
                (folder / self._names.swap).write_text(str(most) if self._names.swap_is_total else "0")
            if self._names.together:
                (folder / self._names.together).write_text("1")
            return Group(self, folder, os.open(folder / self._names.entrance, os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            self._say(error)
            self.remove(folder)
            return None

    def remove(self, folder: Path) -> bool:
        """See Group.close."""
        killed = _count(folder / self._names.events, "oom_kill") > 0
        self._left.append(folder)
        for _ in range(len(self._left)):
            each = self._left.popleft()
            try:
                each.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                self._left.append(each)
        return killed

    def clear(self) -> None:
        """Remove what killed nodes left here."""
        for folder in self.base.glob(f"{PREFIX}*-*"):
            owner = folder.name.removeprefix(PREFIX).partition("-")[0]
            if owner.isdecimal() and not os.path.exists(f"/proc/{owner}"):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def _say(self, error: OSError) -> None:
        if not self._broken:
            log.warning("control groups do not work here, the watchdog bounds units alone: %s", error)
        self._broken = True


def find(proc: Path = Path("/proc/self")) -> Groups | None:
    """The control groups that this process may use, or None. Version 1 first: a controller is in one of the two."""
    own = dict(_own(proc))
    for kind, point, root, options in _mounted(proc):
        if kind == "cgroup" and "memory" in options and "memory" in own:
            groups = Groups(_place(point, root, own["memory"]), _V1)
            if _usable(groups):
                return groups
    for kind, point, root, _ in _mounted(proc):
        if kind == "cgroup2" and "" in own:
            folder = _place(point, root, own[""])
            base = folder.parent if folder.name == NODE else folder
            if _hands_on(base) and _usable(groups := Groups(base, _V2)):
                return groups
    return None


def _usable(groups: Groups) -> bool:
    """Tried once. A directory that others made for us may be of another user, or read-only."""
    if not os.access(groups.base, os.W_OK) or not (groups.base / "cgroup.procs").exists():
        return False
    groups.clear()
    group = groups.open(memory_mib=64, disk_mib=0)
    if group is None:
        return False
    group.close()
    return True


def _hands_on(base: Path) -> bool:
    """Groups made in `base` (version 2) have a limit on memory. For that this process may have to leave `base`, and
    does so only where it is alone there."""
    control = base / "cgroup.subtree_control"
    try:
        if "memory" not in (base / "cgroup.controllers").read_text().split():
            return False
        if "memory" in control.read_text().split():
            return True
        if not os.access(control, os.W_OK):
            return False
        if (base / "cgroup.procs").read_text().split() == [str(os.getpid())]:
            (base / NODE).mkdir(exist_ok=True)
            (base / NODE / "cgroup.procs").write_text(str(os.getpid()))
        control.write_text("+memory")
    except OSError:
        return False
    return True


def _own(proc: Path) -> Iterator[tuple[str, str]]:
    """Controller ("" for version 2) -> the group of this process. (man 7 cgroups)"""
    with contextlib.suppress(OSError):
        for line in (proc / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                yield controller, path


def _mounted(proc: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Kind, mount point, root within, options of each mounted hierarchy. (man 5 proc_pid_mountinfo)"""
    with contextlib.suppress(OSError):
        for line in (proc / "mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                yield kind, before.split(" ")[4], before.split(" ")[3], options.split(",")


def _place(point: str, root: str, path: str) -> Path:
    return Path(point, os.path.relpath(path, root)) if path.startswith(root) else Path(point)


def _count(file: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            word, _, number = line.partition(" ")
            if word == name:
                return int(number)
    return 0
