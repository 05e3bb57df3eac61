"""Only drawn auditors give a payer grounds: never its own recomputation, and never one auditor alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.chain import DOMAINS
from fakes.payer_scene import PayerNode, Scene, cheat
from tallymesh.ids import ZERO32
from tallymesh.messages import AuditReason, Lease, Order, Receipt, Result
from tallymesh_ledger import keys, merkle, sampling
from tallymesh_ledger.audit import Audit, Subject
from tallymesh_ledger.claims import NO_OUTPUT
from tallymesh_ledger.court import accusation_of
from tallymesh_ledger.jobs import seat_id
from tallymesh_node.quarrels.grounds import Ground, Grounds, confirmed, grounds_of


async def told(folder: Path, *, peers: int, own: bool = True, silent: int = 0) -> tuple[PayerNode, list[Grounds], bool]:
    """A job with one cheat: what the payer's books give, and whether the cheat was convicted there."""
    scene = Scene(folder)
    payer = PayerNode(scene, own=own)
    crowd = scene.crowd(peers)
    crowd[0].working.functions["m:f"] = cheat
    found: list[Grounds] = []
    was_convicted = False
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=12))
        await payer.wait(job)
        for book in payer.service.books():
            found += grounds_of(book)
            was_convicted = crowd[0].key.address in book.convicted
        payer.crash()
        await payer.start(nursery)
        again = [each for book in payer.service.books() for each in grounds_of(book)]
        assert again == found, "a payer that was killed has the same grounds"
    return payer, found, was_convicted


async def test_two_drawn_auditors_that_agree_are_grounds_and_all_that_an_accusation_needs(tmp_path: Path) -> None:
    payer, found, was_convicted = await told(tmp_path, peers=6)
    assert was_convicted
    (grounds,) = found
    ground = Ground(DOMAINS, grounds, payer.key.address)
    order: Order = keys.open_signed(DOMAINS, grounds.order, Order, payer.key.address).message
    lease: Lease = keys.open_signed(DOMAINS, grounds.lease, Lease, ground.lease.worker).message
    receipt = keys.open_signed(DOMAINS, grounds.receipt, Receipt, lease.worker).message
    assert (order, lease) == (ground.order, ground.lease)
    assert receipt.leaf == merkle.leaf(seat_id(DOMAINS, lease), grounds.position, grounds.opening)
    assert grounds.end != grounds.opening.end
    charge = ground.charge(1)
    assert charge.own_start == grounds.opening.start
    assert accusation_of(ground.seat, grounds.position, grounds.opening, payer.key.address) == ground.id


async def test_an_accusation_on_the_payers_own_word_alone_is_not_made(tmp_path: Path) -> None:
    """Too few others are staked, so the payer's own node convicted: pay is withheld, and nobody is accused."""
    _, found, was_convicted = await told(tmp_path, peers=3)
    assert was_convicted
    assert found == []


END, OTHER, THIRD = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


def judged(*ends: bytes, own: bytes = b"", draws: tuple[int, ...] = (), unsteady: bool = False) -> Audit:
    """An audit of END in which these auditors found these ends."""
    audit = Audit(Subject(seed=bytes(32), index=0, end=END, reason=AuditReason.FIRST), auditors_min=3, answers_max=3)
    for number, end in enumerate(ends):
        if number and unsteady:
            audit.unsteady()
        auditor = bytes([number + 1]) * 20
        audit.ordered(number, number, auditor)
        audit.commit(auditor, sampling.commitment(end, bytes(32), auditor, bytes(32)))
        audit.open(auditor)
        result = Result.MATCH if end == END else Result.MISMATCH
        audit.verdict(auditor, result, end, bytes(32), bytes(32))
    if own:
        audit.recomputed(own, draws)
    return audit


@pytest.mark.parametrize(
    ("audit", "grounds"),
    [
        (judged(OTHER, OTHER), OTHER),
        (judged(OTHER, END, OTHER), OTHER),
        (judged(OTHER, own=OTHER, draws=(1, 2)), b""),
        (judged(own=OTHER, draws=(0, 1)), b""),
        (judged(OTHER, THIRD, own=OTHER, draws=(2,)), b""),
        (judged(OTHER, THIRD, END, own=OTHER), b""),
        (judged(OTHER, END, END), b""),
        (judged(OTHER), b""),
        (judged(OTHER, OTHER, unsteady=True), b""),
        (judged(ZERO32, ZERO32), NO_OUTPUT),
    ],
    ids=["two", "two of three", "one and the payer", "the payer", "a tie that the payer breaks", "sided by the payer",
         "outvoted", "one", "a program that is not deterministic", "no output"],
)  # fmt: skip
def test_what_counts_as_confirmed(audit: Audit, grounds: bytes) -> None:
    assert confirmed(audit) == grounds
