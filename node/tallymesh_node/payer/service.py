"""All jobs of this node's owner: takes them on, drives each, finds them again after a crash, shows them to the API.

This module drives nothing itself: driver.py does, and doors.py answers the peers.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio

from tallymesh import amounts, api, units
from tallymesh.errors import CallerError, ChainError, LocalError, RemoteError
from tallymesh.ids import BlobId, JobId
from tallymesh.messages import Order
from tallymesh.parameters import Parameters
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import job_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.complaints import AWAY
from tallymesh_node.interfaces import Blobs, Chain, Executor, Journal, PeerNetwork
from tallymesh_node.payer import kept, records, views
from tallymesh_node.payer.book import Book
from tallymesh_node.payer.doors import Doors
from tallymesh_node.payer.driver import DISK_S, SCOPE, JobDriver
from tallymesh_node.payer.events import EventLog
from tallymesh_node.payer.held import LIVE
from tallymesh_node.payer.ordering import make_order
from tallymesh_node.payer.records import Submitted
from tallymesh_node.payer.secrets import JobSecrets
from tallymesh_node.payer.tools import Offers, Tools, log
from tallymesh_node.payer.trust import Trust

INDEX = "payer-index"  # which jobs there are, and the last view of those that are over
JOBS_MAX = 256  # driven at a time: each holds its book in memory
PAST_KEPT = 4  # books of jobs that are over, read again when somebody asks
OWN_UNITS = 2  # units that this node runs side by side for all its jobs: checks must not starve its other work
FUNDS_S = 2.0  # for the chain to say what the account has: a job can be ordered while the chain is away
NO_JOB_REMEDY = "See 'tallymesh ls'."


class PayerService:
    """`numeric_class` is this node's own, b"" while it is measured or where it has no executor; `own_units` is how many
    units its executor runs side by side for checks; until `funded` a network's faucet may still fill the account."""

    def __init__(
        self,
        *,
        network: PeerNetwork,
        blobs: Blobs,
        executor: Executor | None,
        chain: Chain,
        journal: Journal,
        domains: Domains,
        key: AccountKey,
        parameters: Parameters,
        offers: Offers,
        clock: Callable[[], float],
        numeric_class: Callable[[], bytes] = lambda: b"",
        own_units: int = OWN_UNITS,
        funded: Callable[[], bool] = lambda: True,
    ) -> None:
        self.tools = Tools(
            network, blobs, executor, chain, journal, domains, key, parameters, offers, clock, numeric_class
        )
        self.trust = Trust(journal)
        self._own_limit = trio.CapacityLimiter(own_units)
        self._funded = funded
        self._drivers: dict[str, JobDriver] = {}
        self._past: dict[str, api.JobView] = {}
        self._stranded: dict[str, LocalError] = {}  # jobs that cannot go on here, and why
        self._past_drivers: OrderedDict[str, JobDriver] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._doors = Doors(self.tools, self._drivers)
        # What stands beside a job and is not this role's: accusations of its workers, by job.
        self.aside: Callable[[bytes], Sequence[api.Problem]] = lambda job: ()

    # Running.

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Unfinished jobs go on from the journal."""
        self.trust.load()
        for entry in self.tools.journal.read(INDEX):
            if entry.kind == "archived":
                view = msgspec.json.decode(entry.body, type=api.JobView)
                self._past[view.id] = view
        known = [scope for scope in self.tools.journal.scopes(SCOPE) if scope.removeprefix(SCOPE) not in self._past]
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for scope in known:
                try:
                    self._start(scope)
                except LocalError as error:  # its template or its network is gone: the others go on
                    log.error("job %s cannot go on: %s", scope.removeprefix(SCOPE), error)
                    self._stranded[scope.removeprefix(SCOPE)] = error
            self._doors.open()
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def _start(self, scope: str) -> JobDriver:
        driver = JobDriver(self.tools, self.trust, self._own_limit, self._cores_held, scope)
        self._drivers[scope.removeprefix(SCOPE)] = driver
        assert self._nursery is not None
        self._nursery.start_soon(self._drive, driver)
        if self.tools.executor is not None and driver.book.training:  # its first output is checked here a moment later
            self._nursery.start_soon(self.tools.executor.prepare, driver.book.id)
        return driver

    async def _drive(self, driver: JobDriver) -> None:
        await driver.run()
        view = views.job_view(driver)
        while True:
            try:
                await self.tools.journal.append(INDEX, ("archived", msgspec.json.encode(view)))
                break
            except LocalError as error:  # it stays among the jobs that are driven until the disk takes it
                log.error("job %s is over and that cannot be stored: %s", view.id[:8], error)
                await trio.sleep(DISK_S)
        self._past[view.id] = view
        self._drivers.pop(view.id, None)
        if self.tools.executor is not None:
            await self.tools.executor.close_job(driver.book.id)

    def _cores_held(self, account: bytes, job: JobId) -> int:
        """Cores of a worker that other jobs of this node hold; the stages of one job take turns."""
        return sum(
            max(1, driver.book.order.cores)
            for driver in self._drivers.values()
            if driver.book.id != job and any(h.account == account and h.state in LIVE for h in driver.book.all())
        )

    # What the API asks.

    async def submit(self, spec_blob: BlobId, terms: api.Terms) -> str:
        """Take the job on and return its id (hex). CallerError for terms that cannot be met and for a budget that the
        account does not have, LocalError `busy` where too many jobs are under way."""
        if self._nursery is None:
            raise LocalError("not_running", "This node is not ready for jobs.")
        if len(self._drivers) >= JOBS_MAX:
            raise LocalError("busy", f"{JOBS_MAX} jobs are under way.", remedy="Wait until one of them is done.")
        tools = self.tools
        try:
            spec = units.decode_spec(tools.blobs.get(spec_blob))
        except KeyError:
            raise CallerError("missing_blobs", "The job template was not uploaded.") from None
        except RemoteError as error:
            raise CallerError(error.code, error.sentence) from None
        salt = secrets.token_bytes(32)
        order = make_order(
            spec,
            spec_blob,
            terms,
            payer=tools.key.address,
            signer=JobSecrets(tools.key, salt).signer.address,
            salt=salt,
            now=tools.chain.block_time(),
            parameters=tools.parameters,
        )
        await self._check_funds(order)
        name = job_id(tools.domains, order).hex()
        signed = tools.key.sign(tools.domains, order)
        await tools.blobs.sync()
        submitted = Submitted(signed.body, msgspec.json.encode(terms), tools.clock())
        await tools.journal.append(SCOPE + name, records.line(submitted))
        self._start(SCOPE + name).events.add("status", status="matching")
        return name

    async def _check_funds(self, order: Order) -> None:
        """A job without its budget would wait for ever. Where the chain does not answer, it waits for that anyway."""
        total = order.wages + order.audit_reserve
        tokens = total
        with trio.move_on_after(FUNDS_S):
            try:
                tokens = await self.tools.chain.tokens()
            except ChainError as error:
                log.info("what the account has is not known: %s", error)
        if tokens < total and self._funded():
            raise CallerError(
                "too_few_tokens",
                f"The job's budget is {amounts.show(total)} and the account has {amounts.show(tokens)}: "
                f"{amounts.show_up(total - tokens)} are missing.",
                remedy="See 'tallymesh balance'; send it more, or order the job with a smaller budget.",
            )

    def jobs(self) -> list[api.JobView]:
        """Newest first."""
        found = [*self._past.values(), *(views.job_view(driver) for driver in self._drivers.values())]
        found += [self.job(job) for job in self._stranded]
        return sorted(found, key=lambda view: -view.created)

    def job(self, job: str) -> api.JobView:
        driver = self._drivers.get(job)
        if driver is not None:
            return views.job_view(driver)
        if job in self._stranded:
            entry = self.tools.journal.read(SCOPE + job)[0]
            first = records.read(entry.kind, entry.body)
            assert isinstance(first, Submitted)
            return views.stranded_view(job, first, self._stranded[job])
        if job not in self._past:
            raise CallerError("no_job", f"There is no job {job[:80]}.", remedy=NO_JOB_REMEDY)
        return self._past[job]

    def why(self, job: str) -> list[api.Problem]:
        """Why the job is where it is: what it waits for, why offers were rejected, what failed."""
        if job in self._drivers:
            found = self._drivers[job].problems()
            away = self.tools.chain.unavailable
            if away and all(each.code != AWAY for each in found):  # its own calls are still trying
                found.append(api.Problem(code=AWAY, sentence=away, remedy="The job goes on when the chain is back."))
        else:
            problem = self.job(job).problem
            found = [problem] if problem is not None else []
        return [*found, *self.aside(bytes.fromhex(job))]

    def events(self, job: str, after: int) -> Sequence[api.EventView]:
        return self._log(job).after(after)

    async def wait_events(self, job: str, after: int) -> Sequence[api.EventView]:
        """The same, but waits until there is one."""
        return await self._log(job).wait_after(after)

    def events_kept(self, job: str) -> tuple[int, int]:
        """See EventLog.kept."""
        return self._log(job).kept

    def books(self) -> list[Book]:
        """Of the jobs that still have something in the escrow."""
        return [driver.book for driver in self._drivers.values()]

    def receipts(self, job: str) -> list[api.ReceiptView]:
        return views.receipt_views(self._driver(job).book)

    def audits(self, job: str) -> list[api.AuditView]:
        return views.audit_views(self._driver(job).book)

    def offers_seen(self) -> int:
        return len(self.tools.offers.candidates(self.tools.chain.block_time()))

    async def cancel(self, job: str) -> None:
        """Stop assigning, settle what was verified, refund the rest. Returns once that is under way; idempotent."""
        if job in self._drivers:
            await self._drivers[job].closing.cancel()
        else:
            self.job(job)

    def _log(self, job: str) -> EventLog:
        return self._driver(job).events

    def _driver(self, job: str) -> JobDriver:
        """Of a running job, or a book that is read again of one that is over."""
        found = self._drivers.get(job) or self._past_drivers.get(job)
        if found is None:
            self.job(job)
            found = JobDriver(self.tools, self.trust, self._own_limit, self._cores_held, SCOPE + job)
            self._past_drivers[job] = found
            while len(self._past_drivers) > PAST_KEPT:
                self._past_drivers.popitem(last=False)
        return found

    def needed(self) -> set[bytes] | None:
        """Blobs of all jobs under way: at once. None where that is not known: the journals are not read, or a job
        cannot go on here as things are, and would need what it needed then."""
        if self._nursery is None or self._stranded:
            return None
        return {blob for driver in self._drivers.values() for blob in kept.of_job(driver.book)}

    async def results(self) -> set[BlobId] | None:
        """Blobs that jobs which are over gave their owner. None where the disk does not say."""
        found: set[bytes] = set()
        for view in list(self._past.values()):
            try:
                found |= kept.of_result(view, self.tools.blobs)
            except LocalError as error:
                log.error("the result of job %s cannot be read: %s", view.id[:8], error)
                return None
            await trio.lowlevel.checkpoint()
        return {BlobId(blob) for blob in found}

    def may_fetch(self, peer: str, blob: BlobId, ticket: bytes) -> bool:
        """For the blob server: see doors.py."""
        return self._doors.may_fetch(peer, blob, ticket)
