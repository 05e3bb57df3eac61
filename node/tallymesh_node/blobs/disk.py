"""Files of the blob store as the operating system has them: its errors as ours, hashes read in pieces, what is durable
and how it gets there.

Nothing here knows what a file is for.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from tallymesh.errors import LocalError

CHUNK_BYTES = 1024 * 1024  # what is read and hashed at once; also the unit of transfer
_WRITE = 2  # linux/fs.h: SYNC_FILE_RANGE_WRITE, begin to write what is dirty and wait for nothing
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)  # Linux alone; Python's `os` does not have it
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_syncfs = getattr(ctypes.CDLL(None), "syncfs", None)


class disk:
    """Maps what the operating system says about the disk to LocalError."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LocalError("disk_full", "The disk of the blob store is full.", remedy="Free some space.") from error
        raise LocalError("disk", f"The blob store cannot be used: {error}.", remedy="Check its folder.") from error


def private(path: str, flags: int) -> int:
    """An opener: nobody else may read what is written."""
    return os.open(path, flags, 0o600)


def hash_of(path: Path) -> bytes:
    """BLAKE3 of a file."""
    digest = blake3()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.digest()


def copy(place: Path, new: Path) -> bytes:
    """Write a file's bytes, as they are read now, into a new one, and give their BLAKE3. Not fsynced."""
    digest = blake3()
    with open(place, "rb", buffering=0) as file, open(new, "xb", buffering=0, opener=private) as other:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
            while piece:
                piece = piece[other.write(piece) :]
        os.fchmod(other.fileno(), 0o400)
    return digest.digest()


def change(folder: Path) -> None:
    """So that its entries have to be written again: the system takes them for written where that failed once."""
    mark = folder / f".{os.getpid()}.part"
    mark.touch(mode=0o600)
    mark.unlink()


def begin_writing(descriptor: int) -> None:
    """Have the kernel start on what was written to the file, instead of keeping all of it for the fsync at its end.
    Nothing is promised: what fails here, or is not done, fsync does and says."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _WRITE)  # 0, 0: the whole file


def begin_writing_all(folder: Path) -> None:
    """Have the kernel write all that waits on the folder's file system, in one go and in the disk's order. Nothing is
    promised, as above. Blocks."""
    if _syncfs is None:
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _syncfs(descriptor)
        finally:
            os.close(descriptor)


def fsync(path: Path) -> bool:
    """A file or a folder; False where it is not there any more."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False  # deleted meanwhile
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True
