"""Waiting and trying again: how long, how often, and what is an error of whom."""

from __future__ import annotations

import itertools

import pytest
import trio
import trio.lowlevel

from tallymesh.errors import ChainError, RemoteError
from tallymesh.ids import BlobId
from tallymesh_node import complaints, looks
from tallymesh_node.grants import Grants


async def agree() -> None:
    await trio.lowlevel.checkpoint()


async def refuse(*, reverted: bool) -> None:
    await trio.lowlevel.checkpoint()
    raise ChainError("reverted" if reverted else "chain_unavailable", "No.", reverted=reverted)


def test_a_look_comes_several_times_in_the_shortest_window_but_not_all_the_time() -> None:
    assert looks.pause_s(500, 250) == 250 / looks.LOOKS
    assert looks.pause_s(500, 5) == looks.LOOK_MIN_S
    assert looks.pause_s(10**6, 10**5) == looks.LOOK_MAX_S


def test_each_refusal_doubles_the_pause_up_to_the_most() -> None:
    assert [looks.backoff_s(tries, 2.0, 600.0) for tries in (0, 1, 2, 8, 9, 10**6)] == [2, 4, 8, 512, 600, 600]


async def test_what_reverts_was_done_by_somebody_and_what_could_not_be_asked_is_an_error() -> None:
    assert await looks.tried("it", agree())
    assert not await looks.tried("it", refuse(reverted=True))
    with pytest.raises(ChainError) as caught:
        await looks.tried("it", refuse(reverted=False))
    assert caught.value.code == "chain_unavailable"


async def test_the_chain_is_asked_until_it_answers() -> None:
    asked: list[float] = []

    async def ask() -> str:
        asked.append(trio.current_time())
        if len(asked) < 3:
            await refuse(reverted=False)
        return "terms"

    assert await looks.answered(ask, "it") == "terms"
    assert [later - asked[0] for later in asked] == [0, looks.ANSWER_RETRY_S, 2 * looks.ANSWER_RETRY_S]


async def test_a_peer_is_asked_again_after_longer_and_longer_pauses_and_only_for_its_own_errors() -> None:
    asked: list[float] = []

    async def ask() -> None:
        asked.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise RemoteError("not_yet", "Later.")

    with trio.move_on_after(60):
        await looks.obtained(ask, "it")
    pauses = [after - before for before, after in itertools.pairwise(asked)]
    assert pauses == [0.5, 1, 2, 4, 8, 15, 15]
    with pytest.raises(ChainError):
        await looks.obtained(lambda: refuse(reverted=True), "it")


def test_a_grant_is_one_peers_for_one_ticket_and_the_oldest_goes() -> None:
    grants, blob = Grants(), BlobId(b"b" * 32)
    grants.give("one", b"ticket", {blob}, most=2)
    grants.give("two", b"ticket", {blob}, most=2)
    assert grants.holds("one", blob, b"ticket")
    assert not grants.holds("one", BlobId(b"c" * 32), b"ticket")
    assert not grants.holds("one", blob, b"another")
    assert not grants.holds("three", blob, b"ticket")
    grants.give("one", b"ticket", {blob}, most=2)  # asked again: it is the newest now
    grants.give("three", b"ticket", {blob}, most=2)
    assert grants.holds("one", blob, b"ticket")
    assert not grants.holds("two", blob, b"ticket")


def test_an_owner_is_told_each_problem_once_and_the_first_of_many() -> None:
    error = RemoteError("not_yet", "Later.", peer="somebody", remedy="Wait.")
    assert complaints.told(error) == ("not_yet", "Later. Wait.")
    found = [None, ("a", "A."), ("a", "A."), *((f"c{i}", "C.") for i in range(20))]
    assert [each.code for each in complaints.problems(found)] == ["a", *(f"c{i}" for i in range(7))]
