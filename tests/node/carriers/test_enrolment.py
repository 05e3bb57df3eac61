"""What an account becomes on the chain: slots that are bought, credit that others turn into stake for want of coin."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio

from fakes.chain import DOMAINS
from tallymesh.api import NodeView
from tallymesh.errors import ChainError, RemoteError
from tallymesh_ledger.keys import AccountKey
from tallymesh_node import enrolment as module
from tallymesh_node.cli import contributor, jobs
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


class Registry:
    """Slots of 1 MESH, of which nobody has any."""

    def __init__(self) -> None:
        self.slots = 0

    async def live_slots(self, account: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return self.slots

    async def slot_wei(self) -> int:
        await trio.lowlevel.checkpoint()
        return 10**18

    async def buy_slots(self, sender: Any, account: bytes, count: int) -> None:
        await trio.lowlevel.checkpoint()
        self.slots += count

    async def peer_of(self, account: bytes) -> tuple[bytes, int]:
        await trio.lowlevel.checkpoint()
        return b"", 1

    async def class_of(self, account: bytes) -> tuple[bytes, bytes, int]:
        await trio.lowlevel.checkpoint()
        return b"", b"", 0


async def test_a_slot_that_was_bought_is_told_in_the_log_and_in_the_status(caplog: pytest.LogCaptureFixture) -> None:
    async def tokens(account: bytes) -> int:
        await trio.lowlevel.checkpoint()
        return 5 * 10**18

    registry = Registry()
    token = SimpleNamespace(balance_of=tokens)
    contracts: Any = SimpleNamespace(registry=registry, token=token)
    chain: Any = SimpleNamespace(account=KEY.address, contracts=contracts, sender=None)
    found = Enrolment(chain, SimpleNamespace(faucet=""), bind(DOMAINS, KEY, generate(), 1), slots=2)  # type: ignore[arg-type]
    ours = logging.getLogger("tallymesh")
    before = ours.level
    contributor._start_logging("info")  # as a node does
    try:
        await found._reconcile()
    finally:
        ours.setLevel(before)
    assert (registry.slots, found.slots) == (2, 2)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert said == ["bought 2 for 2 MESH: the account holds 2 slots of stake"]
    for roles in (("worker",), ("submit",)):
        view = NodeView(
            version="", network="", account="0x", peer_id="", addresses=(), roles=roles, started=0.0, peers=0,
            staked=True, slots=2, numeric_class="", provisional=False, sandbox="", reachable="", offer={},
        )  # fmt: skip
        assert dict(contributor.summary(view))["wallet"] == "0x · 2 slots of stake"


async def test_before_the_chain_has_answered_nobody_says_that_there_is_no_stake() -> None:
    async def newcomers(accounts: list[bytes]) -> list[Any]:
        await trio.lowlevel.checkpoint()
        return [SimpleNamespace(deposit=0, seats=0, unpaid=0)]

    class Silent(Registry):
        silent = True

        async def live_slots(self, account: bytes) -> int:
            if self.silent:
                raise ChainError("chain_unavailable", "It does not answer.", reverted=False)
            return await super().live_slots(account)

    registry = Silent()
    contracts: Any = SimpleNamespace(registry=registry)
    chain: Any = SimpleNamespace(account=KEY.address, contracts=contracts, sender=None, newcomers=newcomers)
    network: Any = SimpleNamespace(faucet="")
    found = Enrolment(chain, network, bind(DOMAINS, KEY, generate(), 1), slots=0, works=True)
    view = NodeView(
        version="", network="", account="0x", peer_id="", addresses=(), roles=("worker",), started=0.0, peers=1,
        staked=False, slots=0, numeric_class="", provisional=False, sandbox="", reachable="", offer={"cores": 1},
        stake_known=found.known,
    )  # fmt: skip
    with pytest.raises(ChainError):
        await found._reconcile()
    assert not found.known
    assert dict(contributor.summary(view))["wallet"] == "0x · waiting for the chain"
    (reason,) = jobs.node_reasons(view)
    assert "The chain has not answered yet" in reason
    registry.silent = False
    await found._reconcile()
    assert found.known
    view = msgspec.structs.replace(view, stake_known=found.known)
    assert dict(contributor.summary(view))["wallet"] == "0x · unstaked"
    (reason,) = jobs.node_reasons(view)
    assert "no slot" in reason


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
