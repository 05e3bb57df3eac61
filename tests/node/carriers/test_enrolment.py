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
from tallymesh_node.market.envelope import Binding, bind
from tallymesh_node.network.keys import PeerKey, generate

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


class Shared(Registry):
    """A registry of one account, as IRegistry.sol says: a binding must have a higher version than the one in force."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = 1
        self.peer = (bytes(32), 0)
        self.numeric_class = b""
        self.sent: list[str] = []

    async def peer_of(self, account: bytes) -> tuple[bytes, int]:
        await trio.lowlevel.checkpoint()
        return self.peer

    async def bind(self, sender: Any, message: Any, signature: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if message.version <= self.peer[1]:
            raise ChainError("StaleBinding", "", reverted=True)
        self.peer = (message.peer_id_hash, message.version)
        self.sent.append("bind")

    async def class_of(self, account: bytes) -> tuple[bytes, bytes, int]:
        await trio.lowlevel.checkpoint()
        return self.numeric_class, self.numeric_class, 0

    async def set_class(self, sender: Any, numeric_class: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.numeric_class = numeric_class
        self.sent.append("set_class")

    def node(self, peer: PeerKey, numeric_class: bytes) -> Enrolment:
        """One start on the wallet."""
        chain: Any = SimpleNamespace(
            account=KEY.address, contracts=SimpleNamespace(registry=self), sender=None, block_time=lambda: 0
        )

        def rebind(version: int) -> Binding:
            return bind(DOMAINS, KEY, peer, version)

        network: Any = SimpleNamespace(faucet="")
        found = Enrolment(chain, network, rebind(1), slots=1, works=True, rebind=rebind)
        found.set_class(numeric_class)
        return found


async def rounds(*nodes: Enrolment, count: int = 5) -> None:
    for _ in range(count):
        for each in nodes:
            await each._reconcile()


async def test_two_nodes_on_one_wallet_do_not_fight_and_the_one_that_was_started_last_has_the_account() -> None:
    """Of two machines, so that each would set another class."""
    registry, keys = Shared(), (generate(), generate())
    first = registry.node(keys[0], b"\1" * 32)
    await rounds(first)
    assert (first.bound, first.replaced, registry.sent) == (True, False, ["bind", "set_class"])
    second = registry.node(keys[1], b"\2" * 32)
    await rounds(second, first)
    assert (first.bound, first.replaced) == (False, True)
    assert (second.bound, second.replaced) == (True, False)
    assert (registry.peer[1], registry.numeric_class) == (2, b"\2" * 32)
    assert registry.sent == ["bind", "set_class"] * 2, "each once, however often they look"
    again = registry.node(keys[0], b"\1" * 32)
    await rounds(first, again, second)
    assert [each.replaced for each in (first, again, second)] == [False, False, True]
    assert registry.sent == ["bind", "set_class"] * 3
    restarted = registry.node(keys[0], b"\1" * 32)
    await rounds(restarted, second)
    assert registry.sent == ["bind", "set_class"] * 3, "a node that starts again with its own key moves nothing"


async def test_of_two_that_bind_at_once_the_second_tries_again_and_has_it() -> None:
    registry, keys = Shared(), (generate(), generate())
    nodes = [registry.node(key, b"\1" * 32) for key in keys]

    async def start(node: Enrolment) -> None:
        for _ in range(5):
            try:
                await node._reconcile()
            except ChainError as error:
                if error.code != "StaleBinding":
                    raise

    async with trio.open_nursery() as nursery:
        for each in nodes:
            nursery.start_soon(start, each)
    await rounds(*nodes)
    assert sorted((each.bound, each.replaced) for each in nodes) == [(False, True), (True, False)]
    assert registry.sent.count("bind") == 2


async def test_a_binding_that_a_reorganisation_took_back_is_made_again() -> None:
    registry = Shared()
    node = registry.node(generate(), b"\1" * 32)
    await rounds(node)
    registry.peer = (bytes(32), 0)
    await rounds(node)
    assert (node.bound, node.replaced, registry.peer[1]) == (True, False, 1)


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
