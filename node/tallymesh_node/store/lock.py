"""One node, or one local network, per folder: an advisory lock that the kernel drops with the process."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from tallymesh.errors import LocalError

NAME = "lock"
LOOKS, LOOK_S = 10, 0.05
REMEDY = "Stop it with 'tallymesh node stop', or give this one a folder of its own by TALLYMESH_HOME."


class FolderLock:
    """Held while it is entered. The file stays (removing it would let two nodes lock two files of one name)."""

    def __init__(self, folder: Path, what: str = "node", remedy: str = REMEDY) -> None:
        self.path = folder / NAME
        self._what, self._remedy = what, remedy
        self._descriptor: int | None = None

    def __repr__(self) -> str:
        return f"<FolderLock {self.path} {'held' if self._descriptor is not None else 'free'}>"

    def __enter__(self) -> FolderLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LocalError("disk", f"The node's folder {self.path.parent} cannot be written: {error}.") from None
        if not _take(descriptor):
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise LocalError(
                "locked",
                f"Another {self._what} (process {holder or 'unknown'}) runs in {self.path.parent}.",
                remedy=self._remedy,
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor = None


def _take(descriptor: int) -> bool:
    """Whoever asks `holder` has the lock for a moment, and is no node: a second look decides."""
    for again in range(LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if again < LOOKS - 1:
                time.sleep(LOOK_S)
        else:
            return True
    return False


def holder(folder: Path) -> int | None:
    """The process that works in the folder: None where none does, 0 where it is not known which."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back by `close`
    except OSError:
        said = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        return int(said) if said.isdigit() else 0
    finally:
        os.close(descriptor)
    return None
