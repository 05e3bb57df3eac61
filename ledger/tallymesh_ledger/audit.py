"""One audited unit: whom to call, what they said, and what follows from it (docs/PROTOCOL.md sections 5.3, 5.4, 5.7).

Draw 0 is the first auditor. Its MISMATCH calls two more, draws 1 and 2, and two that agree decide. Within a draw an
auditor that has not the inputs or keeps silent is followed by the next attempt; where the protocol's limits are
reached the payer's own node gives the verdict. Pure: the caller signs, sends, keeps time and journals, and applies
the same events after a crash. This module does not know the job, the unit's content or any signature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from enum import Enum

import msgspec

from tallymesh.errors import RemoteError
from tallymesh.messages import AuditReason, Result
from tallymesh_ledger import sampling
from tallymesh_ledger.registry import RegistryAt

CONFIRMING = 3  # verdicts that decide a quarrel, the first one included
SILENT_MAX = 4  # silent auditors in one draw before the payer's node steps in: each costs a unit's whole deadline


class CallState(Enum):
    ORDERED = "ordered"
    COMMITTED = "committed"
    OPENED = "opened"
    DONE = "done"
    SILENT = "silent"


class CallEvent(Enum):
    COMMIT = "commit"
    OPEN = "open"
    VERDICT = "verdict"
    UNAVAILABLE = "unavailable"  # a Verdict without a commitment: the inputs could not be had
    SILENCE = "silence"


TABLE: dict[tuple[CallState, CallEvent], CallState] = {
    (CallState.ORDERED, CallEvent.COMMIT): CallState.COMMITTED,
    (CallState.ORDERED, CallEvent.UNAVAILABLE): CallState.DONE,
    (CallState.ORDERED, CallEvent.SILENCE): CallState.SILENT,
    (CallState.COMMITTED, CallEvent.OPEN): CallState.OPENED,
    (CallState.COMMITTED, CallEvent.SILENCE): CallState.SILENT,
    (CallState.OPENED, CallEvent.VERDICT): CallState.DONE,
    (CallState.OPENED, CallEvent.SILENCE): CallState.SILENT,
}


class Outcome(Enum):
    SOUND = "sound"  # the worker's end is right
    CONVICTED = "convicted"  # two recomputations agree on another end
    UNDECIDED = "undecided"  # no two recomputations agree: the program is not deterministic, or cannot be recomputed


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The unit under audit. `index` counts within its tally: position - tally.start."""

    seed: bytes
    index: int
    end: bytes  # what the worker committed to
    reason: AuditReason


class Call(msgspec.Struct, kw_only=True):
    """One auditor that was called for this unit."""

    draw: int
    attempt: int
    auditor: bytes
    state: CallState = CallState.ORDERED
    commitment: bytes = b""
    result: Result | None = None
    end: bytes = b""


class Order(msgspec.Struct, frozen=True):
    """To do: sign an AuditOrder for this auditor and send it."""

    draw: int
    attempt: int
    auditor: bytes


class Recompute(msgspec.Struct, frozen=True):
    """To do: run the unit on the payer's own node (once), and report its end as the verdict of these draws; of none
    where three verdicts disagree and it only breaks the tie."""

    draws: tuple[int, ...]


class Stuck(msgspec.Struct, frozen=True):
    """Nothing can be done now: there are no auditors, and the payer's node cannot recompute."""


Action = Order | Recompute | Stuck


class Audit:
    """Contract: at most one call is open per draw; no account is called twice; once `outcome` is set it stays."""

    def __init__(self, subject: Subject, *, auditors_min: int, answers_max: int) -> None:
        self.subject = subject
        self.auditors_min = auditors_min
        self.answers_max = answers_max
        self.calls: list[Call] = []
        self.own_end: bytes | None = None  # what the payer's node found; zero where the unit gives no output there
        self.struck: set[bytes] = set()  # gave a Verdict that does not open its commitment, or contradicts itself
        self._own_draws: set[int] = set()  # draws that the payer's node answered
        self._outcome: Outcome | None = None

    def __repr__(self) -> str:
        calls = ",".join(f"{call.draw}.{call.attempt}:{call.state.value}" for call in self.calls)
        return f"<Audit i={self.subject.index} {self.subject.reason.name} {self.outcome} [{calls}]>"

    # What follows from the events.

    @property
    def outcome(self) -> Outcome | None:
        if self._outcome is None:
            self._outcome = self._decide()
        return self._outcome

    @property
    def by_payer(self) -> bool:
        """Whether the payer's own node gave a verdict: then nobody can be slashed for it."""
        return self.own_end is not None

    @property
    def tied(self) -> bool:
        """Three verdicts with three different ends."""
        ends = list(self._ends().values())
        return len(ends) == CONFIRMING and len(set(ends)) == CONFIRMING

    @property
    def wanted(self) -> range:
        """Draws that need a verdict now: the first, or all three once one says MISMATCH."""
        quarrel = any(end != self.subject.end for end in self._ends().values())
        return range(CONFIRMING if quarrel else 1)

    @property
    def outvoted(self) -> set[bytes]:
        """Auditors whose end is not the one that was found right."""
        right = self._agreed()
        if right is None:
            return set()
        return {call.auditor for call in self.calls if call.end and call.end != right}

    def reason_of(self, draw: int) -> AuditReason:
        return self.subject.reason if draw == 0 else AuditReason.CONFIRM

    def call_of(self, auditor: bytes) -> Call:
        for call in self.calls:
            if call.auditor == auditor:
                return call
        raise RemoteError("not_drawn", "This auditor was not called for this unit.")

    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if call.state not in (CallState.DONE, CallState.SILENT)]

    @property
    def idle(self) -> bool:
        """Whether `next` has something to say: a verdict is wanted and nobody was asked for it."""
        if self.outcome is not None:
            return False
        ends, asked = self._ends(), {call.draw for call in self.open_calls()}
        return any(draw not in ends and draw not in asked for draw in self.wanted) or self.tied

    def next(
        self, registry: RegistryAt, admissible: Collection[bytes], *, own: bool, last: bool = False
    ) -> list[Action]:
        """What to do now; empty while an answer is awaited or when it is decided.

        `registry` is that of the block which the Tally names; `admissible` are the accounts that may audit this unit
        as far as the caller knows (calls made here are left out by itself); `own` is whether the payer's node can run
        the unit. With `last`, neither few accounts nor many silences end a draw before everybody was called: where
        nobody can step in, what they would save is nothing beside an audit that never ends.
        """
        if self.outcome is not None:
            return []
        orders: list[Action] = []
        left: list[int] = []
        ends = self._ends()
        called = {call.auditor for call in self.calls}
        pool = set(admissible) - called
        for draw in self.wanted:
            if draw in ends or any(call.draw == draw for call in self.open_calls()):
                continue
            drawn = self._draw(draw, registry, pool, len(pool | called), last=last)
            if drawn is None:
                left.append(draw)
                continue
            pool.discard(drawn.auditor)
            called.add(drawn.auditor)
            orders.append(drawn)
        tie = self.tied and self.own_end is None
        if left or tie:
            orders.append(Recompute(tuple(left)) if own else Stuck())
        return orders

    # Events. Those that repeat what was said change nothing and return False.

    def ordered(self, draw: int, attempt: int, auditor: bytes) -> bool:
        """An AuditOrder was signed for this auditor."""
        for call in self.calls:
            if call.auditor == auditor:
                if (call.draw, call.attempt) != (draw, attempt):
                    raise RemoteError("called_twice", "This auditor was called for this unit before.")
                return False
        self.calls.append(Call(draw=draw, attempt=attempt, auditor=auditor))
        return True

    def commit(self, auditor: bytes, commitment: bytes) -> bool:
        call = self.call_of(auditor)
        if call.commitment:
            if call.commitment != commitment:
                raise RemoteError("two_commits", "This auditor committed to something else before.")
            return False
        call.state = _step(call.state, CallEvent.COMMIT)
        call.commitment = commitment
        return True

    def open(self, auditor: bytes) -> bool:
        """The worker's opening was handed over; the caller checked nothing: only a committed auditor gets here."""
        call = self.call_of(auditor)
        if call.state in (CallState.OPENED, CallState.DONE):
            return False
        call.state = _step(call.state, CallEvent.OPEN)
        return True

    def verdict(self, auditor: bytes, result: Result, end: bytes, salt: bytes, probe: bytes) -> bool:
        """A Verdict. One that does not open its commitment, or whose result is not what its end says, counts as
        silence, and its auditor is struck off."""
        call = self.call_of(auditor)
        if call.state is CallState.DONE:
            if (call.result, call.end) != (result, b"" if result is Result.UNAVAILABLE else end):
                raise RemoteError("two_verdicts", "This auditor said something else before.")
            return False
        if result is Result.UNAVAILABLE and call.state is CallState.ORDERED:
            call.state = _step(call.state, CallEvent.UNAVAILABLE)
            call.result = result
            return True
        after = _step(call.state, CallEvent.VERDICT)
        opens = sampling.commitment(end, salt, auditor, probe) == call.commitment
        derived = Result.MATCH if end == self.subject.end else Result.MISMATCH
        if not opens or result is not derived:
            call.state = _step(call.state, CallEvent.SILENCE)
            self.struck.add(auditor)
            return True
        call.state, call.result, call.end = after, result, end
        return True

    def silence(self, auditor: bytes) -> bool:
        """The auditor's time is over, it cannot be reached, or it refused."""
        call = self.call_of(auditor)
        if call.state in (CallState.SILENT, CallState.DONE):
            return False
        call.state = _step(call.state, CallEvent.SILENCE)
        return True

    def recomputed(self, end: bytes, draws: Collection[int]) -> bool:
        """What the payer's own node found (zero where the unit gave no output there), as the verdict of `draws`."""
        assert self.own_end in (None, end), "the payer's node ran the unit twice and disagrees with itself"
        changed = self.own_end is None or not self._own_draws.issuperset(draws)
        self.own_end = end
        self._own_draws |= set(draws)
        return changed

    def unsteady(self) -> bool:
        """The payer's own node ran the unit and cannot say what its result is: then it may accuse nobody. What drawn
        auditors decided before stays."""
        if self.outcome is None:
            self._outcome = Outcome.UNDECIDED
            return True
        return False

    # The rules.

    def _draw(
        self, draw: int, registry: RegistryAt, pool: Collection[bytes], known: int, *, last: bool
    ) -> Order | None:
        before = [call for call in self.calls if call.draw == draw]
        answers = sum(1 for call in before if call.state is CallState.DONE)
        silent = sum(1 for call in before if call.state is CallState.SILENT)
        spent = known < self.auditors_min or answers >= self.answers_max or silent >= SILENT_MAX
        if not pool or (spent and not last):
            return None
        first = max((call.attempt + 1 for call in before), default=0)
        found = registry.draw_auditor(self.subject.seed, self.subject.index, draw, pool, first_attempt=first)
        return Order(draw, *found) if found else None

    def _ends(self) -> dict[int, bytes]:
        """Verdicts by draw, those of the payer's node included."""
        ends = {} if self.own_end is None else dict.fromkeys(self._own_draws, self.own_end)
        return ends | {call.draw: call.end for call in self.calls if call.end}

    def _agreed(self) -> bytes | None:
        """The end that is right, as soon as enough recomputations say so."""
        ends = self._ends()
        if ends.get(0) == self.subject.end and len(ends) == 1:
            return self.subject.end
        if ends:
            end, votes = Counter(ends.values()).most_common(1)[0]
            if votes >= 2:
                return end
        sided = self.own_end == self.subject.end or (not self._own_draws and self.own_end in ends.values())
        # Three different ends: the payer's own run sides with the worker, or with an auditor, or with nobody.
        return self.own_end if self.tied and sided else None

    def _decide(self) -> Outcome | None:
        right = self._agreed()
        if right is not None:
            return Outcome.SOUND if right == self.subject.end else Outcome.CONVICTED
        return Outcome.UNDECIDED if self.tied and self.own_end is not None else None


def _step(state: CallState, event: CallEvent) -> CallState:
    after = TABLE.get((state, event))
    if after is None:
        raise RemoteError("out_of_order", f"An audit that is {state.value} takes no {event.value}.")
    return after
