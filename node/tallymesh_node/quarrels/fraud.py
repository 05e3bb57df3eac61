"""Two words of one worker with different leaves for one position take its lock at once, and end a claim of such a root.

A payer holds its workers' Receipts. It finds the other word in a second Receipt that the worker sent it (kept by
payer/contradictions.py), or in a leaf that the worker opens on chain for a claim: a cheat that repaired its work after
it was caught claims another root than its Receipts say. Level-triggered, from journal and chain alone; a proof that was
made leaves nothing to take, so none is made twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import trio

from tallymesh import exchange, wire
from tallymesh.errors import ChainError, LocalError, RemoteError
from tallymesh.messages import Lease, Order, Receipt
from tallymesh_ledger.claims import Claim
from tallymesh_ledger.court import Statement, Terms, Word
from tallymesh_node import beats
from tallymesh_node.complaints import told
from tallymesh_node.interfaces import ClaimsChain
from tallymesh_node.looks import tried
from tallymesh_node.payer.book import Book
from tallymesh_node.payer.contradictions import RECEIPTS, SCOPE, Contradiction, receipt_of
from tallymesh_node.payer.held import Held
from tallymesh_node.quarrels import worth
from tallymesh_node.quarrels.tools import Tools, log, look_s

SLACK_S = 3600  # a claim is looked at for so much longer than its windows: the Court may hold it up
KEPT_LOOK_S = 10.0  # between looks for pairs of Receipts: the lock lasts for longer
MAX_CHECKED = 4096  # claims whose leaves were all compared, and fit


class Proof(msgspec.Struct, frozen=True):
    order: Order
    lease: Lease
    position: int
    one: Statement
    other: Statement
    brings_wei: int


class Fraud:
    """`books` are the payer's; `claims` None where a network has no claims."""

    def __init__(
        self, tools: Tools, terms: Terms, claims: ClaimsChain | None, books: Callable[[], Iterable[Book]]
    ) -> None:
        self.tools = tools
        self.terms = terms
        self.claims = claims
        self.books = books
        self.problem: tuple[str, str] | None = None
        self._checked: dict[tuple[bytes, bytes], None] = {}  # (claim, seed)

    async def run(self) -> None:
        """Until cancelled."""
        kept_at = trio.current_time()
        while True:
            try:
                if trio.current_time() >= kept_at:
                    await self._kept()
                    kept_at = trio.current_time() + KEPT_LOOK_S
                await self._claimed()
                self.problem = None
            except (ChainError, LocalError, RemoteError) as error:
                self.problem = told(error)
                log.info("a proof of fraud: %s", error)
            await beats.pause(look_s(self.terms))

    # Two Receipts.

    async def _kept(self) -> None:
        for scope in self.tools.journal.scopes(SCOPE):
            entry = self.tools.journal.read(scope)[0]
            assert entry.kind == RECEIPTS
            kept = exchange.decode(entry.body, Contradiction)
            lease: Lease = wire.decode(kept.lease, Lease).message
            lock = await self.tools.court.lock_left(lease)
            if lock:
                order: Order = wire.decode(kept.order, Order).message
                brings = self._brings(order, lock)
                await self._prove(Proof(order, lease, kept.position, _receipt(kept.one), _receipt(kept.other), brings))
            elif await self._too_late(lease):
                await self.tools.journal.drop(scope)

    async def _too_late(self, lease: Lease) -> bool:
        """The lock was taken, or the seat can get no lock any more."""
        parameters = self.tools.parameters
        end = lease.until + parameters.claim_window_s + parameters.lock_tail_s + self.terms.case_s + SLACK_S
        return self.tools.chain.block_time() > end

    # A Receipt, and the root of a claim.

    async def _claimed(self) -> None:
        helds: dict[bytes, tuple[Book, Held]] = {}
        helds |= {held.id: (book, held) for book in self.books() for held in book.all() if held.agreed is not None}
        if self.claims is None or not helds:
            return
        windows = await self.claims.terms()
        lasts_s = windows.watched_s + windows.open_s + windows.reveal_s + windows.challenge_s + SLACK_S
        for claim in dict.fromkeys(await self.claims.captured(self.tools.chain.block_time() - int(lasts_s))):
            found = await self.claims.claim_of(claim)
            if found is None or found.seat not in helds or found.refuted or found.state.ended or not found.opened:
                continue
            if (claim, found.seed) not in self._checked:
                await self._compare(claim, found, *helds[found.seat])

    async def _compare(self, claim: bytes, found: Claim, book: Book, held: Held) -> None:
        assert self.claims is not None
        for shown in await self.claims.shown(claim, found.seat, found.block_number):
            if held.seat.leaves.get(shown.position, shown.leaf) == shown.leaf:
                continue
            first = held.receipts.get(shown.position) or receipt_of(
                self.tools.journal, book.id, held.id, shown.position
            )
            if not first:
                continue
            lock = await self.tools.court.lock_left(held.lease)
            brings = self._brings(book.order, lock) + found.count * found.price  # which the claim takes from the payer
            root = Statement(word=Word.CLAIM, leaf=shown.leaf, claim=claim, path=shown.path)
            await self._prove(Proof(book.order, held.lease, shown.position, _receipt(first), root, brings))
            return
        if found.opened == found.k:
            self._checked[claim, found.seed] = None
            while len(self._checked) > MAX_CHECKED:
                self._checked.pop(next(iter(self._checked)))

    # The proof.

    def _brings(self, order: Order, lock: int) -> int:
        return worth.conviction_wei(lock, payer=order.payer == self.tools.key.address)

    async def _prove(self, proof: Proof) -> None:
        """ChainError `not_worth_gas`, and where the chain cannot be asked."""
        sent = self.tools.court.fraud(
            proof.order, proof.lease, proof.position, proof.one, proof.other, brings_wei=proof.brings_wei
        )
        if await tried("prove fraud", sent):
            self.tools.counters["frauds_proved"] += 1
            log.warning("position %d was signed with two leaves: its worker's lock is taken", proof.position)


def _receipt(data: bytes) -> Statement:
    signed = wire.decode(data, Receipt)
    return Statement(word=Word.RECEIPT, leaf=signed.message.leaf, signature=signed.signature)
