"""The demo: a market of real processes trains a model, catches a cheat, pays the others, and every wei is shown.

Run by scripts/demo. It knows the network only as a user does: processes, the client, the chain.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import digits
import gas
import histories
import httpx
import money
import msgspec
import trio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import tallymesh
from tallymesh import amounts
from tallymesh.client.telling import tell
from tallymesh.errors import ChainError
from tallymesh_ledger.chain import Contracts, Rpc, Sender
from tallymesh_ledger.collecting import collectable
from tallymesh_ledger.keys import AccountKey, checksum
from tallymesh_node.local_network import LocalNetwork, NodeProcess

ROOT = Path(__file__).resolve().parent.parent.parent
WORKERS = 5
BUDGET = "5.0"
ASK_PRICE = "20"  # MESH per core-hour: the job is small, and its pay should be seen to move
MAX_PRICE = "50"
CLIENTS = 10
PERIOD_S = 15  # of rewards: one is over soon after the last payment
EXPIRE_S = 120.0  # how long to wait at most for the cheat's seat to expire and the last wei to come back
QUARREL_S = 90.0  # how long to wait at most for the end of what the cheat's conviction began
CHEAT_COMMAND = (sys.executable, "-m", "cheats.noise_worker", "--at-once")
EVENTS_SHOWN = ("match", "lease", "seat", "round", "audit", "caught", "redo", "settle", "refund", "warning")
STYLES = {"caught": "bold red", "redo": "yellow"}
RESULTS = {"match": "green", "mismatch": "bold red", "unavailable": "yellow"}


class Demo:
    def __init__(self, options: argparse.Namespace, console: Console, folder: Path) -> None:
        self.options = options
        self.console = console
        self.network = LocalNetwork(folder)
        self.accounts: dict[bytes, str] = {}  # account -> name
        self.peers: dict[bytes, str] = {}
        self.cheat: bytes | None = None
        self.index = folder / "index.sqlite"
        self.deployed = 0  # the newest block when the contracts were there
        self.payer: NodeProcess
        self.redone = 0
        self.matched: dict[str, str] = {}  # stage -> what matching said last
        self.caught: dict[str, str] = {}

    # Setting the scene.

    def start(self) -> None:
        say = self.console.print
        say("[bold]Starting[/] the embedded chain, a payer and five contributors, each a process of its own ...")
        # Windows long enough that nobody's seat runs out in mid-job on a slow machine, short enough to wait for.
        self.network.start_chain(parameters={"lease_max_s": 600, "period_s": PERIOD_S})
        self.deployed = trio.run(self.head) + 1
        self.payer = self.network.start_payer()
        settings = {"cores": "1", "memory_mib": "1024", "disk_gib": "1", "ask_price": ASK_PRICE}
        for number in range(1, WORKERS + 1):
            cheats = number == WORKERS and not self.options.no_cheat
            self.network.add(
                "cheat" if cheats else f"worker{number}",
                slots=1,
                settings=settings,
                **({"command": CHEAT_COMMAND} if cheats else {}),
            )
        self.network.wait_ready()
        self.network.wait_market(self.payer, WORKERS)
        for name, node in self.network.nodes.items():
            view = node.get("/v1/node")
            account = bytes.fromhex(view["account"][2:])
            self.accounts[account] = name
            self.peers[account] = view["peer_id"]
            if name == "cheat":
                self.cheat = account

    async def head(self) -> int:
        async with self.chain() as rpc:
            return (await rpc.block()).number

    def show_offers(self) -> None:
        table = Table(title="Offers that the payer's node has heard by gossip", title_justify="left")
        for column in ("contributor", "account", "cores", "memory", "asks per core-hour", "class", "slot"):
            table.add_column(column)
        for offer in self.payer.get("/v1/offers"):
            hourly = amounts.show_per_core_hour(int(offer["ask_price_wei"]))
            table.add_row(
                self.name(offer["account"]),
                offer["account"][:10] + "…",
                str(offer["cores"]),
                f"{offer['memory_mib'] / 1024:.1f} GiB",
                hourly,
                offer["numeric_class"][:8],
                "yes" if offer["staked"] else "no",
            )
        self.console.print(table)

    # The job.

    def train(self) -> tallymesh.Job:
        url, token = self.payer.api or ("", "")
        tallymesh.connect(url, token)
        job = tallymesh.train(
            digits.model,
            digits.loss,
            digits.train_set(),
            test=digits.test_set(),
            rounds=self.options.rounds,
            clients=CLIENTS,
            partition="dirichlet:0.5",
            local=digits.LOCAL,
            budget=BUDGET,
            max_price=MAX_PRICE,
        )
        with job.reasons():
            for event in job.events():
                self.show(event)
        return job

    def show(self, event: tallymesh.api.EventView) -> None:
        data = event.data
        if event.kind == "caught":
            self.caught[data.get("peer", "")] = data.get("sentence", "")
        elif event.kind == "redo":
            self.redone += int(data.get("units", 0))
        if event.kind not in EVENTS_SHOWN or (event.kind == "audit" and not data.get("result")):
            return  # an audit that is ordered: what counts is what comes back
        words = escape(tell(event.kind, data, self.name))
        if event.kind == "match":
            if words == self.matched.get(data.get("stage", "")):
                return  # matching looks again and again; only another answer is news
            self.matched[data.get("stage", "")] = words
        style = (RESULTS if event.kind == "audit" else STYLES).get(data.get("result", event.kind), "dim")
        if event.kind == "audit":  # the last word is the verdict
            before, _, result = words.rpartition(" ")
            self.console.print(f"  audit  {before} [{style}]{result}[/]")
        elif event.kind == "round":
            numbers = words.partition(" · ")[2]
            self.console.print(f"  round {data['round']:>3}  {numbers}  [dim]{data.get('state', '')[:12]}[/]")
        elif style == "dim":
            self.console.print(f"  [dim]{event.kind:<6} {words}[/]")
        else:
            self.console.print(f"  [{style}]{event.kind:<6}[/] {words}")

    def name(self, account: str) -> str:
        try:
            return self.accounts.get(bytes.fromhex(account[2:]), account[:10])
        except ValueError:
            return account

    # Money.

    async def wait_refunded(self, job: tallymesh.Job) -> int:
        """Until nothing of the job is left in the escrow: the cheat's seat has to expire first."""
        async with self.chain() as rpc:
            contracts = Contracts.of(rpc, self.network.network)
            held = -1
            with trio.move_on_after(EXPIRE_S):
                while (held := await money.held_by_jobs(rpc, self.network.network, contracts)) > 0:  # noqa: ASYNC110
                    await trio.sleep(0.5)  # the chain is another process
            return held

    async def wait_quarrels(self) -> int:
        """Until no bond is at stake any more: whoever accuses the cheat gets its bond back, and a part of the stake."""
        at_stake = -1
        with trio.move_on_after(QUARREL_S):
            while at_stake := sum((await self.purses())[0].values()):  # noqa: ASYNC110 - as above
                await trio.sleep(1.0)
        return at_stake

    async def collect(self) -> dict[bytes, int]:
        """End the reward period of the last payment and collect; account -> wei. Anybody may: it goes to the owner."""
        network = self.network.network
        async with self.chain() as rpc:
            contracts = Contracts.of(rpc, network)
            assert contracts.rewards is not None
            head = await rpc.block()
            over = (head.timestamp // network.parameters.period_s + 1) * network.parameters.period_s
            while (head := await rpc.block()).timestamp < over:  # noqa: ASYNC110 - as above
                await trio.sleep(0.5)
            sender = Sender(rpc, await self.carrier())
            for account in self.accounts:
                due = await collectable(rpc, network, account, at=head.number)
                for period in due or ():
                    try:
                        await contracts.rewards.collect(sender, account, period)
                    except ChainError as error:
                        if not error.reverted:  # its own node was faster
                            raise
            return await money.collected(rpc, network)

    async def carrier(self) -> AccountKey:
        """Somebody with gas and nothing else to do with the market."""
        key = AccountKey.generate()
        async with httpx.AsyncClient(trust_env=False) as http:
            (await http.post(self.network.network.faucet, json={"address": checksum(key.address)})).raise_for_status()
        return key

    def chain(self) -> Rpc:
        network = self.network.network
        return Rpc(network.rpc_urls, chain_id=network.chain_id)

    async def purses(self) -> tuple[dict[bytes, int], int]:
        """What each account has at stake in quarrels, and the block of which that is true."""
        async with self.chain() as rpc:
            return await histories.at_stake(rpc, self.network.network, list(self.accounts), self.index)

    async def books(self) -> money.Books:
        bonds, at = await self.purses()
        async with self.chain() as rpc:
            return await money.read_books(rpc, self.network.network, bonds, at)

    async def earned(self) -> dict[bytes, dict[str, int]]:
        async with self.chain() as rpc:
            return await money.earned(rpc, self.network.network, Contracts.of(rpc, self.network.network))

    async def spent(self) -> dict[str, gas.Spent]:
        """Of all that was sent since the contracts are there."""
        async with self.chain() as rpc:
            return await gas.spent(rpc, self.network.network, self.deployed)

    async def histories(self) -> dict[bytes, histories.History]:
        folders = {account: self.network.nodes[name].folder for account, name in self.accounts.items()}
        async with self.chain() as rpc:
            return await histories.histories(rpc, self.network.network, folders, self.network.folder / "fresh.sqlite")

    def show_balances(self, before: money.Books, after: money.Books, rewards: dict[bytes, int]) -> None:
        table = Table(title="Balances, read from the chain", title_justify="left")
        for column in ("account", "before", "after", "difference", "of it rewards"):
            table.add_column(column, justify="left" if column == "account" else "right")
        for account, name in self.accounts.items():
            old, new = before.accounts[account].total, after.accounts[account].total
            table.add_row(name, _short(old), _short(new), _short(new - old, sign=True), _short(rewards.get(account, 0)))
        burned = before.supply - after.supply + after.fees - before.fees
        table.add_row("burned and owed: fees, the court's half", "", "", _short(burned, sign=True), "")
        self.console.print(table)

    def show_gas(self, spent: dict[str, gas.Spent]) -> None:
        table = Table(title="Gas by kind of transaction, from the chain's receipts", title_justify="left")
        for column in ("transaction", "how many", "gas each", "gas in all"):
            table.add_column(column, justify="left" if column == "transaction" else "right")
        for kind, each in spent.items():
            table.add_row(kind, str(each.count), f"{each.each:,}", f"{each.gas:,}")
        self.console.print(table)


def _short(wei: int, *, sign: bool = False) -> str:
    """Six decimals, rounded towards zero: what a person compares. The JSON line has every wei."""
    cut = abs(wei) // 10**12 * 10**12
    text = amounts.show(-cut if wei < 0 else cut)
    return f"+{text}" if sign and wei > 0 else text


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--no-cheat", action="store_true", help="all five contributors are honest")
    parser.add_argument("--rounds", type=int, default=digits.ROUNDS)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs, journals and blobs")
    options = parser.parse_args()
    console = Console(stderr=options.json, highlight=False, width=None if sys.stdout.isatty() else 120)
    folder = ROOT / ".tallymesh" / f"demo-{os.getpid()}"
    folder.mkdir(parents=True)
    # Everything that any of the processes writes stays in the demo's own folder.
    os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "HOME": str(folder)}
    os.environ["PYTHONPATH"] = str(ROOT / "tests")  # where the cheat's code lives
    (folder / "tmp").mkdir()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = True
    try:
        summary = run(options, console, folder)
        failed = False
    except tallymesh.TallymeshError as error:
        console.print(f"[bold red]error:[/] {error}")
        return 1
    finally:
        if options.keep or failed:
            console.print(f"Logs, journals and blobs are in {folder}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
    if options.json:
        print(json.dumps(summary))
    good = summary["balanced"] and summary["escrow_wei"] == 0 and summary["accuracy"] >= 0.9
    good = good and all(history["adds_up"] for history in summary["histories"].values())
    return 0 if good and bool(summary["caught"]) != options.no_cheat else 1


def run(options: argparse.Namespace, console: Console, folder: Path) -> dict[str, Any]:
    demo = Demo(options, console, folder)
    with demo.network:
        demo.start()
        demo.show_offers()
        before = trio.run(demo.books)
        console.print(
            f"[bold]Training[/] an MLP on the digits, {CLIENTS} participants, {options.rounds} rounds, budget {BUDGET}"
        )
        began = time.monotonic()
        job = demo.train()
        wall = time.monotonic() - began
        job.wait()
        if demo.cheat is not None:
            console.print("Waiting until the cheat's seat has expired, so that the last of the budget comes back ...")
        escrow = trio.run(demo.wait_refunded, job)
        console.print("Waiting for the end of the reward period, and of what is left to quarrel about ...")
        at_stake = trio.run(demo.wait_quarrels)
        rewards = trio.run(demo.collect)
        after, earned, spent = trio.run(demo.books), trio.run(demo.earned), trio.run(demo.spent)
        demo.show_balances(before, after, rewards)
        demo.show_gas(spent)
        told = {demo.peers[account]: each for account, each in trio.run(demo.histories).items()}
        counters = {name: node.get("/v1/node") for name, node in demo.network.nodes.items()}
        audits = [audit for audit in job.audits if audit.result]
        view = job.view
        contributors = [account for account, name in demo.accounts.items() if name != "payer"]
        unpaid = {
            demo.peers[account]: f"{demo.accounts[account]}: {_why_unpaid(job, account)}"
            for account in contributors
            if not _all_paid(job, account)
        }
        total = {key: sum(view["counters"].get(key, 0) for view in counters.values()) for key in COUNTED}
        summary = {
            "accuracy": job.metrics["accuracy"],
            "model_sha": job.result.model_sha,
            "rounds": view.rounds_done,
            "wall_s": round(wall, 2),
            "units": view.units,
            "audits": len(audits),
            "redone": view.redone,
            "caught": demo.caught,
            "paid_wei": {
                demo.peers[account]: str(sum(earned.get(account, {}).get(part, 0) for part in ("work", "audits")))
                for account in contributors
            },
            "rewards_wei": {demo.peers[account]: str(rewards.get(account, 0)) for account in contributors},
            "unpaid": unpaid,
            "at_stake_wei": at_stake,
            "gas": {kind: {"count": each.count, "gas": each.gas, "each": each.each} for kind, each in spent.items()},
            "escrow_wei": escrow,
            "balanced": after.balanced,
            "histories": {peer: msgspec.structs.asdict(each) for peer, each in told.items()},
            "sandbox": counters["payer"]["sandbox"],
            "sandboxes": int(total["sandboxes_opened_total"]),
            "gossip_messages": int(total["gossip_received_total"]),
            "blob_bytes_libp2p": int(total["blob_bytes_received_total"]),
        }
        console.print(
            f"model {summary['model_sha'][:16]}…  accuracy {summary['accuracy']:.3f}  {summary['units']} units, "
            f"{summary['audits']} recomputed, {summary['redone']} done again  ({wall:.1f} s)"
        )
        console.print(f"every wei accounted for: {'yes' if after.balanced else 'NO'}; left in the escrow: {escrow} wei")
        moves, proven = (sum(getattr(each, name) for each in told.values()) for name in ("moves", "proven"))
        console.print(
            f"each account's history adds up to its balance: {'yes' if all(h.adds_up for h in told.values()) else 'NO'}"
            f" ({moves} moves); {proven} of {sum(h.payments for h in told.values())} payments proven by their receipts"
        )
        return summary


COUNTED = ("sandboxes_opened_total", "gossip_received_total", "blob_bytes_received_total")


def _seats(job: tallymesh.Job, account: bytes) -> list[tallymesh.api.PeerView]:
    return [peer for peer in job.view.peers if peer.account.lower() == "0x" + account.hex()]


def _all_paid(job: tallymesh.Job, account: bytes) -> bool:
    return all(peer.paid >= peer.received for peer in _seats(job, account))


def _why_unpaid(job: tallymesh.Job, account: bytes) -> str:
    reasons = [
        f"{peer.received - peer.paid} of {peer.received} units: "
        + (peer.problem.sentence if peer.problem else "not accepted")
        for peer in _seats(job, account)
        if peer.paid < peer.received
    ]
    return "; ".join(reasons)


if __name__ == "__main__":
    sys.exit(main())
