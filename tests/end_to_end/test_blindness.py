"""Auditors are blind: nothing of a worker's result reaches an auditor before it is bound to its own. Shown on the bytes
that a real auditor's process receives, and by what a rubber stamp can do with the check and without it."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import tallymesh
from cheats import tapped_node
from end_to_end import functions, shop
from end_to_end.scene import ENDED, Market, free_port, wait_until
from tallymesh import api, wire
from tallymesh.messages import AuditCommit, Open
from tallymesh_ledger.keys import checksum

pytestmark = pytest.mark.end_to_end

STAMP_SLOTS = 4  # as many as all honest contributors together: it is drawn for every second unit
WAIT_S = 150.0
# Maps until one auditor of many was drawn. A slot of eight in all misses 16 draws with 12 %, so ten maps with 1e-9.
DRAWS_MAX = 10
FIRST = itertools.count(1_000_000, 1_000)  # input of each map


class Audited(NamedTuple):
    """One audit of the tapped node: when (in its records) it signed its commitment, and what was opened to it."""

    committed: int
    end: bytes
    salt: bytes


class Tapped:
    """What the auditor's process received and signed, in order."""

    def __init__(self, path: Path) -> None:
        self.streams: dict[int, bytearray] = defaultdict(bytearray)
        self.places: dict[int, list[tuple[int, int]]] = defaultdict(list)  # channel -> (bytes so far, record)
        self.commits: dict[bytes, int] = {}  # AuditOrder -> record
        self.opens: dict[bytes, Open] = {}
        for number, record in enumerate(tapped_node.read(path)):
            if record.kind == tapped_node.RECEIVED:
                self.streams[record.channel] += record.data
                self.places[record.channel].append((len(self.streams[record.channel]), number))
            elif record.kind == tapped_node.OPENED:
                opened = wire.decode(record.data, Open).message
                self.opens.setdefault(opened.audit_order, opened)
            elif record.channel == AuditCommit.TYPE:
                self.commits.setdefault(wire.decode(record.data, AuditCommit).message.audit_order, number)

    def audits(self) -> dict[bytes, Audited]:
        return {
            order: Audited(self.commits[order], opened.end, opened.salt)
            for order, opened in self.opens.items()
            if order in self.commits
        }

    def first_received(self, needle: bytes) -> int | None:
        """The record with which these bytes were complete for the first time, on any channel."""
        found = []
        for channel, stream in self.streams.items():
            at = stream.find(needle)
            if at >= 0:
                place = bisect.bisect_left(self.places[channel], (at + len(needle), -1))
                found.append(self.places[channel][place][1])
        return min(found, default=None)


def mapped(market: Market, payer: str, count: int) -> tallymesh.Job:
    """A map of so many units, each with a value that occurs nowhere else, every one of them audited."""
    market.connect(payer)
    first = next(FIRST)
    inputs = range(first, first + count)
    job = tallymesh.map(functions.square, inputs, budget="2.0", verify="integrity")
    wait_until("the map is done", lambda: job.status in ENDED, timeout_s=WAIT_S)
    assert [output["square"] for output in job.results()] == [x * x for x in inputs]
    return job


def by(job: tallymesh.Job, account: str) -> list[api.AuditView]:
    return [audit for audit in job.audits if audit.auditor == account]


def test_neither_end_nor_salt_reaches_an_auditor_before_its_commitment_is_signed(
    market: Market, tap: Path, folder: Path
) -> None:
    auditor = market.account("worker4")
    earlier = Tapped(tap).audits()  # of other tests' jobs, units of which may have the same ends
    jobs: list[tallymesh.Job] = []
    while len(jobs) < DRAWS_MAX and not any(audit.result for job in jobs for audit in by(job, auditor)):
        jobs.append(mapped(market, "payer", 16))  # who is drawn follows from the seats, which are new each time
    # Rounds, too: there the end of one unit is an input of others, which the same peer may be given as a worker. With a
    # trainer and an aggregator of the program's own, each unit of which others get to the bit.
    trained = shop.train(market, folder, {**shop.FEDERATED, "verify": "integrity", "seed": 5, "own": True})
    jobs.append(tallymesh.attach(trained["job"]))
    rounds = jobs[-1]
    assert {audit.result for audit in rounds.audits if audit.result} == {"match"}
    assert len({(audit.seat, audit.position) for audit in rounds.audits if audit.result}) == rounds.view.units
    assert [line.text for line in rounds.logs() if line.text.startswith("an even")] == ["an even mean of 4"] * 3
    for job in jobs:
        done = [audit for audit in by(job, auditor) if audit.result]
        assert {audit.result for audit in done} <= {"match"}
    assert any(audit.result for job in jobs for audit in by(job, auditor)), "it was drawn at all"
    # Its audits are over, so everything that was ever sent to it about them is in the file.
    found = Tapped(tap)
    audits = {order: audited for order, audited in found.audits().items() if order not in earlier}
    assert len(audits) >= sum(1 for job in jobs for audit in by(job, auditor) if audit.result)
    receipts = {receipt.end for job in jobs for receipt in job.receipts}
    assert {audited.end.hex() for audited in audits.values()} & receipts, "the ends are those of the receipts"
    for audited in audits.values():
        for what, needle in (("end", audited.end), ("salt", audited.salt)):
            first = found.first_received(needle)
            assert first is not None, f"the tap missed the {what}: it sees nothing"
            assert first > audited.committed, f"the {what} was received before the commitment was signed"


@pytest.fixture(scope="module")
def stamp(market: Market) -> Iterator[str]:
    """The account of a rubber stamp with half of all slots. It sells too little memory to be given work itself, so
    what it earns are fees for audits."""
    node = market.add_ready("stamp", slots=STAMP_SLOTS, command=shop.module("cheats.rubber_stamp"), memory_mib="64")
    yield market.account("stamp")
    market.drop(node)


def earned(market: Market, account: str) -> int:
    """All that the account has, beyond what the faucet gave: wei on chain."""
    found = market.balance(account)
    return found.tokens_wei + found.credits_wei + found.stake_free_wei + found.stake_locked_wei


def test_without_the_check_a_rubber_stamp_passes_and_the_tap_sees_the_leak(
    market: Market, stamp: str, tap: Path
) -> None:
    """The control: this payer leaks the end with the order, and auditing costs nothing but a signature."""
    known = Tapped(tap).audits()
    leaky = market.add_ready(
        "leaky",
        slots=0,
        roles=("submit",),
        command=shop.module("cheats.leaky_payer"),
        listen_port=str(free_port()),
    )
    try:
        market.local.wait_market(leaky, 5)
        before, fees, tapped = earned(market, stamp), 0, False
        for _ in range(DRAWS_MAX):  # who is drawn follows from the seats, which are new each time
            job = mapped(market, "leaky", 16)
            stamped = [audit for audit in by(job, stamp) if audit.result]
            assert {audit.result for audit in stamped} <= {"match"}
            fees += sum(int(audit.fee_wei) for audit in stamped)
            tapped = tapped or any(audit.result for audit in by(job, market.account("worker4")))
            if fees and tapped:
                break
        assert fees, "the rubber stamp was drawn, and passed"
        wait_until("the fees are paid", lambda: earned(market, stamp) >= before + fees)
    finally:
        market.connect()
        market.drop(leaky)
    found = Tapped(tap)
    leaked = [audited for order, audited in found.audits().items() if order not in known]
    assert tapped
    assert leaked, "the tapped auditor was drawn as well"
    for audited in leaked:
        first = found.first_received(audited.end)
        assert first is not None
        assert first < audited.committed, "the tap does not see what is leaked"


def test_a_rubber_stamp_does_not_pass_the_real_payer(market: Market, stamp: str) -> None:
    stamped: list[api.AuditView] = []
    seats: set[str] = set()
    for _ in range(DRAWS_MAX):
        struck = bool(stamped)
        job = mapped(market, "payer", 12)
        seats |= {peer.seat for peer in job.view.peers}
        stamped = by(job, stamp)
        assert not [audit for audit in stamped if audit.result], "a verdict that opens no commitment counts for nothing"
        checked = {audit.unit for audit in job.audits if audit.result == "match"}
        assert checked == {receipt.unit for receipt in job.receipts}, "all units were recomputed by others"
        if struck:
            break
    assert struck, "it was drawn"
    assert not stamped, "struck off: that payer never calls it again"
    # By these seats: the leaky payer, from before, may owe it fees still.

    def paid() -> set[str]:
        events = [event.values for event in market.events("AuditPaid") if event.values["seat"].hex() in seats]
        return {checksum(values["auditor"]) for values in events}

    assert stamp not in wait_until("the others are paid for their audits", paid)
