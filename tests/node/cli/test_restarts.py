"""`tallymesh up` outlives a node that dies, and does not restart it for ever."""

from __future__ import annotations

import pytest

from tallymesh.errors import LocalError
from tallymesh_node.cli.restarts import RESTARTS_MAX, WINDOW_S, Restarts


class Fragile:
    """A process that can be made to end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = True
        self.starts = 1

    def start(self) -> None:
        self.running = True
        self.starts += 1

    def tail(self) -> str:
        return f"the last words of {self.name}"


def network(*names: str) -> tuple[dict[str, Fragile], Restarts, list[str]]:
    nodes, said = {name: Fragile(name) for name in names}, list[str]()
    return nodes, Restarts(nodes, said.append), said


def test_a_node_that_ended_is_started_again_and_that_is_said() -> None:
    nodes, restarts, said = network("payer", "worker1", "worker2")
    restarts.look(0.0)
    assert said == []
    nodes["worker1"].running = False
    restarts.look(1.0)
    assert nodes["worker1"].running
    assert said == [f"worker1 ended by itself and is started again (1 of {RESTARTS_MAX} times)"]
    assert [node.starts for node in nodes.values()] == [1, 2, 1]


def test_one_that_ends_again_and_again_is_left_off_and_the_others_go_on() -> None:
    nodes, restarts, said = network("payer", "worker1", "worker2")
    for now in range(20):
        nodes["worker1"].running = False
        restarts.look(float(now))
    assert nodes["worker1"].starts == 1 + RESTARTS_MAX
    assert not nodes["worker1"].running
    assert "the last words of worker1" in said[-1]
    nodes["worker2"].running = False
    restarts.look(21.0)
    assert nodes["worker2"].running, "each node has its own number"


def test_what_happened_long_ago_does_not_count() -> None:
    nodes, restarts, _ = network("payer", "worker1")
    for now in range(20):
        nodes["worker1"].running = False
        restarts.look(now * WINDOW_S / RESTARTS_MAX)
    assert nodes["worker1"].starts == 21


@pytest.mark.parametrize("names", [("payer", "worker1"), ("worker1", "payer")], ids=["the payer", "the last worker"])
def test_a_network_without_its_payer_or_without_any_worker_ends(names: tuple[str, str]) -> None:
    nodes, restarts, _ = network("payer", "worker1")
    for now in range(RESTARTS_MAX):
        nodes[names[0]].running = False
        restarts.look(float(now))
    nodes[names[0]].running = False
    with pytest.raises(LocalError, match="the last words") as ended:
        restarts.look(float(RESTARTS_MAX))
    assert ended.value.code == "node_ended"
    assert nodes[names[0]].starts == 1 + RESTARTS_MAX
