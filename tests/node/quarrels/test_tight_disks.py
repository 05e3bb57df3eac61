"""A claim and a case, whole, on disks where room must be made all the time: what they fetched stays until they are
over, for as long as one is open, and each of them fails where that rule is taken out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace

from fakes.claim_scene import Story
from fakes.claims import COURT, WINDOWS
from fakes.party_scene import PartyScene
from fakes.tight import OLD, Tight
from fakes.trial_scene import Trial, lie
from tallymesh_ledger.claims import RANKS, Heard
from tallymesh_ledger.court import CaseState, Ruling
from tallymesh_node.blobs.room import FRESH_S
from tallymesh_node.cores import AUDIT
from tallymesh_node.holders import holders_of

LONG_S = 2 * int(FRESH_S)  # a window in which a blob that came at its beginning is not young any more at its end
AWAY_S = LONG_S * 0.8
pytestmark = pytest.mark.slow
BY_AGE = pytest.mark.parametrize("by_age", [True, False], ids=["kept", "without the rule"])


@asynccontextmanager
async def tight(story: Story, scene: Trial, *, by_age: bool) -> AsyncIterator[list[Tight]]:
    """Every node's disk, while all are running."""
    found = []
    async with trio.open_nursery() as nursery:
        for node in (story.worker, *story.auditors):
            found.append(disk := Tight(node, lambda node=node: needs(scene, node), by_age=by_age))  # type: ignore[misc]
            nursery.start_soon(disk.run)
        yield found
        nursery.cancel_scope.cancel()


def needs(scene: Trial, node: Any) -> Any:
    works = hasattr(node, "claiming")
    return holders_of(
        scene.parameters,
        worker=node.service if works else None,
        auditor=None,
        payer=None,
        claims=node.claiming if works else node.service,
        quarrels=scene.quarrels.get(node.peer_id),
    )


def was_tight(disks: list[Tight], whose: str) -> None:
    """What nobody had used for a month went for what came, and then there was no room left."""
    assert all(disk.came >= OLD - 1 for disk in disks)
    assert any(whose in said for disk in disks for said in disk.refused)


@BY_AGE
async def test_a_claim_whose_auditors_have_to_wait_for_a_core_ends_with_its_pay(tmp_path: Path, by_age: bool) -> None:
    """Of every rank: their inputs came long before they can be run."""
    scene = Trial(tmp_path)
    scene.chain.contracts.claims.terms = replace(WINDOWS, commit_window=LONG_S)
    story = Story(scene)
    async with story.everybody(), tight(story, scene, by_age=by_age) as disks, trio.open_nursery() as nursery:
        release = trio.Event()

        async def hold(auditor: Any) -> None:
            async with auditor.service.tools.cores.one(AUDIT):
                await release.wait()

        for auditor in story.auditors:
            nursery.start_soon(hold, auditor)
        await story.work(units=6, accepted=1)
        story.vanish()
        await story.until(lambda: story.state() == "sampling")
        await trio.sleep((RANKS - 1) * LONG_S + AWAY_S)
        release.set()
        await story.until(story.ended, timeout_s=10 * LONG_S)
    story.chain.check()
    if by_age:
        was_tight(disks[1:], "claims on chain")
        assert (story.ended(), story.paid()) == ("paid", 6)
    else:
        assert (story.ended(), story.paid()) != ("paid", 6)


@BY_AGE
async def test_a_claims_case_is_won_by_what_the_auditors_kept(tmp_path: Path, by_age: bool) -> None:
    """A cheat that claims shows its leaves at the last moment, and nothing more: the members of the Court have the unit
    from the auditors alone, which ran it long before."""
    scene = Trial(tmp_path)
    scene.chain.contracts.claims.terms = replace(WINDOWS, open_window=LONG_S)
    story = Story(scene)
    story.worker.executor.functions["m:f"] = lie
    async with story.everybody(), tight(story, scene, by_age=by_age) as disks:
        await story.work(units=6, accepted=1)
        story.vanish()
        async with scene.quarrelling(*story.auditors):
            await story.until(lambda: story.claim() and all(sample_taken(story)))
            await story.stop(story.worker)
            await trio.sleep(AWAY_S)
            await story.start(story.worker)
            await story.until(lambda: story.state() == "revealing")
            await story.stop(story.worker)
            await story.until(story.ended, timeout_s=20 * LONG_S)
    story.chain.check()
    lock = story.chain.contracts.escrow.lock_left(story.payer.lease)
    if by_age:
        was_tight(disks[1:], "claims on chain")
        assert (story.ended(), lock) == ("failed", 0)
    else:
        assert lock > 0


def sample_taken(story: Story) -> list[bool]:
    contract, k = story.chain.contracts.claims, story.found().k
    return [contract.sample_of(story.claim_id, i).heard == Heard.COMMITTED for i in range(k)] if k else [False]


@BY_AGE
async def test_a_case_is_decided_by_a_state_that_the_parties_kept(tmp_path: Path, by_age: bool) -> None:
    """Nobody but the two has the state before the disputed step, and no message names it until the members ask."""
    scene = PartyScene(tmp_path, steps=16, wrong=11)
    scene.chain.contracts.court.terms = replace(COURT, commit_window=LONG_S)
    await scene.prepare()
    async with scene.everybody(), trio.open_nursery() as nursery:
        disks = []
        for host in scene.parties:

            def of(host: Any = host) -> Any:
                return holders_of(
                    scene.parameters, worker=None, auditor=None, payer=None, claims=None, quarrels=host.service
                )

            disks.append(disk := Tight(host, of, by_age=by_age))
            nursery.start_soon(disk.run)
        await scene.until_state(CaseState.VOTING)
        await scene.stop(*scene.members)
        await trio.sleep(AWAY_S)
        await scene.start(*scene.members)
        ruling = await scene.ended(timeout_s=20 * LONG_S)
        nursery.cancel_scope.cancel()
    if by_age:
        was_tight(disks, "cases before the Court")
        assert ruling is Ruling.FOR_ACCUSER
    else:
        assert ruling is not Ruling.FOR_ACCUSER
