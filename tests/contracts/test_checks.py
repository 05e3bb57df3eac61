"""One case for each check of stake and escrow that the other tests pass by: without the check the case goes through, or
ends in another error. docs/TRUST.md names them."""

from __future__ import annotations

import pytest

from fakes.contract_world import NOBODY, Reverted
from fakes.quarrel import Quarrel, refused
from tallymesh.messages import RelayedBond
from tallymesh_ledger.chain.contract import Refusal

ZERO = bytes(20)


def test_who_has_a_slot_is_no_newcomer_though_its_stake_is_too_little_for_the_lock() -> None:
    scene = Quarrel(seated=False, newcomers=True)
    scene.renew(lock=2 * scene.world.parameters.slot_wei)
    done = scene.call("open", scene.job.order, [scene.job.seating(0)], by=scene.job.payer)
    assert refused(done) == [Refusal.NO_STAKE]


def test_a_request_of_the_zero_account_is_refused_though_a_broken_signature_recovers_to_it() -> None:
    scene = Quarrel()
    request = RelayedBond(account=ZERO, amount=0, fee=0, nonce=0, deadline=scene.world.now)
    with pytest.raises(Reverted, match="not_signed"):
        scene.registry("bondFor", request, NOBODY, by=scene.stranger)
