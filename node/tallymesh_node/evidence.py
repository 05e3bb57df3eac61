"""What the journals of nodes on this machine say about a seat: its receipts and its tallies.

Reads the files beside a running node, and changes nothing in them. What a journal says is not proof by itself:
`tallymesh_ledger.proofs` compares it with the chain. A worker forgets a seat when its lock has ended, a payer keeps its
jobs, so that of an old seat one side alone may have it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tallymesh import exchange, paths, wire
from tallymesh.errors import LocalError, TallymeshError
from tallymesh.exchange import Opening, ReceiptRequest
from tallymesh.messages import Receipt, Tally
from tallymesh_ledger.proofs import Evidence
from tallymesh_node.payer import records
from tallymesh_node.payer.driver import SCOPE as PAYER
from tallymesh_node.store.database import FILE
from tallymesh_node.worker.record import SCOPE as WORKER
from tallymesh_node.worker.record import Line, ReceiptLine

_LINES = "SELECT kind, body FROM journal WHERE scope = ? AND kind IN (?, ?) ORDER BY sequence"
_SCOPES = "SELECT DISTINCT scope FROM journal WHERE scope >= ? AND scope < ?"


def homes(home: Path | None = None) -> list[Path]:
    """Folders of nodes on this machine: the one named or configured, and those of a local network."""
    own = home or paths.home()
    return [folder for folder in (own, *sorted((own / "up").glob("*"))) if (folder / FILE).exists()]


class Journals:
    """The journals in some nodes' folders. LocalError where one of them cannot be read."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = list(folders)

    def seat(self, job: bytes, seat: bytes) -> Evidence | None:
        """What any of them has of a seat; None where none has any of it."""
        found = Evidence(seat=seat)
        for folder in self.folders:
            for receipt, opening in self._receipts(folder, job, seat):
                if receipt.seat == seat:
                    found.leaves.setdefault(receipt.position, receipt.leaf)
                    found.openings.setdefault(receipt.position, opening)
            for tally in self._tallies(folder, job, seat):
                if tally.seat == seat:
                    found.tallies.setdefault(tally.number, tally)
        return found if found.leaves else None

    def find(self, leaf: bytes) -> tuple[bytes, int] | None:
        """(seat, position) of the receipt whose leaf or unit id begins with these bytes."""
        for folder in self.folders:
            for scope in self._scopes(folder):
                for receipt, opening in self._in_scope(folder, scope):
                    if receipt.leaf.startswith(leaf) or opening.unit_id.startswith(leaf):
                        return receipt.seat, receipt.position
        return None

    def _receipts(self, folder: Path, job: bytes, seat: bytes) -> Iterator[tuple[Receipt, Opening]]:
        for scope in (WORKER + seat.hex(), PAYER + job.hex()):
            yield from self._in_scope(folder, scope)

    def _in_scope(self, folder: Path, scope: str) -> Iterator[tuple[Receipt, Opening]]:
        for kind, body in self._lines(folder, scope, Line.RECEIPT.value, records.Received.__name__):
            if kind == Line.RECEIPT:
                request = exchange.decode(exchange.decode(body, ReceiptLine).request, ReceiptRequest)
                signed, opening = request.receipt, request.opening
            else:
                record = records.read(kind, body)
                assert isinstance(record, records.Received)
                signed, opening = record.receipt, record.opening
            yield wire.decode(signed, Receipt).message, opening

    def _tallies(self, folder: Path, job: bytes, seat: bytes) -> Iterator[Tally]:
        for scope in (WORKER + seat.hex(), PAYER + job.hex()):
            for kind, body in self._lines(folder, scope, Line.TALLY.value, records.Tallied.__name__):
                if kind == records.Tallied.__name__:
                    record = records.read(kind, body)
                    assert isinstance(record, records.Tallied)
                    body = record.tally
                yield wire.decode(body, Tally).message

    def _scopes(self, folder: Path) -> list[str]:
        rows = [row for prefix in (PAYER, WORKER) for row in self._ask(folder, _SCOPES, prefix, prefix + "\U0010ffff")]
        return [str(scope) for (scope,) in rows]

    def _lines(self, folder: Path, scope: str, *kinds: str) -> Iterator[tuple[str, bytes]]:
        try:
            for kind, body in self._ask(folder, _LINES, scope, *kinds):
                yield str(kind), bytes(body)
        except TallymeshError as error:
            if error.code in ("journal", "bad_journal"):
                raise
            raise LocalError(
                "bad_journal", f"The journal in {folder} holds a line that cannot be read: {error}"
            ) from error

    def _ask(self, folder: Path, statement: str, *values: str) -> list[tuple[Any, ...]]:
        path = folder / FILE
        try:
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
            try:
                return connection.execute(statement, values).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise LocalError("journal", f"The journal {path} cannot be read: {error}.") from None
