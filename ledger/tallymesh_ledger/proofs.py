"""Proof that a receipt was paid: from the unit's leaf up to the chain value in the escrow's `Settled` event.

Whoever holds a seat's receipts and tallies (its worker, its payer) can make one; whoever can read the chain can check
it, without trust in either. It shows what the worker committed to at that position before anybody knew the sample, and
that the escrow paid for a range which holds it. It does not show that the output is right: audits do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from tallymesh.errors import CallerError
from tallymesh.exchange import Opening
from tallymesh.messages import Tally
from tallymesh_ledger import merkle


class Payment(Protocol):
    """What a `Settled` event says."""

    @property
    def tally(self) -> int: ...

    @property
    def units(self) -> int: ...

    @property
    def chain(self) -> bytes: ...


class Link(msgspec.Struct, frozen=True):
    """One tally, as the chain value takes it in."""

    root: bytes
    start: int
    count: int


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


def prove(evidence: Evidence, position: int, payments: Sequence[Payment]) -> Proof:
    """The proof of one receipt against the first payment that covers it. CallerError with the reason where there is
    none: `no_receipt`, `not_tallied`, `not_paid`, `incomplete`, or `contradiction` where books and chain differ."""
    if position not in evidence.openings:
        raise CallerError("no_receipt", f"There is no receipt for position {position} of this seat here.")
    tally = next((t for t in evidence.tallies.values() if t.start <= position < t.start + t.count), None)
    if tally is None:
        raise CallerError("not_tallied", f"Position {position} is in no tally yet.", remedy="Look again later.")
    payment = next((each for each in payments if each.tally >= tally.number and each.units > position), None)
    if payment is None:
        raise CallerError(
            "not_paid", f"The escrow has not paid for position {position} yet.", remedy="Look again later."
        )
    numbers = range(tally.number, payment.tally + 1)
    positions = range(tally.start, tally.start + tally.count)
    if any(n not in evidence.tallies for n in numbers) or any(p not in evidence.leaves for p in positions):
        raise CallerError("incomplete", "A part of the seat's receipts or tallies is missing here.")
    proof = Proof(
        seat=evidence.seat,
        position=position,
        opening=evidence.openings[position],
        siblings=tuple(merkle.path([evidence.leaves[p] for p in positions], position - tally.start)),
        before=tally.previous,
        links=tuple(
            Link(evidence.tallies[n].root, evidence.tallies[n].start, evidence.tallies[n].count) for n in numbers
        ),
    )
    if not holds(proof, payments):
        raise CallerError(
            "contradiction", f"What is here about position {position} does not lead to what the escrow settled."
        )
    return proof


def covers(evidence: Evidence, payment: Payment) -> bool:
    """Whether all receipts that a payment stands for are here and lead to its chain value: the proof of each of them,
    in one go."""
    value, end = bytes(32), 0
    for number in range(1, payment.tally + 1):
        tally = evidence.tallies.get(number)
        if tally is None or tally.start != end:
            return False
        end = tally.start + tally.count
        leaves = [evidence.leaves.get(position) for position in range(tally.start, end)]
        known = [leaf for leaf in leaves if leaf is not None]
        if len(known) != tally.count or not known:
            return False
        value = merkle.chain_value(value, merkle.root(known), tally.start, tally.count)
    return payment.tally > 0 and value == payment.chain and end >= payment.units


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
    except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
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
