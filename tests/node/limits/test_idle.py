"""Whether the owner is at the machine: a /proc and a /dev as a test writes them, and once the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tallymesh_node.limits.affinity import confine, some_cores
from tallymesh_node.limits.idle import Idleness, tree

TICK = os.sysconf("SC_CLK_TCK")
ME, SANDBOX, UNIT = 100, 200, 300


class Host:
    """Process 100 is the node; 200 is its child and 300 the child of that."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.dev = folder / "proc", folder / "dev"
        (self.dev / "pts").mkdir(parents=True)
        self.own = {ME: 0.0, SANDBOX: 0.0, UNIT: 0.0}
        self.others = 1000.0
        self.terminal = self.dev / "pts/3"
        self.typed(0.0)
        self.write()

    def typed(self, unix: float) -> None:
        self.terminal.touch()
        os.utime(self.terminal, (unix, unix))

    def write(self) -> None:
        for pid, child in ((ME, SANDBOX), (SANDBOX, UNIT), (UNIT, 0)):
            folder = self.proc / str(pid)
            (folder / f"task/{pid}").mkdir(parents=True, exist_ok=True)
            (folder / f"task/{pid}/children").write_text(f"{child} " if child else "")
            fields = ["S", *["0"] * 10, str(int(self.own[pid] * TICK)), "0", "0", "0", *["0"] * 30]
            (folder / "stat").write_text(f"{pid} (a name) with ) {' '.join(fields)}")
        used = self.others + sum(self.own.values())
        (self.proc / "stat").write_text(f"cpu  {int(used * TICK)} 0 0 999999 5 0 0 0 0 0\ncpu0 1 2 3\n")

    def idleness(self) -> Idleness:
        return Idleness(ME, self.proc, self.dev)


def test_whoever_is_seen_for_the_first_time_may_just_have_left(tmp_path: Path) -> None:
    assert Host(tmp_path).idleness().look(5.0, 1000.0) == 0.0


def test_what_our_own_units_use_is_not_the_owners(tmp_path: Path) -> None:
    host = Host(tmp_path)
    idle = host.idleness()
    idle.look(0.0, 1000.0)
    host.own = {ME: 1.0, SANDBOX: 2.0, UNIT: 37.0}
    host.write()
    assert idle.look(10.0, 1010.0) == 10.0


def test_what_others_use_is_activity_beyond_a_little(tmp_path: Path) -> None:
    host = Host(tmp_path)
    idle = host.idleness()
    idle.look(0.0, 1000.0)
    host.others += 2.0
    host.write()
    assert idle.look(10.0, 1010.0) == 10.0, "a fifth of a core is a desktop at rest"
    host.others += 4.0
    host.write()
    assert idle.look(20.0, 1020.0) == 0.0
    assert idle.look(30.0, 1030.0) == 10.0


def test_a_key_in_any_terminal_is_activity(tmp_path: Path) -> None:
    host = Host(tmp_path)
    idle = host.idleness()
    idle.look(0.0, 1000.0)
    host.typed(1007.0)
    assert idle.look(10.0, 1010.0) == 3.0
    host.typed(9999.0)  # a clock that was set back
    assert idle.look(20.0, 1020.0) == 0.0


def test_the_real_machine_shows_this_process_and_its_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= set(tree(os.getpid()))
        idle = Idleness()
        assert idle.look(time.monotonic(), time.time()) == 0.0
        before = idle._own_s()
        sum(range(3_000_000))
        assert idle._own_s() > before > 0.0
        assert idle._machine_s() > before
    finally:
        child.communicate(b"\n")


def test_a_process_is_put_back_onto_the_cores_that_are_lent() -> None:
    """Real processes: a unit may set its own mask, and the next look sets it again."""
    everywhere = os.sched_getaffinity(0)
    cpus = some_cores(1, everywhere)
    assert len(cpus) == 1
    assert some_cores(0, everywhere) == everywhere
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "input()\n"
        "child.communicate(b'\\n')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        confine(process.pid, cpus)
        assert os.sched_getaffinity(process.pid) == os.sched_getaffinity(child) == cpus
        os.sched_setaffinity(child, everywhere)
        confine(process.pid, cpus)
        assert os.sched_getaffinity(child) == cpus
        assert confine(process.pid, cpus) == 0
    finally:
        process.communicate(b"\n")
    assert confine(process.pid, cpus) == 0, "it is gone, and that is no error"
