"""Ways to money that a review of the quarrel's contracts found, tried on the bytecode.

docs/decisions/what-a-review-found.md says how each was shut.
"""

from __future__ import annotations

import pytest

from fakes.contract_world import NOBODY
from fakes.court_world import ACCUSED, SALT, Bench, keccak, word
from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.messages import Accept
from tallymesh_ledger.keys import AccountKey

STEPS = 2**20
POOL = 50 * WEI_PER_TOKEN
pytestmark = pytest.mark.slow


def _split(b: Bench, case: bytes, members: int, accused: int) -> None:
    """A panel of friends: so many of them for the accused."""
    b.blocks()
    b.call("Court", "advance", case)
    found = b.read("Court", "caseOf", case)
    values = [found["accusedValue"] if m < accused else found["accuserValue"] for m in range(members)]
    chosen = [b.read("Court", "memberAt", case, m) for m in range(members)]
    for m, (account, attempt) in enumerate(chosen):
        sealed = keccak(values[m] + SALT + word(account))
        b.call("Court", "commit", case, m, attempt, sealed, by=b.auditors[account])
    for m, (account, _) in enumerate(chosen):
        b.call("Court", "reveal", case, m, values[m], SALT, by=b.auditors[account])
    b.call("Court", "advance", case)


def _accuse_by(b: Bench, by: AccountKey, *, position: int) -> bytes:
    payer, b.job.payer = b.job.payer, by
    try:
        return b.accuse(steps=STEPS, position=position)[0]
    finally:
        b.job.payer = payer


def _friend(b: Bench, tokens: int = 100) -> AccountKey:
    key = b.world.funded(tokens * WEI_PER_TOKEN)
    b._approve(key)
    return key


def _balance(b: Bench, key: AccountKey) -> int:
    return b.read("Token", "balanceOf", key.address) + b.read("Accusations", "creditOf", key.address)


def test_the_pool_pays_nobody_for_turning_its_own_panel_around() -> None:
    b = Bench.exact()
    b.call("Token", "transfer", b.world.contracts["Court"], POOL, by=b.world.bank)
    case, _ = b.accuse(steps=1)
    _split(b, case, 7, 3)  # for the accuser
    b.call("Court", "appeal", case, by=b.worker)
    _split(b, case, 31, 31)  # for the accused
    b.call("Accusations", "acquitOrConvict", b.lease, case)
    assert b.read("Court", "pool") >= POOL


def test_a_friends_accusation_does_not_keep_the_payers_money_in_the_seat() -> None:
    b = Bench.exact()
    order = b.job.order
    friend = _friend(b)
    b.world.wait(b.lease.until + order.claim_window - b.world.now - 60)
    _accuse_by(b, friend, position=3)
    b.world.wait(120)
    assert b.call("JobEscrow", "expire", order, [b.lease]).of("SeatClosed")


def test_false_accusations_of_the_payer_leave_room_for_a_claim() -> None:
    b = Bench.exact()
    for position in range(8):
        b.accuse(steps=STEPS, position=position)
    b.claim()


def test_accusations_of_friends_leave_room_for_a_proof() -> None:
    b = Bench.exact()
    friend = _friend(b)
    claim, _ = b.claim()
    for position in range(7):
        _accuse_by(b, friend, position=position)
    b.fraud(claim, 9)


def test_a_friend_that_stays_silent_pays_the_fee() -> None:
    b = Bench.exact()
    friend = _friend(b)
    before = _balance(b, friend) + _balance(b, b.worker)
    case = _accuse_by(b, friend, position=3)
    b.call("Court", "post", case, ACCUSED, by=b.worker)
    b.wait(b.p.court_move_s)
    b.call("Court", "advance", case)
    b.call("Accusations", "acquitOrConvict", b.lease, case)
    assert _balance(b, friend) + _balance(b, b.worker) <= before - b.p.court_member_fee_wei * 7


def test_a_unit_paid_in_front_of_a_claim_does_not_stop_it() -> None:
    b = Bench.exact()
    accept = Accept(seat=b.seat, tally=1, units=1, chain=bytes(32), next_secret=bytes(32))
    b.call("JobEscrow", "settle", [(b.lease, accept, NOBODY)], by=b.job.signer)
    b.claim()


def test_a_contradicted_claim_fails_though_no_lock_is_left() -> None:
    b = Bench.exact()
    claim, _ = b.claim()
    b.fraud(claim, 5)  # takes the lock
    first = b.read("Claims", "claimOf", claim)["refuted"]
    assert first
    assert b.read("JobEscrow", "lockLeft", b.lease) == 0
    b.fraud(claim, 6)
