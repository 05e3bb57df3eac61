"""Drives one job: a level-triggered loop over its parts, and the one way into its book.

Each part compares what should be with what the book says and starts what is missing; a missed event costs a delay,
never a leak. After a crash, or when the disk refused a line, the book is read again and everything goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from tallymesh import units, wire
from tallymesh.api import Problem
from tallymesh.errors import LocalError, RemoteError, TallymeshError
from tallymesh.ids import BlobId, JobId
from tallymesh.messages import Order
from tallymesh.schema import Message
from tallymesh.units import JobSpec
from tallymesh.wire import Signed
from tallymesh_ledger import keys
from tallymesh_node.payer import announcing, records
from tallymesh_node.payer.applying import apply
from tallymesh_node.payer.auditing import Auditing
from tallymesh_node.payer.book import Book
from tallymesh_node.payer.calling import Calls
from tallymesh_node.payer.closing import Closing
from tallymesh_node.payer.events import EventLog
from tallymesh_node.payer.leasing import Leasing
from tallymesh_node.payer.newcomers import Newcomers
from tallymesh_node.payer.outlived import Outlived
from tallymesh_node.payer.own import OwnUnits
from tallymesh_node.payer.placing import Placing
from tallymesh_node.payer.receiving import Receiving
from tallymesh_node.payer.records import Record, Submitted
from tallymesh_node.payer.settling import Settling
from tallymesh_node.payer.tools import Doing, Tools
from tallymesh_node.payer.trust import Trust
from tallymesh_node.payer.watching import Watching

log = logging.getLogger("tallymesh.payer")

SCOPE = "payer/"
TICK_S = 0.5  # between passes when nothing happens: every deadline here is seconds or more
SLOW_TICK_S = 5.0  # when only seats of vanished workers are waited for
DISK_S = 5.0  # after the disk refused


class Part(Protocol):
    def reconcile(self) -> None: ...

    def problems(self) -> list[Problem]: ...


class JobDriver:
    """Contract: every signed message is in the journal before `commit` returns, and leaves this node only after."""

    book: Book

    def __init__(
        self,
        tools: Tools,
        trust: Trust,
        own_limit: trio.CapacityLimiter,
        cores_held: Callable[[bytes, JobId], int],
        scope: str,
    ) -> None:
        self.tools = tools
        self.trust = trust
        self.own_limit = own_limit
        self.cores_held = cores_held  # (account, job) -> cores that other jobs of this node hold there
        self.scope = scope
        self.events = EventLog(tools.journal, scope.removeprefix(SCOPE), tools.clock)
        self.events.load()
        self.doing = Doing(None, self.wake)
        self.disk_problem = ""
        self.escrow_wei: int | None = None
        self.shown_status = ""
        self._news = trio.Event()
        self._lines: list[tuple[str, bytes]] = []  # applied, not handed to the journal yet
        self._queued = self._written = 0  # lines since this driver was made
        self._writing = trio.Lock()
        self.load()

    def __repr__(self) -> str:
        return f"<JobDriver {self.book!r}>"

    def load(self) -> None:
        """Book and parts from the journal. LocalError where it cannot be read."""
        entries = self.tools.journal.read(self.scope)
        first = records.read(entries[0].kind, entries[0].body)
        assert isinstance(first, Submitted), "a job's journal begins with its submission"
        self._ours(first)
        self.book = Book(self.tools.domains, self.tools.key, self.tools.parameters, self._spec(first), first)
        for entry in entries[1:]:
            try:
                apply(self.book, records.read(entry.kind, entry.body))
            except RemoteError as error:  # a line before it was lost when the disk was full: what it said comes again
                log.error("job %s: a line of kind %s is left out: %s", self.book.id[:4].hex(), entry.kind, error)
        self.book.counted.clear()  # announced then
        self._lines.clear()
        self._written = self._queued
        self.shown_status = self.book.status
        self.leasing = Leasing(self)
        self.placing = Placing(self)
        self.receiving = Receiving(self)
        self.watching = Watching(self)
        self.calling = Calls(self)
        self.auditing = Auditing(self)
        self.own = OwnUnits(self)
        self.closing = Closing(self)
        self.settling = Settling(self)
        self.newcomers = Newcomers(self)
        self.outlived = Outlived(self)
        self.parts: tuple[Part, ...] = (
            self.outlived, self.leasing, self.placing, self.receiving, self.watching, self.auditing, self.own,
            self.closing, self.newcomers, self.settling,
        )  # fmt: skip

    def _ours(self, submitted: Submitted) -> None:
        """Driven under other contracts, a job would get nothing but refusals, and its workers the blame for them."""
        try:
            keys.check(self.tools.domains, wire.decode(submitted.order, Order), self.tools.key.address)
        except RemoteError:
            raise LocalError(
                "other_network",
                "The job was ordered by another account, or under other contracts than this node's network file names.",
                remedy="Start the node with the network file and wallet of then: the job goes on where it was.",
            ) from None

    def _spec(self, submitted: Submitted) -> JobSpec:
        template = wire.decode(submitted.order, Order).message.template
        try:
            return units.decode_spec(self.tools.blobs.get(BlobId(template)))
        except KeyError:
            raise LocalError("spec_lost", f"The template {template[:4].hex()} of a job is not here any more.") from None

    # The one way into the book.

    async def commit(self, *new: Record) -> None:
        """Apply and make durable, in this order for everybody. RemoteError where the first record is refused: then
        nothing happened. LocalError `disk` from when the disk refused a line until the book was read again."""
        self.check_disk()
        for record in new:
            apply(self.book, record)
            self._lines.append(records.line(record))
            self._queued += 1
        for record in new:
            announcing.announce(self, record)
        self.wake()
        await self.durable()

    async def durable(self) -> None:
        """Until everything that the book says is on disk: to be awaited before anything of it leaves this node.

        Lines are written in the order in which they were applied, those of several tasks in one append."""
        goal = self._queued
        with trio.CancelScope(shield=True):  # a peer that hangs up must not leave memory and disk apart
            async with self._writing:
                self.check_disk()
                if self._written >= goal:
                    return
                lines, self._lines, upto = self._lines, [], self._queued
                try:
                    await self.tools.journal.append(self.scope, *lines)
                except LocalError as error:
                    self.disk_problem = error.sentence
                    self.wake()
                    raise
                self._written = upto

    def check_disk(self) -> None:
        if self.disk_problem:
            raise LocalError("disk", self.disk_problem)

    def sign(self, message: Message) -> Signed:
        return self.book.secrets.signer.sign(self.tools.domains, message)

    def wake(self) -> None:
        self._news.set()

    # Running.

    async def run(self) -> None:
        """Until nothing of the job is left in the escrow."""
        while not self.book.archived_at:
            try:
                async with trio.open_nursery() as nursery:
                    self.doing = Doing(nursery, self.wake)
                    nursery.start_soon(self.events.run)
                    await self._remember()
                    await self._loop()
                    nursery.cancel_scope.cancel()
            except* LocalError as group:
                error = next(iter(leaves(group)))
                log.error("job %s pauses: %s", self.book.id[:4].hex(), error)
                self.disk_problem = error.sentence
            while self.disk_problem:
                await trio.sleep(DISK_S)
                try:
                    self.load()
                    self.disk_problem = ""
                except LocalError as error:  # the disk cannot even be read: the job waits for it, the others go on
                    self.disk_problem = error.sentence

    async def _remember(self) -> None:
        """What was learned of peers in this job, should a crash have come between the two journals."""
        await self.trust.strike(self.book.struck, "Its verdict was outvoted or contradicted itself.")
        for account, sentence in self.book.convicted.items():
            await self.trust.convict(account, sentence)

    async def _loop(self) -> None:
        while not self.book.archived_at:
            self.check_disk()
            for part in self.parts:
                part.reconcile()
            self._news = trio.Event()
            with trio.move_on_after(SLOW_TICK_S if self.book.settled else TICK_S):
                await self._news.wait()
        await self.events.write()

    def problems(self) -> list[Problem]:
        """Why the job is where it is, the gravest first."""
        found: list[Problem] = []
        ending = self.book.ending
        if ending is not None and ending.code:
            found.append(Problem(ending.code, ending.sentence, ending.remedy, ending.traceback))
        if self.disk_problem:
            found.append(Problem(code="disk", sentence=self.disk_problem, remedy="Make room; the job then goes on."))
        for part in self.parts:
            found += part.problems()
        return found


def leaves(group: BaseExceptionGroup[LocalError]) -> list[LocalError]:
    found: list[LocalError] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def problem_of(error: TallymeshError) -> Problem:
    return Problem(code=error.code, sentence=error.sentence, remedy=error.remedy)
