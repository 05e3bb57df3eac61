"""`scripts/probation`: from nothing to one slot and a withdrawal, on the embedded chain, with real processes.

The newcomer's network file names no faucet, its account has neither tokens nor coin, and it never sends a transaction:
payers seat and settle it, another node carries its withdrawal. Every sum is read from the chain and compared to the
wei. Only the network file's numbers are small (a slot of one token); nothing in the nodes knows of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import trio
from probation_work import tenth

import tallymesh
from tallymesh import api
from tallymesh import network as network_file
from tallymesh.errors import LocalError, TallymeshError
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.eip712 import word
from tallymesh_node.local_network import NODES, LocalNetwork, NodeProcess

SLOT_WEI = 10**18
UNITS = 106  # a hundredth of a slot each, less the fee: 103 of them are a slot, the others are credit
ASK = "360"  # MESH per core-hour: 0.01 for a unit of 0.1 reference-seconds
STAKED = 3  # auditors of the newcomer's class, which do not work at that price
MAX_FEE = "0.02"  # MESH: three units of credit are little, and carriers ask for 0.01
PATIENCE_S = 600.0
SMALL = {"cores": "1", "memory_mib": "1024", "disk_gib": "1"}


class Broken(Exception):
    """A promise did not hold."""


class Figures(msgspec.Struct, kw_only=True):
    """Of one account, from the chain alone. Wei."""

    earned: int  # settled pay after the fee, from the escrow's events
    seats: int
    slots: int
    deposit: int
    credit: int
    tokens: int
    unbonding: int
    coin: int
    transactions: int


def main() -> int:
    parser = argparse.ArgumentParser(description="From nothing to one slot and a withdrawal.")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tallymesh-probation-"))
    network = LocalNetwork(folder)
    try:
        with network:
            found = run(network, lambda line: print(line, file=sys.stderr, flush=True))
    except (Broken, TallymeshError) as error:
        logs = "\n".join(f"-- {node!r}\n{node.tail()}" for node in network.nodes.values())
        print(f"{logs}\nbroken: {error}", file=sys.stderr)
        return 1
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0


def run(network: LocalNetwork, say: Callable[[str], None]) -> dict[str, Any]:
    network.start_chain(parameters={"slot_wei": SLOT_WEI})
    payer = network.start_payer()
    for number in range(STAKED):
        network.add(f"staked{number + 1}", slots=1, settings={**SMALL, "ask_price": "1000"})
    network.wait_ready()
    network.wait_market(payer, STAKED)
    newcomer = join(network)
    account = bytes.fromhex(view(newcomer).account[2:])
    payer.wait("the newcomer's offer was known", lambda: listed(payer, view(newcomer).account))
    before = ask(network, account)
    check(before == Figures(**dict.fromkeys(Figures.__struct_fields__, 0)), "the account has nothing at all")
    say(f"{view(newcomer).account} has nothing; a slot costs {SLOT_WEI} wei")

    address = payer.api
    assert address is not None
    tallymesh.connect(*address)
    began = time.monotonic()
    job = tallymesh.map(tenth, range(UNITS), budget="6.0", work=0.1, max_price="500", newcomers=True)
    slot_s = watch(job, newcomer, began, say)
    check(job.results() == [tenth(each) for each in range(UNITS)], "every result is right")
    audited = {(audit.seat, audit.position) for audit in job.audits if audit.result == "match"}
    check(len(audited) == UNITS, f"every unit was audited, not {len(audited)}")
    earned = until(lambda: (found := ask(network, account)).seats and not job_open(payer, job.id) and found)
    say(f"earned {earned.earned} wei in {earned.seats} seats: {earned.slots} slot, {earned.credit} of credit")
    check(earned.slots == 1, "it came to a slot")
    check(SLOT_WEI + earned.deposit + earned.credit == earned.earned, "every wei of its pay is stake or credit")
    check((earned.tokens, earned.coin, earned.transactions) == (0, 0, 0), "it has neither tokens nor gas, nor used any")

    told = withdraw(newcomer)
    after = ask(network, account)
    fee = int(told["fee_wei"])
    check(after.tokens == earned.credit - fee, "the whole credit but the fee was paid out")
    check((after.credit, after.slots, after.deposit) == (0, 0, 0), "slot and deposit were released")
    check(
        after.unbonding == SLOT_WEI + earned.deposit,
        f"and unbond: {after.unbonding} of {SLOT_WEI} and {earned.deposit}",
    )
    check((after.coin, after.transactions) == (0, 0), "it has sent no transaction in its life")
    say(f"withdrew {after.tokens} wei for a fee of {fee}, carried by {told['carrier']}")
    return {
        "ok": True,
        "slot_s": round(slot_s, 1),
        "seats": earned.seats,
        "earned_wei": str(earned.earned),
        "slot_wei": str(SLOT_WEI),
        "withdrawn_wei": str(after.tokens),
        "fee_wei": str(fee),
        "transactions": after.transactions,
    }


def join(network: LocalNetwork) -> NodeProcess:
    """A worker that knows of no faucet."""
    bare = network.folder / "without-faucet.json"
    network_file.save(msgspec.structs.replace(network.network, faucet=""), bare)
    settings = {**SMALL, "ask_price": ASK}
    node = NodeProcess("newcomer", network.folder / "newcomer", bare, roles=("worker",), settings=settings)
    network.nodes[node.name] = node
    network._start(node, NODES)
    network.wait_ready([node])
    return node


def watch(job: Any, newcomer: NodeProcess, began: float, say: Callable[[str], None]) -> float:
    """Until the job has ended; seconds until the account had its slot."""
    slot_s, said = 0.0, 0.0
    while job.status not in ("done", "failed", "cancelled"):
        seen = view(newcomer)
        passed = time.monotonic() - began
        if seen.slots and not slot_s:
            slot_s = passed
        if passed - said > 10:
            said = passed
            say(f"{passed:5.0f} s: {seen.probation or f'{seen.slots} slot'}")
        if passed > PATIENCE_S:
            raise Broken(f"the job is {job.status} after {passed:.0f} s: {job.why()}")
        time.sleep(0.2)
    check(job.status == "done", f"the job ended well, not {job.status}: {job.why()}")
    return slot_s or time.monotonic() - began


def withdraw(newcomer: NodeProcess) -> dict[str, Any]:
    """As its owner does it."""
    address = newcomer.api
    assert address is not None
    environment = {**os.environ, "TALLYMESH_NODE": address[0], "TALLYMESH_TOKEN": address[1]}
    flags = ["--relayed", "--slots", "1", "--deposit", "--max-fee", MAX_FEE, "--json"]
    command = [sys.executable, "-m", "tallymesh_node.cli", "withdraw", *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise Broken(f"withdraw: {done.stdout}{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def ask(network: LocalNetwork, account: bytes) -> Figures:
    """All figures of the account."""
    known = network.network

    async def asked() -> Figures:
        async with Rpc(known.rpc_urls, chain_id=known.chain_id) as rpc:
            contracts = Contracts.of(rpc, known)
            registry, escrow = contracts.registry, contracts.escrow
            topics = [escrow.interface.topics["Settled"], None, word(account)]
            head = (await rpc.block()).number
            logs = await read_logs(rpc, escrow.address, topics, known.contracts.deployed_block, head)
            paid = [event.values for event in map(escrow.interface.event, logs) if event is not None]
            (standing,) = await registry.newcomers([account])
            check(standing.unpaid == 0 or bool(paid), "nothing is open before the first job")
            return Figures(
                earned=sum(each["amount"] - each["fee"] for each in paid),
                seats=len(paid),
                slots=await registry.live_slots(account),
                deposit=standing.deposit,
                credit=await escrow.credit_of(account),
                tokens=await contracts.token.balance_of(account),
                unbonding=(await registry.stake_of(account)).unbonding,
                coin=await rpc.balance(account),
                transactions=int(await rpc.call("eth_getTransactionCount", "0x" + account.hex(), "latest"), 16),
            )

    return trio.run(asked)


def view(node: NodeProcess) -> api.NodeView:
    return msgspec.convert(node.get("/v1/node"), api.NodeView)


def listed(payer: NodeProcess, account: str) -> bool:
    return any(offer["account"] == account and not offer["provisional"] for offer in payer.get("/v1/offers"))


def job_open(payer: NodeProcess, job: str) -> bool:
    """Whether the escrow still holds something of it."""
    return int(payer.get(f"/v1/jobs/{job}")["escrow_wei"]) > 0


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60.0
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise LocalError("too_slow", "The job's money was not settled within a minute.")
        time.sleep(0.2)
    return found


def check(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


if __name__ == "__main__":
    sys.exit(main())
