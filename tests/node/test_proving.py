"""Which cards are sold: one that fails any trial is not, and its owner is told why and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tallymesh import cards as texts
from tallymesh.api import Problem
from tallymesh.errors import LocalError
from tallymesh.units import canonical_json
from tallymesh_learning.runtime import profile
from tallymesh_node.gpus import Card
from tallymesh_node.interfaces import Failure, Limits, OnLine
from tallymesh_node.proving import GREEDY, Proving, Report, Unsold, class_of, prove
from tallymesh_node.sandbox.cards import PROOF
from tallymesh_node.sandbox.groups import OVERHEAD_MIB

CARD, SECOND, THIRD = (Card(f"GPU-{n}", n) for n in range(3))
DRIVER, CORES = "570.86.15", b"\x0c" * 32
MEASURED: dict[str, Any] = {
    "name": "NVIDIA H200",
    "parts": "132x9.0",
    "memory_mib": 143_771,
    "torch": "2.13.0+cu130",
    "cuda": "13.0",
    "cudnn": "91002",
    "digests": {"mlp": "aa", "unit": "bb"},
    "tflops": 48.12,
    "to_gib_s": 52.34,
    "from_gib_s": 50.0,
}
KILLED = Failure("limits", "It used more than 4096 MiB of memory.")


class Machine:
    """A machine whose cards do all that they should, but for what a test puts into `answers`: an answer by (card, task)
    or task, or a list of them, one a call."""

    def __init__(self, *, wakes: bool = True, **answers: Any) -> None:
        self.wakes = wakes  # before it is killed for the memory that it takes
        self.answers: dict[Any, Any] = {
            "measure": MEASURED,
            "others": {"count": 1},
            "fill": {"bytes": 1000},
            "leftovers": {"bytes": 1000, "words": 0},
            "greedy": KILLED,
            **answers,
        }
        self.ran: list[tuple[Card, str]] = []
        self.payloads: list[bytes] = []
        self.limits: list[Limits] = []

    async def run_card_task(
        self, card: Card, name: str, payload: bytes = b"", *, limits: Limits, on_line: OnLine | None = None
    ) -> bytes:
        await trio.lowlevel.checkpoint()
        self.ran.append((card, name))
        self.payloads.append(payload)
        self.limits.append(limits)
        answer = self.answers.get((card, name), self.answers[name])
        if isinstance(answer, list):
            answer = answer.pop(0)
        if name == "greedy" and self.wakes and on_line is not None:
            on_line("takes")
        if isinstance(answer, Exception):
            if on_line is not None:
                on_line("Traceback (most recent call last):")
                on_line("RuntimeError: CUDA driver version is insufficient")
            raise answer
        return answer if isinstance(answer, bytes) else canonical_json(answer)


def measured(**changes: Any) -> dict[str, Any]:
    return {**MEASURED, **changes}


async def test_a_card_that_passes_every_trial_is_sold_with_what_it_measured() -> None:
    machine = Machine()
    proven = await prove(machine, CARD, DRIVER, CORES)
    assert [task for _, task in machine.ran] == [
        "measure", "measure", "others", "fill", "leftovers", "greedy", "greedy",
    ]  # fmt: skip
    assert {limits.memory_mib for limits in machine.limits} == {PROOF.memory_mib, GREEDY.memory_mib}
    beside = GREEDY.disk_mib + OVERHEAD_MIB  # what its control group has besides, and CUDA's libraries are larger
    assert json.loads(machine.payloads[-1])["most_mib"] > GREEDY.memory_mib + beside
    assert beside <= 128
    assert [b"pinned" in each for each in machine.payloads[-2:]] == [True, False]
    assert proven.report.name == "NVIDIA H200"


FAILURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "torch cannot use it": (
        "does_not_compute",
        {"measure": Failure("sandbox", "The unit could not be isolated, so it was not run.")},
        "RuntimeError: CUDA driver version is insufficient",
    ),
    "its first run fails": ("does_not_compute", {"measure": Failure("program", "OSError: [Errno 25]")}, "Errno 25"),
    "it hangs": ("does_not_compute", {"measure": Failure("limits", "It ran longer than 600 s.")}, "ran longer"),
    "it says nothing that can be read": ("does_not_compute", {"measure": b"\xff"}, "cannot be read"),
    "there is no sandbox": (
        "no_sandbox",
        {"measure": LocalError("no_sandbox", "bubblewrap is missing.")},
        "bubblewrap",
    ),
    "its second run gives other bytes": (
        "not_deterministic",
        {"measure": [MEASURED, measured(digests={"mlp": "aa", "unit": "xx"})]},
        "unit",
    ),
    "its second run lacks a part": (
        "not_deterministic",
        {"measure": [MEASURED, measured(digests={"mlp": "aa"})]},
        "unit",
    ),
    "it is another card the second time": (
        "not_deterministic",
        {"measure": [MEASURED, measured(name="T4")]},
        "its name",
    ),
    "a unit sees a second card": ("other_cards", {"others": {"count": 2}}, "2 cards"),
    "the next program reads what is left": ("memory_not_cleared", {"leftovers": {"bytes": 8, "words": 1}}, "1 words"),
    "nothing could be left to read": ("no_free_memory", {"fill": {"bytes": 0}}, "cannot be seen"),
    "nothing was looked at": ("no_free_memory", {"leftovers": {"bytes": 0, "words": 0}}, "cannot be seen"),
    "it is killed before it took any memory": ("does_not_compute", {"wakes": False}, "does not even wake"),
    "pinned memory is counted nowhere": ("memory_not_bounded", {"greedy": {"mib": 4097}}, "pinned"),
    "managed memory is counted nowhere": ("memory_not_bounded", {"greedy": [KILLED, {"mib": 6144}]}, "managed"),
    "taking memory hangs": ("does_not_compute", {"greedy": Failure("limits", "It ran longer than 300 s.")}, "longer"),
    "taking memory crashes": ("does_not_compute", {"greedy": Failure("program", "It crashed (SIGBUS).")}, "SIGBUS"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_card_that_fails_a_trial_is_not_sold(name: str) -> None:
    code, answers, part = FAILURES[name]
    with pytest.raises(Unsold) as caught:
        await prove(Machine(**answers), CARD, DRIVER, CORES)
    assert caught.value.code == code
    assert part in caught.value.sentence
    assert caught.value.remedy or code == "no_sandbox"


@pytest.mark.parametrize("answer", [{"mib": 4096}, {"mib": 0}, KILLED])
async def test_memory_that_is_refused_or_costs_the_unit_its_life_is_bounded(answer: Any) -> None:
    await prove(Machine(greedy=answer), CARD, DRIVER, CORES)


async def test_a_driver_that_nobody_can_name_is_no_part_of_a_class() -> None:
    with pytest.raises(Unsold, match="which driver"):
        await prove(Machine(), CARD, "", CORES)


def report(**changes: Any) -> Report:
    return Report(**measured(**changes))


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ((report(tflops=1.0), DRIVER, CORES), True),
        ((report(name="NVIDIA H100"), DRIVER, CORES), False),
        ((report(parts="114x9.0"), DRIVER, CORES), False),
        ((report(torch="2.13.0+cu126"), DRIVER, CORES), False),
        ((report(cuda="12.6"), DRIVER, CORES), False),
        ((report(cudnn="1"), DRIVER, CORES), False),
        ((report(digests={"mlp": "xx"}), DRIVER, CORES), False),
        ((report(), "580.1", CORES), False),
        ((report(), DRIVER, bytes(32)), False),
    ],
)
def test_a_class_is_what_computed_and_what_it_gave_and_not_how_fast(one: tuple[Any, Any, Any], same: bool) -> None:
    assert (class_of(*one) == class_of(report(), DRIVER, CORES)) is same


def test_the_class_of_a_card_is_never_that_of_its_machines_cores() -> None:
    assert class_of(report(), DRIVER, CORES) != CORES
    assert profile.profile_hash(profile.GPU) != profile.profile_hash()


class Told:
    def __init__(self) -> None:
        self.lent: list[Card] = []
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1


def proving(
    machine: Machine, told: Told, *cards: Card, obstacle: Callable[[], Problem | None] = lambda: None
) -> Proving:
    return Proving(machine, cards, driver=DRIVER, prove_card=told.lent.append, obstacle=obstacle, changed=told.changed)


async def test_only_proven_cards_are_lent_and_the_others_are_told() -> None:
    machine, told = Machine(), Told()
    machine.answers[SECOND, "leftovers"] = {"bytes": 8, "words": 5}
    found = proving(machine, told, CARD, SECOND, THIRD)
    await found.run(CORES)
    assert told.lent == [CARD, THIRD]
    assert [each.card for each in found.sold] == [CARD, THIRD]
    (problem,) = found.problems
    assert problem.code == "memory_not_cleared"
    assert problem.sentence.startswith("GPU GPU-1 is not offered. ")
    assert problem.remedy
    assert found.offered == "2*NVIDIA H200:143771:570.86.15:48.1:52.3"
    assert texts.count(found.offered) == 2
    assert found.numeric_class == class_of(report(), DRIVER, CORES)
    assert found.over
    assert told.changes == 1


async def test_where_nothing_is_sold_there_is_no_offer_and_no_class() -> None:
    told = Told()
    found = proving(Machine(others={"count": 3}), told, CARD)
    await found.run(CORES)
    assert (found.sold, found.offered, found.numeric_class, told.lent) == ((), "", b"", [])
    assert found.over


async def test_what_can_be_seen_without_trying_is_said_and_nothing_is_tried() -> None:
    machine, told = Machine(), Told()
    problem = Problem(code="no_groups", sentence="No control groups.", remedy="Delegate=memory")
    found = proving(machine, told, CARD, obstacle=lambda: problem)
    await found.run(CORES)
    assert found.problems == [problem]
    assert machine.ran == []
    assert told.lent == []


async def test_a_node_sells_cards_of_one_class_and_that_is_the_commonest() -> None:
    machine, told = Machine(), Told()
    machine.answers[CARD, "measure"] = measured(name="NVIDIA T4")
    found = proving(machine, told, CARD, SECOND, THIRD)
    await found.run(CORES)
    assert told.lent == [SECOND, THIRD]
    assert [each.code for each in found.problems] == ["other_class"]


async def test_a_card_on_which_a_program_failed_is_tried_again_and_lent_no_more_if_it_changed(
    autojump_clock: MockClock,
) -> None:
    machine, told = Machine(), Told()
    found = proving(machine, told, CARD, SECOND)
    await found.run(CORES)
    answers: list[Any] = [MEASURED, measured(digests={}), Failure("sandbox", "It could not be isolated.")]
    asked: list[str] = []

    async def run_task(name: str) -> bytes:
        asked.append(name)
        await trio.sleep(90)  # longer than a card is believed
        answer = answers.pop(0)
        if isinstance(answer, Failure):
            raise answer
        return canonical_json(answer)

    assert await found.is_sound(CARD, run_task), "it was proven just now"
    assert not asked
    await trio.sleep(61)
    assert await found.is_sound(CARD, run_task)
    assert await found.is_sound(CARD, run_task), "and tried just now"
    assert asked == ["measure"]
    await trio.sleep(61)
    assert not await found.is_sound(CARD, run_task)
    assert [each.card for each in found.sold] == [SECOND]
    assert texts.count(found.offered) == 1
    assert not await found.is_sound(SECOND, run_task)
    assert found.offered == ""
    assert [each.code for each in found.problems] == ["card_failed", "card_failed"]
    assert told.changes == 3
