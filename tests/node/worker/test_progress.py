"""Heartbeats: that they come, what they carry, and that nothing in them can grow."""

from __future__ import annotations

import trio
import trio.testing

from fakes.worker_scene import Node, Payer, Scene
from tallymesh.exchange import MAX_BODY_BYTES, MAX_LINES
from tallymesh_node.worker.heartbeat import MAX_LINE
from tallymesh_node.worker.tools import MAX_LINES_WAITING


async def test_a_heartbeat_comes_every_second_and_names_what_runs(node: Node, payer: Payer) -> None:
    node.executor.seconds[""] = 5.0
    async with node.run():
        await payer.begin()
        await payer.assign(0, 1)
        await trio.sleep(4.5)
        assert len(payer.progress) == 5
        assert [report.sequence for report in payer.progress] == [1, 2, 3, 4, 5]
        assert payer.progress[-1].running == (0, 1)
        await trio.sleep(2)
        assert payer.progress[-1].running == ()


async def test_lines_and_metrics_of_units_travel_live(node: Node, payer: Payer) -> None:
    node.executor.lines = ("hello", "bad \udcff text")
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await trio.sleep(5)
    lines = [line for report in payer.progress for line in report.lines]
    assert lines == [(0, "hello"), (0, "bad ? text")]
    assert [(p, name) for report in payer.progress for p, name, _ in report.metrics] == [(0, "loss")]


async def test_what_the_last_unit_said_is_told_before_the_seat_can_be_over(node: Node, payer: Payer) -> None:
    node.executor.lines = ("hello",)
    node.executor.seconds[""] = 0.1
    async with node.run():
        await payer.begin()
        await trio.sleep(1.1)  # the second heartbeat is out
        await payer.assign(0)
        await trio.sleep(0.5)
        assert [line for report in payer.progress for _, line in report.lines] == ["hello"]
        before = len(payer.progress)
        for position in range(1, 5):
            await payer.assign(position)
            await trio.sleep(0.11)
        assert len(payer.progress) - before <= 2, "however many units end"


async def test_the_sandbox_is_opened_while_the_seat_is_taken(node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.agree()
        await trio.testing.wait_all_tasks_blocked()
        assert node.executor.prepared == [payer.lease.job]
        assert not node.executor.ran


async def test_a_flood_of_long_lines_is_bounded_and_the_newest_stay(node: Node, payer: Payer) -> None:
    node.executor.lines = tuple(f"{i} " + "é" * 5000 for i in range(3 * MAX_LINES_WAITING))
    async with node.run():
        await payer.begin()
        await payer.assign(0)
        await trio.sleep(20)
    assert all(len(body) < MAX_BODY_BYTES for _, body in payer.got)
    assert all(len(report.lines) <= MAX_LINES for report in payer.progress)
    lines = [line for report in payer.progress for _, line in report.lines]
    assert len(lines) == MAX_LINES_WAITING
    assert all(len(line) == MAX_LINE for line in lines)
    assert lines[-1].startswith(f"{3 * MAX_LINES_WAITING - 1} ")


async def test_lines_that_did_not_get_through_are_told_again(scene: Scene, node: Node, payer: Payer) -> None:
    node.executor.lines = ("hello",)
    async with node.run():
        await payer.begin()
        scene.network.lose = lambda sender, receiver, name: name == "progress"
        await payer.assign(0)
        await trio.sleep(20)
        scene.network.lose = lambda sender, receiver, name: False
        await trio.sleep(20)
    assert [line for report in payer.progress for _, line in report.lines] == ["hello"]


async def test_a_payer_that_is_gone_is_called_less_often(scene: Scene, node: Node, payer: Payer) -> None:
    async with node.run():
        await payer.begin()
        scene.network.down.add(payer.peer_id)
        await trio.sleep(100)
        network = scene.network.networks[node.peer_id]
        before = network.counters.requests_sent
        await trio.sleep(150)
        assert network.counters.requests_sent - before <= 12
