"""The claims of one node: wires the worker's side and the auditor's, draws credits, tells the owner where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio

from tallymesh.api import Problem
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh.parameters import Parameters
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import complaints
from tallymesh_node.claims.claimant import Claimant
from tallymesh_node.claims.due import Policy
from tallymesh_node.claims.serving import Serving
from tallymesh_node.claims.tools import Tools
from tallymesh_node.claims.watching import Watching
from tallymesh_node.collecting import Credit, collect
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, ClaimsChain, Executor, Journal, PeerNetwork
from tallymesh_node.looks import answered
from tallymesh_node.unit_inputs import Specs
from tallymesh_node.worker.policy import SettlePolicy
from tallymesh_node.worker.tools import Work

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # trio's own name, under the stubs that libp2p brings along


class ClaimsService:
    """Takes interfaces only. `works` are the worker's open seats (none: this node does not work), `audits` says whether
    it audits. `run` goes on until it is cancelled; what it needs of the chain it asks for again until it is there."""

    def __init__(
        self,
        *,
        network: PeerNetwork,
        blobs: Blobs,
        executor: Executor,
        chain: Chain,
        claims: ClaimsChain,
        journal: Journal,
        domains: Domains,
        key: AccountKey,
        parameters: Parameters,
        cores: Cores,
        source_of: Callable[[bytes], Source | None],
        account_of: Callable[[str], bytes | None],
        works: Callable[[], Iterable[Work]] | None = None,
        audits: bool = True,
        policy: Policy | None = None,
        drawing: SettlePolicy | None = None,
    ) -> None:
        self.tools = Tools(
            network=network,
            blobs=blobs,
            executor=executor,
            chain=chain,
            claims=claims,
            journal=journal,
            domains=domains,
            key=key,
            parameters=parameters,
            cores=cores,
            specs=Specs(blobs),
            source_of=source_of,
            account_of=account_of,
        )
        self._works = works
        self._audits = audits
        self._policy = policy or Policy()
        self._drawing = drawing or SettlePolicy()
        self.claimant: Claimant | None = None
        self.serving: Serving | None = None
        self.watching: Watching | None = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        terms = await answered(self.tools.claims.terms, "the claims' contract")
        async with trio.open_nursery() as nursery:
            if self._works is not None:
                self.claimant = Claimant(self.tools, terms, self._works, self._policy)
                self.serving = Serving(self.tools, self.claimant)
                self.serving.open()
                nursery.start_soon(self.claimant.run)
            if self._audits:
                self.watching = Watching(self.tools, terms)
                nursery.start_soon(self.watching.run)
            nursery.start_soon(collect, self._credits, self._drawing, lambda: self.idle, self.tools.counters)

    def may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        return self.serving is not None and self.serving.may_fetch(peer_id, blob, ticket)

    # For the owner.

    @property
    def counters(self) -> dict[str, int]:
        live = len(self.claimant.live) if self.claimant else 0
        return {**self.tools.counters, "live": live, "audits_open": len(self.watching.open) if self.watching else 0}

    def problems(self) -> list[Problem]:
        """What is unpaid, what is claimed, and what stands against it."""
        cases = [case.problem for case in self.claimant.cases.values()] if self.claimant else []
        return complaints.problems([*cases, *(self.watching.problems() if self.watching else ())])

    @property
    def idle(self) -> bool:
        return not (self.watching and self.watching.open) and not (self.claimant and self.claimant.live)

    def needed(self) -> set[bytes] | None:
        """What claims stand on is in the journals of their seats, and a drawn unit is named only while it is computed:
        nothing of its own. None while it is not known which duties there are."""
        claims = self._works is None or self.claimant is not None
        duties = not self._audits or (self.watching is not None and self.watching.begun)
        return set() if claims and duties else None

    async def _credits(self) -> list[Credit]:
        claims = self.tools.claims
        return [(await claims.held(self.tools.key.address), claims.collect)]
