"""Programs of one's own, from a folder outside the repository, on a running network; and every command about them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tallymesh
from end_to_end import shop
from end_to_end.scene import ENDED, TESTS, Market, run, shell, wait_until
from fakes import wheels
from tallymesh import amounts, units
from tallymesh.client.discover import Address
from tallymesh.client.session import Session
from tallymesh_learning.runtime import profile

pytestmark = pytest.mark.end_to_end

WAIT_S = 300.0


@pytest.fixture(scope="module")
def sequential(market: Market, folder: Path) -> dict[str, Any]:
    """A training from peer to peer, as its program reports it."""
    return shop.train(market, folder, shop.SEQUENTIAL)


class Loops(NamedTuple):
    federated: str
    sequential: str


@pytest.fixture(scope="module")
def plain_loops(market: Market, folder: Path, federated: dict[str, Any], sequential: dict[str, Any]) -> Loops:
    """The checkpoints that plain loops over the jobs' own shards make, in a process of its own."""
    session = Session(lambda: Address(*(market.payer.api or ("", ""))))
    market.connect()
    command = [sys.executable, "-m", "end_to_end.plain_loop"]
    for kind, job, rounds in (("federated", federated["job"], 3), ("sequential", sequential["job"], 4)):
        shards = folder / f"shards-{kind}"
        shards.mkdir()
        for blob in units.decode_spec(session.blob(tallymesh.attach(job).view.spec)).inputs:
            (shards / blob.hex()).write_bytes(session.blob(blob.hex()))
        command += [kind, str(shards), str(rounds)]
    environment = {**shell(folder), **profile.environment(), "PYTHONPATH": f"{TESTS}:{folder}"}
    done = run(command, cwd=folder, environment=environment)
    assert done.returncode == 0, done.stderr
    return Loops(*[line.split()[1] for line in done.stdout.splitlines() if line.startswith("end ")])


def command(market: Market, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """What `tallymesh ARGUMENTS --json` prints."""
    environment = environment or market.environment()
    done = market.command(*arguments, "--json", cwd=market.local.folder, environment=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()] if "logs" in arguments else json.loads(done.stdout)


def test_the_map_of_the_api_page_runs_from_a_folder_of_ones_own(market: Market, folder: Path) -> None:
    printed = shop.program(market, folder, sys.executable, "area.py").splitlines()
    rows = [line.split() for line in printed[:24]]
    assert sorted((int(index), float(area)) for index, area, _ in rows) == [(i, 2.0 * i * i) for i in range(24)]
    peers = {market.view(f"worker{number}").peer_id for number in range(1, 5)}
    assert {peer for _, _, peer in rows} <= peers
    at_work = {peer for _, _, peer in rows}
    assert len(at_work) > 1, "it ran on several peers"
    first, cost, _audits = printed[24].rpartition("]")[0], printed[24].split()[-3:-1], printed[24].split()[-1]
    assert first.startswith("[{'area': 0.0}, {'area': 2.0}, {'area': 8.0}")
    assert cost[1] == "MESH"
    assert int(_audits) >= len(at_work), "the first unit of each worker at least"


@pytest.mark.parametrize("name", ["arrays", "closure"])
def test_a_strangers_program_prints_on_the_network_what_it_prints_here(
    market: Market, tmp_path: Path, name: str
) -> None:
    """Arrays of several dtypes through a helper package, and a closure that an asyncio program awaits."""
    place = tmp_path / name
    shutil.copytree(TESTS / "strangers" / name, place, ignore=shutil.ignore_patterns("__pycache__"))
    printed = shop.program(market, place, sys.executable, "program.py").splitlines()
    local = {**shell(place), "TALLYMESH_BACKEND": "local"}
    here = run([sys.executable, "program.py"], cwd=place, environment=local, timeout_s=shop.PROGRAM_S)
    assert printed == here.stdout.splitlines(), here.stderr


PACKAGED = """
import tallymesh
def double(x):
    import plot  # no package of this machine's
    return [plot.double(x), plot.__file__]
if __name__ == "__main__":
    job = tallymesh.map(double, range(3), requires=["plot==1.*"], budget="1.0")
    print(job.results())
"""


def test_packages_travel_with_a_map(market: Market, tmp_path: Path) -> None:
    """Resolved from a folder of wheels, unpacked by workers, audited like any other units."""
    wheel = wheels.build("plot", "1.0", {"plot/__init__.py": wheels.MODULE})
    settings = wheels.settings(wheels.index(tmp_path / "index", ("plot", "1.0", wheel)))
    (tmp_path / "program").mkdir()
    (tmp_path / "program/packaged.py").write_text(PACKAGED)
    printed = shop.program(market, tmp_path / "program", sys.executable, "packaged.py", **settings)
    place = "/.tallymesh/work/in/packages/plot/__init__.py"
    assert printed.strip() == repr([[0, place], [2, place], [4, place]])


def test_training_by_the_lines_of_the_api_page_equals_the_local_backend_and_a_plain_loop(
    federated: dict[str, Any], reference: dict[str, Any], plain_loops: Loops
) -> None:
    assert plain_loops.federated == federated["sha"]
    assert (reference["sha"], reference["weights"]) == (federated["sha"], federated["weights"])
    assert reference["metrics"]["accuracy"] == federated["metrics"]["accuracy"] == federated["right"]
    assert federated["sha"] in federated["card"]


def test_sequential_training_goes_from_peer_to_peer_and_equals_a_plain_loop(
    market: Market, sequential: dict[str, Any], plain_loops: Loops
) -> None:
    market.connect()
    job = tallymesh.attach(sequential["job"])
    assert (job.view.rounds_done, job.view.units) == (4, 4)
    assert plain_loops.sequential == sequential["sha"]


def test_a_job_can_be_looked_into(market: Market, federated: dict[str, Any]) -> None:
    market.connect()
    job = tallymesh.attach(federated["job"])
    assert job.view.units == job.view.units_done == 3 * 5
    # Live: what the program printed and logged, from the peers, with the machines' own series.
    events = list(job.events(follow=False))
    lines = [line for line in job.logs() if line.text.startswith("a batch of")]
    assert {line.round for line in lines} == {0, 1, 2}
    assert "own_loss" in {event.data["name"] for event in events if event.kind == "metric"}
    systems = [event.data["series"] for event in events if event.kind == "system"]
    assert all({"cpu_percent", "memory_mib"} <= set(series) for series in systems)
    assert systems
    rounds = [event for event in events if event.kind == "round"]
    assert [event.data["round"] for event in rounds] == [1, 2, 3]
    assert all({"loss", "accuracy"} <= set(event.data["metrics"]) for event in rounds)
    # Signed: one receipt a unit at least, the seconds of its steps beside it.
    receipts = job.receipts
    assert len(receipts) >= 15
    assert all(receipt.accepted and not receipt.void for receipt in receipts)
    assert all({"load", "compute", "save"} <= set(receipt.seconds) for receipt in receipts), receipts[0].seconds
    assert all(receipt.tally >= 1 for receipt in receipts)
    # Checked: the first unit of every seat.
    audits = job.audits
    first = {audit.seat for audit in audits if audit.reason == "first" and audit.result == "match"}
    assert {receipt.seat for receipt in receipts} <= first
    matched = {(audit.seat, audit.position) for audit in audits if audit.result == "match"}
    assert "mismatch" not in {audit.result for audit in audits}
    asked = {(audit.seat, audit.position) for audit in audits if audit.result}
    assert asked == matched, "where one auditor could not have the inputs, another did"
    assert f"of {job.view.units_done} units were computed again" in str(job.checks)
    assert job.id in job.report()


def test_what_a_job_cost_is_what_left_the_payers_account(market: Market, federated: dict[str, Any]) -> None:
    market.connect()
    job = tallymesh.attach(federated["job"])
    seats = [peer.seat for peer in job.view.peers]
    wait_until("the refund", lambda: market.held_by(job.id, seats) == 0, timeout_s=WAIT_S)
    view = wait_until("the view says so", lambda: (v := job.view).escrow_wei == "0" and v, timeout_s=WAIT_S)
    for peer in view.peers:
        assert market.paid_units(peer.seat) == peer.accepted == peer.paid == peer.received
    assert 0 < job.cost_wei < int(view.budget_wei)
    assert job.cost == amounts.show(job.cost_wei)


def test_every_command_speaks_of_the_running_network(market: Market, folder: Path, federated: dict[str, Any]) -> None:
    job, payer = federated["job"], market.view("payer")
    listed = command(market, "ls")
    assert job in {view["id"] for view in listed}
    why = command(market, "why", job[:12])
    assert (why["status"], why["reasons"]) == ("done", [])
    assert any("a batch of" in event["data"].get("line", "") for event in command(market, "logs", job))
    assert "done" in {event["kind"] for event in command(market, "logs", "-f", "--all", job)}
    status = command(market, "node", "status")
    assert (status["account"], status["roles"]) == (payer.account, ["submit"])
    assert "does not work" in command(market, "why", "--node")["reasons"][0]
    assert {offer["staked"] for offer in command(market, "offers")} == {True}
    assert command(market, "result", job)["model_sha"] == federated["sha"]
    address = market.payer.api
    assert command(market, "env") == {"TALLYMESH_NODE": address[0], "TALLYMESH_TOKEN": address[1]}  # type: ignore[index]
    assert command(market, "version")["tallymesh"] == tallymesh.__version__


def test_balances_need_neither_node_nor_wallet(market: Market) -> None:
    network = market.local.network
    rpc, file = network.rpc_urls[0], str(market.local.network_path)
    accounts = [market.account("payer"), market.account("worker1")]
    bare = shell(market.local.folder / "nobody")
    found = command(market, "balance", *accounts, "--rpc", rpc, "--network", file, environment=bare)
    for account, shown in zip(accounts, found, strict=True):
        assert shown["account"] == account
        assert int(shown["stake_free_wei"]) + int(shown["stake_locked_wei"]) == shown["slots"] * 10**21
        assert int(shown["tokens_wei"]) + int(shown["credits_wei"]) > 0
    home = {**bare, "TALLYMESH_HOME": str(market.node("worker1").folder)}
    assert command(market, "wallet", "show", environment=home)["address"] == accounts[1]


def test_a_stopped_job_pays_what_was_done_and_gives_the_rest_back(market: Market, folder: Path) -> None:
    (folder / "slow.py").write_text("import time\ndef slow(x):\n    time.sleep(0.5)\n    return x\n")
    (folder / "job.toml").write_text('map = "slow.py:slow"\ninputs = "items.json"\nbudget = "2.0"\nwork = 0.5\n')
    (folder / "items.json").write_text(json.dumps(list(range(400))))
    submitted = shop.program(market, folder, "tallymesh", "run", "job.toml", "--detach", "--json")
    job = json.loads(submitted)["id"]
    market.connect()
    found = tallymesh.attach(job)
    wait_until("some units are done", lambda: found.view.units_done >= 4, timeout_s=WAIT_S)
    assert command(market, "stop", job)["id"] == job
    wait_until("it has ended", lambda: found.status in ENDED, timeout_s=WAIT_S)
    assert found.status == "cancelled"
    seats = [peer.seat for peer in found.view.peers]
    wait_until("the refund", lambda: market.held_by(job, seats) == 0, timeout_s=WAIT_S)
    paid = sum(market.paid_units(seat) for seat in seats)
    assert 0 < paid < 400
    assert paid == sum(peer.received for peer in found.view.peers), "what had a receipt is paid"
    with pytest.raises(tallymesh.CallerError, match="comes back"):
        found.results()


def test_a_node_is_started_and_stopped_by_its_commands(market: Market) -> None:
    home = market.local.folder / "another"
    environment = {**shell(home), "TALLYMESH_HOME": str(home), "TALLYMESH_LISTEN_HOST": "127.0.0.1"}
    started = subprocess.Popen(
        [
            *(sys.executable, "-m", "tallymesh_node.cli", "node", "start", "--json", "--roles", "submit"),
            *("--network", str(market.local.network_path), "--listen-port", "0"),
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert started.stdout is not None
        said = json.loads(started.stdout.readline())
        assert said["roles"] == ["submit"]
        assert command(market, "wallet", "show", environment=environment)["address"] == said["account"]
        assert command(market, "node", "status", environment=environment)["peer_id"] == said["peer_id"]
        command(market, "node", "stop", environment=environment)
        assert started.wait(90) == 0
    finally:
        started.kill()
        started.communicate()
