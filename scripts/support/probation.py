"""`scripts/probation`: from nothing to one slot and a withdrawal, on the embedded chain, with real processes.

The newcomer's network file names no faucet, its account has neither tokens nor coin, and it never sends a transaction:
payers seat and settle it, another node carries its withdrawal. What it should have is added up from the contracts'
events, what it has is read from their views, both at one block, and compared to the wei: so it holds whenever the
figures are read. Only the network file's numbers are small (a slot of one token); nothing in the nodes knows of it.
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

import money
import msgspec
import trio
from probation_work import tenth

import tallymesh
from tallymesh import api
from tallymesh import network as network_file
from tallymesh.errors import LocalError, TallymeshError
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.contract import Contract
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_node.local_network import NODES, LocalNetwork, NodeProcess

SLOT_WEI = 10**18
# A hundredth of a slot each, less the fee: 103 of them are a slot, the others are credit. So many that the payer, which
# reads the registry every two seconds, knows of the slot while it still has work: then it takes an ordinary seat.
UNITS = 120
ASK = "360"  # MESH per core-hour: 0.01 for a unit of 0.1 reference-seconds
STAKED = 3  # auditors of the newcomer's class, which do not work at that price
MAX_FEE = "0.02"  # MESH: three units of credit are little, and carriers ask for 0.01
PATIENCE_S = 1200.0  # for the whole job: 75 s on a machine with nothing else to do
STEP_S = 300.0  # for any one other thing, which takes a few seconds there
SMALL = {"cores": "1", "memory_mib": "1024", "disk_gib": "1"}


class Broken(Exception):
    """A promise did not hold."""


class Figures(msgspec.Struct, kw_only=True):
    """Of one account, from the chain alone, at one block. Wei, where nothing else is said."""

    # What the contracts' events add up to.
    earned: int  # settled pay after the fee
    units: int  # that were paid, a number
    seats: int  # on which they were, a number
    staked: int  # of the pay: what went to the Registry
    released: int  # slots and deposits that began to unbond
    slashed: int
    locks: int  # of its seats, whose end nobody asked for yet
    spent: int  # of the credit, to its owner
    fees: int  # of the credit, to carriers
    carried: int  # requests, a number
    # What the views say.
    slots: int  # a number
    deposit: int
    credit: int
    tokens: int
    free: int
    locked: int
    unbonding: int
    coin: int
    transactions: int  # a number
    held: int  # by all jobs in the escrow

    def check(self) -> None:
        """What holds at every block, whatever else is under way."""
        check(self.slashed == 0, "nothing of it was slashed")
        bonded = self.slots * SLOT_WEI + self.deposit
        check(bonded + self.released == self.staked, f"what it staked is slots, deposit or released: {self}")
        check(self.free + self.locked + self.unbonding == self.staked, f"or free, locked or unbonding: {self}")
        check(self.locked == self.locks, f"its seats' locks are what is locked: {self}")
        check(self.credit == self.earned - self.staked - self.spent - self.fees, f"the other pay is credit: {self}")
        check(self.tokens == self.spent, f"and what was spent of it is in its purse: {self}")


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
    network.wait_ready(timeout_s=STEP_S)
    network.wait_market(payer, STAKED, timeout_s=STEP_S)
    newcomer = join(network)
    account = bytes.fromhex(view(newcomer).account[2:])
    payer.wait("its offer was known", lambda: listed(payer, view(newcomer).account), timeout_s=STEP_S)
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
    accepted = {(each.seat, each.position) for each in job.receipts if each.accepted and not each.void}
    audited = {(audit.seat, audit.position) for audit in job.audits if audit.result == "match"}
    check(len(accepted) == UNITS, f"each unit was accepted once, not {len(accepted)} of {UNITS}")
    check(accepted <= audited, f"every unit was audited, not {len(accepted & audited)}")
    earned = until("the escrow held nothing any more", lambda: (f := ask(network, account)).held == 0 and f)
    say(f"earned {earned.earned} wei in {earned.seats} seats: {earned.slots} slot, {earned.credit} of credit")
    check(earned.units == UNITS, f"each unit was paid once, not {earned.units} of {UNITS}")
    check((earned.slots, earned.released, earned.carried) == (1, 0, 0), f"it came to a slot: {earned}")
    check(earned.seats < UNITS, "with which it got more than one unit a seat")
    check(earned.free == earned.staked, f"none of which is locked, as it could not end a lock: {earned}")
    check((earned.tokens, earned.coin, earned.transactions) == (0, 0, 0), "it has neither tokens nor gas, nor used any")

    told = withdraw(newcomer)
    after = ask(network, account)
    check((after.earned, after.staked) == (earned.earned, earned.staked), "nothing was earned since")
    check(after.carried == 1, f"one request was carried, not {after.carried}")
    check(after.fees <= int(told["fee_wei"]), f"for the fee that was agreed: {after.fees} of {told['fee_wei']}")
    check(after.tokens == earned.credit - after.fees, "the whole credit but the fee was paid out")
    check((after.credit, after.slots, after.deposit) == (0, 0, 0), f"slot and deposit were released: {after}")
    check(after.unbonding == after.staked, f"and unbond: {after}")
    check((after.coin, after.transactions) == (0, 0), "it has sent no transaction in its life")
    say(f"withdrew {after.tokens} wei for a fee of {after.fees}, carried by {told['carrier']}")
    return {
        "ok": True,
        "slot_s": round(slot_s, 1),
        "seats": earned.seats,
        "earned_wei": str(earned.earned),
        "slot_wei": str(SLOT_WEI),
        "unbonding_wei": str(after.unbonding),
        "withdrawn_wei": str(after.tokens),
        "fee_wei": str(after.fees),
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
    network.wait_ready([node], timeout_s=STEP_S)
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
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=STEP_S, check=False)
    if done.returncode:
        raise Broken(f"withdraw: {done.stdout}{done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def ask(network: LocalNetwork, account: bytes) -> Figures:
    """All figures of the account, checked."""
    known = network.network

    async def asked() -> Figures:
        async with Rpc(known.rpc_urls, chain_id=known.chain_id) as rpc:
            contracts = Contracts.of(rpc, known)
            token, registry, escrow = contracts.token, contracts.registry, contracts.escrow
            at = (await rpc.block()).number

            async def events(contract: Contract, name: str) -> list[dict[str, Any]]:
                """Of the account, up to that block."""
                topics = [contract.interface.topics[name]]
                logs = await read_logs(rpc, contract.address, topics, known.contracts.deployed_block, at)
                found = [event.values for event in map(contract.interface.event, logs) if event is not None]
                return [each for each in found if account in (each.get("account"), each.get("worker"))]

            async def total(contract: Contract, name: str, field: str) -> int:
                return sum(each[field] for each in await events(contract, name))

            paid, spent = await events(escrow, "Settled"), await events(escrow, "CreditSpent")
            slots_released = len(await events(registry, "SlotReleased"))
            stake = await registry.stake_of(account, at=at)
            return Figures(
                earned=sum(each["amount"] - each["fee"] for each in paid),
                units=sum({each["seat"]: each["units"] for each in paid}.values()),  # of a seat the last says all
                seats=len({each["seat"] for each in paid}),
                staked=await total(escrow, "Staked", "amount"),
                released=slots_released * SLOT_WEI + await total(registry, "DepositReleased", "amount"),
                slashed=await total(registry, "StakeSlashed", "amount"),
                locks=await total(escrow, "SeatOpened", "lock") - await total(escrow, "LockEnded", "lock"),
                spent=sum(each["amount"] for each in spent),
                fees=sum(each["fee"] for each in spent),
                carried=len(await events(registry, "Relayed")),
                slots=await registry.live_slots(account, at=at),
                deposit=await registry.deposit_of(account, at=at),
                credit=await escrow.credit_of(account, at=at),
                tokens=await token.balance_of(account, at=at),
                free=stake.free,
                locked=stake.locked,
                unbonding=stake.unbonding,
                coin=int(await rpc.call("eth_getBalance", "0x" + account.hex(), hex(at)), 16),
                transactions=int(await rpc.call("eth_getTransactionCount", "0x" + account.hex(), hex(at)), 16),
                held=await money.held_by_jobs(rpc, known, contracts, at=at),
            )

    found = trio.run(asked)
    found.check()
    return found


def view(node: NodeProcess) -> api.NodeView:
    return msgspec.convert(node.get("/v1/node"), api.NodeView)


def listed(payer: NodeProcess, account: str) -> bool:
    return any(offer["account"] == account and not offer["provisional"] for offer in payer.get("/v1/offers"))


def until(what: str, holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + STEP_S
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise LocalError("too_slow", f"{what}: not within {STEP_S:.0f} s.")
        time.sleep(0.5)
    return found


def check(holds: bool, promise: str) -> None:
    if not holds:
        raise Broken(promise)


if __name__ == "__main__":
    sys.exit(main())
