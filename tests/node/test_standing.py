"""Who is more than a stranger to a node."""

from __future__ import annotations

from collections.abc import Iterator

from tallymesh_node.network.places import Standing
from tallymesh_node.standing import LOOK_S, Circle


def test_partners_come_before_stake_and_everybody_else_is_a_stranger() -> None:
    now = 0.0
    looks = 0
    working = ["both", "worker"]

    def partners() -> Iterator[str]:
        nonlocal looks
        looks += 1
        yield from working

    circle = Circle(lambda peer: peer in ("both", "staked"), partners, lambda: now)
    assert [circle(peer) for peer in ("both", "worker", "staked", "x")] == [
        Standing.PARTNER,
        Standing.PARTNER,
        Standing.STAKED,
        Standing.STRANGER,
    ]
    assert looks == 1
    working.clear()
    assert circle("worker") is Standing.PARTNER
    now = LOOK_S
    assert circle("worker") is Standing.STRANGER
    assert circle("both") is Standing.STAKED
