"""Probation with real roles on a virtual clock: an account that nobody gave anything works, is audited and paid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import trio

from fakes.chain import FakeChain
from fakes.payer_scene import (
    PARAMETERS,
    PRICE,
    PayerNode,
    Peer,
    Scene,
    after_first,
    cheat,
    honest_result,
    paid_units,
    result_of,
)
from tallymesh.messages import Order
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_node.interfaces import SignedLease
from tallymesh_node.payer import needs

SLOT = 100 * PRICE * 4  # so that a hundredth of it is four units


@pytest.fixture
def small(scene: Scene) -> Scene:
    """A network whose slot is worth 400 units."""
    scene.parameters = msgspec.structs.replace(PARAMETERS, slot_wei=SLOT, audit_rate_bp=100)
    scene.chain.parameters = scene.parameters
    return scene


def crowd(scene: Scene) -> Peer:
    """Staked accounts that audit and ask too much, and a newcomer."""
    for number in (1, 2, 3, 4):
        scene.join(number, works=False)
    return scene.join(9, slots=0, ask=PRICE)


def standing(scene: Scene, peer: Peer) -> Newcomer:
    registry = scene.chain.contracts.registry
    return Newcomer(*registry.newcomer_of(peer.key.address), registry.deposit_of(peer.key.address))


async def test_without_the_payers_word_a_newcomer_gets_nothing(small: Scene, payer: PayerNode) -> None:
    crowd(small)
    async with small.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=2), max_price_wei=str(PRICE))
        await trio.sleep(20)
        assert payer.service.job(job).status == "matching"
        [problem] = payer.service.why(job)
        assert "unstaked" in problem.sentence
        assert small.chain.transactions == []


async def test_a_newcomer_works_every_unit_is_audited_and_its_pay_becomes_its_stake(
    small: Scene, payer: PayerNode
) -> None:
    newcomer = crowd(small)
    async with small.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=10)
        job = await payer.submit(spec, newcomers=True, max_price_wei=str(PRICE))
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        audited = {(audit.seat, audit.position) for audit in payer.service.audits(job) if audit.result == "match"}
        assert len(audited) == 10, "each unit, though one in a hundred is the network's rate"
        await payer.wait_empty(job)
        seats = [seat for seat in small.chain.seats.values() if seat.worker == newcomer.key.address]
        assert sorted(seat.paid_units for seat in seats) == [2, 4, 4]
        fees = sum(units * PRICE * 200 // 20_000 * 2 for units in (2, 4, 4))
        assert standing(small, newcomer) == Newcomer(0, 0, 10 * PRICE - fees)
        assert small.chain.credits[newcomer.key.address] == 0
        mine = [what for what, sender in small.chain.transactions if sender == payer.key.address]
        assert mine.count("settle") == 3, "each seat, as soon as it is done"
        assert mine.count("pay_audits") >= 2, "and its auditors; those of the last may be paid with the job's end"
        assert {sender for _, sender in small.chain.transactions} == {payer.key.address}, "nobody else needs gas"
        audits = [event for _, event in small.chain.events if event.name == "AuditPaid"]
        called = [audit for audit in payer.service.audits(job) if audit.auditor != "payer"]
        assert len(audits) == len(called) >= 8, "every auditor is paid, once; this node recomputed the others"
        locks = [event.values["lock"] for _, event in small.chain.events if event.name == "SeatOpened"]
        assert locks == [0, 0, 0], "an account without gas could not end them"
        small.chain.check()


async def test_a_first_slot_stays_free_while_its_account_has_no_gas_to_say_its_class(
    small: Scene, payer: PayerNode
) -> None:
    """Nor has it any to end a lock: it would come to its slot, and most of that would be held for good."""
    newcomer = crowd(small)
    small.chain.stake(newcomer.key.address, 1, b"")
    async with small.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=10), newcomers=True, max_price_wei=str(PRICE))
        await payer.wait(job)
        await payer.wait_empty(job)
        opened = [event.values for _, event in small.chain.events if event.name == "SeatOpened"]
        assert {each["worker"] for each in opened} == {newcomer.key.address}
        assert {each["lock"] for each in opened} == {0}
        assert small.chain.locked(newcomer.key.address) == 0
        audited = {(audit.seat, audit.position) for audit in payer.service.audits(job) if audit.result == "match"}
        assert len(audited) == 10, "what protects the payer: each unit is recomputed"


@pytest.mark.slow
async def test_a_newcomer_that_is_honest_once_and_false_later_is_found_at_once(small: Scene, payer: PayerNode) -> None:
    """At the network's rate of one in a hundred, three false units of a tally would mostly go unseen."""
    newcomer = crowd(small)
    newcomer.working.functions["m:f"] = after_first(cheat)
    honest = small.join(5, ask=2 * PRICE)
    async with small.running() as nursery:
        await payer.start(nursery)
        spec = payer.spec("map", items=6)
        job = await payer.submit(spec, newcomers=True)
        view = await payer.wait(job)
        assert result_of(payer, spec, view) == honest_result(payer, spec)
        await payer.wait_empty(job)
        assert standing(small, newcomer).deposit <= PRICE, "what it did honestly"
        assert paid_units(small, newcomer) <= 1
        assert small.chain.credits[honest.key.address] > 0


@pytest.mark.slow
@pytest.mark.parametrize("mined_s", [0, 20])
async def test_who_releases_its_slot_before_the_seat_is_taken_is_audited_like_the_newcomer_that_it_is(
    small: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch, mined_s: int
) -> None:
    """The escrow takes the seat without the lock that the lease speaks of: a sample would not do any more. Nor of what
    was done while the transaction was under way."""
    now = FakeChain.seat

    async def later(chain: FakeChain, order: Order, leases: Sequence[SignedLease]) -> bytes:
        await trio.sleep(mined_s)
        return await now(chain, order, leases)

    monkeypatch.setattr(FakeChain, "seat", later)
    small.parameters = msgspec.structs.replace(small.parameters, slot_wei=10 * SLOT, tally_units=3)
    small.chain.parameters = small.parameters
    for number in (1, 2, 3, 4):
        small.join(number, works=False)
    first, worker = small.join(8), small.join(9)
    worker.works = False
    registry = small.chain.contracts.registry
    slots = [n for n in range(registry.slot_count()) if registry.slot_at(n).account == worker.key.address]

    def tap(sender: str, receiver: str, frame: bytes) -> None:
        if sender == worker.peer_id and worker.works and slots:  # its first word is the lease under its signature
            small.chain.run(lambda: registry.release_slots(worker.key.address, worker.key.address, [slots.pop()]))

    small.network.tap = tap
    async with small.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=12), newcomers=True, max_price_wei=str(PRICE))
        await payer.wait(job, "running")
        first.kill()  # the job is open: who comes now is given work before its seat is on chain
        worker.works = True
        await payer.wait(job)
        opened = [event.values for _, event in small.chain.events if event.name == "SeatOpened"]
        mine = [each["seat"] for each in opened if each["worker"] == worker.key.address]
        agreed = [small.chain.leases[seat].lock for seat in mine]
        assert agreed[0] > 0, "it had a slot when it was asked"
        assert {each["lock"] for each in opened if each["seat"] in mine} == {0}
        done = {(seat.hex(), n) for seat in mine for n in range(small.chain.leases[seat].positions)}
        assert done == {(a.seat, a.position) for a in payer.service.audits(job) if a.seat in {s.hex() for s in mine}}
        await payer.wait_empty(job)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "items", "most"),
    [(lambda: cheat, 2, 3), (lambda: after_first(cheat), 20, 6)],  # some are asked while those before them are judged
)
async def test_newcomers_that_take_seats_for_nothing_are_not_asked_for_ever(
    small: Scene, payer: PayerNode, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any], items: int, most: int
) -> None:
    """Their accounts cost nothing, and each seat of theirs costs the payer gas: one honest unit excuses nothing. There
    are nine who would take one."""
    monkeypatch.setattr(needs, "NEWCOMERS_LOST_MAX", 2)
    first = crowd(small)
    for peer in (first, *(small.join(number, slots=0) for number in range(10, 18))):
        peer.working.functions["m:f"] = work()
    async with small.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(
            payer.spec("map", items=items), newcomers=True, workers_max=1, max_price_wei=str(PRICE)
        )
        await trio.sleep(300)
        assert 2 <= len(small.chain.seats) <= most
        assert payer.service.job(job).status == "running"


@pytest.mark.slow
async def test_from_nothing_to_a_slot(small: Scene, payer: PayerNode) -> None:
    slot = 100 * PRICE  # so that a hundredth of it is one unit
    small.parameters = small.chain.parameters = msgspec.structs.replace(small.parameters, slot_wei=slot)
    newcomer = crowd(small)
    registry = small.chain.contracts.registry
    async with small.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=106), newcomers=True, max_price_wei=str(PRICE))
        await payer.wait(job, timeout_s=5000)
        await payer.wait_empty(job)
        assert registry.live_slots(newcomer.key.address) == 1
        credit = small.chain.credits[newcomer.key.address]
        earned = slot + registry.deposit_of(newcomer.key.address) + credit
        fees = sum(seat.paid_units * PRICE * 200 // 20_000 * 2 for seat in small.chain.seats.values())
        assert earned == 106 * PRICE - fees, "every wei of its pay, once"
