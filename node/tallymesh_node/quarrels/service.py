"""The quarrels of one node: wires accuser, accused and member, draws credits, tells the owner where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio

from tallymesh.api import Problem
from tallymesh.exchange import Source
from tallymesh.ids import BlobId
from tallymesh.parameters import Parameters
from tallymesh.units import decode_unit
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import complaints
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, ClaimsChain, CourtChain, Executor, Journal, PeerNetwork
from tallymesh_node.looks import answered
from tallymesh_node.network import peer_id_hash
from tallymesh_node.payer.book import Book
from tallymesh_node.quarrels.accusing import Accusing
from tallymesh_node.quarrels.collecting import collect
from tallymesh_node.quarrels.defending import Defending
from tallymesh_node.quarrels.fraud import Fraud
from tallymesh_node.quarrels.grounds import Grounds
from tallymesh_node.quarrels.members import Members
from tallymesh_node.quarrels.pleading import Plea, Pleading
from tallymesh_node.quarrels.serving import Dossier, Serving
from tallymesh_node.quarrels.tools import Tools
from tallymesh_node.quarrels.whereabouts import Whereabouts
from tallymesh_node.unit_inputs import Specs, names_of
from tallymesh_node.worker.policy import SettlePolicy

if TYPE_CHECKING:
    from trio_typing import TaskStatus  # trio's own name, under the stubs that libp2p brings along


class QuarrelsService:
    """Takes interfaces only. `grounds` and `books` are the payer's (none: this node orders nothing), `numeric_class` is
    this machine's, b"" while it is measured; `audits` says whether it sits on panels. `run` goes on until cancelled."""

    def __init__(
        self,
        *,
        network: PeerNetwork,
        blobs: Blobs,
        executor: Executor,
        chain: Chain,
        court: CourtChain,
        journal: Journal,
        domains: Domains,
        key: AccountKey,
        parameters: Parameters,
        cores: Cores,
        source_of: Callable[[bytes], Source | None],
        account_of: Callable[[str], bytes | None],
        numeric_class: Callable[[], bytes],
        grounds: Callable[[], Iterable[Grounds]] = tuple,
        books: Callable[[], Iterable[Book]] = tuple,
        claims: ClaimsChain | None = None,
        audits: bool = True,
        drawing: SettlePolicy | None = None,
        hash_of: Callable[[str], bytes] = peer_id_hash,
    ) -> None:
        self.whereabouts = Whereabouts(network, domains, key, hash_of=hash_of)
        self.tools = Tools(
            network=network,
            blobs=blobs,
            executor=executor,
            chain=chain,
            court=court,
            journal=journal,
            domains=domains,
            key=key,
            parameters=parameters,
            cores=cores,
            specs=Specs(blobs),
            source_of=lambda account: source_of(account) or self.whereabouts.source_of(account),
            account_of=account_of,
        )
        self._grounds = grounds
        self._books = books
        self._claims = claims
        self._numeric_class = numeric_class
        self._audits = audits
        self._drawing = drawing or SettlePolicy()
        self.accusing: Accusing | None = None
        self.defending: Defending | None = None
        self.fraud: Fraud | None = None
        self.serving: Serving | None = None
        self.members: Members | None = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        terms = await answered(self.tools.court.terms, "the Court")
        pleading = Pleading(self.tools, terms, self.whereabouts)
        self.accusing = Accusing(self.tools, terms, pleading, self._grounds, self._numeric_class)
        self.defending = Defending(self.tools, terms, pleading)
        self.fraud = Fraud(self.tools, terms, self._claims, self._books)
        self.serving = Serving(self.tools, terms, self._dossier)
        self.serving.open()
        self.whereabouts.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.accusing.run)
            nursery.start_soon(self.defending.run)
            nursery.start_soon(self.fraud.run)
            if self._audits:
                self.members = Members(self.tools, terms)
                nursery.start_soon(self.members.run)
            nursery.start_soon(collect, self.tools, self._drawing, lambda: self.idle)

    def may_fetch(self, peer_id: str, blob: BlobId, ticket: bytes) -> bool:
        return self.serving is not None and self.serving.may_fetch(peer_id, blob, ticket)

    # For the owner.

    @property
    def counters(self) -> dict[str, int]:
        panels = len(self.members.open) if self.members else 0
        return {**self.tools.counters, "live": len(self.pleas()), "panels_open": panels}

    def problems(self) -> list[Problem]:
        """Which cases are open, what keeps others from being made, and what goes wrong."""
        found: list[tuple[str, str] | None] = []
        if self.accusing is not None and self.defending is not None:
            found += [each.problem for each in self.accusing.accusations.values() if each.end is None]
            found += [plea.problem for plea in self.pleas()]
            found += self.defending.lost.values()
            found.append(self.fraud.problem if self.fraud is not None else None)
        if self.members is not None:
            found += self.members.problems()
        return complaints.problems(found)

    def accused(self, job: bytes) -> list[Problem]:
        """What became of the accusations of one job, for who asks why."""
        found = [] if self.accusing is None else list(self.accusing.accusations.values())
        told = []
        for each in found:
            problem = each.problem or (each.plea.problem if each.plea is not None and each.end is None else None)
            if each.ground.lease.job == job and problem is not None:
                told.append(Problem(code=problem[0], sentence=problem[1]))
        return told

    @property
    def idle(self) -> bool:
        return not self.pleas() and (self.members is None or self.members.idle)

    def needed(self) -> set[bytes] | None:
        """Blobs of disputed units, this node being a party: at once. None while it is not known which cases there
        are."""
        if self.accusing is None or self.defending is None:
            return None
        if self._audits and (self.members is None or not self.members.begun):
            return None
        grounds = [each.ground.dossier() for each in self.accusing.accusations.values() if each.end is None]
        found: set[bytes] = set()
        for dossier in (*grounds, *(plea.dossier for plea in self.pleas())):
            found |= {dossier.template, *names_of(decode_unit(dossier.unit))}
            if dossier.opening is not None:
                found.add(dossier.opening.end)
        return found

    def pleas(self) -> list[Plea]:
        if self.accusing is None or self.defending is None:
            return []
        return [*self.accusing.pleas(), *self.defending.live]

    def _dossier(self, case: bytes) -> Dossier | None:
        return next((plea.dossier for plea in self.pleas() if plea.case == case), None)
