"""One case for each check of a worker that the other tests pass by."""

from __future__ import annotations

import msgspec
import pytest
import trio

from fakes.worker_scene import Node, Payer
from tallymesh_node.worker import units


async def test_what_is_wrong_with_an_accept_is_known_before_it_is_written_down(node: Node, payer: Payer) -> None:
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        await trio.sleep(1)  # the secrets are written down
        record = service._works[payer.seat.id].record
        good = payer.accept_message(1)
        assert record.misfit(good) == ""
        assert record.misfit(payer.accept_message(2)) == "out_of_order"
        assert record.misfit(msgspec.structs.replace(good, tally=3)) == "out_of_order", "there is none yet"
        assert record.misfit(msgspec.structs.replace(good, units=2)) == "bad_accept"
        assert record.misfit(msgspec.structs.replace(good, chain=b"?" * 32)) == "bad_accept"
        record.seat.forfeit()
        assert record.misfit(good) == "out_of_order"


async def test_metrics_without_end_are_a_unit_out_of_its_limits(
    node: Node, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "MAX_METRICS_BYTES", 1)
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: payer.failures)
        assert payer.failures[0].code == "limits"
        assert not payer.seat.leaves
