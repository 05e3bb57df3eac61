"""Carriers: an account without gas has its bonding and withdrawal sent, once, and a carrier's gas is not wasted."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from fakes.carriers import FakeCarrierChain
from fakes.chain import DOMAINS, World
from fakes.network import World as NetworkWorld
from tallymesh import exchange
from tallymesh.errors import CallerError, RemoteError
from tallymesh.exchange import CarriedAnswer, CarryRequest, CarryTermsAnswer, CarryTermsRequest, Source
from tallymesh.messages import PeerBinding, RelayedBond, RelayedWithdraw
from tallymesh.parameters import Parameters
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.carriers import terms
from tallymesh_node.carriers.asking import Asking
from tallymesh_node.carriers.serving import ASKS_BURST, CARRIES_BURST, MAX_AT_ONCE, Carrier
from tallymesh_node.carriers.terms import ALL
from tallymesh_node.market.envelope import Binding

SLOT = 1_000_000
CREDIT = 50_000
LEAST = 1_000
KEY, COLD = AccountKey(b"\7" * 32), AccountKey(b"\x08" * 32)
CLASS = b"\5" * 32


class Scene:
    """An account with credit, a slot and nothing else, and carriers that ask for different fees."""

    def __init__(self, *, least: tuple[int, ...] = (LEAST, 2 * LEAST)) -> None:
        self.world = World(DOMAINS, Parameters(slot_wei=SLOT))
        self.network = NetworkWorld()
        self.world.stake(KEY.address, 1, b"")
        escrow = self.world.contracts.escrow
        self.world.mint(escrow.address, CREDIT)
        self.world.credits[KEY.address] = CREDIT
        self.chains: list[FakeCarrierChain] = []
        self.carriers: list[Carrier] = []
        self.sources: list[Source] = []
        for number, wei in enumerate(least):
            key, network = AccountKey(bytes([100 + number]) * 32), self.network.join(f"carrier-{number}")
            chain = FakeCarrierChain(self.world, key.address)
            carrier = Carrier(network, chain, DOMAINS, GasPolicy(), wei)
            carrier.open()
            self.chains.append(chain)
            self.carriers.append(carrier)
            self.sources.append(network.source)
        message = PeerBinding(peer_id_hash=b"\6" * 32, account=KEY.address, version=1)
        self.me = self.network.join("newcomer")
        self.chain = FakeCarrierChain(self.world, KEY.address)
        binding = Binding(message, KEY.sign_digest(DOMAINS.digest(message)), b"")
        self.asking = Asking(self.me, self.chain, DOMAINS, KEY, binding, lambda: self.sources)

    @property
    def credit(self) -> int:
        return int(self.world.contracts.escrow.credit_of(KEY.address))

    @property
    def tokens(self) -> int:
        return int(self.world.balances[KEY.address])

    def earned(self, number: int) -> int:
        return int(self.world.contracts.escrow.credit_of(self.chains[number].account))

    def request(self, **fields: Any) -> RelayedWithdraw:
        usual = {"slots": 0, "deposit": False, "fee": LEAST, "nonce": 0, "deadline": self.world.now() + 600, **fields}
        return RelayedWithdraw(account=KEY.address, **usual)

    async def carry(
        self, message: RelayedWithdraw | RelayedBond, *, signer: AccountKey = KEY, peer: str = "newcomer", by: int = 0
    ) -> bytes:
        body = CarryRequest(isinstance(message, RelayedBond), signer.sign(DOMAINS, message).body)
        return await self.carriers[by].carry(peer, exchange.encode(body))


async def test_a_withdrawal_is_carried_by_the_cheapest_and_exact_to_the_wei() -> None:
    scene = Scene()
    done = await scene.asking.withdraw(slots=1)
    assert (done.fee_wei, done.peer) == (LEAST, "carrier-0")
    assert scene.tokens == CREDIT - LEAST
    assert (scene.credit, scene.earned(0), scene.earned(1)) == (0, LEAST, 0)
    assert scene.world.contracts.registry.live_slots(KEY.address) == 0
    assert scene.world.contracts.registry.stake_of(KEY.address) == (0, 0, SLOT)
    assert scene.world.contracts.registry.peer_of(KEY.address) == (b"\6" * 32, 1), "the binding came along"
    scene.world.check()


async def test_credit_becomes_stake_and_the_fee_comes_out_of_it() -> None:
    scene = Scene()
    await scene.asking.bond(20_000)
    assert scene.world.contracts.registry.deposit_of(KEY.address) == 20_000
    assert scene.credit == CREDIT - 20_000 - LEAST
    await scene.asking.bond(ALL)
    assert scene.credit == 0
    assert scene.world.contracts.registry.deposit_of(KEY.address) == CREDIT - 2 * LEAST


async def test_the_next_one_is_asked_where_a_carrier_is_down_or_its_chain_is() -> None:
    scene = Scene(least=(LEAST, LEAST + 1, LEAST + 2))
    scene.network.down.add("carrier-0")
    scene.chains[1].down = True
    done = await scene.asking.withdraw()
    assert done.peer == "carrier-2"
    assert scene.tokens == CREDIT - LEAST - 2


async def test_a_carrier_that_is_silent_after_it_carried_is_not_paid_for_again_nor_another() -> None:
    scene = Scene()
    lost: list[str] = []

    async def mute(peer: str, body: bytes) -> bytes:
        await carry(peer, body)
        lost.append(peer)
        raise RemoteError("internal", "The stream broke.")

    carry = scene.carriers[0].carry
    scene.network.networks["carrier-0"]._dispatcher._handlers[CarryRequest.NAME] = mute
    done = await scene.asking.withdraw()
    assert lost == ["newcomer"]
    assert done.transaction == b""
    assert scene.world.contracts.registry.nonce_of(KEY.address) == 1
    assert scene.tokens == CREDIT - LEAST
    assert scene.earned(1) == 0


async def test_a_carrier_that_says_done_and_did_nothing_is_not_believed() -> None:
    scene = Scene()

    async def lie(peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return exchange.encode(CarriedAnswer(b"\1" * 32))

    scene.network.networks["carrier-0"]._dispatcher._handlers[CarryRequest.NAME] = lie
    done = await scene.asking.withdraw()
    assert done.peer == "carrier-1"
    assert scene.tokens == CREDIT - 2 * LEAST


async def test_a_late_carrier_finds_the_nonce_used_and_the_account_pays_one_fee() -> None:
    """The first got the request, was slow, and sends it after the second one did."""
    scene = Scene()
    kept: list[bytes] = []

    async def keep(peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        kept.append(body)
        raise RemoteError("timeout", "…")

    scene.network.networks["carrier-0"]._dispatcher._handlers[CarryRequest.NAME] = keep
    await scene.asking.withdraw()
    with pytest.raises(RemoteError, match="nonce 1"):
        await scene.carriers[0].carry("newcomer", kept[0])
    assert scene.tokens == CREDIT - 2 * LEAST
    assert scene.earned(0) == 0


async def test_nobody_is_paid_more_than_the_owner_allows() -> None:
    scene = Scene(least=(CREDIT // 2,))
    with pytest.raises(RemoteError, match="asks"):
        await scene.asking.withdraw()
    assert scene.credit == CREDIT
    await scene.asking.withdraw(fee_max=CREDIT // 2)
    assert scene.credit == 0


async def test_an_account_of_another_owner_is_not_signed_for() -> None:
    scene = Scene()
    scene.world.own(KEY.address, COLD.address)
    with pytest.raises(CallerError, match="owner"):
        await scene.asking.withdraw()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"nonce": 1}, "stale_nonce"),
        ({"deadline": -1}, "bad_deadline"),
        ({"deadline": terms.DEADLINE_MIN_S - 1}, "bad_deadline"),
        ({"deadline": terms.DEADLINE_MAX_S + 1}, "bad_deadline"),
        ({"fee": LEAST - 1}, "fee_too_low"),
        ({"fee": CREDIT + 1}, "too_little_credit"),
        ({"slots": 2}, "bad_count"),
    ],
)
async def test_what_would_revert_or_not_pay_is_refused_before_anything_is_sent(
    fields: dict[str, int], code: str
) -> None:
    scene = Scene()
    if "deadline" in fields:
        fields = {**fields, "deadline": scene.world.now() + fields["deadline"]}
    with pytest.raises(RemoteError) as caught:
        await scene.carry(scene.request(**fields))
    assert caught.value.code == code
    assert not scene.chains[0].sent
    assert scene.credit == CREDIT


async def test_a_bond_of_more_than_there_is_beside_the_fee_is_refused() -> None:
    scene = Scene()
    bond = RelayedBond(
        account=KEY.address, amount=CREDIT - LEAST + 1, fee=LEAST, nonce=0, deadline=scene.world.now() + 600
    )
    with pytest.raises(RemoteError) as caught:
        await scene.carry(bond)
    assert caught.value.code == "too_little_credit"


async def test_a_request_that_the_owner_did_not_sign_is_refused() -> None:
    scene = Scene()
    with pytest.raises(RemoteError) as caught:
        await scene.carry(scene.request(), signer=COLD)
    assert caught.value.code == "bad_signature"
    assert not scene.chains[0].sent


async def test_a_binding_that_the_account_did_not_sign_is_refused() -> None:
    scene = Scene()
    binding = PeerBinding(peer_id_hash=b"\6" * 32, account=KEY.address, version=1)
    body = CarryRequest(False, KEY.sign(DOMAINS, scene.request()).body, COLD.sign(DOMAINS, binding).body)
    with pytest.raises(RemoteError) as caught:
        await scene.carriers[0].carry("newcomer", exchange.encode(body))
    assert caught.value.code == "bad_signature"
    assert not scene.chains[0].sent


async def test_a_binding_of_another_account_is_not_paid_for_by_this_one() -> None:
    scene = Scene()
    binding = PeerBinding(peer_id_hash=b"\6" * 32, account=COLD.address, version=1)
    body = CarryRequest(False, KEY.sign(DOMAINS, scene.request()).body, KEY.sign(DOMAINS, binding).body)
    with pytest.raises(RemoteError) as caught:
        await scene.carriers[0].carry("newcomer", exchange.encode(body))
    assert caught.value.code == "bad_binding"


async def test_a_binding_that_is_in_force_is_not_sent_again() -> None:
    scene = Scene()
    await scene.asking.bond(20_000)
    body = CarryRequest(
        False, KEY.sign(DOMAINS, scene.request(nonce=1)).body, KEY.sign(DOMAINS, scene.asking._binding.message).body
    )
    await scene.carriers[0].carry("newcomer", exchange.encode(body))
    assert scene.chains[0].sent == {"bond_for": 1, "bind": 1, "withdraw_for": 1}


async def test_one_peer_cannot_make_a_carrier_ask_the_chain_for_ever() -> None:
    scene = Scene()
    bad = scene.request(nonce=7)
    for _ in range(CARRIES_BURST):
        with pytest.raises(RemoteError, match="nonce"):
            await scene.carry(bad)
    with pytest.raises(RemoteError) as caught:
        await scene.carry(scene.request())
    assert caught.value.code == "too_often"
    await scene.carry(scene.request(), peer="another")


async def test_one_peer_cannot_ask_for_terms_for_ever() -> None:
    """Each question may cost one to the chain."""
    scene = Scene()
    body = exchange.encode(CarryTermsRequest(bond=True))
    for _ in range(ASKS_BURST):
        await scene.carriers[0].say_terms("curious", body)
    with pytest.raises(RemoteError) as caught:
        await scene.carriers[0].say_terms("curious", body)
    assert caught.value.code == "too_often"
    await scene.carriers[0].say_terms("another", body)


async def test_a_carrier_has_few_requests_in_work_whoever_asks() -> None:
    """Each waits for a block, and holds a nonce of the carrier's."""
    scene = Scene()
    scene.carriers[0]._busy |= {bytes([n]) * 20 for n in range(MAX_AT_ONCE)}
    with pytest.raises(RemoteError) as caught:
        await scene.carry(scene.request())
    assert caught.value.code == "busy"


async def test_one_account_has_one_request_in_work() -> None:
    """Else its friends could let a carrier send the same request many times, of which one counts."""
    scene = Scene()
    ends: list[str] = []

    async def ask(peer: str) -> None:
        try:
            await scene.carry(scene.request(), peer=peer)
            ends.append("carried")
        except RemoteError as error:
            ends.append(error.code)

    async with trio.open_nursery() as nursery:
        for peer in ("one", "another"):
            nursery.start_soon(ask, peer)
    assert sorted(ends) == ["busy", "carried"]
    assert scene.chains[0].sent["withdraw_for"] == 1


async def test_the_fee_is_the_gas_s_worth_where_the_coins_price_is_known() -> None:
    scene = Scene()
    policy = GasPolicy(coin_price_wei=10**18)  # a coin is worth a token
    carrier = Carrier(scene.network.join("dear"), scene.chains[0], DOMAINS, policy, LEAST)
    body = exchange.encode(CarryTermsRequest(bond=False, slots=2, bind=True))
    answer = exchange.decode(await carrier.say_terms("peer", body), CarryTermsAnswer)
    gas = terms.GAS_WITHDRAW + 2 * terms.GAS_SLOT + terms.GAS_BIND
    assert int(answer.fee) == gas * scene.chains[0].price * 3 // 2


async def test_without_credit_nobody_is_asked_and_no_higher_fee_is_advised() -> None:
    scene = Scene()
    scene.world.credits[KEY.address] = 0
    with pytest.raises(CallerError) as caught:
        await scene.asking.withdraw(fee_max=10 * LEAST)
    assert caught.value.code == "no_credit"
    scene.world.credits[KEY.address] = LEAST - 1
    with pytest.raises(RemoteError) as short:
        await scene.asking.withdraw(fee_max=10 * LEAST)
    assert short.value.code == "no_carrier"
    assert "--max-fee" not in short.value.remedy, "the fee is paid out of the credit: more may not be asked"


async def test_a_node_whose_owner_asks_for_nothing_carries_nothing() -> None:
    scene = Scene(least=(0,))
    with pytest.raises(RemoteError) as caught:
        await scene.asking.withdraw()
    assert caught.value.code == "no_carrier"


def test_what_gas_is_reckoned_with_covers_what_was_measured() -> None:
    """docs/decisions/the-complete-contracts.md has the execution alone; call data and the transaction come on top."""
    assert terms.GAS_BOND >= 87_000 + 21_000 + 10_000


@pytest.mark.parametrize("fee", ["-5", "", "1.5", "١٢", "1" * 30, "0x10"])
async def test_a_fee_that_is_no_amount_is_no_offer(fee: str) -> None:
    scene = Scene()
    liar = scene.network.join("liar")
    scene.sources[:] = [liar.source]

    async def answer(peer: str, body: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return exchange.encode(CarryTermsAnswer(fee))

    liar.serve(CarryTermsRequest.NAME, answer)
    with pytest.raises(RemoteError, match="decimal string") as caught:
        await scene.asking.withdraw()
    assert caught.value.code == "no_carrier"
    assert scene.credit == CREDIT


@pytest.mark.parametrize("slots", [-1, terms.SLOTS_MAX + 1])
async def test_terms_are_said_for_as_many_slots_as_are_released_at_once(slots: int) -> None:
    scene = Scene()
    body = exchange.encode(CarryTermsRequest(bond=False, slots=slots))
    with pytest.raises(RemoteError) as caught:
        await scene.carriers[0].say_terms("peer", body)
    assert caught.value.code == "bad_count"
