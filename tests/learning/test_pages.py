"""Memory in huge pages: the same bytes, and less for a fork to copy."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from tallymesh_learning.runtime import pages

PROGRAM = """
import os, sys
from tallymesh_learning.runtime import pages

def huge():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("AnonHugePages:"))

data = bytearray(b"0123456789abcdef" * (4 << 20))
before = huge()
gathered = sys.argv[1] == "gather" and pages.gather()
pid = os.fork()
if pid:
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
after = huge()
data[5::4096] = b"x" * len(data[5::4096])
wrong = sum(data[at : at + 16] != b"01234x6789abcdef" for at in range(0, len(data), 4096))
print(int(gathered), after - before, wrong, flush=True)
"""


def forked(how: str) -> list[int]:
    """Whether it was gathered, KiB in huge pages that a fork has more, wrong bytes."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_a_fork_has_what_was_gathered_in_huge_pages_and_may_write_to_it() -> None:
    assert forked("leave") == [0, 0, 0]
    gathered, huge_kib, wrong = forked("gather")
    assert wrong == 0
    assert bool(gathered) == (huge_kib > 0)
    if collapses():
        assert huge_kib > 32 * 1024, "half of 64 MiB"


@pytest.mark.slow
def test_a_kernel_with_other_pages_is_left_alone() -> None:
    program = f"import os\nos.sysconf = lambda name: 65536\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program, "gather"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[::2] == ["0", "0"]


def test_names_of_files_are_any_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every unit of a machine whose Python lies in such a folder failed."""
    maps = tmp_path / "maps"
    maps.write_bytes(
        b"00400000-00800000 r--p 00000000 00:01 7 /home/jos\xe9/a\rb c.so\n"
        b"00a00000-00e00000 rw-p 00000000 00:00 0 [heap]\n"
        b"7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \n"
        b"7f0000400000-7f0000800000 rw-p 00000000 00:00 0 [anon:other]\n"
    )
    monkeypatch.setattr(pages, "_MAPS", str(maps))
    assert pages._anonymous() == [(0xA00000, 0xE00000), (0x7F0000000000, 0x7F0000400000)]


def collapses() -> bool:
    """Whether this kernel can, by trying: MADV_COLLAPSE is there since Linux 6.1, and needs memory in one piece."""
    size = 32 * pages.HUGE_BYTES
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:: mmap.PAGESIZE] = b"x" * (size // mmap.PAGESIZE)
        try:
            area.madvise(25)
        except OSError:
            return False
        return True
