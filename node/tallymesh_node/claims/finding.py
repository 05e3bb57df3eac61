"""Gets one drawn unit from its worker and runs it blind: what this node finds is what it will commit to.

Nothing of the worker's output comes here; whether it was right is said after the leaves are open. No chain, no journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tallymesh import exchange
from tallymesh.errors import LocalError, RemoteError
from tallymesh.exchange import ClaimUnitAnswer, ClaimUnitRequest
from tallymesh.ids import ZERO32, BlobId
from tallymesh.messages import Lease
from tallymesh_ledger import sampling
from tallymesh_ledger.claims import NO_OUTPUT, STEPS_MAX, Claim
from tallymesh_node.claims import calls
from tallymesh_node.claims.calls import Call
from tallymesh_node.claims.record import CallLine, CommitLine
from tallymesh_node.claims.tools import Tools, log
from tallymesh_node.cores import AUDIT
from tallymesh_node.interfaces import Failure
from tallymesh_node.looks import obtained
from tallymesh_node.unit_inputs import fetch_inputs, limits_of

REQUEST_S = 10.0


class Finding:
    """For one sample of one claim; `lease` is the claimed seat's."""

    def __init__(self, tools: Tools, claim: bytes, found: Claim, sample: int, lease: Lease) -> None:
        self.tools = tools
        self.claim = claim
        self.found = found
        self.sample = sample
        self.lease = lease
        self.ticket = exchange.encode(ClaimUnitRequest(claim, sample))
        self._call: Call
        self._inputs: Mapping[BlobId, Path]

    def __repr__(self) -> str:
        return f"<Finding {self.claim[:4].hex()}/{self.sample}>"

    async def fetch(self) -> CallLine:
        """The unit, checked, with its inputs here. Goes on until they could be had: whoever waits sets the time."""
        return await obtained(self._try, self)

    async def _try(self) -> CallLine:
        line, self._call = await self._ask()
        self._inputs = await self._fetch(line, self._call)
        return line

    async def _ask(self) -> tuple[CallLine, Call]:
        """Asked anew for every attempt: a worker that was started again has forgotten whom it answered."""
        tools = self.tools
        source = tools.source_of(self.lease.worker)
        if source is None:
            raise RemoteError("unknown_peer", "No offer says where the worker of this claim is reached.")
        body = await tools.network.request(source, ClaimUnitRequest.NAME, self.ticket, timeout_s=REQUEST_S)
        line = CallLine(exchange.decode(body, ClaimUnitAnswer, peer=source.peer_id), source)
        call = calls.read(tools.domains, self.found, self.sample, line.answer, peer=source.peer_id)
        spec = await tools.specs.obtain(
            call.order.template, b"", (source, *line.answer.sources), ticket=self.ticket, timeout_s=REQUEST_S
        )
        calls.check(call, spec, peer=source.peer_id)
        return line, call

    async def _fetch(self, line: CallLine, call: Call) -> Mapping[BlobId, Path]:
        sources = (line.worker, *line.answer.sources)
        grace_s = self.tools.parameters.unit_grace_s
        return await fetch_inputs(self.tools.blobs, call.unit, sources, ticket=self.ticket, timeout_s=grace_s)

    async def run(self) -> CommitLine | None:
        """What the unit gives here; None where this machine is at fault. `fetch` came before."""
        tools, call = self.tools, self._call
        try:
            limits = limits_of(call.order, call.lease.work_ms, tools.parameters)
            async with tools.cores.one(AUDIT, memory_mib=limits.memory_mib):
                outcome = await tools.executor.run(
                    tools.sandbox_of(self.claim),
                    call.unit,
                    self._inputs,
                    limits,
                    probe_key=sampling.probe_key(self.found.seed, call.index, 0, tools.key.address),
                )
        except Failure as failure:
            log.info("%r: %s (%s)", self, failure.sentence, failure.code)
            # A program that gives no output here gave the worker none either, whatever it says.
            return CommitLine(call.unit.start, NO_OUTPUT, ZERO32, 1) if failure.code == "program" else None
        except LocalError as error:
            log.error("%r: %s", self, error)
            return None
        steps = outcome.steps if 1 <= outcome.steps <= STEPS_MAX else 1
        return CommitLine(call.unit.start, outcome.output, outcome.probe, steps)
