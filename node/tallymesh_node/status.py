"""The node as its owner sees it: the HTTP API's view, and what is wrong with a remedy for each problem."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

import tallymesh
from tallymesh import cards as texts
from tallymesh.api import NodeView, OfferView, ProbationView, Problem, WithdrawRequest, WithdrawView
from tallymesh_learning.runtime import profile
from tallymesh_ledger.keys import checksum
from tallymesh_node.blobs import BlobStore
from tallymesh_node.blobs.room import Room
from tallymesh_node.capacity import shortfalls
from tallymesh_node.gpus import told
from tallymesh_node.payer import PayerService
from tallymesh_node.worker.admission import SEAT_BY_MAX_S

if TYPE_CHECKING:
    from tallymesh_node.daemon import Node


class NodeStatus:
    """Implements http.NodeFacade over a running Node. Answers from memory."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def payer(self) -> PayerService | None:
        return self._node.payer

    @property
    def blobs(self) -> BlobStore:
        return self._node.blobs

    @property
    def room(self) -> Room:
        return self._node.room

    def stop(self) -> None:
        self._node.stop()

    def ready(self) -> bool:
        """Joined (where there is anybody to join), and the first offer out where the node works."""
        node = self._node
        joined = bool(node.network.peers) or not node.network_file.bootstrap or self._is_bootstrap()
        lends = node.steward.stance.lends and not node.twins.yields
        offers = node.publisher.published > 0 or not lends or self.cards() == "none"
        return joined and (not node.config.works or offers)

    def cards(self) -> str:
        """As NodeView has them. Why some are not sold, the problems tell."""
        proving = self._node.proving
        if proving is None:
            return ""
        return "trying" if not proving.over else "sold" if proving.sold else "none"

    def _is_bootstrap(self) -> bool:
        return all(
            address.endswith(f"/p2p/{self._node.network.peer_id}") for address in self._node.network_file.bootstrap
        )

    def view(self) -> NodeView:
        node = self._node
        offer = node.publisher.current
        sandbox = node.executor.status
        return NodeView(
            version=tallymesh.__version__,
            network=node.network_file.name,
            account=checksum(node.account.address),
            peer_id=node.network.peer_id,
            addresses=tuple(node.network.addresses),
            roles=node.config.roles,
            started=node.started,
            peers=len(node.network.peers),
            staked=node.enrolment.slots > 0,
            slots=node.enrolment.slots,
            stake_known=node.enrolment.known,
            numeric_class=node.capacity.numeric_class.hex(),
            numeric_profile=profile.profile_hash().hex(),
            base=profile.base(),
            provisional=self.provisional(),
            sandbox=sandbox.sentence if sandbox else "being checked",
            reachable=node.reachability.sentence,
            nearby=self.nearby(),
            gpus=self.gpus(),
            cards=self.cards(),
            gpu_profile=profile.profile_hash(profile.GPU).hex(),
            offer=_shown(offer) if offer else {},
            probation=self.probation(),
            problems=tuple(self.problems()),
            counters=self.counters(),
        )

    def provisional(self) -> bool:
        """Whether the class is being measured: else nothing needs it yet, or it was, and there is nothing to sell."""
        node = self._node
        return node.capacity.provisional and node.executor.pool.wanted.is_set() and self.cards() != "none"

    def gpus(self) -> str:
        proving = self._node.proving
        if proving is None:
            return told(self._node.machine.gpus)
        sentence = told(self._node.machine.gpus, proving.offered, selling=True) or "none is found: nothing is offered"
        return sentence if proving.over else f"{sentence} yet, they are being tried"

    def nearby(self) -> str:
        """Peers of the local network."""
        node = self._node
        if node.nearby is not None:
            return node.nearby.sentence
        why = "the owner says no" if node.config.nearby == "no" else "the network file names peers to begin with"
        return f"not looked for: {why}"

    def problems(self) -> list[Problem]:
        node = self._node
        found = [
            *node.twins.problems(),
            *node.enrolment.problems,
            *(node.proving.problems if node.proving is not None else []),
        ]
        refused = node.database.refused
        if refused is not None:  # while it lasts nothing is signed: no lease, no receipt, no Accept
            found.append(Problem(code=refused.code, sentence=refused.sentence, remedy=refused.remedy))
        if node.config.works and node.restored is not None and time.time() < node.restored.at + SEAT_BY_MAX_S:
            found.append(
                Problem(
                    code="restored",
                    sentence="The node's folder was put back from a backup: it takes no leases for a few minutes, and "
                    "has left every seat that it knew.",
                )
            )
        sandbox = node.executor.status
        if sandbox is not None and not sandbox.available:
            found.append(Problem(code="no_sandbox", sentence=sandbox.sentence, remedy=sandbox.remedy))
        if node.reachability.reachable is False:
            found.append(
                Problem(
                    code="unreachable",
                    sentence=f"Others cannot reach this node: {node.reachability.sentence}",
                    remedy="Open the port, or name a reachable address with --announce.",
                )
            )
        if node.config.works and node.enrolment.done and not node.enrolment.slots:
            far = self.probation()
            found.append(
                Problem(
                    code="unstaked",
                    sentence="The account holds no slot: it is on probation, and only jobs that allow newcomers give "
                    f"it work.{f' {far}.' if far else ''}",
                    remedy="What it earns there becomes its first slot. With tokens: 'tallymesh node start --stake 1'.",
                )
            )
        found += shortfalls(node.machine, node.settings)
        found += self._owner()
        if node.claims is not None:
            found += node.claims.problems()
        if node.quarrels is not None:
            found += node.quarrels.problems()
        if node.chain.unavailable:
            found.append(Problem(code="chain_unavailable", sentence=node.chain.unavailable))
        held_back = node.chain.held_back
        if held_back is not None:
            found.append(Problem(code=held_back.code, sentence=held_back.sentence, remedy=held_back.remedy))
        return found

    def _owner(self) -> list[Problem]:
        """The machine is not lent at the moment, and how far it is handed over."""
        stance = self._node.steward.stance
        if stance.lends or not self._node.config.works:
            return []
        seats = self._node.worker.seats() if self._node.worker is not None else []
        running = sum(seat.running for seat in seats)
        still = f" {running} unit{'s' * (running != 1)} may end first." if running else ""
        return [Problem(code=stance.code, sentence=stance.sentence + still, remedy=stance.remedy)]

    def probation(self) -> ProbationView | None:
        """How far a worker without a slot has come; None for others, and before the chain was asked."""
        found = self._node.enrolment.newcomer
        if found is None:
            return None
        return ProbationView(
            earned_wei=str(found.deposit),
            slot_wei=str(self._node.parameters.slot_wei),
            seats=found.seats,
            open_wei=str(found.unpaid),
        )

    async def withdraw(self, request: WithdrawRequest) -> WithdrawView:
        """Ask carriers. CallerError where it cannot be signed, RemoteError where nobody carries it."""
        done = await self._node.asking.withdraw(
            slots=request.slots, deposit=request.deposit, fee_max=int(request.fee_max_wei)
        )
        return WithdrawView(transaction=done.transaction.hex(), fee_wei=str(done.fee_wei), carrier=done.peer)

    def counters(self) -> dict[str, float]:
        node = self._node
        sandbox = node.executor.counters
        counts: dict[str, float] = {
            f"{name}_total": float(value) for name, value in dataclasses.asdict(node.network.counters).items()
        }
        counts["sandboxes_opened_total"] = node.executor.pool.sandboxes_opened
        counts["units_run_total"] = sandbox.units_run
        counts["units_failed_total"] = sandbox.units_failed
        counts["templates_started_total"] = node.executor.pool.templates_started
        if node.nearby is not None:
            counts["nearby_peers"] = len(node.nearby.peers)
            counts["nearby_packets_dropped_total"] = node.nearby.dropped
        counts["offers_published_total"] = node.publisher.published
        counts["offers_seen_total"] = node.book.seen
        counts["offer_bytes"] = node.publisher.bytes_last
        counts["blob_store_bytes"] = node.blobs.bytes_used
        counts["blobs_dropped_for_room_total"] = node.room.dropped.blobs
        counts |= node.money.figures
        roles = (
            ("worker", node.worker),
            ("auditor", node.auditor),
            ("claims", node.claims),
            ("quarrels", node.quarrels),
        )
        for name, role in roles:
            if role is not None:
                counts |= {f"{name}_{key}": float(value) for key, value in role.counters.items()}
        return counts

    def offers(self) -> Sequence[OfferView]:
        book = self._node.book
        registry = book.registry
        return [
            OfferView(
                account=checksum(listed.offer.account),
                peer_id=listed.peer_id,
                cores=listed.offer.cores,
                memory_mib=listed.offer.memory_mib,
                disk_mib=listed.offer.disk_mib,
                gpus=listed.offer.gpus if texts.count(listed.offer.gpus) else "",  # a stranger's text
                cpu_score=listed.offer.cpu_score,
                ask_price_wei=str(listed.offer.ask_price),
                numeric_class=listed.offer.numeric_class.hex(),
                provisional=listed.offer.provisional,
                staked=registry is not None and registry.slots_of(listed.offer.account) > 0,
                stake_known=registry is not None,
                class_counts=registry is not None
                and registry.classes.get(listed.offer.account) == listed.offer.numeric_class,
                expires=listed.offer.expires,
            )
            for listed in book.offers()
        ]


def _shown(offer: msgspec.Struct) -> dict[str, object]:
    fields = msgspec.structs.asdict(offer)
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
