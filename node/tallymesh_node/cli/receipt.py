"""`receipt`: one unit's receipt, from the leaf that the worker signed to the chain value that the escrow settled."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError
from tallymesh_node.cli import source
from tallymesh_node.cli.output import Json, facts, say_json
from tallymesh_node.cli.source import IndexUrl, NetworkFile, Offline, RpcUrl, Source

if TYPE_CHECKING:
    from tallymesh_ledger.index import Queries, SeatSeen, Settled
    from tallymesh_ledger.proofs import Proof

MAX_PROOF_BYTES: Final = 1 << 20  # a proof has some hashes for each tally; anything bigger is another file
_PLACE: Final = re.compile(r"(?:0x)?([0-9a-f]{8,64})[:/](\d{1,12})")
_ID: Final = re.compile(r"(?:0x)?([0-9a-f]{8,64})")


def receipt(
    id_: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="SEAT:POSITION, or the receipt's leaf or unit id; eight digits do."),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Check a proof that somebody else's --json gave (- for standard input).")
    ] = None,
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    index: IndexUrl = None,
    offline: Offline = False,
    json_: Json = False,
) -> None:
    """One receipt: who was paid for which unit, and the proof against what the escrow settled.

    The unit's leaf and the roots of its tallies are in the journals of the worker's and the payer's nodes. On another
    machine only what the chain has is shown: whether that position was paid, when, and under which chain value. With
    --json the proof is printed, which anybody can check with --check and a chain node.

    \b
    Examples:
      tallymesh receipt 3f2a9c01:12
      tallymesh receipt 3f2a9c01:12 --json > proof.json
      tallymesh receipt --check proof.json --rpc http://127.0.0.1:8545
    """
    if (id_ is None) == (check is None):
        raise CallerError(
            "no_receipt", "Name one receipt, or a proof with --check.", remedy="See 'tallymesh receipt --help'."
        )
    found = Source(network, rpc, index)
    from tallymesh_ledger.index import Queries

    with found.index(offline=offline) as database, database.read() as connection:
        queries = Queries(connection)
        if check is not None:
            _check(queries, check, json_)
        else:
            assert id_ is not None
            _show(queries, id_.strip().lower(), json_)


def _show(queries: Queries, id_: str, as_json: bool) -> None:
    from tallymesh_ledger import proofs
    from tallymesh_node.evidence import Journals, homes

    journals = Journals(homes())
    seat, position = _place(queries, journals, id_)
    if position >= seat.units:
        raise CallerError("no_position", f"Seat {source.short(seat.seat)} has the positions 0 to {seat.units - 1}.")
    evidence = journals.seat(seat.job, seat.seat)
    proof: Proof | None = None
    problem = CallerError(
        "elsewhere",
        "No node on this machine has this seat's receipts: what is shown is what the chain has.",
        remedy="Its worker and its payer can print the proof: tallymesh receipt ID --json.",
    )
    if evidence is not None:
        try:
            proof = proofs.prove(evidence, position, seat.settled, seat.claims)
        except CallerError as error:
            problem = error
    paid = _payment(seat, position)
    if as_json:
        say_json(
            {
                **_chain_json(seat, position, paid),
                "proof": proofs.plain(proof) if proof else None,
                "leaf": source.hex_(proof.leaf) if proof else None,
                "unit": source.hex_(proof.opening.unit_id) if proof else None,
                "proven": True if proof else None if problem.code == "elsewhere" else False,
                "problem": None if proof else {"code": problem.code, "sentence": problem.sentence},
            }
        )
        return
    facts([*_chain_lines(seat, position, paid), *(_proof_lines(proof) if proof else [("proof", str(problem))])])


def _check(queries: Queries, path: Path, as_json: bool) -> None:
    from tallymesh_ledger import proofs

    proof = _read(path)
    seats = queries.seats(proof.seat)
    if not seats:
        raise CallerError("no_seat", f"This network never had a seat {source.short(proof.seat)}.")
    (seat,) = seats
    if not proofs.holds(proof, seat.settled):
        raise CallerError(
            "proof_fails", "The proof does not lead to anything that the escrow settled for this seat.",
            remedy="Do not believe it.",
        )  # fmt: skip
    paid = _payment(seat, proof.position)
    if as_json:
        say_json(
            {**_chain_json(seat, proof.position, paid), "unit": source.hex_(proof.opening.unit_id), "proven": True}
        )
    else:
        facts([*_chain_lines(seat, proof.position, paid), *_proof_lines(proof)])


def _place(queries: Queries, journals: Any, id_: str) -> tuple[SeatSeen, int]:
    """Which seat and position an id means."""
    place = _PLACE.fullmatch(id_)
    if place:
        return _seat(queries, place[1]), int(place[2])
    named = _ID.fullmatch(id_)
    if named is None:
        raise CallerError(
            "bad_receipt",
            f"{id_!r} names no receipt.",
            remedy="Write SEAT:POSITION (the columns seat and units of 'tallymesh history').",
        )
    found = journals.find(_even(named[1]))
    if found is None:
        raise CallerError(
            "no_receipt",
            f"No journal on this machine has a receipt {id_}.",
            remedy="Name it by SEAT:POSITION: then the chain alone can tell.",
        )
    seat, position = found
    return _seat(queries, seat.hex()), position


def _seat(queries: Queries, text: str) -> SeatSeen:
    found = [seat for seat in queries.seats(_even(text)) if seat.seat.hex().startswith(text)]
    if len(found) != 1:
        said = "more than one seat begins" if found else "no seat of this network begins"
        raise CallerError("no_seat", f"{said.capitalize()} with {text}.", remedy="Write more of its id.")
    return found[0]


def _even(text: str) -> bytes:
    """Whole bytes of a prefix."""
    return bytes.fromhex(text[: len(text) // 2 * 2])


def _payment(seat: SeatSeen, position: int) -> Settled | None:
    return next((payment for payment in seat.settled if payment.units > position), None)


def _read(path: Path) -> Proof:
    import msgspec

    from tallymesh_ledger import proofs

    try:
        data = sys.stdin.buffer.read(MAX_PROOF_BYTES) if str(path) == "-" else path.read_bytes()[:MAX_PROOF_BYTES]
        told = msgspec.json.decode(data)
    except (OSError, *UNREADABLE) as error:
        raise CallerError("bad_proof", f"The proof cannot be read: {error}.") from None
    inner = told.get("proof", told) if isinstance(told, dict) else told  # the whole answer, or the proof alone
    if inner is None:
        raise CallerError("bad_proof", "There is no proof in this answer.", remedy="Make it where the receipt is.")
    return proofs.decode(msgspec.json.encode(inner))


def _chain_json(seat: SeatSeen, position: int, paid: Settled | None) -> dict[str, Any]:
    from tallymesh_ledger.keys import checksum

    told: dict[str, Any] = {
        "seat": source.hex_(seat.seat), "position": position, "job": source.hex_(seat.job),
        "worker": checksum(seat.worker), "payer": checksum(seat.payer), "price_wei": str(seat.price_wei),
        "paid": paid is not None, "settled": None,
    }  # fmt: skip
    if paid is not None:
        told["settled"] = {
            "time": paid.time, "block": paid.block, "tx": source.hex_(paid.tx), "tally": paid.tally,
            "first_unit": paid.start, "end_unit": paid.units, "amount_wei": str(paid.amount_wei),
            "fee_wei": str(paid.fee_wei), "chain": source.hex_(paid.chain),
        }  # fmt: skip
    return told


def _chain_lines(seat: SeatSeen, position: int, paid: Settled | None) -> list[tuple[str, str]]:
    from tallymesh import amounts
    from tallymesh_ledger.keys import checksum

    lines = [
        ("receipt", f"position {position} of seat {seat.seat.hex()}"),
        ("job", f"{seat.job.hex()}, paid by {checksum(seat.payer)}"),
        ("worker", checksum(seat.worker)),
        ("price", f"{amounts.show(seat.price_wei)} a unit"),
    ]
    if paid is None:
        return [*lines, ("paid", "not yet" if not seat.closed else "no, and the seat is closed")]
    units = f"units {paid.start} to {paid.units - 1}"
    return [
        *lines,
        ("paid", f"{source.when(paid.time)} UTC with {units}, block {paid.block}, transaction 0x{paid.tx.hex()}"),
        ("chain value", f"{paid.chain.hex()} ({_through(paid)})"),
    ]


def _through(paid: Settled) -> str:
    from tallymesh_ledger.claims import CLAIM_TALLY

    return "a claim" if paid.tally == CLAIM_TALLY else f"tally {paid.tally}"


def _proof_lines(proof: Proof) -> list[tuple[str, str]]:
    first, last = proof.links[0], proof.links[-1]
    steps = f"{len(proof.siblings)} hashes up to the root of units {first.start} to {first.start + first.count - 1}"
    after = len(proof.links) - 1
    tallies = "1 more tally" if after == 1 else f"{after} more tallies"
    more = f", {tallies} up to unit {last.start + last.count - 1}" if after else ""
    return [
        ("unit", proof.opening.unit_id.hex()),
        ("output", proof.opening.end.hex()),
        ("leaf", proof.leaf.hex()),
        ("proof", f"holds: {steps}{more}, to the chain value that was settled"),
    ]
