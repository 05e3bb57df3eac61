"""Cards are held by whoever runs, given back however that ends, and a job's sandbox shows the one that it holds."""

from __future__ import annotations

import json
import os
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from fakes.sandboxed import INSIDE, JOB, PATIENCE_S, SMALL, Machine, make_unit
from tallymesh.errors import LocalError
from tallymesh_learning.runtime import profile
from tallymesh_node.blobs.store import BlobStore
from tallymesh_node.gpus import Card, names
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox import SandboxExecutor, executor, groups
from tallymesh_node.sandbox.cards import Cards
from tallymesh_node.sandbox.executor import BAD_CARD
from tallymesh_node.sandbox.logs import Logs
from tallymesh_node.sandbox.running import NO_GROUP

FIRST, SECOND, THIRD = (Card(f"GPU-{n}", n) for n in range(3))


def proven(*cards: Card) -> Cards:
    pool = Cards(cards)
    for card in cards:
        pool.prove(card)
    return pool


async def test_no_two_hold_the_same_card_whoever_is_cancelled_or_fails(autojump_clock: trio.testing.MockClock) -> None:
    pool, holders, done = proven(FIRST, SECOND), dict[Card, int](), 0
    rng = random.Random(5)

    async def work() -> None:
        nonlocal done
        with trio.move_on_after(rng.uniform(0, 30)):
            try:
                async with pool.one() as card:
                    holders[card] = holders.get(card, 0) + 1
                    assert holders[card] == 1
                    try:
                        await trio.sleep(rng.uniform(0, 2))
                        if rng.random() < 0.3:
                            raise Failure("program", "It failed.")
                    finally:
                        holders[card] -= 1
            except Failure:
                pass
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(work)
    assert not pool.held
    assert set(holders) == {FIRST, SECOND}
    assert done > 20
    assert repr(pool) == "<Cards 0 held, 2 of 2 proven>"


async def test_first_come_first_served(autojump_clock: trio.testing.MockClock) -> None:
    pool, order = proven(FIRST), list[int]()

    async def work(number: int) -> None:
        await trio.sleep(number / 10)
        async with pool.one():
            order.append(number)
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        for number in (3, 1, 2):
            nursery.start_soon(work, number)
    assert order == [1, 2, 3]


async def test_a_card_that_is_not_proven_is_given_to_the_nodes_own_trials_alone() -> None:
    pool = Cards((FIRST, SECOND))
    async with pool.one(SECOND) as card:
        assert card == SECOND
    with pytest.raises(Failure, match="lends none"):
        async with pool.one():
            raise AssertionError("nobody may have it")
    assert not pool.held


async def test_a_trial_waits_until_the_unit_that_has_the_card_is_done(autojump_clock: trio.testing.MockClock) -> None:
    pool = proven(FIRST, SECOND)
    async with trio.open_nursery() as nursery:

        async def unit() -> None:
            async with pool.one(FIRST):
                await trio.sleep(7)

        nursery.start_soon(unit)
        await trio.testing.wait_all_tasks_blocked()
        async with pool.one() as other:
            assert other == SECOND
        began = trio.current_time()
        async with pool.one(FIRST):
            assert trio.current_time() - began == pytest.approx(7)


async def test_who_waits_for_the_last_card_is_told_when_it_is_withdrawn() -> None:
    pool, refused = proven(FIRST), list[str]()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            try:
                async with pool.one():
                    raise AssertionError("it was withdrawn")
            except Failure as failure:
                refused.append(failure.code)

        async with pool.one():
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            pool.withdraw(FIRST)
            await trio.testing.wait_all_tasks_blocked()
            assert refused == ["sandbox"]
        assert not pool.held
    pool.prove(FIRST)
    async with pool.one() as card:
        assert card == FIRST


# In real sandboxes, with files in place of the driver's: harmless, and told apart by what is in them.

DRIVER = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "nvidia0", "nvidia1", "nvidia2")
BOUNDED = groups.find() is not None  # without control groups no unit has a card, and that is what is tested there


@asynccontextmanager
async def opened(place: Path, *cards: Card, **options: Any) -> AsyncIterator[Machine]:
    """An executor with these cards, proven; its templates import no torch."""
    (place / "dev").mkdir()
    for name in DRIVER:
        (place / "dev" / name).write_text(name)
        (place / "dev" / name).chmod(0o666)
    store = BlobStore(place / "blobs")
    given = {"run": "attacker:run_unit", "warm": "", "card_warm": "", "begin": "", "extra": [INSIDE], **options}
    async with SandboxExecutor(
        place / "spool", store.put, slots=3, cards=cards, devices=place / "dev", **given
    ) as running:
        for card in cards:
            running.cards.prove(card)
        with trio.fail_after(PATIENCE_S):
            yield Machine(running, store, trio.lowlevel.current_trio_token())


async def look(machine: Machine, kind: str, job: bytes = JOB, function: str = "with_card", **config: Any) -> Any:
    config = config or {"names": list(DRIVER)}
    unit = make_unit(machine.store, function, config)
    unit = msgspec.structs.replace(unit, profile=profile.profile_hash(kind))
    done = await machine.executor.run(job, unit, machine.inputs(unit), SMALL)
    return json.loads(machine.store.get(done.output))


@pytest.mark.slow
async def test_a_unit_sees_the_files_of_the_card_that_it_holds_and_without_one_none(tmp_path: Path) -> None:
    async with opened(tmp_path, SECOND, THIRD) as machine:
        outer, of_cores = (
            " ".join(each.argv) for each in (machine.executor._card_command(SECOND), machine.executor._command())
        )
        assert "nvidia1" in outer
        assert "nvidia2" not in outer, "not even its template sees another card"
        assert "nvidia" not in of_cores
        without = await look(machine, profile.CPU)
        assert without["read"] == {}
        assert not [name for name in without["dev"] if name.startswith("nvidia")]
        assert without["visible"]["CUDA_VISIBLE_DEVICES"] == ""
        assert without["addresses"] != resource.RLIM_INFINITY
        if not BOUNDED:
            with pytest.raises(Failure, match="control group"):
                await look(machine, profile.GPU)
            return
        seen = await look(machine, profile.GPU)
        assert seen["read"] == {name: name for name in names([SECOND])}, "each file is what its name says"
        assert set(seen["dev"]) - set(without["dev"]) == set(names([SECOND]))
        assert seen["visible"] == profile.shown(SECOND.uuid)
        assert seen["workspace"] == ":4096:8"
        assert seen["addresses"] == resource.RLIM_INFINITY, "the control group bounds it"
        assert seen["filters"] == ["Seccomp:\t2"]
        async with machine.executor.cards.one(SECOND):  # somebody else has it now
            other = await look(machine, profile.GPU)
        assert other["read"] == {name: name for name in names([THIRD])}
        machine.executor.units.groups = None
        with pytest.raises(Failure, match="control group"):
            await look(machine, profile.GPU)
        assert not machine.executor.cards.held


@pytest.mark.slow
async def test_a_card_is_given_back_when_its_unit_is_killed_and_no_unit_of_cards_runs_without_one(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, SECOND) as machine:
        cards = machine.executor.cards
        async with trio.open_nursery() as nursery:
            if BOUNDED:

                async def sleep() -> None:
                    await look(machine, profile.GPU, function="sleep", seconds=60.0)

                nursery.start_soon(sleep)
                while not machine.executor._card_pools[SECOND].open_jobs:  # noqa: ASYNC110 - another process
                    await trio.sleep(0.01)
                assert cards.held == {SECOND}
            nursery.cancel_scope.cancel()
        assert not cards.held
        cards.withdraw(SECOND)
        with pytest.raises(Failure, match="lends none"):
            await look(machine, profile.GPU)
        assert (await look(machine, profile.CPU))["read"] == {}
        await machine.executor.close_job(JOB)
        assert not machine.executor._card_pools[SECOND].open_jobs


@pytest.mark.slow
async def test_a_card_that_does_not_wake_is_the_machines_fault_and_no_foreign_code_ran(tmp_path: Path) -> None:
    async with opened(tmp_path, SECOND, begin="attacker:broken_driver") as machine:
        with pytest.raises(Failure) as caught:
            await look(machine, profile.GPU)
        assert caught.value.code == "sandbox"
        if BOUNDED:
            assert "could not be isolated" in caught.value.sentence

        async def doubt(card: Card, run_task: Any) -> bool:
            return False

        machine.executor.doubt = doubt  # a card that fell off its bus fails so, and every unit after this one would
        with pytest.raises(Failure) as caught:
            await look(machine, profile.GPU)
        assert (caught.value.code, caught.value.sentence) == ("sandbox", BAD_CARD)
        assert not machine.executor.cards.proven


@pytest.mark.slow
async def test_a_card_whose_sandbox_cannot_be_made_any_more_is_withdrawn(tmp_path: Path) -> None:
    async with opened(tmp_path, SECOND) as machine:
        (tmp_path / "dev" / "nvidia1").unlink()  # an update of the driver
        asked: list[Card] = []

        async def doubt(card: Card, run_task: Any) -> bool:
            asked.append(card)
            with pytest.raises(LocalError):
                await run_task("measure")
            return len(asked) < 2

        machine.executor.doubt = doubt
        with pytest.raises(LocalError) as caught:
            await look(machine, profile.GPU)
        assert caught.value.code == "no_sandbox"
        with pytest.raises(Failure) as failed:
            await look(machine, profile.GPU)
        assert (failed.value.code, failed.value.sentence) == ("sandbox", BAD_CARD)
        assert not machine.executor.cards.proven
        assert not machine.executor.cards.held


@pytest.mark.parametrize(
    ("code", "began", "doubtful"),
    [
        ("program", True, True),
        ("limits", True, True),
        ("sandbox", False, True),
        ("sandbox", True, False),  # its job was closed
        ("inputs", False, False),
    ],
)
def test_a_card_is_doubted_where_foreign_code_failed_on_it_or_never_began(
    code: str, began: bool, doubtful: bool
) -> None:
    logs = Logs(0, None, None)
    logs.begin_s = 1.0 if began else None
    assert executor._doubtful(Failure(code, "It failed."), logs) is doubtful


@pytest.mark.slow
async def test_a_program_that_fails_on_a_card_that_changed_is_not_to_blame(tmp_path: Path) -> None:
    async with opened(tmp_path, SECOND) as machine:
        asked: list[Card] = []
        sound = iter((True, False))

        async def doubt(card: Card, run_task: Any) -> bool:
            asked.append(card)
            return next(sound)

        machine.executor.doubt = doubt
        for code in ("program", "sandbox"):
            with pytest.raises(Failure) as caught:
                await look(machine, profile.GPU, function="missing", nothing=1)
            assert caught.value.code == (code if BOUNDED else "sandbox")
        if BOUNDED:
            assert asked == [SECOND, SECOND]
            assert caught.value.sentence == BAD_CARD
            assert not machine.executor.cards.proven
        else:
            assert caught.value.sentence == NO_GROUP


class Outside:
    """A control group that is made and not entered: its entrance is closed, or (None) not handed over at all."""

    def __init__(self, closed: bool) -> None:
        self.entrance = os.open(os.devnull, os.O_RDONLY) if closed else -1

    def __bool__(self) -> bool:
        return self.entrance >= 0

    def shut(self) -> None:
        if self.entrance >= 0:
            os.close(self.entrance)

    def close(self) -> bool:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("closed", [True, False])
async def test_a_unit_with_a_card_that_enters_no_control_group_is_not_run(tmp_path: Path, closed: bool) -> None:
    """Whatever the node believes: nothing else would bound its memory."""
    async with opened(tmp_path, SECOND) as machine:
        made: Any = SimpleNamespace(open=lambda memory_mib, disk_mib: Outside(closed))
        machine.executor.units.groups = made
        with pytest.raises(Failure, match="could not be isolated"):
            await look(machine, profile.GPU)
        if closed:  # where it is not handed over, a unit of cores has no group to enter
            assert (await look(machine, profile.CPU))["read"] == {}, "others are bounded by their address space, too"
