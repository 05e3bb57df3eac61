"""Where a party says that it is counts only from the peer that its account names."""

from __future__ import annotations

import pytest
import trio

from fakes.chain import DOMAINS
from fakes.network import FakeNetwork, World
from fakes.worker_scene import key_of
from tallymesh import exchange
from tallymesh.errors import RemoteError
from tallymesh.exchange import WhereRequest
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.quarrels import whereabouts
from tallymesh_node.quarrels.whereabouts import MAX_ADDRESS, MAX_ADDRESSES, MAX_KNOWN, Whereabouts

PARTY, OTHER = key_of(1), key_of(2)


class Pair:
    """A party that tells, and a member that listens."""

    def __init__(self) -> None:
        world = World()
        self.here, self.there = world.join(), world.join()
        self.member = Whereabouts(self.there, DOMAINS, OTHER)
        self.member.open()

    async def tell(self, body: bytes, *, by: FakeNetwork | None = None) -> None:
        await (by or self.here).request(self.there.source, WhereRequest.NAME, body, timeout_s=1)

    def said(self, key: AccountKey = PARTY, *, network: FakeNetwork | None = None) -> bytes:
        return Whereabouts(network or self.here, DOMAINS, key).of_mine()


async def test_a_party_without_an_offer_is_found_where_it_says() -> None:
    pair = Pair()
    assert pair.member.source_of(PARTY.address) is None
    await pair.tell(pair.said())
    assert pair.member.source_of(PARTY.address) == pair.here.source


async def refused(code: str, pair: Pair, body: bytes) -> None:
    with pytest.raises(RemoteError) as refusal:
        await pair.tell(body)
    assert refusal.value.code == code
    assert pair.member.source_of(PARTY.address) is None


async def test_nobody_says_where_another_account_is() -> None:
    pair = Pair()
    await refused("bad_binding", pair, pair.said(network=pair.there))  # another peer's words, brought by this one
    forged = exchange.decode(pair.said(OTHER), WhereRequest)
    mine = exchange.decode(pair.said(), WhereRequest)
    signature = forged.binding[-65:]
    body = exchange.encode(WhereRequest(mine.binding[:-65] + signature, mine.addresses))
    await refused("bad_signature", pair, body)


@pytest.mark.parametrize("addresses", [("/ip4/1.2.3.4",) * (MAX_ADDRESSES + 1), ("x" * (MAX_ADDRESS + 1),)])
async def test_addresses_without_bound_are_refused(addresses: tuple[str, ...]) -> None:
    pair = Pair()
    mine = exchange.decode(pair.said(), WhereRequest)
    await refused("bad_message", pair, exchange.encode(WhereRequest(mine.binding, addresses)))


async def test_what_is_known_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "MAX_KNOWN", 3)
    assert MAX_KNOWN > 3
    pair = Pair()
    keys = [key_of(number) for number in range(10, 15)]
    for key in keys:
        await pair.tell(pair.said(key))
    assert [pair.member.source_of(key.address) is not None for key in keys] == [False, False, True, True, True]
    await trio.lowlevel.checkpoint()
