"""A local network whose own process is killed leaves no process behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.seldom import seldom
from tallymesh_node import guardian
from tallymesh_node.local_network import LocalNetwork

SLEEPER = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)")
STUBBORN = (sys.executable, "-I", "-S", "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)")
PARENT = """
import sys, time
from pathlib import Path
from tallymesh_node import local_network
local_network.STOP_S = 0.5
network = local_network.LocalNetwork(Path(sys.argv[1]))
nodes = [network.add(str(n), command=eval(command)) for n, command in enumerate(sys.argv[2:])]
nodes[0].kill()
nodes[0].start()  # a node that is started again is watched, too
print(*(node.pid for node in nodes), flush=True)
time.sleep(600)
"""


def gone(handle: int, timeout_s: float = 20.0) -> bool:
    return bool(select.select([handle], (), (), timeout_s)[0])


@pytest.mark.parametrize("kill", seldom(["parent", "group"]))
def test_whoever_kills_a_local_network_ends_its_nodes(tmp_path: Path, kill: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), repr(SLEEPER), repr(STUBBORN)],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    handles: list[int] = []
    try:
        assert parent.stdout is not None
        handles += [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(handles) == 2
        assert not any(gone(handle, 0.0) for handle in handles)
        if kill == "group":
            os.killpg(parent.pid, signal.SIGKILL)
        else:
            parent.kill()
        assert all(gone(handle) for handle in handles)
    finally:
        parent.kill()
        parent.communicate()
        for handle in handles:
            os.close(handle)


def test_a_network_that_ends_in_order_ends_its_guardian(tmp_path: Path) -> None:
    with LocalNetwork(tmp_path) as network:
        node = network.add("one", command=SLEEPER)
        found = network._guardian
        assert found is not None
        process = found._process
        assert process.poll() is None
        assert node.running
    assert not node.running
    assert process.returncode == 0
    network.stop()  # once more: nothing to do


def test_a_guardian_that_is_gone_keeps_nobody_from_starting(tmp_path: Path) -> None:
    with LocalNetwork(tmp_path) as network:
        network.add("one", command=SLEEPER)
        assert network._guardian is not None
        network._guardian._process.kill()
        network._guardian._process.wait()
        assert network.add("two", command=SLEEPER).running


def test_a_guardian_needs_nothing_but_the_standard_library() -> None:
    """It runs without site-packages: an import of ours would end it at once, and nobody would notice."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", guardian.__file__, "1"], input=b"", capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
