"""The lane of accounts without stake: sybils, spam and liars fill no more of it than they may, nor cost more."""

from __future__ import annotations

import itertools

import pytest
import trio

from fakes.chain import DOMAINS, World
from tallymesh.messages import Offer
from tallymesh.parameters import Parameters
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.market import lane as lane_module
from tallymesh_node.market.book import OfferBook
from tallymesh_node.market.envelope import Opener, Unchecked, bind, seal
from tallymesh_node.market.lane import (
    CHECKS_BURST,
    MAX_NEWCOMERS,
    MAX_OF_BLOCK,
    MAX_OF_NEIGHBOUR,
    Lane,
    block_of,
)
from tallymesh_node.network import Verdict, keys

NOW = 1_800_000_000
STAKED = AccountKey(b"\1" * 32)
PEER = keys.generate()
numbers = itertools.count(1)


def account() -> AccountKey:
    return AccountKey(next(numbers).to_bytes(32, "big"))


def offer(key: AccountKey, *, address: str = "192.0.2.1", seq: int = 1, life: int = 60) -> Offer:
    return Offer(
        account=key.address, peer_id_hash=keys.peer_id_hash(PEER.peer_id), numeric_class=b"\5" * 32, provisional=False,
        cores=4, memory_mib=8192, disk_mib=10_000, gpus="", cpu_score=1000, ask_price=10,
        addresses=f"/ip4/{address}/tcp/4001", attestation=bytes(32), seq=seq, issued=NOW - 5, expires=NOW + life,
    )  # fmt: skip


def sealed(key: AccountKey, **more: object) -> bytes:
    return seal(DOMAINS, key, bind(DOMAINS, key, PEER, 1), offer(key, **more))  # type: ignore[arg-type]


class Counting(Opener):
    """The real one; how many offers had their signatures checked."""

    checked = 0

    def check(self, author: str, unchecked: Unchecked, *, newcomer: bool = False) -> Offer:
        self.checked += 1
        return super().check(author, unchecked, newcomer=newcomer)


class Market:
    def __init__(self, *, own: bytes = b"") -> None:
        self.now = float(NOW)
        self.world = World(DOMAINS, Parameters())
        self.world.stake(STAKED.address, 1, b"\5" * 32)
        self.opener = Counting(DOMAINS, lambda: self.now)
        self.book = OfferBook(self.opener, self.world.view(STAKED.address), lambda: self.now, own=own)
        trio.run(self.book.refresh)

    def hear(self, key: AccountKey, *, by: str = "neighbour", **more: object) -> Verdict:
        return self.book.validate(PEER.peer_id, sealed(key, **more), by)

    def holds(self, key: AccountKey) -> bool:
        return any(listed.offer.account == key.address for listed in self.book.offers())


def test_sybils_of_one_address_block_get_the_places_of_one_house() -> None:
    market = Market()
    heard = [market.hear(account(), address=f"192.0.2.{n}", by=f"neighbour{n % 9}") for n in range(40)]
    assert heard.count(Verdict.ACCEPT) == MAX_OF_BLOCK
    assert heard.count(Verdict.IGNORE) == 40 - MAX_OF_BLOCK, "nobody is blamed, and nothing is relayed"
    assert market.hear(account(), address="198.51.100.7") is Verdict.ACCEPT
    assert market.opener.checked == MAX_OF_BLOCK + 1, "what has no place costs no signature"


def test_sybils_that_make_up_addresses_are_bounded_by_who_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "MAX_OF_NEIGHBOUR", 10)
    market = Market()
    heard = [market.hear(account(), address=f"10.0.{n}.1") for n in range(30)]
    assert heard.count(Verdict.ACCEPT) == 10
    assert market.hear(account(), address="198.51.100.7", by="an honest one") is Verdict.ACCEPT
    assert market.opener.checked == 11


def test_one_neighbour_cannot_make_a_node_check_signatures_for_ever() -> None:
    """Offers that live for a second free their place again and again."""
    market = Market()
    for n in range(int(CHECKS_BURST) + 50):
        market.hear(account(), address=f"10.{n % 200}.{n // 200}.1")
        for key in list(market.book._offers):
            market.book._drop(key)
    assert market.opener.checked == CHECKS_BURST
    market.now += 1
    assert market.hear(account(), address="10.250.0.1") is Verdict.ACCEPT


def test_staked_offers_are_neither_pushed_out_nor_checked_later_for_a_flood() -> None:
    market = Market()
    assert market.hear(STAKED) is Verdict.ACCEPT
    for n in range(300):
        market.hear(account(), address=f"10.{n % 200}.{n // 200}.1", by="flood")
    assert market.holds(STAKED)
    assert market.hear(STAKED, seq=2, by="flood") is Verdict.ACCEPT, "the flood's neighbour may bring it as before"
    assert len(market.opener._good) == 1, "nor is its binding forgotten for theirs"


def test_an_account_that_claims_stake_which_it_does_not_sign_for_is_rejected() -> None:
    market = Market()
    forged = seal(DOMAINS, account(), bind(DOMAINS, STAKED, PEER, 1), offer(STAKED))
    assert market.book.validate(PEER.peer_id, forged, "liar") is Verdict.REJECT


def test_a_newcomer_that_gets_a_slot_leaves_the_lane_and_its_place_is_free() -> None:
    market = Market()
    crowd = [account() for _ in range(MAX_OF_BLOCK)]
    assert all(market.hear(key) is Verdict.ACCEPT for key in crowd)
    late = account()
    assert market.hear(late) is Verdict.IGNORE
    market.world.stake(crowd[0].address, 1, b"\5" * 32)
    trio.run(market.book.refresh)
    assert crowd[0].address not in market.book.lane
    assert market.holds(crowd[0])
    assert market.hear(late) is Verdict.ACCEPT


def test_accounts_that_gave_their_slots_back_share_the_lane() -> None:
    market = Market()
    crowd = [account() for _ in range(MAX_OF_BLOCK + 5)]
    for key in crowd:
        market.world.stake(key.address, 1, b"\5" * 32)
    trio.run(market.book.refresh)
    assert all(market.hear(key) is Verdict.ACCEPT for key in crowd)
    world = World(DOMAINS, Parameters())  # the same chain, later: their slots are released
    world.stake(STAKED.address, 1, b"\5" * 32)
    market.book._chain = world.view(STAKED.address)
    trio.run(market.book.refresh)
    assert len(market.book.lane) == MAX_OF_BLOCK
    assert len(market.book.offers()) == MAX_OF_BLOCK


def test_an_offer_that_expired_gives_its_place_back() -> None:
    market = Market()
    for _ in range(MAX_OF_BLOCK):
        market.hear(account(), life=10)
    market.now += 11
    market.book.expire()
    assert len(market.book.lane) == 0
    assert market.hear(account()) is Verdict.ACCEPT


def test_a_nodes_own_offer_is_published_however_full_its_lane_is() -> None:
    me = account()
    market = Market(own=me.address)
    for n in range(MAX_OF_BLOCK):
        market.hear(account(), by=f"neighbour{n}")
    assert market.hear(me) is Verdict.ACCEPT


def test_before_the_chain_was_read_nobody_is_turned_away_and_then_all_are_sorted() -> None:
    market = Market()
    market.book = OfferBook(market.opener, market.world.view(STAKED.address), lambda: market.now)
    for key in [STAKED, *(account() for _ in range(MAX_OF_BLOCK + 3))]:
        assert market.hear(key) is Verdict.ACCEPT
    trio.run(market.book.refresh)
    assert market.holds(STAKED)
    assert len(market.book.offers()) == MAX_OF_BLOCK + 1


def test_a_full_lane_is_shared_out_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "MAX_NEWCOMERS", 6)
    lane = Lane(lambda: 0.0)
    for n in range(6):
        assert lane.enter(bytes([n]), f"/ip4/10.0.{n // 4}.1/tcp/1", "a") == (True, None)
    assert lane.enter(b"new", "/ip4/10.9.0.1/tcp/1", "b") == (True, b"\3"), "of the block that held four"
    assert lane.enter(b"more", "/ip4/10.0.0.9/tcp/1", "b") == (False, None), "the largest gets no more"
    assert len(lane) == 6


def test_moving_into_a_full_block_is_entering_it() -> None:
    lane = Lane(lambda: 0.0)
    for n in range(MAX_OF_BLOCK):
        lane.enter(bytes([n]), "/ip4/10.0.0.1/tcp/1", "a")
    lane.enter(b"mover", "/ip4/10.0.1.1/tcp/1", "a")
    assert lane.enter(b"mover", "/ip4/10.0.0.2/tcp/1", "a") == (False, None)
    assert b"mover" not in lane


@pytest.mark.parametrize(
    ("addresses", "block"),
    [
        ("/ip4/192.0.2.77/tcp/4001", "192.0.2.0/24"),
        ("/ip4/192.0.2.77/tcp/4001,/ip4/10.0.0.1/tcp/4001", "192.0.2.0/24"),
        ("/ip6/2001:db8:85a3:8d3::1/tcp/4001", "2001:db8:85a3::/48"),
        ("/ip6/::ffff:192.0.2.77/tcp/4001", "192.0.2.0/24"),
        ("/dns4/example.org/tcp/4001", ""),
        ("/ip4/300.1.1.1/tcp/1", ""),
        ("", ""),
    ],
)
def test_the_block_of_an_offer(addresses: str, block: str) -> None:
    assert block_of(addresses) == block


def test_the_bounds_fit_together() -> None:
    assert MAX_OF_BLOCK < MAX_OF_NEIGHBOUR < MAX_NEWCOMERS
