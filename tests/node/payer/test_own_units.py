"""What the payer's node runs itself: not more often than it must."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import trio

from fakes.payer_scene import PayerNode, Scene, evaluate, paid_units
from tallymesh.ids import BlobId
from tallymesh.units import Unit, unit_id
from tallymesh_node.interfaces import Failure


def count_evaluations(payer: PayerNode) -> Counter[bytes]:
    """Runs of each `tallymesh:evaluate` unit from now on."""
    assert payer.executor is not None
    ran: Counter[bytes] = Counter()

    def counted(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
        ran[unit_id(unit)] += 1
        return evaluate(unit, inputs)

    payer.executor.functions["tallymesh:evaluate"] = counted
    return ran


@pytest.mark.slow
async def test_the_state_of_a_round_is_measured_once_for_its_check_and_its_metrics(
    scene: Scene, payer: PayerNode
) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        ran = count_evaluations(payer)
        job = await payer.submit(payer.spec("federated", items=4, rounds=3))
        view = await payer.wait(job)
        assert view.rounds_done == 3
        assert set(ran.values()) == {1}
        assert len(ran) == 4, "checkpoint 0 and the states of three rounds"


@pytest.mark.slow
async def test_a_measurement_that_fails_once_is_tried_again_by_whoever_waited(scene: Scene, payer: PayerNode) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        assert payer.executor is not None
        broken = [2]

        def first_fails(unit: Unit, inputs: Mapping[BlobId, bytes]) -> tuple[bytes, dict[str, float]]:
            if broken[0]:
                broken[0] -= 1
                raise Failure("sandbox", "It broke.")
            return evaluate(unit, inputs)

        payer.executor.functions["tallymesh:evaluate"] = first_fails
        job = await payer.submit(payer.spec("federated", items=4, rounds=3))
        view = await payer.wait(job)
        assert (view.rounds_done, view.metrics) == (3, {"loss": 1.0, "accuracy": 0.9})
        assert broken == [0]


async def test_a_sandbox_is_opened_when_a_training_comes_since_its_outputs_are_checked_here(
    scene: Scene, payer: PayerNode
) -> None:
    scene.crowd(5)
    async with scene.running() as nursery:
        await payer.start(nursery)
        assert payer.executor is not None
        plain = await payer.submit(payer.spec("map", items=4))
        await payer.wait(plain)
        assert payer.executor.prepared == [], "its units are recomputed by others, or seldom: that one waits"
        training = await payer.submit(payer.spec("federated", items=4, rounds=1))
        await payer.wait(training)
        assert payer.executor.prepared == [bytes.fromhex(training)]


async def test_a_seat_is_not_expired_while_its_last_units_are_being_audited(scene: Scene, payer: PayerNode) -> None:
    """Its lease and the claims' window were over before this slow node had recomputed them: the Accept that followed
    was for a seat that this node itself had closed, and the worker lost verified work."""
    scene.parameters = scene.chain.parameters = msgspec.structs.replace(
        scene.parameters, lease_max_s=60, claim_window_s=20
    )
    worker, _ = scene.join(1), scene.join(2, works=False)
    assert payer.executor is not None
    payer.executor.seconds[""] = 100.0
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=1))
        await payer.wait(job)
        (held,) = payer.service._driver(job).book.all()
        assert scene.chain.clock() > held.lease.until + 20, "it was recomputed in time"
        assert paid_units(scene, worker) == 1
        await payer.wait_empty(job)


async def test_an_accept_that_comes_while_the_chain_is_asked_is_paid_before_its_seat_is_expired(
    scene: Scene, payer: PayerNode
) -> None:
    scene.parameters = scene.chain.parameters = msgspec.structs.replace(
        scene.parameters, lease_max_s=60, claim_window_s=20
    )
    workers = [scene.join(1), scene.join(2)]
    scene.join(3, works=False)
    assert payer.executor is not None
    executor, run = payer.executor, payer.executor.run
    started: list[int] = []

    async def first_is_quick(*arguments: Any, **options: Any) -> Any:
        started.append(1)
        if len(started) == 2:
            await trio.sleep(100)
        return await run(*arguments, **options)

    executor.run = first_is_quick  # type: ignore[method-assign]
    async with scene.running() as nursery:
        await payer.start(nursery)
        job = await payer.submit(payer.spec("map", items=2))
        driver = payer.service._driver(job)
        chain, waited = driver.tools.chain, []
        look = chain.seat_state

        async def slow(seat: bytes) -> Any:
            first = next(held for held in driver.book.all() if held.id == seat)
            while scene.chain.clock() >= first.lease.until + 20 and not all(h.accepts for h in driver.book.all()):
                waited.append(1)
                for worker in workers:
                    worker.kill()  # else it settles its Accept itself
                await trio.sleep(1)
            return await look(seat)

        chain.seat_state = slow
        await payer.wait(job)
        assert waited, "no seat was looked at while the other was audited"
        assert [paid_units(scene, worker) for worker in workers] == [1, 1]
        await payer.wait_empty(job)
