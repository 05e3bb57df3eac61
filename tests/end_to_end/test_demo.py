"""`scripts/demo` as a newcomer runs it, in a home of one's own. What it trains is compared with one process alone; with
`--no-cheat` six show the same (docs/measurements.md)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from end_to_end.scene import TESTS

pytestmark = pytest.mark.end_to_end

ROOT = TESTS.parent
DEMO_S = 900.0  # a minute on a machine of one's own
ALONE = """
import digits, tallymesh
job = tallymesh.train(
    digits.model, digits.loss, digits.train_set(), test=digits.test_set(), rounds=digits.ROUNDS, clients=10,
    partition="dirichlet:0.5", local=digits.LOCAL, backend="local",
)
job.wait()
print(job.result.model_sha)
"""


class Run(NamedTuple):
    summary: dict[str, Any]
    shown: str


class Home:
    """A user's shell: PATH and HOME, and a mark by which everything that was started from it can be found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(self.temporary),
            "DEMO_MARK": folder.name,
        }

    def demo(self, *options: str) -> Run:
        done = subprocess.run(
            [ROOT / "scripts/demo", "--json", *options],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEMO_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:] + done.stdout
        return Run(json.loads(done.stdout.splitlines()[-1]), done.stderr)

    def processes(self) -> list[str]:
        """What still runs of all that was started from here."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("DEMO_MARK") == self.folder.name:
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found


def below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def before(home: Home) -> dict[str, set[Path]]:
    return {"home": below(home.folder), "demos": set((ROOT / ".tallymesh").glob("*"))}


@pytest.fixture(scope="module")
def cheated(home: Home, before: dict[str, set[Path]]) -> Run:
    return home.demo()


@pytest.fixture(scope="module")
def alone(home: Home, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`model_sha` of the demo's training in this machine's one process: nobody could cheat there. The cache that torch
    keeps with temporary files is not the demo's."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        cwd=ROOT / "examples",
        env={**home.environment, "TMPDIR": str(tmp_path_factory.mktemp("alone"))},
        capture_output=True,
        text=True,
        timeout=DEMO_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1]


def test_the_cheat_is_caught_by_a_recomputation_and_only_the_cheat_is_unpaid(cheated: Run) -> None:
    summary = cheated.summary
    assert len(summary["caught"]) == 1
    (cheat,) = summary["caught"]
    assert "recomputed" in summary["caught"][cheat]
    assert set(summary["unpaid"]) == {cheat}
    assert summary["redone"] > 0
    assert len(summary["paid_wei"]) == 5
    assert all(int(wei) > 0 for peer, wei in summary["paid_wei"].items() if peer != cheat), (
        "the others earned something"
    )


def test_the_period_ends_and_everybody_but_the_cheat_collects_its_reward(cheated: Run) -> None:
    summary = cheated.summary
    paid, rewards = summary["paid_wei"], {peer: int(wei) for peer, wei in summary["rewards_wei"].items()}
    assert rewards.keys() == paid.keys()
    assert {peer for peer, wei in rewards.items() if wei == 0} == set(summary["caught"])
    # Nine tenths of what was burned for it: half of a fee of 2 %. Less for pay of audits, on which there is no fee.
    assert all(wei <= int(paid[peer]) * 9 // 10 // 98 for peer, wei in rewards.items())


def test_gas_is_told_by_kind_of_transaction(cheated: Run) -> None:
    gas = cheated.summary["gas"]
    usual = {"Registry.buySlotsWithPermit", "JobEscrow.openWithPermit", "JobEscrow.finish", "Rewards.collect"}
    assert usual <= gas.keys()
    assert all(each["count"] * 21_000 <= each["gas"] for each in gas.values())
    assert gas["Rewards.collect"]["count"] >= 4


def test_every_wei_is_accounted_for_and_the_model_is_good(cheated: Run) -> None:
    summary = cheated.summary
    assert summary["accuracy"] >= 0.9
    assert 0 < summary["audits"] < summary["units"]
    assert summary["rounds"] <= 20
    assert summary["balanced"] is True
    told = summary["histories"].values()
    assert len(told) == 6
    assert all(history["adds_up"] and history["moves"] > 0 for history in told)
    assert all(history["proven"] == history["payments"] for history in told)
    assert sum(history["payments"] for history in told) >= 4
    assert summary["escrow_wei"] == 0
    assert "bubblewrap" in summary["sandbox"]
    assert summary["sandboxes"] >= 5
    assert summary["gossip_messages"] > 0
    assert summary["blob_bytes_libp2p"] > 0


def test_with_and_without_the_cheat_the_model_is_the_same(cheated: Run, alone: str) -> None:
    assert cheated.summary["model_sha"] == alone


def test_it_shows_offers_progress_the_catch_and_balances(cheated: Run) -> None:
    last = f"round {cheated.summary['rounds']:>3}"
    for shown in (
        "Offers that the payer's node has heard",
        last,
        "caught",
        "redo",
        "settle",
        "Balances, read",
        "Gas by kind",
    ):
        assert shown in cheated.shown, shown
    assert re.search(r"worker1 .* MESH", cheated.shown)


def test_it_leaves_no_process_and_no_file(cheated: Run, home: Home, before: dict[str, set[Path]]) -> None:
    assert home.processes() == []
    assert below(home.folder) == before["home"]
    assert set((ROOT / ".tallymesh").glob("demo-*")) <= before["demos"]
