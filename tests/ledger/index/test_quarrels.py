"""The index against the contracts over random quarrels: bonds, awards and all other purses are what the chain says."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.rpc import Block
from tallymesh_ledger.index import Database, Purse, Queries
from tallymesh_ledger.index.page import INDEXED, Page, Source

SUPPORT = Path(__file__).resolve().parents[3] / "scripts/support"

CALLS = 700  # of an episode: several claims and accusations come to their end
PAGE_MAX = 40  # calls in a page: quarrels begin in one and end in another
QUARRELS = ("Claims", "Accusations", "Court")


class Told:
    """An episode of random calls on the bytecode in pyrevm; its logs go to an index, page by page."""

    def __init__(self, seed: int, database: Database) -> None:
        sys.path.insert(0, str(SUPPORT))
        try:
            from judge import acts_stake, episode, modules, scene, sides
        finally:
            sys.path.remove(str(SUPPORT))
        self.rng = random.Random(seed)
        terms = episode.terms_of(self.rng)
        self.real = sides.Real(*terms, {})
        self.model = sides.Model(*terms, self.real.addresses, modules.load())
        self.scene = scene.Scene(self.rng, self.model, terms)
        self.scene.quarrelsome = True
        self.pending, self.choose, self.View = acts_stake.beginning(self.scene), episode.choose, sides.View
        self.holder, self.database = sides.HOLDER, database
        self.sources = {self.real.addresses[name]: Source(name, abi.load(name)) for name in INDEXED}
        self.logs: list[dict[str, Any]] = []
        self.count = 0
        self.seen: Counter[str] = Counter()  # events of the quarrels' contracts
        self.constants = {
            "slotWei": terms.parameters.slot_wei,
            "courtFee": terms.quarrelling.court.panel * terms.quarrelling.court.member_fee,
            "court": self.real.addresses["Court"],
        }

    def run(self, calls: int) -> None:
        page = self.rng.randint(1, PAGE_MAX)
        for _ in range(calls):
            step = self.pending.pop(0) if self.pending else self.choose(self.scene)
            self.model.at(step.now, step.block)
            self.real.at(step.now, step.block)
            expected, found = self.model.call(step), self.real.call(step)
            assert expected.ok == found.ok, "the scene follows the model"
            self.count += 1
            for index, (address, topics, data) in enumerate(found.logs):
                self.logs.append({
                    "address": "0x" + address.hex(), "topics": ["0x" + topic.hex() for topic in topics],
                    "data": "0x" + data.hex(), "blockNumber": hex(self.count), "logIndex": hex(index),
                    "blockHash": "0x" + bytes(32).hex(), "transactionHash": "0x" + bytes(32).hex(),
                })  # fmt: skip
            if self.count % page == 0:
                self.write()
        self.write()

    def write(self) -> None:
        blocks = {n: Block(n, bytes(32), bytes(32), n) for n in {int(log["blockNumber"], 16) for log in self.logs}}
        page = Page(self.sources, self.logs, blocks)
        self.seen.update(f"{contract}.{event.name}" for contract, event in page.events if contract in QUARRELS)
        with self.database.write() as connection:
            page.write(connection, self.constants)
        self.logs = []

    # What the contracts say.

    def read(self, contract: str, view: str, *arguments: Any) -> Any:
        data = self.real.view(self.View(contract, view, arguments))
        return abi.load(contract).functions[view].decode(data)

    def purses(self, account: bytes, jobs: list[bytes], seats: dict[bytes, int]) -> dict[Purse, int]:
        free, locked, unbonding = self.read("Registry", "stakeOf", account)
        held = sum(self.read("JobEscrow", "jobOf", job)["free"] + self.read("JobEscrow", "jobOf", job)["reserve"]
                   for job in jobs)  # fmt: skip
        for seat, price in seats.items():
            found = self.read("JobEscrow", "seatOf", seat)
            held += found["bond"] + (found["units"] - found["paidUnits"]) * price * (found["state"] == 1)
        return {
            Purse.TOKENS: self.read("Token", "balanceOf", account),
            Purse.CREDITS: self.read("JobEscrow", "creditOf", account),
            Purse.STAKE: free + locked + unbonding,
            Purse.LOCKED: locked,
            Purse.ESCROW: held,
            Purse.AWARDS: sum(self.read(contract, "creditOf", account) for contract in QUARRELS),
        }

    def check(self) -> None:
        bonds = awards = 0
        with self.database.read() as connection:
            queries = Queries(connection)
            accounts = set(queries.accounts()) | set(self.scene.keys)
            for account in accounts - {bytes(20), self.holder}:
                totals = queries.totals(account)
                for purse, wei in self.purses(account, *queries.ids_of_payer(account)).items():
                    assert totals[purse] == wei, (account.hex(), purse, self.count)
                assert totals[Purse.BONDS] >= 0
                bonds, awards = bonds + totals[Purse.BONDS], awards + totals[Purse.AWARDS]
        held = sum(self.read("Token", "balanceOf", self.real.addresses[name]) for name in QUARRELS)
        assert bonds + awards + self.read("Court", "pool") == held, "every wei that the three hold is somebody's"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_over_random_quarrels_every_purse_is_what_the_contracts_say(seed: int, tmp_path: Path) -> None:
    with Database(str(tmp_path / "index.sqlite")) as database:
        told = Told(seed, database)
        for _ in range(5):
            told.run(CALLS // 5)
            told.check()
        assert told.seen["Claims.ClaimEnded"]
        assert told.seen["Accusations.AccusationEnded"]
