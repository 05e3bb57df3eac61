"""kill -9 at random points, in small: `scripts/chaos` goes on with it for as long as one likes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from end_to_end.scene import TESTS

pytestmark = pytest.mark.end_to_end

KILLS, A_JOB = 3, 2  # one of each kind, in two jobs at least


def test_jobs_survive_kill_9_of_nodes_payer_and_chain_and_every_unit_is_paid_once(tmp_path: Path) -> None:
    command = [TESTS.parent / "scripts/chaos", "--kills", str(KILLS), "--a-job", str(A_JOB), "--seed", "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-6000:] + done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["killed"].values()) == found["kills"] == KILLS
    assert set(found["killed"]) == {"payer", "chain", "worker"}, "one of each kind"
    assert found["jobs"] >= 2
    assert found["ok"], found["settled_s"]
