"""Running leases when the owner takes the machine back: nothing new begins, what runs may end, then the seat is left,
and each unit with a receipt is tallied and paid. The payer here checks whatever it gets."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from fakes.worker_scene import Node, Payer, Scene
from tallymesh_node.cores import Cores
from tallymesh_node.worker.yielding import LIMITS, Allowed, Held, given_back

LENT = Allowed(cores=2, memory_mib=4096, disk_mib=10_000)
PAUSED = Allowed(code="paused")
CUT = Allowed(code="paused", cut=True)


async def test_what_runs_ends_before_the_seat_is_left_and_nothing_is_wasted(node: Node, payer: Payer) -> None:
    """Three of five units are assigned and not begun: they are free for others at once after the Leave."""
    node.executor.seconds[""] = 10.0
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0, 1, 2, 3, 4)
        await trio.sleep(5)
        assert len(node.executor.ran) == 2
        service.allow(PAUSED)
        await trio.sleep(4)
        assert payer.leaves == [], "two units run for one more second"
        await payer.wait(lambda: payer.leaves)
        assert payer.leaves[0].code == "paused"
        assert sorted(payer.seat.leaves) == [0, 1], "both have their receipt, told before the Leave"
        assert len(node.executor.ran) == 2, "nothing was begun meanwhile"
        await payer.wait(lambda: len(payer.seat.tallies) == 2)
        await payer.accept(1)
        release = await payer.accept(2)
        assert release is not None, "all that was worked for is accepted: nothing more is owed"
        assert release.units == 2


async def test_what_does_not_end_in_time_is_killed_and_the_rest_is_paid(node: Node, payer: Payer) -> None:
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0)
        await payer.wait(lambda: len(payer.seat.leaves) == 1)
        node.executor.seconds[""] = 1000.0
        await payer.assign(1, 2)
        await trio.sleep(5)
        assert node.executor.running == 2
        service.allow(PAUSED)
        await trio.sleep(60)
        assert node.executor.running == 2
        assert payer.leaves == []
        service.allow(CUT)
        await payer.wait(lambda: payer.leaves, timeout_s=2.0)
        assert node.executor.running == 0
        await payer.wait(lambda: payer.seat.tallies)
        assert (await payer.accept(1)).units == 1  # type: ignore[union-attr]


async def test_a_seat_on_which_nothing_runs_is_left_at_once(node: Node, payer: Payer) -> None:
    async with node.run() as service:
        await payer.begin()
        service.allow(PAUSED)
        await payer.wait(lambda: payer.leaves, timeout_s=2.0)


async def test_a_pause_that_ends_in_time_costs_no_seat(node: Node, payer: Payer) -> None:
    node.executor.seconds[""] = 10.0
    async with node.run() as service:
        await payer.begin()
        await payer.assign(0, 1, 2)
        await trio.sleep(5)
        service.allow(PAUSED)
        await trio.sleep(2)
        service.allow(LENT)
        await payer.wait(lambda: len(payer.seat.leaves) == 3)
        assert payer.leaves == []


async def test_a_node_that_is_started_again_while_paused_begins_nothing(node: Node, payer: Payer) -> None:
    node.executor.seconds[""] = 10.0
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1)
        await trio.sleep(5)
    ran = len(node.executor.ran)
    node.allowed = PAUSED
    async with node.run():
        await payer.wait(lambda: payer.leaves, timeout_s=10.0)
        assert len(node.executor.ran) == ran


async def test_a_lease_that_slips_in_is_given_back_before_a_unit_of_it_runs(node: Node, payer: Payer) -> None:
    """Judged by an offer that was withdrawn in the same moment."""
    async with node.run() as service:
        service.allow(PAUSED)
        await payer.begin()
        await payer.wait(lambda: payer.leaves, timeout_s=2.0)
        assert node.executor.ran == []


async def test_fewer_cores_give_back_the_newest_job_and_leave_the_oldest_alone(scene: Scene, node: Node) -> None:
    first, second = Payer(scene, node), Payer(scene, node, number=60)
    async with node.run() as service:
        service.allow(LENT)
        await first.begin()
        await trio.sleep(5)
        await second.begin()
        await trio.sleep(5)
        service.allow(Allowed(cores=1))
        await second.wait(lambda: second.leaves)
        assert second.leaves[0].code == LIMITS
        await first.assign(0)
        await first.wait(lambda: len(first.seat.leaves) == 1)
        assert first.leaves == []


def held(number: int, **changes: Any) -> Held:
    room = {"job": b"%d" % number, "cores": 1, "memory_mib": 512, "disk_mib": 100, **changes}
    return Held(seat=b"seat %d" % number, **room)


@pytest.mark.parametrize(
    ("seats", "allowed", "back"),
    [
        ([held(1), held(2)], LENT, set()),
        ([held(1), held(2), held(3)], LENT, {3}),
        ([held(1), held(2, job=b"1"), held(3)], LENT, set()),  # two seats of one job share its core
        ([held(1, cores=3), held(2)], LENT, {1}),
        ([held(1, memory_mib=4097), held(2, memory_mib=4096)], LENT, {1}),
        ([held(1, disk_mib=10_001), held(2, disk_mib=10_000)], LENT, {1}),
        ([held(1), held(2)], PAUSED, {1, 2}),
        ([], PAUSED, set()),
    ],
)
def test_which_seats_go_back(seats: list[Held], allowed: Allowed, back: set[int]) -> None:
    assert set(given_back(seats, allowed)) == {b"seat %d" % number for number in back}


# Memory of what runs side by side.


async def test_units_side_by_side_stay_within_the_memory_that_the_owner_allows() -> None:
    cores, most = Cores(8, memory_mib=1000), 0
    using: list[int] = []

    async def unit(memory_mib: int) -> None:
        nonlocal most
        async with cores.one(memory_mib=memory_mib):
            using.append(memory_mib)
            most = max(most, sum(using))
            await trio.sleep(1)
            using.remove(memory_mib)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(unit, 400)
    assert most == 800


async def test_a_unit_of_more_memory_than_is_allowed_runs_alone_and_none_overtakes_it() -> None:
    cores = Cores(8, memory_mib=1000)
    began: list[tuple[str, float]] = []

    async def unit(name: str, memory_mib: int) -> None:
        async with cores.one(turn=int(name), memory_mib=memory_mib):
            began.append((name, trio.current_time()))
            await trio.sleep(1)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number, memory_mib in enumerate((400, 2000, 400, 400)):
            nursery.start_soon(unit, str(number), memory_mib)
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(began) == [("0", start), ("1", start + 1), ("2", start + 2), ("3", start + 2)]


async def test_more_memory_lets_those_that_wait_begin() -> None:
    cores = Cores(8, memory_mib=100)
    async with trio.open_nursery() as nursery:

        async def unit() -> None:
            async with cores.one(memory_mib=80):
                await trio.sleep_forever()

        for _ in range(3):
            nursery.start_soon(unit)
        await trio.testing.wait_all_tasks_blocked()
        assert cores.busy == 1
        cores.memory_mib = 0
        assert cores.busy == 3
        nursery.cancel_scope.cancel()
    assert (cores.busy, cores._held_mib) == (0, 0), "cancelled or not, all is given back"
