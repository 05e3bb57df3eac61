"""Memory in huge pages before a process is forked again and again.

A fork copies an entry for each page of its parent, and its end gives each of them back: with torch imported and warmed
up 40,000 entries of 4 KiB, which was two thirds of what a small unit costs (docs/measurements.md). In pages of 2 MiB
there are a few hundred. Who writes to one gets his own copy of 4 KiB of it, as before. It asks the kernel once, with
MADV_COLLAPSE (Linux 6.1, man 2 madvise), and leaves no flag behind: memory that is asked for later is as it was.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

HUGE_BYTES: Final = 2 << 20  # of a page table's last level, on x86_64 and on aarch64 with pages of 4 KiB
SMALL_BYTES: Final = 4096
_MADV_COLLAPSE: Final = 25
_MAPS: Final = "/proc/self/maps"


def gather() -> bool:
    """Put what this process has on its heap into huge pages, as far as whole ones fit. False where the kernel does not
    do that, which costs time and nothing else; so does memory in pieces that are too small."""
    if os.sysconf("SC_PAGE_SIZE") != SMALL_BYTES:
        return False  # a huge page has another size there
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    done = False
    for begin, end in _anonymous():
        begin, end = -(-begin // HUGE_BYTES) * HUGE_BYTES, end // HUGE_BYTES * HUGE_BYTES
        if begin < end:
            done = libc.madvise(begin, end - begin, _MADV_COLLAPSE) == 0 or done
    return done


def _anonymous() -> list[tuple[int, int]]:
    """Begin and end of what can be written and is of no file. (man 5 proc_pid_maps)"""
    found = []
    with open(_MAPS, "rb") as file:  # a file's name is any bytes
        for line in file:
            place, rights, _, _, inode, *name = line.split()
            if rights.startswith(b"rw-p") and inode == b"0" and name in ([], [b"[heap]"]):
                begin, _, end = place.partition(b"-")
                found.append((int(begin, 16), int(end, 16)))
    return found
