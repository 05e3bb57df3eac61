"""The auditor's service: answers `audit`, runs drawn units blind, commits, asks for the opening, and sends its verdict.

Each audit is one task that goes on from wherever its journal stands. Audits share the node's cores with its own units
and go first. This module decides nothing about draws or openings; calls.py and openings.py do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import trio

from tallymesh import exchange
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import AuditRequest, Nothing, Source
from tallymesh.ids import BlobId
from tallymesh.parameters import Parameters
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.registry import RegistryAt
from tallymesh_node.auditor import calls
from tallymesh_node.auditor.calls import Call
from tallymesh_node.auditor.fees import Fees
from tallymesh_node.auditor.record import SCOPE, AuditRecord, CallLine, Line, OverLine
from tallymesh_node.auditor.tools import Tools, log
from tallymesh_node.auditor.work import AuditWork
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, Executor, Journal, PeerNetwork
from tallymesh_node.unit_inputs import Specs, names_of

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # trio's own name, under the stubs that libp2p brings along

MAX_AUDITS = 16  # open at once: each holds a unit of up to 256 KiB and waits for a core
CHAIN_LOOKS = 5  # our view of the chain may be a block behind the payer's …
CHAIN_PAUSE_S = 0.5  # … so a block that is final there, or a job that was just opened, is looked for a few times
SPEC_S = 5.0  # for a template that did not come along; the payer waits ten seconds for our answer
KEEP_S = 24 * 3600  # journals of audits that are over: long enough for a fee that is paid late to be explained
PRUNE_S = 3600.0

OK = exchange.encode(Nothing())


class AuditorService:
    """Takes interfaces only. `run` serves until it is cancelled."""

    def __init__(
        self,
        *,
        network: PeerNetwork,
        blobs: Blobs,
        executor: Executor,
        chain: Chain,
        journal: Journal,
        domains: Domains,
        key: AccountKey,
        parameters: Parameters,
        clock: Callable[[], float],
        cores: Cores,
    ) -> None:
        self.tools = Tools(
            network=network,
            blobs=blobs,
            executor=executor,
            chain=chain,
            journal=journal,
            domains=domains,
            key=key,
            parameters=parameters,
            clock=clock,
            cores=cores,
            specs=Specs(blobs),
        )
        self.fees = Fees(self.tools)
        self._audits: dict[bytes, AuditRecord] = {}
        self._nursery: trio.Nursery | None = None
        self._admitting = trio.Lock()
        self.away = ""  # why no call is taken, in a sentence: the owner wants the machine for itself

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for scope in self.tools.journal.scopes(SCOPE):
                record = AuditRecord.replay(self.tools.domains, self.tools.journal.read(scope))
                if record.over is None:
                    self._begin(record)
                else:
                    self.fees.add(record)
            self.tools.network.serve(AuditRequest.NAME, self.audit)
            nursery.start_soon(self.fees.run)
            nursery.start_soon(self._prune)
            task_status.started()

    @property
    def counters(self) -> dict[str, int]:
        return {**self.tools.counters, "audits_open": len(self._audits), "fees_owed": len(self.fees.owed)}

    @property
    def idle(self) -> bool:
        return not self._audits

    def needed(self) -> set[bytes] | None:
        """Blobs that open audits run on: at once. None while the journals are not read."""
        if self._nursery is None:
            return None
        calls = [record.call for record in self._audits.values()]
        return {name for call in calls for name in (call.order.template, *names_of(call.unit))}

    @property
    def payers(self) -> list[str]:
        """Peers whose calls are under way."""
        return [record.line.payer.peer_id for record in self._audits.values()]

    def may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        """What an auditor fetched is nobody's to have from it: payer and workers serve the job's blobs."""
        return False

    # The door.

    async def audit(self, peer: str, body: bytes) -> bytes:
        """Answers that the call is taken, once it is on disk; the work is done afterwards."""
        request = exchange.decode(body, AuditRequest, peer=peer)
        try:
            call = calls.read(self.tools.domains, request, peer=peer)
            if self._known(call):
                return OK
            self._room(call)
            await self._check(call, request)
            async with self._admitting:  # the same request may have come twice meanwhile
                if self._known(call):
                    return OK
                self._room(call)
                await self._adopt(peer, request)
        except RemoteError as error:
            self.tools.counters["audits_refused"] += 1
            log.info("audit refused: %s", error)
            raise
        self.tools.counters["audits_taken"] += 1
        return OK

    def _known(self, call: Call) -> bool:
        return call.digest in self._audits or bool(self.tools.journal.read(SCOPE + call.digest.hex()))

    def _room(self, call: Call) -> None:
        if self.away:
            raise RemoteError("away", self.away)
        if len(self._audits) >= MAX_AUDITS:
            raise RemoteError("busy", f"{MAX_AUDITS} audits are open here already.")
        called = call.audit_order
        for record in self._audits.values():
            other = record.call.audit_order
            if (other.seat, other.position) == (called.seat, called.position):
                raise RemoteError("called_twice", "This node audits that unit already.")
        waiting = sum(record.call.lease.work_ms for record in self._audits.values() if record.state == "called")
        left_s = called.commit_by - self.tools.chain.block_time()
        if waiting and (waiting / self.tools.cores.count + call.lease.work_ms) / 1000 > left_s:
            raise RemoteError("busy", "The audits that wait here leave no time for this one.")

    async def _check(self, call: Call, request: AuditRequest) -> None:
        tools = self.tools
        now, me = tools.chain.block_time(), tools.key.address
        await self._final(call)
        registry: RegistryAt = await tools.chain.registry_at(call.tally.block_number, call.tally.block_hash)
        spec = await tools.specs.obtain(
            call.order.template,
            request.spec,
            request.sources,
            ticket=request.audit_order,
            timeout_s=SPEC_S,
        )
        calls.check(call, spec, registry, tools.parameters, now=now, me=me)
        await self._funded(call)

    async def _final(self, call: Call) -> None:
        for look in range(CHAIN_LOOKS):
            final, _ = await self.tools.chain.final_block()
            if call.tally.block_number <= final:
                return
            if look < CHAIN_LOOKS - 1:
                await trio.sleep(CHAIN_PAUSE_S)
        raise RemoteError("wrong_block", "The block that the Tally names is not final.")

    async def _funded(self, call: Call) -> None:
        """That the job is on chain, under this signer, and can pay the fee."""
        for look in range(CHAIN_LOOKS):
            state = await self.tools.chain.job_state(call.job)
            if state is not None:
                if state.signer != call.order.signer or state.reserve < call.audit_order.fee:
                    raise RemoteError("unfunded", f"The job's reserve of {state.reserve} wei does not cover the fee.")
                return
            if look < CHAIN_LOOKS - 1:
                await trio.sleep(CHAIN_PAUSE_S)
        raise RemoteError("unfunded", "There is no such job on chain.")

    async def _adopt(self, peer: str, request: AuditRequest) -> None:
        payer = next((source for source in request.sources if source.peer_id == peer), Source(peer))
        kept = msgspec.structs.replace(request, spec=b"")
        line = CallLine(exchange.encode(kept), payer)
        record = AuditRecord(self.tools.domains, line)
        with trio.CancelScope(shield=True):  # a caller that hangs up must not leave a call on disk that nobody works on
            await self.tools.journal.append(record.scope, (Line.CALL.value, exchange.encode(line)))
        self._begin(record)

    def _begin(self, record: AuditRecord) -> None:
        assert self._nursery is not None
        self._audits[record.call.digest] = record
        self._nursery.start_soon(self._run, record)

    async def _run(self, record: AuditRecord) -> None:
        try:
            await AuditWork(self.tools, record).run()
        finally:
            self._audits.pop(record.call.digest, None)
        self.fees.add(record)
        if all(other.call.job != record.call.job for other in self._audits.values()):
            await self.tools.executor.close_job(self.tools.sandbox_of(record.call.job))

    async def _prune(self) -> None:
        while True:
            for scope in self.tools.journal.scopes(SCOPE):
                entries = self.tools.journal.read(scope)
                over = next((exchange.decode(e.body, OverLine) for e in entries if e.kind == Line.OVER), None)
                owed = bytes.fromhex(scope.removeprefix(SCOPE)) in self.fees.owed
                if over is not None and not owed and self.tools.chain.block_time() > over.at + KEEP_S:
                    try:
                        await self.tools.journal.drop(scope)
                    except LocalError as error:
                        log.error("an old audit cannot be forgotten: %s", error)
                await trio.lowlevel.checkpoint()
            await trio.sleep(PRUNE_S)
