"""Two nodes of one wallet: which one goes on is the same for both, and each is told of the other."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from tallymesh.messages import Offer
from tallymesh_node.doctor.findings import fix
from tallymesh_node.twins import CERTAIN, OTHERS_MAX, Twins

LOW, HIGH = b"\1" * 32, b"\2" * 32


def offer_of(own: bytes, number: int, now: int, lifetime_s: int = 60) -> Offer:
    return Offer(
        account=bytes(20), peer_id_hash=own, numeric_class=bytes(32), provisional=False, cores=1,
        memory_mib=1, disk_mib=1, gpus="", cpu_score=1, ask_price=1, addresses="", attestation=bytes(32),
        seq=number, issued=now, expires=now + lifetime_s,
    )  # fmt: skip


class Pair:
    """Two nodes that hear each other, and what the chain says to each."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks: list[int] = []
        self.chain = [
            SimpleNamespace(bound=False, replaced=False, look=lambda index=index: self.looks.append(index))
            for index in range(2)
        ]
        self.low, self.high = (
            Twins(name, own, chain, lambda: self.now)
            for name, own, chain in zip(("low", "high"), (LOW, HIGH), self.chain, strict=True)
        )

    def offers(self, count: int = CERTAIN, *, lifetime_s: int = 60) -> None:
        for number in range(count):
            for name, own in (("low", LOW), ("high", HIGH)):
                offer = offer_of(own, number, int(self.now), lifetime_s)
                for each in (self.low, self.high):
                    each.heard(offer, name)

    @property
    def yields(self) -> tuple[bool, bool]:
        return self.low.yields, self.high.yields


def test_a_node_alone_hears_itself_and_goes_on() -> None:
    alone: Any = SimpleNamespace(bound=False, replaced=False)
    low = Twins("low", LOW, alone, lambda: 0.0)
    pair = Pair()
    pair.low = pair.high = low
    low.heard = lambda offer, peer_id: Twins.heard(low, offer, "low")  # type: ignore[method-assign]
    pair.offers(20)
    assert not low.yields
    assert low.problems() == []


def test_of_two_that_nobody_bound_one_goes_on_and_both_are_told() -> None:
    pair = Pair()
    pair.offers(CERTAIN - 1)
    assert pair.yields == (False, False), "the last words of one that has ended"
    assert pair.low.problems() == []
    assert pair.looks == []
    pair.offers(1)
    assert sorted(pair.looks) == [0, 1], "the chain may know more"
    assert pair.yields == (True, False)
    for twin, words in ((pair.low, "takes no work"), (pair.high, "could have both sign")):
        (problem,) = twin.problems()
        assert problem.code == "one_wallet"
        assert words in problem.sentence
        assert "TALLYMESH_HOME" in problem.remedy
        assert fix("node", problem.code, problem.sentence, problem.remedy), "as the doctor shows it"
    pair.now += 61
    assert pair.yields == (False, False), "the other has ended: its offer has expired"
    assert pair.low.problems() == pair.high.problems() == []
    pair.offers(1)
    assert pair.yields == (False, False)


def test_of_three_that_nobody_bound_one_goes_on() -> None:
    """Each heard the two others by turns, and never one of them three times in a row."""
    hashes = {"low": LOW, "high": HIGH, "highest": b"\3" * 32}
    unbound: Any = SimpleNamespace(bound=False, replaced=False, look=lambda: None)
    nodes = {name: Twins(name, own, unbound, lambda: 1000.0) for name, own in hashes.items()}
    for number in range(CERTAIN):
        for name, own in hashes.items():
            for node in nodes.values():
                node.heard(offer_of(own, number, 1000), name)
    assert {name: node.yields for name, node in nodes.items()} == {"low": True, "high": True, "highest": False}
    assert "highest" in nodes["low"].sentence
    assert "(peer high)" in nodes["highest"].problems()[0].sentence


def test_a_bounded_number_of_others_is_remembered() -> None:
    unbound: Any = SimpleNamespace(bound=False, replaced=False, look=lambda: None)
    node = Twins("own", LOW, unbound, lambda: 1000.0)
    for number in range(2 * OTHERS_MAX):
        node.heard(offer_of(HIGH, number, 1000), f"other {number}")
    assert len(node._others) == OTHERS_MAX


def test_the_chain_decides_where_it_says_who_speaks_for_the_account(caplog: pytest.LogCaptureFixture) -> None:
    pair = Pair()
    pair.chain[0].bound = True
    pair.chain[1].replaced = True
    assert pair.yields == (False, True), "before the other was heard at all"
    pair.offers()
    assert pair.yields == (False, True)
    assert "has the account now" in pair.high.problems()[0].sentence
    with caplog.at_level(logging.WARNING, "tallymesh.node"):
        for _ in range(3):
            pair.high.look()
    assert [record.getMessage()[:41] for record in caplog.records] == ["Another node was started on this wallet, "]
