"""A minute of noise against the raw ports of nodes at work (`scripts/noise` makes it for an hour): silent, slow and
garbage connections, whole handshakes under fresh keys, floods, forged requests and offers."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
import trio

import tallymesh
from end_to_end import functions
from end_to_end.scene import Market, wait_until
from hostile.noises import figures, make
from tallymesh_node.local_network import NodeProcess

pytestmark = pytest.mark.end_to_end

NOISE_S = 60.0  # at least: until each kind was made, and jobs ran meanwhile
NOISE_MAX_S = 240.0
KINDS = ("libp2p silent", "libp2p flood", "libp2p crowd", "requests", "offers")
PACE = 0.25  # of the noise of `scripts/noise`: other tests share the machine
CALM_S = 240.0  # handshakes are given up after 10 s, silent lines of the API after a minute
UNITS, UNIT_S, PAUSE_S = 6, 0.2, 4.0
GROWN = {"memory_mib": 40.0, "files": 12.0, "tasks": 40.0}  # a connection that is being made, and its tasks


@pytest.fixture
def noisy(market: Market) -> Iterator[NodeProcess]:
    """The cheapest, so that the honest jobs are its own."""
    node = market.add_ready("noisy", ask_price="0.005", roles=("worker",))
    yield node
    market.drop(node)


def test_noise_at_its_ports_keeps_no_job_from_a_node_and_leaves_nothing(market: Market, noisy: NodeProcess) -> None:
    market.connect()
    account = market.account("noisy")
    over = threading.Event()
    results: list[tuple[int, list[int]]] = []
    mine: list[int] = []  # units of each job that the node under noise was paid for
    failed: list[BaseException] = []

    def job() -> None:
        first = UNITS * len(results)
        found = tallymesh.map(functions.slow, range(first, first + UNITS), seconds=UNIT_S, budget="2.0", work=UNIT_S)
        results.append((first, found.results()))
        mine.append(sum(peer.accepted for peer in found.view.peers if peer.account == account))

    def honest() -> None:
        try:
            while not over.is_set():
                job()
                over.wait(PAUSE_S)
        except BaseException as error:  # the thread that asserts is another one
            failed.append(error)

    job()
    before = {name: figures(market.node(name)) for name in ("noisy", "payer")}
    made: Counter[str] = Counter()

    async def noise() -> None:
        with trio.move_on_after(NOISE_MAX_S):
            async with trio.open_nursery() as nursery:
                for number, each in enumerate(make(market.local.network.topic, noisy, market.payer, PACE)):
                    nursery.start_soon(each, random.Random(number), made)
                await trio.sleep(NOISE_S)
                while not failed and not (all(made[kind] for kind in KINDS) and sum(mine[1:])):  # noqa: ASYNC110
                    await trio.sleep(0.5)
                nursery.cancel_scope.cancel()

    thread = threading.Thread(target=honest)
    thread.start()
    try:
        trio.run(noise)
    finally:
        over.set()
        thread.join()
    job()
    assert not failed, failed
    assert len(results) > 2
    assert all(found == [3 * x + 1 for x in range(first, first + UNITS)] for first, found in results)
    assert sum(mine[1:-1]) > 0, "it worked while they shouted"
    assert all(made[kind] for kind in KINDS), made

    def calm() -> bool:
        return all(
            figures(market.node(name))[what] - before[name][what] <= more
            for name in before
            for what, more in GROWN.items()
        )

    wait_until("nothing of it is left", calm, timeout_s=CALM_S)
