"""When an account without coin has its credit turned into stake by others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from fakes.chain import DOMAINS
from tallymesh.errors import RemoteError
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import enrolment as module
from tallymesh_node.enrolment import CARRIED_S, Enrolment
from tallymesh_node.market.envelope import bind
from tallymesh_node.network.keys import generate

KEY = AccountKey(b"\7" * 32)


class Asking:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.fails = False

    async def bond(self, amount: int, *, fee_max: int = 0) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append((amount, fee_max))
        if self.fails:
            raise RemoteError("no_carrier", "Nobody carried it.")
        return SimpleNamespace(fee_wei=1)


def enrolment(*, credit: int, coin: int = 0) -> tuple[Enrolment, Asking]:
    async def credits(account: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return credit

    async def balance(account: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return coin

    chain: Any = SimpleNamespace(account=KEY.address, credits=credits, rpc=SimpleNamespace(balance=balance))
    network: Any = SimpleNamespace(faucet="")
    found, asking = Enrolment(chain, network, bind(DOMAINS, KEY, generate(), 1), slots=1, works=True), Asking()
    found.asking = asking  # type: ignore[assignment]
    return found, asking


@pytest.mark.parametrize(("credit", "fee_max"), [(1_050, 50), (5_000, 100)], ids=["the rest", "a tenth"])
async def test_credit_that_fills_a_slot_is_bonded_for_at_most_a_tenth_of_it(credit: int, fee_max: int) -> None:
    found, asking = enrolment(credit=credit)
    await found._bond(1_000)
    assert asking.asked == [(1_000, fee_max)]


@pytest.mark.parametrize(("credit", "coin"), [(1_000, 0), (1_100, 1)], ids=["no fee is left", "it has coin"])
async def test_nobody_is_asked_where_it_would_not_do_or_is_not_needed(credit: int, coin: int) -> None:
    found, asking = enrolment(credit=credit, coin=coin)
    await found._bond(1_000)
    assert asking.asked == []


async def test_carriers_that_fail_are_asked_again_after_a_pause() -> None:
    found, asking = enrolment(credit=1_100)
    asking.fails = True
    await found._bond(1_000)
    await found._bond(1_000)
    assert len(asking.asked) == 1
    await trio.sleep(CARRIED_S)
    await found._bond(1_000)
    assert len(asking.asked) == 2


def test_the_pause_is_longer_than_a_carrier_remembers_who_asks() -> None:
    from tallymesh_node.carriers.serving import CARRIES_PER_S

    assert module.CARRIED_S * CARRIES_PER_S >= 1
