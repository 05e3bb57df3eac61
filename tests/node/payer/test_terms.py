"""Terms that no Order can say are refused with a sentence, and none is read as another."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.payer_scene import PayerNode, Scene
from tallymesh import api
from tallymesh.errors import CallerError


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"max_price_wei": "0"}, "bad_amount"),
        ({"require": api.Require(memory_gib=1e300)}, "bad_terms"),
        ({"require": api.Require(disk_gib=1e300)}, "bad_terms"),
        ({"require": api.Require(cores=1 << 16)}, "bad_terms"),
        ({"require": api.Require(gpu=1 << 16)}, "bad_terms"),
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
