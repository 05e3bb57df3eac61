"""Which blobs the jobs of this node's owner need: all of one that is under way, the result of one that is over.

What a job that is over was made of may go when room is needed: its inputs can be uploaded again by whoever has them.
"""

from __future__ import annotations

import msgspec

from tallymesh import api
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import LocalError
from tallymesh.ids import ZERO32, BlobId
from tallymesh_node.interfaces import Blobs
from tallymesh_node.payer.book import Book
from tallymesh_node.unit_inputs import names_of

_results = msgspec.msgpack.Decoder(list[bytes | None])


def of_job(book: Book) -> set[bytes]:
    """Template, what it names, what workers and auditors may be given, every output, and what it has come to."""
    spec = book.spec
    found: set[bytes] = {book.order.template, spec.program, spec.initial, spec.test, book.plan.state, *spec.inputs}
    found.update(item.blob for item in spec.shared)
    for held in book.all():
        found |= held.blobs
        found.update(name for unit in held.units.values() for name in names_of(unit))
        found.update(opening.end for opening in held.seat.openings.values())
    found.update(output for unit in book.produced if (output := book.plan.output(unit)) is not None)
    found.update(state for state, _ in book.evaluated.values())
    if book.ending is not None:
        found.add(book.ending.result)
    return found - {ZERO32, b""}


def of_result(view: api.JobView, blobs: Blobs) -> set[bytes]:
    """Of a job that is over: the template, which every look into the job reads, and what it gave. LocalError where the
    disk cannot be read."""
    found = {bytes.fromhex(view.spec), bytes.fromhex(view.result)} - {b""}
    if view.kind == "map" and view.result:
        try:
            outputs = _results.decode(blobs.get(BlobId(bytes.fromhex(view.result))))
        except (KeyError, *UNREADABLE):
            return found  # its list is gone, and with it whatever it named
        except LocalError as error:
            if error.code == "corrupt_blob":
                return found
            raise
        found.update(output for output in outputs if output is not None)
    return found
