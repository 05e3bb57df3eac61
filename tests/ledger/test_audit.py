"""One audited unit: draws, confirmations, silence, lies, and the payer's own verdict where nobody else has one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallymesh.errors import RemoteError
from tallymesh.ids import ZERO32
from tallymesh.messages import AuditReason, Result
from tallymesh.parameters import Parameters
from tallymesh_ledger import sampling, waits
from tallymesh_ledger.audit import SILENT_MAX, Audit, CallState, Order, Outcome, Recompute, Stuck, Subject
from tallymesh_ledger.registry import RegistryAt
from tallymesh_ledger.waits import Step, Then

SEED = b"\x05" * 32
RIGHT, WRONG, OTHER = (bytes([n]) * 32 for n in (1, 2, 3))
SALT, PROBE = b"\x08" * 32, b"\x09" * 32
ACCOUNTS = [bytes([n]) * 20 for n in range(1, 9)]
REGISTRY = RegistryAt(
    block_number=1, block_hash=ZERO32, block_time=0, slots=tuple(ACCOUNTS), classes=dict.fromkeys(ACCOUNTS, b"c" * 32)
)


def make(end: bytes = RIGHT, reason: AuditReason = AuditReason.DRAWN) -> Audit:
    return Audit(Subject(seed=SEED, index=3, end=end, reason=reason), auditors_min=3, answers_max=3)


def orders(audit: Audit, *, admissible: list[bytes] = ACCOUNTS, own: bool = True) -> list[Order]:
    """What is to be ordered now, and order it."""
    actions = audit.next(REGISTRY, admissible, own=own)
    found = [action for action in actions if isinstance(action, Order)]
    assert len(found) == len(actions), actions
    for order in found:
        audit.ordered(order.draw, order.attempt, order.auditor)
    return found


def answer(audit: Audit, auditor: bytes, end: bytes) -> None:
    """A whole honest exchange that ends with the verdict that `end` calls for."""
    audit.commit(auditor, sampling.commitment(end, SALT, auditor, PROBE))
    audit.open(auditor)
    result = Result.MATCH if end == audit.subject.end else Result.MISMATCH
    audit.verdict(auditor, result, end, SALT, PROBE)


def test_one_match_ends_it() -> None:
    audit = make()
    [order] = orders(audit)
    assert order.draw == 0
    assert audit.reason_of(0) is AuditReason.DRAWN
    answer(audit, order.auditor, RIGHT)
    assert audit.outcome is Outcome.SOUND
    assert not audit.by_payer
    assert audit.next(REGISTRY, ACCOUNTS, own=True) == []


def test_the_draw_is_that_of_the_protocol() -> None:
    [order] = orders(make())
    slot = sampling.auditor_slot(SEED, 3, 0, order.attempt, len(ACCOUNTS))
    assert ACCOUNTS[slot] == order.auditor
    barred = {ACCOUNTS[sampling.auditor_slot(SEED, 3, 0, 0, len(ACCOUNTS))]}
    [other] = orders(make(), admissible=[a for a in ACCOUNTS if a not in barred])
    assert other.attempt > 0
    assert ACCOUNTS[sampling.auditor_slot(SEED, 3, 0, other.attempt, len(ACCOUNTS))] == other.auditor


def test_a_mismatch_calls_two_more_distinct_accounts_and_two_of_three_convict() -> None:
    audit = make(end=WRONG)
    [first] = orders(audit)
    answer(audit, first.auditor, RIGHT)
    assert audit.outcome is None
    more = orders(audit)
    assert [order.draw for order in more] == [1, 2]
    assert audit.reason_of(1) is AuditReason.CONFIRM
    assert len({first.auditor, *(order.auditor for order in more)}) == 3
    answer(audit, more[1].auditor, RIGHT)
    assert audit.outcome is Outcome.CONVICTED
    assert audit.outvoted == set()


def test_a_lying_auditor_is_outvoted() -> None:
    audit = make()
    [liar] = orders(audit)
    answer(audit, liar.auditor, OTHER)
    first, second = orders(audit)
    answer(audit, first.auditor, RIGHT)
    assert audit.outcome is None
    answer(audit, second.auditor, RIGHT)
    assert audit.outcome is Outcome.SOUND
    assert audit.outvoted == {liar.auditor}


def test_an_auditor_that_stamped_a_bad_unit_is_outvoted_when_another_draw_finds_it() -> None:
    audit = make(end=WRONG)
    [first] = orders(audit)
    answer(audit, first.auditor, RIGHT)
    stamp, honest = orders(audit)
    answer(audit, stamp.auditor, WRONG)
    answer(audit, honest.auditor, RIGHT)
    assert audit.outcome is Outcome.CONVICTED
    assert audit.outvoted == {stamp.auditor}


@pytest.mark.parametrize(
    ("own_end", "outcome"),
    [
        (RIGHT, Outcome.SOUND),
        (WRONG, Outcome.CONVICTED),
        (b"\x07" * 32, Outcome.UNDECIDED),
        (ZERO32, Outcome.UNDECIDED),
    ],
)
def test_three_different_ends_are_broken_by_the_payers_own_run(own_end: bytes, outcome: Outcome) -> None:
    audit = make()
    for end in (WRONG, OTHER, b"\x04" * 32):
        pending = [call.auditor for call in audit.open_calls()] or [order.auditor for order in orders(audit)]
        answer(audit, pending[0], end)
    assert audit.outcome is None
    assert audit.next(REGISTRY, ACCOUNTS, own=False) == [Stuck()]
    assert audit.next(REGISTRY, ACCOUNTS, own=True) == [Recompute(())]
    audit.recomputed(own_end, ())
    assert audit.outcome is outcome
    assert audit.next(REGISTRY, ACCOUNTS, own=True) == []


def test_unavailable_calls_the_next_attempt_and_three_of_them_the_payer() -> None:
    audit = make()
    attempts = []
    for _ in range(3):
        [order] = orders(audit)
        attempts.append(order.attempt)
        audit.verdict(order.auditor, Result.UNAVAILABLE, ZERO32, ZERO32, ZERO32)
    assert attempts == sorted(set(attempts))
    assert audit.next(REGISTRY, ACCOUNTS, own=True) == [Recompute((0,))]
    assert audit.next(REGISTRY, ACCOUNTS, own=False) == [Stuck()]
    audit.recomputed(RIGHT, (0,))
    assert audit.outcome is Outcome.SOUND
    assert audit.by_payer


def test_silence_is_not_an_answer_but_is_bounded() -> None:
    audit = make()
    for _ in range(SILENT_MAX):
        [order] = orders(audit)
        audit.silence(order.auditor)
    assert audit.next(REGISTRY, ACCOUNTS, own=True) == [Recompute((0,))]


def test_too_few_accounts_mean_that_the_payer_recomputes_and_convicts_alone() -> None:
    audit = make(end=WRONG)
    few = ACCOUNTS[:2]
    assert audit.next(REGISTRY, few, own=True) == [Recompute((0,))]
    audit.recomputed(RIGHT, (0,))
    assert audit.outcome is None
    assert audit.next(REGISTRY, few, own=True) == [Recompute((1, 2))]
    audit.recomputed(RIGHT, (1, 2))
    assert audit.outcome is Outcome.CONVICTED
    assert audit.by_payer


def test_a_unit_without_output_here_does_not_match_the_worker_s() -> None:
    audit = make()
    audit.recomputed(ZERO32, (0,))
    audit.recomputed(ZERO32, (1, 2))
    assert audit.outcome is Outcome.CONVICTED


def test_confirming_auditors_that_cannot_be_had_are_replaced_by_the_payer() -> None:
    audit = make(end=WRONG)
    [first] = orders(audit)
    answer(audit, first.auditor, RIGHT)
    second, third = orders(audit)
    audit.silence(second.auditor)
    audit.silence(third.auditor)
    left = [first.auditor, second.auditor, third.auditor]
    assert audit.next(REGISTRY, left, own=True) == [Recompute((1, 2))]
    audit.recomputed(WRONG, (1, 2))
    assert audit.outcome is Outcome.SOUND
    assert audit.outvoted == {first.auditor}


def test_a_verdict_must_open_its_commitment() -> None:
    for end, salt, probe, result in (
        (RIGHT, b"\0" * 32, PROBE, Result.MATCH),
        (RIGHT, SALT, ZERO32, Result.MATCH),
        (WRONG, SALT, PROBE, Result.MISMATCH),
        (RIGHT, SALT, PROBE, Result.MISMATCH),
        (RIGHT, SALT, PROBE, Result.UNAVAILABLE),
    ):
        audit = make()
        [order] = orders(audit)
        audit.commit(order.auditor, sampling.commitment(RIGHT, SALT, order.auditor, PROBE))
        audit.open(order.auditor)
        audit.verdict(order.auditor, result, end, salt, probe)
        assert audit.call_of(order.auditor).state is CallState.SILENT
        assert audit.struck == {order.auditor}
        assert audit.outcome is None
        assert orders(audit)[0].auditor != order.auditor


def test_a_commitment_of_another_auditor_is_worth_nothing() -> None:
    audit = make()
    [order] = orders(audit)
    stolen = sampling.commitment(RIGHT, SALT, ACCOUNTS[0] if ACCOUNTS[0] != order.auditor else ACCOUNTS[1], PROBE)
    audit.commit(order.auditor, stolen)
    audit.open(order.auditor)
    audit.verdict(order.auditor, Result.MATCH, RIGHT, SALT, PROBE)
    assert audit.struck == {order.auditor}


def test_a_verdict_before_its_commitment_is_refused() -> None:
    audit = make()
    [order] = orders(audit)
    with pytest.raises(RemoteError, match="takes no verdict"):
        audit.verdict(order.auditor, Result.MATCH, RIGHT, SALT, PROBE)
    with pytest.raises(RemoteError, match="takes no open"):
        audit.open(order.auditor)
    with pytest.raises(RemoteError, match="not called"):
        audit.commit(b"\x77" * 20, ZERO32)
    assert audit.call_of(order.auditor).state is CallState.ORDERED


def test_every_message_twice_changes_nothing() -> None:
    audit = make()
    [order] = orders(audit)
    commitment = sampling.commitment(RIGHT, SALT, order.auditor, PROBE)
    assert not audit.ordered(order.draw, order.attempt, order.auditor)
    assert audit.commit(order.auditor, commitment)
    assert not audit.commit(order.auditor, commitment)
    with pytest.raises(RemoteError, match="something else"):
        audit.commit(order.auditor, b"\x01" * 32)
    assert audit.open(order.auditor)
    assert not audit.open(order.auditor)
    assert audit.verdict(order.auditor, Result.MATCH, RIGHT, SALT, PROBE)
    assert not audit.verdict(order.auditor, Result.MATCH, RIGHT, SALT, PROBE)
    with pytest.raises(RemoteError, match="something else"):
        audit.verdict(order.auditor, Result.MISMATCH, WRONG, SALT, PROBE)
    assert not audit.silence(order.auditor)
    assert audit.outcome is Outcome.SOUND


def test_late_answers_of_a_silent_auditor_are_refused() -> None:
    audit = make()
    [order] = orders(audit)
    audit.silence(order.auditor)
    with pytest.raises(RemoteError, match="silent takes no"):
        audit.commit(order.auditor, ZERO32)
    with pytest.raises(RemoteError, match="silent takes no"):
        audit.verdict(order.auditor, Result.MATCH, RIGHT, SALT, PROBE)


BEHAVIOUR = st.sampled_from(["honest", "honest", "lie", "unavailable", "silent", "bad", "half"])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    behaviour=st.lists(BEHAVIOUR, min_size=8, max_size=8),
    cheats=st.booleans(),
    own=st.booleans(),
    count=st.integers(0, 8),
    order=st.randoms(use_true_random=False),
)
def test_any_behaviour_ends_in_the_right_verdict_or_waits(
    behaviour: list[str], cheats: bool, own: bool, count: int, order: object
) -> None:
    """Honest majorities among those that answer decide rightly, nobody is called twice, and with its own executor the
    payer always gets an end. At most one auditor lies here: two that collude can convict."""
    liars = [i for i, what in enumerate(behaviour) if what == "lie"]
    behaviour = ["honest" if what == "lie" and i != liars[0] else what for i, what in enumerate(behaviour)]
    audit = make(end=WRONG if cheats else RIGHT)
    admissible = ACCOUNTS[:count]
    called: list[bytes] = []
    for _ in range(100):
        actions = audit.next(REGISTRY, admissible, own=own)
        assert bool(actions) <= audit.idle
        for action in actions:
            if isinstance(action, Recompute):
                audit.recomputed(RIGHT, action.draws)
            elif isinstance(action, Order):
                assert action.auditor in admissible
                called.append(action.auditor)
                audit.ordered(action.draw, action.attempt, action.auditor)
        pending = audit.open_calls()
        order.shuffle(pending)  # type: ignore[attr-defined]
        for call in pending:
            what = behaviour[ACCOUNTS.index(call.auditor)]
            if what == "unavailable":
                audit.verdict(call.auditor, Result.UNAVAILABLE, ZERO32, ZERO32, ZERO32)
            elif what == "silent":
                audit.silence(call.auditor)
            elif what in ("bad", "half"):
                audit.commit(call.auditor, ZERO32)
                audit.open(call.auditor)
                if what == "bad":
                    audit.verdict(call.auditor, Result.MATCH, audit.subject.end, SALT, PROBE)
                else:
                    audit.silence(call.auditor)
            else:
                answer(audit, call.auditor, OTHER if what == "lie" else RIGHT)
        if audit.outcome is not None or any(isinstance(action, Stuck) for action in actions):
            break
    assert len(called) == len(set(called))
    if own:
        assert audit.outcome is not None
    if audit.outcome is not None:
        assert audit.outcome is (Outcome.CONVICTED if cheats else Outcome.SOUND)
        honest = {ACCOUNTS[i] for i, what in enumerate(behaviour) if what == "honest"}
        assert not audit.outvoted & honest
        assert not audit.struck & honest


def test_every_wait_has_a_time_and_a_consequence() -> None:
    assert set(waits.TABLE) == set(Step)
    assert {wait.then for wait in waits.TABLE.values()} == set(Then)
    parameters = Parameters()
    for step in Step:
        assert waits.seconds(step, parameters, work_ms=2000) > 0
    assert waits.seconds(Step.UNIT, parameters, work_ms=2000) == 10 * 2 + 30
    assert waits.seconds(Step.AUDIT_COMMIT, parameters, work_ms=2000) == 50
    assert waits.seconds(Step.ACCEPT, parameters) == 60
    assert waits.seconds(Step.ACCEPT, parameters, work_ms=2000, audits=2) == 60 + 2 * (50 + 10 + 10)
    assert waits.seconds(Step.HEARTBEAT, parameters) == 5
