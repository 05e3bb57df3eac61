"""Proof that a receipt was paid: from the unit's leaf up to the chain value in the escrow's `Settled` event.

What an Accept paid is proven through the worker's tallies. What a claim paid stands under the claim's own root, which
the chain has told with its range (`Claimed`): one link, begun at the chain value of what came before the claim.

Whoever holds a seat's receipts and tallies (its worker, its payer) can make one; whoever can read the chain can check
it, without trust in either. It shows what the worker committed to at that position before anybody knew the sample, and
that the escrow paid for a range which holds it. It does not show that the output is right: audits do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError
from tallymesh.exchange import Opening
from tallymesh.messages import Tally
from tallymesh_ledger import merkle
from tallymesh_ledger.claims import CLAIM_TALLY


class Payment(Protocol):
    """What a `Settled` event says."""

    @property
    def tally(self) -> int: ...

    @property
    def units(self) -> int: ...

    @property
    def chain(self) -> bytes: ...


class Link(msgspec.Struct, frozen=True):
    """One tally, or one claim, as the chain value takes it in."""

    root: bytes
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """`opening` hashes to the leaf, the leaf stands under the root of the first link, and the links, begun at `before`,
    lead to the chain value that was settled."""

    seat: bytes
    position: int
    opening: Opening
    siblings: tuple[bytes, ...]
    before: bytes  # chain value before the receipt's own tally
    links: tuple[Link, ...]

    @property
    def leaf(self) -> bytes:
        return merkle.leaf(self.seat, self.position, self.opening)

    @property
    def chain(self) -> bytes:
        """The chain value that it leads to."""
        value = self.before
        for link in self.links:
            value = merkle.chain_value(value, link.root, link.start, link.count)
        return value


class Evidence(msgspec.Struct, kw_only=True):
    """What one side of a seat has of it: openings by position, tallies by number."""

    seat: bytes
    openings: dict[int, Opening] = {}
    leaves: dict[int, bytes] = {}  # as the worker signed them
    tallies: dict[int, Tally] = {}


def prove(evidence: Evidence, position: int, payments: Sequence[Payment], claims: Sequence[Link] = ()) -> Proof:
    """The proof of one receipt against the first payment that covers it. `payments` are all of the seat, oldest first,
    `claims` what was ever claimed of it. CallerError with the reason where there is none: `no_receipt`, `not_tallied`,
    `not_paid`, `incomplete`, or `contradiction` where books and chain differ."""
    if position not in evidence.openings:
        raise CallerError("no_receipt", f"There is no receipt for position {position} of this seat here.")
    paid = next((each for each in payments if each.units > position), None)
    if paid is not None and paid.tally == CLAIM_TALLY:
        proof = _prove_claimed(evidence, position, paid, claims)
    else:
        proof = _prove_tallied(evidence, position, [each for each in payments if each.tally != CLAIM_TALLY])
    if not holds(proof, payments):
        raise CallerError(
            "contradiction", f"What is here about position {position} does not lead to what the escrow settled."
        )
    return proof


def _prove_tallied(evidence: Evidence, position: int, payments: Sequence[Payment]) -> Proof:
    tally = next((t for t in evidence.tallies.values() if t.start <= position < t.start + t.count), None)
    if tally is None:
        raise CallerError("not_tallied", f"Position {position} is in no tally yet.", remedy="Look again later.")
    payment = next((each for each in payments if each.tally >= tally.number and each.units > position), None)
    if payment is None:
        raise CallerError(
            "not_paid", f"The escrow has not paid for position {position} yet.", remedy="Look again later."
        )
    numbers = range(tally.number, payment.tally + 1)
    if any(number not in evidence.tallies for number in numbers):
        raise CallerError("incomplete", "A part of the seat's tallies is missing here.")
    links = [Link(each.root, each.start, each.count) for each in (evidence.tallies[number] for number in numbers)]
    return _proof(evidence, position, tally.previous, links)


def _prove_claimed(evidence: Evidence, position: int, payment: Payment, claims: Sequence[Link]) -> Proof:
    for claim in claims:
        if not claim.start <= position < claim.end:
            continue
        for before in _before(evidence, claim, claims):
            if merkle.chain_value(before, claim.root, claim.start, claim.count) == payment.chain:
                return _proof(evidence, position, before, [claim])
    raise CallerError("incomplete", "What came before the claim that paid for this position is missing here.")


def _proof(evidence: Evidence, position: int, before: bytes, links: Sequence[Link]) -> Proof:
    first = links[0]
    positions = range(first.start, first.end)
    if any(each not in evidence.leaves for each in positions):
        raise CallerError("incomplete", "A part of the seat's receipts is missing here.")
    return Proof(
        seat=evidence.seat,
        position=position,
        opening=evidence.openings[position],
        siblings=tuple(merkle.path([evidence.leaves[each] for each in positions], position - first.start)),
        before=before,
        links=tuple(links),
    )


def covers(evidence: Evidence, payment: Payment, claims: Sequence[Link] = ()) -> bool:
    """Whether all receipts that a payment stands for are here and lead to its chain value: the proof of each of them,
    in one go. `claims` as for `prove`."""
    if payment.tally == CLAIM_TALLY:
        return any(_claim_covers(evidence, payment, claim, claims) for claim in claims)
    value, end = bytes(32), 0
    for number in range(1, payment.tally + 1):
        tally = evidence.tallies.get(number)
        if tally is None or tally.start != end:
            return False
        end = tally.start + tally.count
        if not _stands(evidence, Link(tally.root, tally.start, tally.count)):
            return False
        value = merkle.chain_value(value, tally.root, tally.start, tally.count)
    return payment.tally > 0 and value == payment.chain and end >= payment.units


def _claim_covers(evidence: Evidence, payment: Payment, claim: Link, claims: Sequence[Link]) -> bool:
    """The escrow let it begin no later than at what was paid before, so its range holds all that the payment paid."""
    values = {
        merkle.chain_value(each, claim.root, claim.start, claim.count) for each in _before(evidence, claim, claims)
    }
    return payment.chain in values and payment.units <= claim.end and _stands(evidence, claim)


def _stands(evidence: Evidence, link: Link) -> bool:
    """Whether every receipt of a range is here, and their leaves give its root."""
    leaves = [evidence.leaves.get(position) for position in range(link.start, link.end)]
    known = [leaf for leaf in leaves if leaf is not None]
    return len(known) == link.count > 0 and merkle.root(known) == link.root


def _before(evidence: Evidence, claim: Link, claims: Sequence[Link]) -> set[bytes]:
    """Chain values that a claim may continue: of nothing, of the tallies or of an earlier claim up to its start."""
    found = {bytes(32)}
    for tally in evidence.tallies.values():
        if tally.start + tally.count == claim.start:
            found.add(merkle.chain_value(tally.previous, tally.root, tally.start, tally.count))
    for earlier in claims:
        if earlier.end == claim.start and earlier.count:
            found |= {
                merkle.chain_value(value, earlier.root, earlier.start, earlier.count)
                for value in _before(evidence, earlier, claims)
            }
    return found


def holds(proof: Proof, payments: Sequence[Payment]) -> bool:
    """Whether the escrow settled the seat up to a chain value that this proof leads to, with its position paid.
    `payments` are the Settled events of the proof's seat; the caller read them from the chain."""
    if not proof.links:
        return False
    first, last = proof.links[0], proof.links[-1]
    index = proof.position - first.start
    if not merkle.verify(first.root, first.count, index, proof.leaf, proof.siblings):
        return False
    reached = proof.chain
    return any(
        payment.chain == reached and proof.position < payment.units <= last.start + last.count for payment in payments
    )


def decode(data: bytes) -> Proof:
    """A proof as `tallymesh receipt --json` prints it. CallerError where it is none."""
    try:
        plain = msgspec.json.decode(data, type=_Plain)
        return Proof(
            seat=_hex(plain.seat),
            position=plain.position,
            opening=Opening(**{name: _hex(value) for name, value in plain.opening.items()}),
            siblings=tuple(_hex(each) for each in plain.siblings),
            before=_hex(plain.before),
            links=tuple(Link(_hex(str(link["root"])), int(link["start"]), int(link["count"])) for link in plain.links),
        )
    except (*UNREADABLE, TypeError, KeyError) as error:
        raise CallerError("bad_proof", f"This is no proof of a receipt: {error}.") from None


def plain(proof: Proof) -> Mapping[str, object]:
    """As JSON: ids as 0x…."""
    return {
        "seat": _text(proof.seat),
        "position": proof.position,
        "opening": {name: _text(value) for name, value in msgspec.structs.asdict(proof.opening).items()},
        "siblings": [_text(each) for each in proof.siblings],
        "before": _text(proof.before),
        "links": [{"root": _text(link.root), "start": link.start, "count": link.count} for link in proof.links],
    }


class _Plain(msgspec.Struct):
    seat: str
    position: int
    opening: dict[str, str]
    siblings: list[str]
    before: str
    links: list[dict[str, int | str]]


def _hex(text: str) -> bytes:
    value = bytes.fromhex(text.removeprefix("0x"))
    if len(value) != 32:
        raise ValueError(f"{text[:20]} is not 32 bytes in hex")
    return value


def _text(value: bytes) -> str:
    return "0x" + value.hex()
