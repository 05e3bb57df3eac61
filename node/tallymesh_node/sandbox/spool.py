"""The folder through which inputs reach units: one folder a job, one a unit, seen read-only from inside.

    <spool>/<job>/<unit>/unit | probe | payload | set | blobs/<hex> | packages (empty: where the unit's set is shown)

A blob is a hard link into the store (38 us, whatever its size), or a copy where the store is on another file system.
The mount that shows it is read-only, so a link is as safe as the store itself: neither the bytes nor the mode can be
changed through it. Started as root, sandboxes belong to another user, who must be able to read: a read-only file gets
mode 0444 (the store's own folder stays closed), any other is copied.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import trio

from tallymesh.errors import LocalError

SET = "set"  # as tallymesh_learning.runtime.view has it: names the folder of a unit's packages
OPEN = 0o755  # the sandbox's user must be able to enter; the folders above keep everybody else out
NO_ROOM = "Free some space, or choose another data folder."
_NOT_LINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES}


class Spool:
    """Owns `folder`: what a killed process left in it is removed. `foreign`: sandboxes run as another user than we."""

    def __init__(self, folder: Path, *, foreign: bool) -> None:
        self.folder = folder
        self._foreign = foreign
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise LocalError("spool_busy", f"Another node uses {folder}.", remedy="Stop it first.") from None
        os.chmod(folder, OPEN)
        self._clear()

    def close(self) -> None:
        self._clear()
        os.close(self._lock)

    def open_job(self, job: str) -> None:
        """LocalError `disk` where there is no room for its folder."""
        try:
            self._make(self.folder / job)
        except OSError as error:
            raise LocalError("disk", f"A job's folder cannot be made: {error}.", remedy=NO_ROOM) from None

    async def add(self, job: str, unit: str, files: Mapping[str, bytes], blobs: Mapping[str, Path]) -> None:
        """The inputs of one unit. OSError where they cannot be read or the disk is full."""
        folder = self.folder / job / unit
        self._make(folder)
        self._make(folder / "blobs")
        for name, data in files.items():
            (folder / name).write_bytes(data)
            os.chmod(folder / name, 0o444)
        if SET in files:
            self._make(folder / "packages")
        copies = [(source, folder / "blobs" / name) for name, source in blobs.items()]
        copies = [(source, target) for source, target in copies if not self._link(source, target)]
        if copies:
            await trio.to_thread.run_sync(_copy, copies)

    def remove(self, job: str, unit: str = "") -> None:
        """Idempotent."""
        shutil.rmtree(self.folder / job / unit, ignore_errors=True)

    def _link(self, source: Path, target: Path) -> bool:
        facts = os.stat(source)
        readable = not self._foreign or facts.st_mode & stat.S_IROTH
        if not readable and facts.st_mode & 0o222:
            return False
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno in _NOT_LINKABLE:
                return False
            raise
        if not readable:
            os.chmod(target, 0o444)
        return True

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)

    def _make(self, folder: Path) -> None:
        folder.mkdir()
        os.chmod(folder, OPEN)  # whatever the umask: the sandbox's user must be able to enter


def _copy(pairs: list[tuple[Path, Path]]) -> None:
    for source, target in pairs:
        shutil.copyfile(source, target)
        os.chmod(target, 0o444)
