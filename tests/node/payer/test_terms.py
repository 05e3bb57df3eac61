"""Terms that no Order can say are refused with a sentence, and none is read as another."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.payer_scene import PayerNode, Scene
from tallymesh import api
from tallymesh.errors import CallerError
from tallymesh.parameters import Parameters
from tallymesh_node.payer import ordering


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"max_price_wei": "0"}, "bad_amount"),
        ({"require": api.Require(memory_gib=1e300)}, "bad_terms"),
        ({"require": api.Require(disk_gib=1e300)}, "bad_terms"),
        ({"require": api.Require(cores=1 << 16)}, "bad_terms"),
        ({"require": api.Require(gpu=1 << 16)}, "bad_terms"),
        ({"require": api.Require(gpu=1)}, "no_gpus"),
        ({"require": api.Require(gpu=2)}, "too_many_gpus"),
        ({"deadline_s": 10**19}, "bad_terms"),
    ],
)
async def test_terms_outside_an_order_are_refused(
    scene: Scene, payer: PayerNode, terms: dict[str, Any], code: str
) -> None:
    async with scene.running() as nursery:
        await payer.start(nursery)
        with pytest.raises(CallerError) as caught:
            await payer.submit(payer.spec("map", items=3), **terms)
    assert caught.value.code == code


@pytest.mark.parametrize(("budget", "bond"), [(10**19, 0), (10**21, 10**18)])
async def test_each_seat_has_a_claim_bond_where_the_wages_have_room_for_all_of_them(
    scene: Scene, payer: PayerNode, budget: int, bond: int
) -> None:
    spec = payer.spec("map", items=16)
    order = ordering.make_order(
        spec,
        b"t" * 32,
        api.Terms(budget_wei=str(budget)),
        payer=b"p" * 20,
        signer=b"s" * 20,
        salt=b"n" * 32,
        now=0,
        parameters=Parameters(claim_bond_wei=10**18),
    )
    assert order.claim_bond == bond
    assert 16 * bond * 4 <= order.wages


async def test_a_seat_locks_what_one_run_costs_where_each_unit_is_run_twice(scene: Scene, payer: PayerNode) -> None:
    spec = payer.spec("map", items=16)
    who: dict[str, Any] = dict(payer=b"p" * 20, signer=b"s" * 20, salt=b"n" * 32, now=0, parameters=Parameters())
    once, twice = (
        ordering.make_order(spec, b"t" * 32, api.Terms(budget_wei="1000000", verify=verify), **who)
        for verify in ("sampled", "replicate")
    )
    assert once.wages == twice.wages
    assert once.lock_per_seat == once.wages  # the pay of two tallies, which is all there is
    assert twice.lock_per_seat == twice.wages
    long = payer.spec("map", items=400)
    once, twice = (
        ordering.make_order(long, b"t" * 32, api.Terms(budget_wei="1000000", verify=verify), **who)
        for verify in ("sampled", "replicate")
    )
    assert once.lock_per_seat - 1 <= 2 * twice.lock_per_seat <= once.lock_per_seat
