"""Offers: who may send one, how long it counts, and that no stranger can fill or bend the book."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
import trio

from fakes.chain import DOMAINS, World
from tallymesh import cards
from tallymesh.errors import RemoteError
from tallymesh.exchange import Source
from tallymesh.messages import Offer
from tallymesh.parameters import Parameters
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.market import book as book_module
from tallymesh_node.market.book import UNREACHABLE_S, OfferBook
from tallymesh_node.market.envelope import MAX_OFFER_BYTES, Binding, Envelope, Opener, bind, seal
from tallymesh_node.market.lane import MAX_OF_BLOCK
from tallymesh_node.market.publisher import Capacity, Publisher
from tallymesh_node.network import Verdict, keys

NOW = 1_800_000_000
ACCOUNT, OTHER = AccountKey(b"\1" * 32), AccountKey(b"\2" * 32)
PEER, STRANGER = keys.generate(), keys.generate()
BINDING = bind(DOMAINS, ACCOUNT, PEER, 1)
NEIGHBOUR = "12D3KooWNeighbour"
GPUS = cards.Cards(64, "NVIDIA RTX 6000 Ada Generation with a long name", 999_999_999, "570.86.15", 99_999.9, 9_999.9)


def offer(account: AccountKey = ACCOUNT, peer: keys.PeerKey = PEER, **more: object) -> Offer:
    fields: dict[str, object] = {
        "account": account.address, "peer_id_hash": keys.peer_id_hash(peer.peer_id), "numeric_class": b"\5" * 32,
        "provisional": False, "cores": 4, "memory_mib": 8192, "disk_mib": 10_000, "gpus": "", "cpu_score": 1000,
        "ask_price": 10, "addresses": "/ip4/127.0.0.1/tcp/4001", "attestation": bytes(32), "seq": 1, "issued": NOW - 5,
        "expires": NOW + 60,
    }  # fmt: skip
    return Offer(**(fields | more))


def opener() -> Opener:
    return Opener(DOMAINS, lambda: NOW)


def test_good_offer_opens() -> None:
    assert opener().open(PEER.peer_id, seal(DOMAINS, ACCOUNT, BINDING, offer())) == offer()


def test_offer_sent_by_another_peer_is_refused() -> None:
    with pytest.raises(RemoteError, match="another peer"):
        opener().open(STRANGER.peer_id, seal(DOMAINS, ACCOUNT, BINDING, offer()))


def test_offer_that_the_account_did_not_sign_is_refused() -> None:
    with pytest.raises(RemoteError, match="not signed by"):
        opener().open(PEER.peer_id, seal(DOMAINS, OTHER, BINDING, offer()))


def test_binding_that_the_account_did_not_sign_is_refused() -> None:
    """Else any peer could hang itself under a staked account's old offer with its own address."""
    forged = Binding(BINDING.message, OTHER.sign_digest(DOMAINS.digest(BINDING.message)), BINDING.peer_signature)
    with pytest.raises(RemoteError, match="did not sign the binding"):
        opener().open(PEER.peer_id, seal(DOMAINS, ACCOUNT, forged, offer()))


def test_binding_that_the_peer_did_not_sign_back_is_refused() -> None:
    """Else an account could claim a stranger's machine as its own."""
    digest = DOMAINS.digest(BINDING.message)
    forged = Binding(BINDING.message, BINDING.account_signature, keys.sign_as_peer(STRANGER, digest))
    with pytest.raises(RemoteError, match="did not sign the account back"):
        opener().open(PEER.peer_id, seal(DOMAINS, ACCOUNT, forged, offer()))


@pytest.mark.parametrize(
    "times", [{"expires": NOW}, {"issued": NOW + 100, "expires": NOW + 160}], ids=["expired", "from the future"]
)
def test_offer_out_of_its_time_is_stale(times: dict[str, int]) -> None:
    with pytest.raises(RemoteError) as caught:
        opener().open(PEER.peer_id, seal(DOMAINS, ACCOUNT, BINDING, offer(**times)))
    assert caught.value.code == "stale"


def test_offer_that_would_stay_for_years_is_refused() -> None:
    with pytest.raises(RemoteError, match="lives for longer"):
        opener().open(PEER.peer_id, seal(DOMAINS, ACCOUNT, BINDING, offer(expires=NOW + 10**8)))


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x94" + b"\xc4\x00" * 4, b"\x91" * 600, b"x" * 600])
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        opener().open(PEER.peer_id, data)


def test_second_form_of_the_same_envelope_is_refused() -> None:
    data = seal(DOMAINS, ACCOUNT, BINDING, offer())
    parts = msgspec.msgpack.decode(data, type=Envelope)
    longer = msgspec.msgpack.encode(parts).replace(b"\x01\xc4\x41", b"\xcd\x00\x01\xc4\x41", 1)
    assert longer != data
    with pytest.raises(RemoteError, match="canonical"):
        opener().open(PEER.peer_id, longer)


async def test_the_longest_offer_stays_under_512_bytes() -> None:
    sent: list[bytes] = []

    async def publish(data: bytes) -> None:
        sent.append(data)

    publisher = Publisher(
        DOMAINS, ACCOUNT, BINDING, Parameters(),
        addresses=lambda: [f"/ip6/2001:db8:85a3:8d3:1319:8a2e:370:734{n}/tcp/65535" for n in range(9)],
        publish=publish, now=lambda: NOW,
    )  # fmt: skip
    publisher.offer(
        Capacity(
            cores=65_535, memory_mib=2**32 - 1, disk_mib=2**32 - 1, gpus=cards.show(GPUS),
            cpu_score=2**32 - 1, ask_price=2**95, numeric_class=b"\xff" * 32, provisional=False,
        )
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        await publisher.first_published.wait()
        nursery.cancel_scope.cancel()
    assert len(sent[0]) <= MAX_OFFER_BYTES
    opened = opener().open(PEER.peer_id, sent[0])
    assert opened.addresses.count("/tcp/65535") == 1
    assert cards.count(opened.gpus) == 64
    assert len(opened.gpus.encode()) == cards.MAX_BYTES


async def test_a_node_whose_clock_is_behind_that_of_its_wallets_other_node_goes_on_offering() -> None:
    """The book refused its offer as an old one, and the node ended over it, at each start."""
    market = book()
    ahead = offer(peer=STRANGER, seq=(NOW + 30) * 1_000_000, issued=NOW + 30, expires=NOW + 90)
    assert market.add(ahead, STRANGER.peer_id)
    verdicts: list[Verdict] = []

    async def publish(data: bytes) -> None:
        verdicts.append(market.validate(PEER.peer_id, data, PEER.peer_id))

    publisher = Publisher(
        DOMAINS, ACCOUNT, BINDING, Parameters(),
        addresses=list, publish=publish, now=lambda: NOW, known_seq=lambda: market.seq_of(ACCOUNT.address),
    )  # fmt: skip
    publisher.offer(
        Capacity(
            cores=1, memory_mib=1, disk_mib=1, gpus="", cpu_score=1, ask_price=1, numeric_class=bytes(32),
            provisional=False,
        )
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        await publisher.first_published.wait()
        nursery.cancel_scope.cancel()
    assert verdicts == [Verdict.ACCEPT]


def book(world: World | None = None, learner: object = None) -> OfferBook:
    return OfferBook(opener(), (world or World()).view(ACCOUNT.address), lambda: NOW, learner)  # type: ignore[arg-type]


def test_replayed_or_older_offer_changes_nothing() -> None:
    market = book()
    newer = seal(DOMAINS, ACCOUNT, BINDING, offer(seq=5))
    assert market.validate(PEER.peer_id, newer, NEIGHBOUR) is Verdict.ACCEPT
    assert market.validate(PEER.peer_id, newer, NEIGHBOUR) is Verdict.IGNORE
    assert market.validate(PEER.peer_id, seal(DOMAINS, ACCOUNT, BINDING, offer(seq=4)), NEIGHBOUR) is Verdict.IGNORE
    assert [listed.offer.seq for listed in market.offers()] == [5]


def test_forged_offer_is_rejected_and_stale_one_only_ignored() -> None:
    market = book()
    assert market.validate(STRANGER.peer_id, seal(DOMAINS, ACCOUNT, BINDING, offer()), NEIGHBOUR) is Verdict.REJECT
    assert (
        market.validate(PEER.peer_id, seal(DOMAINS, ACCOUNT, BINDING, offer(expires=NOW)), NEIGHBOUR) is Verdict.IGNORE
    )
    assert market.offers() == []


def test_a_flood_of_unstaked_offers_never_pushes_out_a_staked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_OFFERS", 5)
    world = World()
    world.stake(ACCOUNT.address, 1, b"\5" * 32)
    market = book(world)
    trio.run(market.refresh)
    assert market.add(offer(expires=NOW + 1), PEER.peer_id)
    for number in range(20):
        market.add(offer(account=AccountKey(bytes([9, number] * 16)), expires=NOW + 2 + number), f"peer{number}")
    held = market.offers()
    assert len(held) == 1 + MAX_OF_BLOCK, "they name one block of addresses"
    assert ACCOUNT.address in {listed.offer.account for listed in held}


def test_a_peer_has_stake_while_an_offer_binds_it_to_an_account_with_a_slot() -> None:
    world = World()
    market = book(world)
    market.add(offer(), PEER.peer_id)
    trio.run(market.refresh)
    assert not market.is_staked(PEER.peer_id)
    world.stake(ACCOUNT.address, 1, b"\5" * 32)
    trio.run(market.refresh)
    assert market.is_staked(PEER.peer_id)
    assert not market.is_staked(STRANGER.peer_id)
    market._now = lambda: NOW + 60
    market.expire()
    assert not market.is_staked(PEER.peer_id)


def test_expired_offer_leaves_the_book_and_its_peer_is_forgotten() -> None:
    market = book()
    market.add(offer(expires=NOW + 1), PEER.peer_id)
    assert market.account_of(PEER.peer_id) == ACCOUNT.address
    market._now = lambda: NOW + 1
    assert market.offers() == []
    assert market.account_of(PEER.peer_id) is None


async def test_candidates_carry_what_the_chain_says() -> None:
    class Learner:
        def __init__(self) -> None:
            self.learned: list[Source] = []

        def learn(self, source: Source) -> None:
            self.learned.append(source)

    world, learner = World(), Learner()
    world.stake(ACCOUNT.address, 2, b"\5" * 32)
    world.stake(OTHER.address, 1, b"\5" * 32)
    market = book(world, learner)
    market.add(offer(), PEER.peer_id)
    assert market.candidates(NOW) == []  # nothing is believed before the chain was read
    await market.refresh()
    (found,) = market.candidates(NOW)
    assert (found.slots, found.class_accounts, found.class_share_bp) == (2, 1, 3333)
    assert found.free_stake == 2 * Parameters().slot_wei
    assert _addresses(learner.learned) == ["/ip4/127.0.0.1/tcp/4001"]
    market.note_unreachable(ACCOUNT.address, "Port 4001 is closed.")
    assert market.candidates(NOW)[0].unreachable == "Port 4001 is closed."


async def test_an_account_whose_slot_counts_is_never_shown_without_its_free_stake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two questions to the chain: a job that is matched then would be told that it has none."""
    world = World()
    world.stake(ACCOUNT.address, 1, b"\5" * 32)
    market = book(world)
    market.add(offer(), PEER.peer_id)
    asking = market._chain.free_stakes
    seen: list[int] = []

    async def slow(accounts: Sequence[bytes]) -> list[int]:
        seen.append(len(market.candidates(NOW)))
        return await asking(accounts)

    monkeypatch.setattr(market._chain, "free_stakes", slow)
    await market.refresh()
    assert seen == [0]
    assert [each.free_stake for each in market.candidates(NOW)] == [Parameters().slot_wei]


async def test_a_peer_that_could_not_be_dialled_is_tried_again_later() -> None:
    now = float(NOW)
    world = World()
    world.stake(ACCOUNT.address, 1, b"\5" * 32)
    market = OfferBook(opener(), world.view(ACCOUNT.address), lambda: now)
    market.add(offer(), PEER.peer_id)
    await market.refresh()
    market.note_unreachable(ACCOUNT.address, "Port 4001 is closed.")
    now += UNREACHABLE_S - 1
    assert market.candidates(NOW)[0].unreachable
    now += 2
    assert not market.candidates(NOW)[0].unreachable


def _addresses(sources: Sequence[Source]) -> list[str]:
    return [address for source in sources for address in source.addresses]
