"""What the payer's node knows of one job: the journal's records, applied in order (applying.py), and what follows.

Nothing here signs, sends, waits or reads a clock. Live and after a restart the book is the same, because there is one
way into it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

import msgspec

from tallymesh import api, wire
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh.ids import BlobId, JobId, UnitId
from tallymesh.messages import Order
from tallymesh.parameters import Parameters
from tallymesh.plan import AGGREGATE, Node, Plan, Task
from tallymesh.units import JobSpec
from tallymesh.wire import Signed
from tallymesh_ledger import sampling
from tallymesh_ledger.audit import Audit, Call
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.jobs import job_id
from tallymesh_ledger.keys import AccountKey
from tallymesh_ledger.registry import RegistryAt
from tallymesh_node.payer import replicas
from tallymesh_node.payer.given import Given
from tallymesh_node.payer.held import AT_WORK, Held
from tallymesh_node.payer.ordering import lock_of
from tallymesh_node.payer.records import Ending, Settled, Submitted
from tallymesh_node.payer.secrets import secrets_of
from tallymesh_node.unit_inputs import shared_names_of
from tallymesh_scheduler.leases import LeaseState

TRAINING = ("sequential", "federated")


class Calling(msgspec.Struct):
    """One AuditOrder and what came of it, as signed."""

    order: Signed
    held: Held
    audit: Audit
    call: Call
    commit: Signed | None = None
    open: Signed | None = None
    verdict: Signed | None = None


class Book:
    """Contract: a unit's output is in the plan only while the seat that made it (or the payer's node) answers for it;
    each unit is placed on at most `copies` seats at a time, one unless each unit is run twice (replicas.py)."""

    def __init__(
        self, domains: Domains, account: AccountKey, parameters: Parameters, spec: JobSpec, submitted: Submitted
    ) -> None:
        self.domains = domains
        self.parameters = parameters
        self.order_signed = wire.decode(submitted.order, Order)
        self.order: Order = self.order_signed.message
        self.id: JobId = job_id(domains, self.order)
        self.secrets = secrets_of(account, self.order)
        self.terms = msgspec.json.decode(submitted.terms, type=api.Terms)
        self.created = submitted.created
        self.spec = spec
        self.plan = Plan(spec)
        self.given = Given()
        self.helds: dict[bytes, Held] = {}
        self.copies = replicas.copies_of(self.terms.verify)
        self.placed: dict[UnitId, tuple[replicas.Place, ...]] = {}  # unit -> (seat, position) of each run of it
        self.counted: list[UnitId] = []  # with several copies: outputs that came to count and were not announced yet
        self.ran: dict[UnitId, set[bytes]] = {}  # with several copies: accounts that ever had the unit
        self.produced: dict[UnitId, tuple[bytes, int] | None] = {}  # outputs in the plan; None: by the payer's node
        self.working: dict[int, set[UnitId]] = {stage: set() for stage in range(len(spec.stages))}  # placed, no output
        self.makers: dict[bytes, Source] = {}  # output -> whose machine has it beside ours
        self.calls: dict[bytes, Calling] = {}  # by the AuditOrder's digest
        self.orders: dict[tuple[bytes, int, bytes], bytes] = {}  # (seat, position, auditor) -> that digest
        self.struck: set[bytes] = set()  # auditors that were outvoted or contradicted themselves in this job
        self.convicted: dict[bytes, str] = {}  # account -> sentence
        self.evaluated: dict[int, tuple[bytes, dict[str, float]]] = {}  # round -> (state, metrics)
        self.opened = False
        self.ending: Ending | None = None
        self.settled: Settled | None = None
        self.archived_at = 0.0
        self.redone = 0
        self.recomputations = 0
        self.version = 0  # grows with every record
        self._nodes: Counter[Node] = Counter()
        self._map_ready: dict[UnitId, Task] | None = None  # that nobody has
        self._map_half: dict[UnitId, Task] = {}  # that lack a run beside those that they have

    def __repr__(self) -> str:
        return f"<Book {self.id[:4].hex()} {self.status} seats={len(self.helds)} produced={len(self.produced)}>"

    # The job as a whole.

    @property
    def training(self) -> bool:
        return self.spec.kind in TRAINING

    @property
    def status(self) -> str:
        """As JobView says it."""
        if self.ending is not None:
            return "done" if self.ending.status == "settling" and self.settled else self.ending.status
        if any(held.state is not LeaseState.ASKED and held.state is not LeaseState.REFUSED for held in self.all()):
            return "running"
        return "matching"

    @property
    def over(self) -> bool:
        """Nothing new is leased or assigned any more."""
        return self.ending is not None

    def all(self) -> list[Held]:
        return list(self.helds.values())

    def held(self, seat: bytes, *, peer: str = "") -> Held:
        found = self.helds.get(seat)
        if found is None:
            raise RemoteError("unknown_seat", f"This payer has no seat {seat[:4].hex()}.", peer=peer)
        return found

    def at_work(self) -> list[Held]:
        """Seats whose cap is not free, whatever their phase."""
        return [held for held in self.all() if held.state in AT_WORK]

    def lock(self, *, newcomer: bool = False) -> int:
        """What a seat locks of its worker's stake. Of a newcomer nothing, nor of its first slot: each of its units is
        recomputed before it is paid, and locks that nobody has the gas to end would hold all that it earns."""
        if newcomer:
            return 0
        return self.order.lock_per_seat or lock_of(self.order.wages, self.spec, self.parameters, self.copies)

    @property
    def free_wages(self) -> int:
        """Wages that no lease holds: what may still be seated."""
        bound: int = self.order.wages
        for held in self.all():
            if held.state is LeaseState.ASKED or held.state in AT_WORK:
                bound -= held.cap + self.order.claim_bond
            elif held.state is LeaseState.CLOSED:
                bound -= held.paid_units * held.lease.price
        return bound

    @property
    def free_reserve(self) -> int:
        """What is left of the reserve when every auditor that was called earns its fee."""
        fees: int = sum(calling.order.message.fee for calling in self.calls.values())
        return self.order.audit_reserve - fees

    @property
    def complete(self) -> bool:
        """Everything is computed, and every unit that counts is in an accepted tally or was computed here."""
        if not self.plan.finished or any(held.unsettled for held in self.at_work()):
            return False
        return all(self.proven(unit) for unit in self.plan.history())

    def proven(self, unit: UnitId) -> bool:
        if unit not in self.produced:
            return False
        place = self.produced[unit]
        if place is None:
            return True
        seat, position = place
        return position < self.helds[seat].seat.accepted_units

    # Units.

    def ready(self) -> Iterator[Task]:
        """Tasks that can run now, once for each run that they lack: those first of which there is a run already, then
        in the plan's order."""
        tasks: Iterable[Task] = self.plan.ready() if self.spec.kind != "map" else self._of_map()
        if self.copies > 1 and self.spec.kind != "map":
            tasks = sorted(tasks, key=lambda task: -len(self.placed.get(task.unit_id, ())))
        for task in tasks:
            yield from [task] * self._lacking(task.unit_id)

    def _of_map(self) -> Iterable[Task]:
        if self._map_ready is None:
            self._map_ready, self._map_half = {}, {}
            for task in self.plan.ready():
                self._list(task)
        return chain(self._map_half.values(), self._map_ready.values())

    def _lacking(self, unit: UnitId) -> int:
        return self.copies - len(self.placed.get(unit, ()))

    def _list(self, task: Task) -> None:
        """Of a map: where `ready` finds the task, if anywhere."""
        if self._map_ready is None:
            return
        self._map_ready.pop(task.unit_id, None)
        self._map_half.pop(task.unit_id, None)
        if task.unit_id not in self.produced and self._lacking(task.unit_id):
            (self._map_half if task.unit_id in self.placed else self._map_ready)[task.unit_id] = task

    def _unlist(self, unit: UnitId) -> None:
        if self._map_ready is not None:
            self._map_ready.pop(unit, None)
            self._map_half.pop(unit, None)

    def units_left(self, stage: int) -> int:
        """Units of a stage that are not in the plan yet, if nothing has to be done again."""
        spec, done = self.spec, self.plan.rounds_done
        if spec.kind == "map":
            return len(spec.inputs) - done
        rounds = spec.rounds - done
        if spec.kind == "sequential" or stage == AGGREGATE:
            return rounds
        in_round = spec.per_round or len(spec.inputs)
        known = 0
        if rounds:
            tasks = self.plan.round_tasks(done, self.plan.state)
            known = sum(1 for task in tasks if self.plan.output(task.unit_id) is not None)
        return rounds * in_round - known

    def width(self, stage: int) -> int:
        """Units of a stage that can run side by side."""
        if self.spec.kind == "map":
            return self.units_left(stage)
        if self.spec.kind == "sequential" or stage == AGGREGATE:
            return 1
        return min(self.units_left(stage), self.spec.per_round or len(self.spec.inputs))

    def place(self, task: Task, held: Held, position: int) -> None:
        self.placed[task.unit_id] = (*self.placed.get(task.unit_id, ()), (held.id, position))
        if self.copies > 1:
            self.ran.setdefault(task.unit_id, set()).add(held.account)
        if task.unit_id not in self.produced:
            self.working[held.stage].add(task.unit_id)
        self._list(task)
        self._nodes[task.node] += 1
        self.redone += self._nodes[task.node] > self.copies

    def use(self, held: Held, position: int) -> None:
        """Let others build on an output, if all that has to come first has come."""
        opening = held.seat.openings.get(position)
        unit = UnitId(opening.unit_id) if opening is not None else None
        if unit is None or unit in self.produced or (held.id, position) not in self.placed.get(unit, ()):
            return
        found = replicas.answering(self, unit)
        if found is not None:
            seat, place = found
            self.plan.record(unit, BlobId(self.helds[seat].seat.openings[place].end))
            self.produced[unit] = found
            self.working[held.stage].discard(unit)
            self._unlist(unit)
            if self.copies > 1:
                self.counted.append(unit)

    def void(self, held: Held, start: int) -> None:
        """What the seat made from position `start` on does not count: forget it and let others do it."""
        gone: set[UnitId] = set()
        back: dict[UnitId, Task] = {}
        for position in range(start, len(held.seat.assigned)):
            unit = UnitId(held.seat.assigned[position])
            held.unchecked.discard(position)
            places = self.placed.get(unit, ())
            if (held.id, position) not in places or self.produced.get(unit, places) is None:
                continue
            rest = tuple(place for place in places if place != (held.id, position))
            if rest:
                self.placed[unit] = rest
            else:
                del self.placed[unit]
            if self.produced.get(unit) is not None:
                found = replicas.answering(self, unit)
                if found is not None:  # the other run of it counts without this one, too
                    self.produced[unit] = found
                    continue
                del self.produced[unit]
                gone.add(unit)
            (self.working[held.stage].add if rest else self.working[held.stage].discard)(unit)
            back[unit] = Task(held.nodes[position], held.units[position], unit)
        if self._map_ready is not None:
            before, self._map_ready = self._map_ready, {}
            for task in back.values():
                self._list(task)
            self._map_ready |= {
                unit: task for unit, task in before.items() if unit not in back
            }  # they come after these
        if gone:
            self.plan.forget(gone)

    def produce(self, unit: UnitId, end: BlobId) -> None:
        """The payer's own node ran the unit."""
        if unit not in self.produced:
            self.plan.record(unit, end)
            self.produced[unit] = None
            if self.copies == 1:
                self.placed.pop(unit, None)
            for units in self.working.values():
                units.discard(unit)
            self._unlist(unit)

    # Audits.

    def seed(self, held: Held, number: int) -> bytes:
        closed = held.seat.tallies[number - 1]
        return sampling.tally_seed(held.id, number, closed.message.root, closed.secret)

    def admissible(
        self, held: Held, position: int, registry: RegistryAt, *, excluded: set[bytes], strict: bool = True
    ) -> set[bytes]:
        """Accounts that may audit this unit. `excluded` are those that the payer trusts no more; without `strict`,
        those that were given something made from its output may, too."""
        barred = excluded | self.struck | set(self.convicted)
        barred |= self.given.tainted(held.seat.openings[position].end, strict=strict)
        barred |= self.given.waiting(shared_names_of(held.units[position]))
        others = {registry.owner_of(each) for each in self.ran.get(UnitId(held.seat.assigned[position]), set())}
        if others:  # whoever ran the unit elsewhere is no second opinion, nor is another account of the same owner
            barred |= {account for account in registry.slots if account and registry.owner_of(account) in others}
        for neighbour in (position - 1, position + 1):  # no auditor gets two adjacent units of a seat
            audit = held.audits.get(neighbour)
            barred |= {call.auditor for call in audit.calls} if audit else set()
        return self.staked_for(held, registry, barred)

    def staked_for(self, held: Held, registry: RegistryAt, barred: Collection[bytes] = ()) -> set[bytes]:
        """Accounts that the chain would let audit a unit of this seat, but for `barred`."""
        found: set[bytes] = registry.admissible(
            payer=self.order.payer,
            signer=self.order.signer,
            worker=held.account,
            numeric_class=held.lease.numeric_class,
            excluded=barred,
        )
        return found

    def metrics(self) -> dict[str, float]:
        """Of the newest state that was measured."""
        return self.evaluated[max(self.evaluated)][1] if self.evaluated else {}
