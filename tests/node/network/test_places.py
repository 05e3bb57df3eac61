"""Who makes room among inbound connections: floods of strangers, by what they have to spend, and who stays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tallymesh_node.network.places import MAX_OF_PEER, NOT_CROWDED, Places, Standing, block_of, most_crowded

TOTAL = 40  # shares of 10, 10 and 20
HONEST = "198.51.100.7"


class Hall:
    """Places with peers by name, each with one connection, and a clock that goes on with each of them."""

    def __init__(self, total: int = TOTAL) -> None:
        self.known: dict[str, Standing] = {}
        self.places: Places[str] = Places(lambda peer: self.known.get(peer, Standing.STRANGER), total)
        self.now = 0.0

    def come(self, peer: str, host: str) -> list[str]:
        self.now += 1
        return self.places.enter(peer, peer, host, self.now)

    def use(self, peer: str) -> None:
        self.now += 1
        self.places.use(peer, self.now)

    def flood(self, hosts: Iterator[str], count: int, *, asks: bool = False, before: str = "flood") -> None:
        for number, host in zip(range(count), hosts, strict=False):
            self.come(f"{before}{number}", host)
            if asks:
                self.use(f"{before}{number}")

    def __contains__(self, peer: str) -> bool:
        return peer in list(self.places)


def one_address() -> Iterator[str]:
    return itertools.repeat("203.0.113.9")


def one_block() -> Iterator[str]:
    return (f"203.0.113.{number % 256}" for number in itertools.count())


def one_site() -> Iterator[str]:
    """A /48 of IPv6: more addresses than anybody can count."""
    return (f"2001:db8:1:{number % 65536:x}::{number:x}" for number in itertools.count())


def many_blocks() -> Iterator[str]:
    return (f"10.{number // 256 % 256}.{number % 256}.1" for number in itertools.count())


Attack = Callable[[], Iterator[str]]
attacks = pytest.mark.parametrize("attack", [one_address, one_block, one_site, many_blocks])
narrow = pytest.mark.parametrize("attack", [one_address, one_block, one_site])


def test_nobody_leaves_while_there_is_room() -> None:
    hall = Hall()
    hall.flood(one_address(), TOTAL)
    assert len(hall.places) == TOTAL


@attacks
@pytest.mark.parametrize("asks", [False, True])
def test_whoever_comes_in_a_flood_is_let_in_and_there_are_never_more_than_places(attack: Attack, asks: bool) -> None:
    hall = Hall()
    hall.flood(attack(), 3 * TOTAL, asks=asks)
    hall.come("honest", HONEST)
    assert "honest" in hall
    assert len(hall.places) == TOTAL


@narrow
@pytest.mark.parametrize("asks", [False, True])
def test_a_flood_from_one_address_or_block_pushes_out_itself_alone(attack: Attack, asks: bool) -> None:
    """Also strangers who say nothing, of whom some share an address (an office), stay for as long as it goes on."""
    hall = Hall()
    office = [f"office{number}" for number in range(NOT_CROWDED // 2)]
    for name in office:
        hall.come(name, "192.0.2.1")
    hall.come("honest", HONEST)
    hall.flood(attack(), 4 * TOTAL, asks=asks)
    assert {*office, "honest"} <= set(hall.places)


def test_a_stranger_at_the_attackers_own_address_is_let_in_and_has_time_to_ask() -> None:
    hall = Hall()
    hall.flood(one_address(), 2 * TOTAL)
    hall.come("honest", next(one_address()))
    hall.flood(one_address(), TOTAL // 2, before="next")
    assert "honest" in hall
    hall.use("honest")
    hall.flood(one_address(), 4 * TOTAL, before="last")
    assert "honest" in hall


@attacks
def test_no_flood_of_newcomers_takes_the_share_of_those_that_were_of_use(attack: Attack) -> None:
    hall = Hall()
    useful = [f"useful{number}" for number in range(TOTAL // 4)]
    for number, name in enumerate(useful):
        hall.come(name, f"192.0.{number}.1")
        hall.use(name)
    hall.flood(attack(), 4 * TOTAL)
    assert set(useful) <= set(hall.places)


@attacks
@pytest.mark.parametrize("asks", [False, True])
def test_no_flood_of_strangers_takes_the_share_of_those_with_stake(attack: Attack, asks: bool) -> None:
    """Wherever they are: also at the address of the flood."""
    hall = Hall()
    staked = [f"staked{number}" for number in range(TOTAL // 2)]
    hall.known |= dict.fromkeys(staked, Standing.STAKED)
    for name, host in zip(staked, attack(), strict=False):
        hall.come(name, host)
    hall.flood(attack(), 4 * TOTAL, asks=asks)
    assert set(staked) <= set(hall.places)


@attacks
def test_partners_make_room_for_nobody(attack: Attack) -> None:
    hall = Hall()
    partners = [f"partner{number}" for number in range(TOTAL - 5)]
    hall.known |= dict.fromkeys(partners, Standing.PARTNER)
    for name in partners:
        hall.come(name, "203.0.113.9")
    hall.flood(attack(), 3 * TOTAL)
    assert set(partners) <= set(hall.places)
    assert len(hall.places) == TOTAL


def test_partners_above_all_places_stay_and_only_they() -> None:
    hall = Hall()
    for number in range(TOTAL + 5):
        hall.known[f"partner{number}"] = Standing.PARTNER
        hall.come(f"partner{number}", HONEST)
    assert hall.come("stranger", HONEST) == ["stranger"]
    assert len(hall.places) == TOTAL + 5


def test_those_with_stake_leave_newcomers_their_share() -> None:
    """Else a network of more staked nodes than places would be closed to whoever is new."""
    hall = Hall()
    for number in range(2 * TOTAL):
        hall.known[f"staked{number}"] = Standing.STAKED
        hall.come(f"staked{number}", f"10.0.{number}.1")
    for number in range(TOTAL // 4):
        hall.come(f"new{number}", f"192.0.{number}.1")
    assert all(f"new{number}" in hall for number in range(TOTAL // 4))


def test_of_those_with_stake_who_was_asked_for_nothing_for_longest_leaves() -> None:
    """Not who has a crowd of strangers for neighbours."""
    hall = Hall()
    for number in range(TOTAL // 2):
        hall.known[f"staked{number}"] = Standing.STAKED
        hall.come(f"staked{number}", f"10.0.{number}.1" if number < 3 else HONEST)
    hall.use("staked0")
    hall.flood(itertools.repeat(HONEST), TOTAL // 4, asks=True)
    hall.flood(itertools.repeat(HONEST), TOTAL // 4, before="new")
    hall.known["last"] = Standing.STAKED
    assert hall.come("last", HONEST) == ["staked1"]


def test_who_asks_from_many_blocks_shares_with_those_who_ask_too() -> None:
    """What is left: who has as many blocks as there are places, and asks as often as the honest do, is their equal."""
    hall = Hall()
    hall.come("honest", HONEST)
    hall.use("honest")
    hall.flood(many_blocks(), 3 * TOTAL, asks=True)
    assert "honest" not in hall
    hall.come("honest", HONEST)
    hall.flood(many_blocks(), TOTAL // 2, asks=True, before="next")
    assert "honest" in hall


def test_one_peers_connections_are_few_and_its_oldest_goes() -> None:
    hall = Hall()
    gone = [hall.places.enter(f"c{number}", "peer", HONEST, float(number)) for number in range(MAX_OF_PEER + 2)]
    assert gone == [[]] * MAX_OF_PEER + [["c0"], ["c1"]]
    assert len(hall.places) == MAX_OF_PEER


def test_who_left_is_forgotten_with_its_use() -> None:
    hall = Hall(total=4)
    hall.come("a", HONEST)
    hall.use("a")
    hall.places.leave("a")
    hall.places.leave("a")
    hall.use("nobody")
    assert not hall.places._used
    assert not hall.places._peers


@pytest.mark.parametrize(
    ("host", "block"),
    [
        ("203.0.113.9", ("203.0.113.0/24", "203.0.113.9")),
        ("::ffff:203.0.113.9", ("203.0.113.0/24", "203.0.113.9")),
        ("2001:db8:1:2::3", ("2001:db8:1::/48", "2001:db8:1:2::/64")),
        ("fe80::1%eth0", ("fe80::/48", "fe80::/64")),
        ("", ("", "")),
        ("nonsense", ("", "nonsense")),
    ],
)
def test_block_and_machine_of_an_address(host: str, block: tuple[str, str]) -> None:
    assert block_of(host) == block


def test_the_most_crowded_block_and_in_it_the_most_crowded_address() -> None:
    blocks = [block_of(host) for host in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.1.1", "10.0.1.1")]
    assert most_crowded(blocks, among=set(blocks), few=1) == {block_of("10.0.0.2")}
    assert most_crowded(blocks, among=set(blocks), few=3) == set(blocks)
    assert most_crowded(blocks, among={block_of("10.0.1.1")}, few=1) == {block_of("10.0.1.1")}
