"""What a node that sells cards offers, registers and tells: nothing before they are proven, and never its cores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tallymesh import cards as texts
from tallymesh.api import NodeView
from tallymesh.errors import CallerError
from tallymesh.units import canonical_json
from tallymesh_node.capacity import Canary
from tallymesh_node.cli import jobs
from tallymesh_node.config import load
from tallymesh_node.daemon import Node
from tallymesh_node.gpus import Card
from tallymesh_node.interfaces import Failure, Limits, OnLine
from tallymesh_node.limits import Stance
from tallymesh_node.machine import Gpu, Machine
from tallymesh_node.market.publisher import Capacity
from tallymesh_node.proving import Proving
from tallymesh_node.status import NodeStatus

CARDS = (Card("GPU-0", 0), Card("GPU-1", 1))
CANARY = Canary(numeric_class="0c" * 32, cpu_score=900)
MEASURED = {
    "name": "NVIDIA H200", "parts": "132x9.0", "memory_mib": 143_771,
    "torch": "2.13.0+cu130", "cuda": "13.0", "cudnn": "91002",
    "digests": {"unit": "bb"}, "tflops": 48.1, "to_gib_s": 52.3, "from_gib_s": 50.0,
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "measure": MEASURED, "others": {"count": 1}, "fill": {"bytes": 8}, "leftovers": {"bytes": 8, "words": 0},
    "greedy": {"mib": 64},
}  # fmt: skip


class Trials:
    """Cards that pass all, but `broken` ones."""

    def __init__(self, *broken: Card) -> None:
        self.broken = broken

    async def run_card_task(
        self, card: Card, name: str, payload: bytes = b"", *, limits: Limits, on_line: OnLine | None = None
    ) -> bytes:
        await trio.lowlevel.checkpoint()
        if card in self.broken:
            raise Failure("sandbox", "It does not wake.")
        return canonical_json(ANSWERS[name])


class Selling:
    """The parts of a node that decide what it sells, and what they were told."""

    def __init__(self, folder: Path, trials: Trials | None, cores: int = 8) -> None:
        self.classes: list[bytes] = []
        self.offers: list[Capacity | None] = []
        self.config = self.settings = load({"home": folder, "sell": "cpu" if trials is None else "gpu"}, environment={})
        gpus = (Gpu("NVIDIA H200", 143_771, "570.86.15"),) * 2
        self.machine = Machine(
            cores=cores, memory_mib=65_536, disk_mib=10_240, cpu="x", architecture="x86_64", gpus=gpus
        )
        self.enrolment = SimpleNamespace(set_class=self.classes.append, problems=[])
        self.publisher = SimpleNamespace(offer=self.offers.append, published=0)
        self.steward = SimpleNamespace(stance=Stance())
        self.twins = SimpleNamespace(yields=False)
        self.network = SimpleNamespace(peers=["one"])
        self._classed = trio.Event()
        self.capacity: Capacity | None = None
        wanted = trio.Event()
        wanted.set()
        self.executor = SimpleNamespace(pool=SimpleNamespace(wanted=wanted))
        self.proving: Proving | None = None
        if trials is not None:
            self.proving = Proving(
                trials, CARDS, driver="570.86.15", prove_card=lambda card: None, obstacle=lambda: None,
                changed=lambda: Node._found_cards(self),  # type: ignore[arg-type] # the parts that it reads are here
            )  # fmt: skip

    def _sell(self) -> None:
        Node._sell(self)  # type: ignore[arg-type]

    def found(self, confirmed: bool = True) -> None:
        Node._found_class(self, CANARY, confirmed)  # type: ignore[arg-type]

    @property
    def status(self) -> NodeStatus:
        return NodeStatus(self)  # type: ignore[arg-type]

    def newest(self) -> Capacity:
        offered = self.offers[-1]
        assert offered is not None
        return offered


async def test_a_node_sells_its_cores_unless_its_owner_says_otherwise(tmp_path: Path) -> None:
    node = Selling(tmp_path, None)
    node.found()
    assert node.classes == [bytes.fromhex(CANARY.numeric_class)]
    assert (node.newest().cores, node.newest().gpus, node.newest().provisional) == (8, "", False)
    assert node.status.gpus().endswith("not offered; node start --sell gpu lends them instead of cores")


async def test_nothing_is_offered_or_registered_before_the_cards_are_proven(tmp_path: Path) -> None:
    node = Selling(tmp_path, Trials())
    node.found(confirmed=False)
    assert not node._classed.is_set(), "the class of the cores is a part of that of the cards"
    node.found()
    assert node._classed.is_set()
    assert node.offers == [None, None]
    assert node.classes == []
    assert node.status.gpus().endswith("not offered yet, they are being tried")
    assert node.status.cards() == "trying"
    assert not node.status.ready()
    assert node.proving is not None
    await node.proving.run(b"\x0c" * 32)
    assert node.classes == [node.proving.numeric_class]
    offered = node.newest()
    assert texts.count(offered.gpus) == 2
    assert (offered.cores, offered.numeric_class, offered.provisional) == (2, node.proving.numeric_class, False)
    assert node.status.gpus().endswith(f"offered, as {offered.gpus}")
    assert node.status.cards() == "sold"


async def test_what_the_wallets_other_node_sells_this_one_does_not(tmp_path: Path) -> None:
    node = Selling(tmp_path, None)
    node.found()
    assert node.newest().cores == 8
    assert not node.status.ready(), "its offer is still to come"
    node.twins.yields = True
    node._sell()
    assert node.offers[-1] is None
    assert node.status.ready(), "and why is told"
    node.twins.yields = False
    node._sell()
    assert node.newest().cores == 8


async def test_where_no_card_is_proven_nothing_is_sold_and_that_is_said(tmp_path: Path) -> None:
    node = Selling(tmp_path, Trials(*CARDS))
    node.found()
    assert node.proving is not None
    await node.proving.run(b"\x0c" * 32)
    assert node.offers[-1] is None
    assert node.classes == []
    assert node.status.ready(), "it has done what it can"
    assert node.status.cards() == "none"
    assert node.status.gpus().endswith("not offered")
    assert [problem.code for problem in node.proving.problems] == ["does_not_compute"] * 2


async def test_why_such_a_node_gets_no_work_is_told_of_its_cards_and_not_of_its_class(tmp_path: Path) -> None:
    node = Selling(tmp_path, Trials(*CARDS))
    node.found()
    assert node.proving is not None

    def told() -> list[str]:
        view = NodeView(
            version="", network="", account="0x", peer_id="", addresses=(), roles=("worker",), started=0.0, peers=1,
            staked=True, slots=1, numeric_class="", provisional=node.status.provisional(), sandbox="", reachable="",
            offer={}, cards=node.status.cards(), problems=tuple(node.proving.problems if node.proving else ()),
        )  # fmt: skip
        return jobs.node_reasons(view)

    assert told() == [
        "Its cards are being tried; until then nothing is offered.", "It has published no offer yet."
    ]  # fmt: skip
    await node.proving.run(b"\x0c" * 32)
    first, second = told()
    assert first.startswith("GPU GPU-0 is not offered. It does not compute")
    assert second.startswith("GPU GPU-1 is not offered. It does not compute")


async def test_no_more_is_sold_than_cards_that_work_and_cores_beside_them(tmp_path: Path) -> None:
    node = Selling(tmp_path, Trials(CARDS[0]))
    node.found()
    assert node.proving is not None
    await node.proving.run(b"\x0c" * 32)
    assert (node.newest().cores, texts.count(node.newest().gpus)) == (1, 1)
    poor = Selling(tmp_path, Trials(), cores=1)
    poor.found()
    assert poor.proving is not None
    await poor.proving.run(b"\x0c" * 32)
    assert (poor.newest().cores, texts.count(poor.newest().gpus)) == (1, 2)


def test_what_is_sold_is_one_of_two(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="cpu, gpu"):
        load({"home": tmp_path, "sell": "gpus"}, environment={})
