"""A receipt's proof: holds for what was paid, and for nothing that is one bit or one unit beside it."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest

from tallymesh.errors import CallerError
from tallymesh.exchange import Opening
from tallymesh.messages import Tally
from tallymesh_ledger import merkle, proofs
from tallymesh_ledger.claims import CLAIM_TALLY
from tallymesh_ledger.proofs import Evidence, Link

SEAT = b"\x51" * 32


class Paid(NamedTuple):
    tally: int
    units: int
    chain: bytes


def told(*counts: int) -> tuple[Evidence, list[bytes]]:
    """A seat with tallies of these sizes, and the chain value after each."""
    evidence, values, value, start = Evidence(seat=SEAT), [], bytes(32), 0
    for number, count in enumerate(counts, 1):
        for position in range(start, start + count):
            opening = Opening(*(bytes([part, position]) * 16 for part in range(5)))
            evidence.openings[position] = opening
            evidence.leaves[position] = merkle.leaf(SEAT, position, opening)
        root = merkle.root([evidence.leaves[p] for p in range(start, start + count)])
        evidence.tallies[number] = Tally(
            seat=SEAT, number=number, previous=value, start=start, count=count, root=root, block_number=1,
            block_hash=bytes(32),
        )  # fmt: skip
        value = merkle.chain_value(value, root, start, count)
        values.append(value)
        start += count
    return evidence, values


@pytest.mark.parametrize("settled", [1, 2, 3])
def test_every_paid_position_is_proven_against_whatever_tally_was_settled(settled: int) -> None:
    evidence, values = told(1, 5, 3)
    units = [1, 6, 9][settled - 1]
    payments = [Paid(settled, units, values[settled - 1])]
    for position in range(9):
        if position < units:
            proof = proofs.prove(evidence, position, payments)
            assert proofs.holds(proof, payments)
            assert proofs.decode(msgspec.json.encode(proofs.plain(proof))) == proof
        else:
            with pytest.raises(CallerError, match="has not paid"):
                proofs.prove(evidence, position, payments)
    assert proofs.covers(evidence, payments[0])


def test_a_unit_beyond_what_was_paid_is_not_proven_by_the_tally_around_it() -> None:
    evidence, values = told(1, 5)
    proof = proofs.prove(evidence, 4, [Paid(2, 6, values[1])])
    assert not proofs.holds(proof, [Paid(2, 4, values[1])]), "four units were paid, and this is the fifth"
    assert not proofs.holds(proof, [Paid(2, 7, values[1])]), "more was paid than the tallies hold"
    assert not proofs.holds(proof, [Paid(2, 6, values[0])])
    assert not proofs.holds(proof, [])


def test_books_that_lack_something_say_what() -> None:
    evidence, values = told(1, 5, 3)
    payments = [Paid(3, 9, values[2])]
    with pytest.raises(CallerError, match="no receipt"):
        proofs.prove(evidence, 9, payments)
    del evidence.leaves[3]
    for position in (3, 4):
        with pytest.raises(CallerError, match="missing"):
            proofs.prove(evidence, position, payments)
    assert proofs.prove(evidence, 7, payments)
    assert not proofs.covers(evidence, payments[0])
    assert proofs.covers(evidence, Paid(1, 1, values[0]))
    evidence, values = told(1, 5, 3)
    del evidence.tallies[3]
    with pytest.raises(CallerError, match="in no tally"):
        proofs.prove(evidence, 7, payments)
    with pytest.raises(CallerError, match="missing"):
        proofs.prove(evidence, 2, payments)
    assert not proofs.covers(evidence, payments[0])


def test_a_payment_is_covered_only_by_all_of_its_receipts() -> None:
    evidence, values = told(1, 5)
    whole = Paid(2, 6, values[1])
    assert proofs.covers(evidence, whole)
    assert not proofs.covers(evidence, Paid(2, 7, values[1]))
    assert not proofs.covers(evidence, Paid(0, 6, bytes(32))), "a channel's voucher has no tally"
    gap, first = told(1, 5)[0], values[0]
    gap.tallies[2] = tally = msgspec.structs.replace(gap.tallies[2], start=2, count=4)
    leaves = [gap.leaves[position] for position in range(2, 6)]
    jumped = merkle.chain_value(first, merkle.root(leaves), tally.start, tally.count)
    assert not proofs.covers(gap, Paid(2, 6, jumped)), "position 1 is in no tally"
    evidence.leaves[2] = b"\x01" * 32
    assert not proofs.covers(evidence, whole)
    evidence, values = told(1, 5)
    evidence.tallies[2] = msgspec.structs.replace(evidence.tallies[2], start=2)
    assert not proofs.covers(evidence, Paid(2, 6, values[1]))


def claimed(evidence: Evidence, before: bytes, start: int, count: int, units: int) -> tuple[Link, Paid]:
    """What a claim of this range says on chain, and what the escrow says when it is paid up to `units`."""
    root = merkle.root([evidence.leaves[position] for position in range(start, start + count)])
    return Link(root, start, count), Paid(CLAIM_TALLY, units, merkle.chain_value(before, root, start, count))


def test_what_a_claim_paid_is_proven_by_the_claims_root() -> None:
    evidence, values = told(1, 5, 3)
    del evidence.tallies[3]  # never closed: the payer was gone
    claim, paid = claimed(evidence, values[1], 6, 3, 9)
    payments = [Paid(2, 6, values[1]), paid]
    for position in range(9):
        proof = proofs.prove(evidence, position, payments, [claim])
        assert proofs.holds(proof, payments)
        assert proof.links[-1].root == (claim.root if position >= 6 else evidence.tallies[2].root)
    assert proofs.covers(evidence, paid, [claim])
    assert proofs.covers(evidence, payments[0], [claim])
    assert not proofs.covers(evidence, paid), "nobody said what was claimed"
    with pytest.raises(CallerError, match="before the claim"):
        proofs.prove(evidence, 7, payments)


def test_half_of_a_claim_proves_half_of_its_units() -> None:
    evidence, values = told(1, 6)
    claim, paid = claimed(evidence, values[0], 1, 6, 4)
    assert proofs.covers(evidence, paid, [claim])
    assert proofs.prove(evidence, 3, [Paid(1, 1, values[0]), paid], [claim])
    with pytest.raises(CallerError, match="has not paid"):
        proofs.prove(evidence, 4, [Paid(1, 1, values[0]), paid], [claim])


def test_a_claim_after_a_claim_and_one_of_everything_are_proven() -> None:
    evidence, _ = told(4, 5)
    first, paid = claimed(evidence, bytes(32), 0, 4, 4)
    second, more = claimed(evidence, paid.chain, 4, 5, 9)
    evidence.tallies.clear()  # the claims are all there is
    assert proofs.covers(evidence, paid, [first, second])
    assert proofs.covers(evidence, more, [first, second])
    assert proofs.prove(evidence, 8, [paid, more], [first, second]).before == paid.chain
    assert not proofs.covers(evidence, more, [second]), "what it continues is not known"


def test_a_claim_is_not_covered_by_other_receipts_or_a_part_of_them() -> None:
    evidence, values = told(1, 5)
    claim, paid = claimed(evidence, values[0], 1, 5, 6)
    assert not proofs.covers(evidence, Paid(CLAIM_TALLY, 7, paid.chain), [claim]), "more was paid than was claimed"
    assert not proofs.covers(evidence, Paid(CLAIM_TALLY, 6, values[1][::-1]), [claim])
    whole = dict(evidence.leaves)
    del evidence.leaves[3]
    assert not proofs.covers(evidence, paid, [claim])
    with pytest.raises(CallerError, match="receipts is missing"):
        proofs.prove(evidence, 2, [paid], [claim])
    evidence.leaves = {**whole, 3: bytes(32)}
    assert not proofs.covers(evidence, paid, [claim])
    with pytest.raises(CallerError, match="does not lead"):
        proofs.prove(evidence, 2, [paid], [claim])
