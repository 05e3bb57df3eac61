"""What a quarrel has to bring before anybody begins it, and before anybody appeals."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from fakes.worker_scene import Payer, Scene
from tallymesh.ids import ZERO32
from tallymesh_ledger.court import Case, CaseState, Ruling, Terms
from tallymesh_node.quarrels import worth

TERMS = Terms(
    quorum=7, panel=7, appeal_panel=31, member_fee=10, move_s=60, commit_s=60, reveal_s=60, appeal_s=60
)  # fmt: skip


def case(**changes: Any) -> Case:
    blank = dict.fromkeys(
        ("redraws", "round", "first_round", "lo", "hi", "deadline", "reveal_until", "drawn_block", "slots", "committed",
         "revealed", "for_accused", "for_accuser", "unserved", "fee", "appeal_fee"), 0,
    )  # fmt: skip
    words = dict.fromkeys(("appellant", "agreed", "accused_value", "accuser_value", "posted", "seed"), ZERO32)
    found = Case(state=CaseState.APPEALABLE, ruling=Ruling.NONE, appealed=False, taken=False, **blank, **words)
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("ruling", "accused", "appeals"),
    [
        (Ruling.FOR_ACCUSER, True, True),
        (Ruling.FOR_ACCUSED, True, False),
        (Ruling.UNSERVED, True, False),
        (Ruling.VOID, True, False),
        (Ruling.FOR_ACCUSED, False, True),
        (Ruling.UNSERVED, False, True),
        (Ruling.FOR_ACCUSER, False, False),
        (Ruling.VOID, False, False),
    ],
)
def test_who_lost_appeals_once_where_more_than_the_fee_is_at_stake(
    ruling: Ruling, accused: bool, appeals: bool
) -> None:
    found = case(ruling=ruling)
    assert worth.appeals(found, TERMS, accused=accused, at_stake=311) == appeals
    assert not worth.appeals(found, TERMS, accused=accused, at_stake=310), "31 members at 10 each"
    assert not worth.appeals(replace(found, appealed=True), TERMS, accused=accused, at_stake=10**18)


def test_a_conviction_has_to_bring_its_cost_and_a_tenth_of_the_bond(tmp_path: Any) -> None:
    scene = Scene(tmp_path)
    node: Any = type("Nobody", (), {"key": None})()
    order = Payer(scene, node, claim_bond=30).order  # a bond of 70 + 30
    # 60 % of the lock against the fee of 70, less 15 % of the lock, and 10: a lock of 107 is too little, 108 enough.
    assert worth.obstacle(order, TERMS, lock_left=107, payer=True) is not None
    assert worth.obstacle(order, TERMS, lock_left=108, payer=True) is None
    assert worth.obstacle(order, TERMS, lock_left=108, payer=False) is not None, "a stranger gets 20 %"
    assert worth.cost_wei(0, TERMS) == 70
    assert worth.cost_wei(10**6, TERMS) == 0


def test_an_order_with_auditors_of_its_own_cannot_be_taken_to_the_court(tmp_path: Any) -> None:
    node: Any = type("Nobody", (), {"key": None})()
    order = Payer(Scene(tmp_path), node, auditors=1).order
    found = worth.obstacle(order, TERMS, lock_left=10**18, payer=True)
    assert found is not None
    assert found[0] == "payers_auditors"
