"""Which cards are sold: those that computed, in the very sandbox that jobs get, the same bytes twice, and no other.

Each card is tried alone, at the node's start, with nothing else of the machine's cards in its sandbox: a product and
copy test, the canary's models and a training unit, twice; whether a program that does not care sees another card;
whether it reads what the last one left in the card's memory; whether it can take more of the machine's memory through
the driver than its limit. Whatever goes wrong costs the owner an unsold card and a sentence that says why, never a
wrong payment, nor a sandbox that is open wider than TRUST.md says.

Units on cards are of a class of their own: the profile of GPUs, the build of torch and CUDA, the card's name and
driver, what it computed, and the class of the machine's cores, for aggregation runs there. One node sells cards of one
class: that of most of them. This module knows neither market nor chain.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
import trio
from blake3 import blake3

from tallymesh import cards as texts
from tallymesh.api import Problem
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import LocalError
from tallymesh.units import canonical_json
from tallymesh_learning.runtime import profile
from tallymesh_node.gpus import LEAST_MIB, Card
from tallymesh_node.interfaces import Failure, Limits, OnLine
from tallymesh_node.sandbox.cards import PROOF

log = logging.getLogger(__name__)

S = TypeVar("S", bound=msgspec.Struct)

RUNS: Final = 2
# As tight as a unit with a card may be; next to no disk, whose room its control group would have besides.
GREEDY: Final = Limits(memory_mib=LEAST_MIB, disk_mib=64, wall_s=300.0, lines=200)
GREEDY_ASKS_MIB: Final = LEAST_MIB + 2048  # enough to tell; where nothing bounds it, the machine has to have it
KINDS_OF_MEMORY: Final = ("pinned", "managed")
TAKES: Final = "takes"  # what `card.greedy` says before it takes the first piece
RECHECK_S: Final = 60.0  # a card that was tried so recently is believed: programs that fail must not keep it busy
MAX_SENTENCE: Final = 300
SAY_AGAIN: Final = "Look at the node's log, and run scripts/gpu_check of a checkout for the whole account."


class Report(msgspec.Struct, frozen=True):
    """What `card.measure` says."""

    name: str
    parts: str
    memory_mib: int
    torch: str
    cuda: str
    cudnn: str
    digests: Mapping[str, str]
    tflops: float
    to_gib_s: float
    from_gib_s: float

    @property
    def identity(self) -> tuple[str, str, str, str, str, Mapping[str, str]]:
        """All but how fast it was."""
        return self.name, self.parts, self.torch, self.cuda, self.cudnn, self.digests


class Proven(msgspec.Struct, frozen=True):
    card: Card
    report: Report
    numeric_class: bytes


class Unsold(Exception):
    """Why a card is not sold; `remedy` is for its owner. `lines`: what the trial had said by then."""

    def __init__(self, code: str, sentence: str, remedy: str = SAY_AGAIN, lines: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.code, self.sentence, self.remedy, self.lines = code, sentence, remedy, lines


class Trials(Protocol):
    """The node's executor, as it is used here."""

    async def run_card_task(
        self, card: Card, name: str, payload: bytes = b"", *, limits: Limits, on_line: OnLine | None = None
    ) -> bytes: ...


def class_of(report: Report, driver: str, cores: bytes) -> bytes:
    """The numeric class of units that compute on such a card; `cores` is that of the machine's cores."""
    about = {
        "cores": cores.hex(),
        "card": report.name,
        "parts": report.parts,
        "driver": driver,
        "torch": report.torch,
        "cuda": report.cuda,
        "cudnn": report.cudnn,
        "digests": dict(report.digests),
    }
    return blake3(b"tallymesh.class/" + profile.profile_hash(profile.GPU) + canonical_json(about)).digest()


async def prove(trials: Trials, card: Card, driver: str, cores: bytes) -> Proven:
    """Every trial of one card. Unsold where one fails."""
    if not driver:
        raise Unsold("no_driver", "nvidia-smi does not say which driver this is.", "Install nvidia-smi beside it.")
    first, *others = [await _ask(trials, card, "measure", Report) for _ in range(RUNS)]
    for other in others:
        if other.identity != first.identity:
            differing = sorted(name for name, digest in first.digests.items() if other.digests.get(name) != digest)
            what = ", ".join(differing) or "its name or its libraries'"
            raise Unsold("not_deterministic", f"It gave other bytes the second time: {what}.")
    await _alone(trials, card)
    await _cleared(trials, card)
    for kind in KINDS_OF_MEMORY:
        await _bounded(trials, card, kind)
    return Proven(card, first, class_of(first, driver, cores))


async def _ask(
    trials: Trials, card: Card, task: str, shape: type[S], limits: Limits = PROOF, payload: bytes = b""
) -> S:
    lines: list[str] = []
    try:
        answer = await trials.run_card_task(card, task, payload, limits=limits, on_line=lines.append)
        return msgspec.json.decode(answer, type=shape)
    except Failure as failure:
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        log.warning("card %s, %s: %s\n%s", card.uuid, task, failure.sentence, "\n".join(lines[-20:]))
        said = f"{failure.sentence} {last}".strip()
        sentence = f"It does not compute in the sandbox: {said[:MAX_SENTENCE]}"
        raise Unsold("does_not_compute", sentence, lines=lines) from failure
    except LocalError as error:
        raise Unsold("no_sandbox", f"It cannot be tried: {error.sentence}", error.remedy) from None
    except UNREADABLE as error:
        raise Unsold("does_not_compute", f"What it said cannot be read: {error}"[:MAX_SENTENCE]) from None


class _Count(msgspec.Struct):
    count: int


async def _alone(trials: Trials, card: Card) -> None:
    found = await _ask(trials, card, "others", _Count)
    if found.count > 1:
        raise Unsold("other_cards", f"A unit that leased it can use {found.count} cards.", "Please report this.")


class _Filled(msgspec.Struct):
    bytes: int
    words: int = 0


async def _cleared(trials: Trials, card: Card) -> None:
    """What one program left in the card's memory, the next must not read: they are of two jobs."""
    written = await _ask(trials, card, "fill", _Filled)
    found = await _ask(trials, card, "leftovers", _Filled)
    if found.words:
        raise Unsold(
            "memory_not_cleared",
            f"What a program leaves in its memory the next one can read ({found.words} words of it).",
            "The driver has to clear memory between programs; see its notes on memory scrubbing.",
        )
    if not written.bytes or not found.bytes:
        sentence = "None of its memory is free, so whether it is cleared between programs cannot be seen."
        raise Unsold("no_free_memory", sentence, "End what uses the card (nvidia-smi lists it), and start again.")


class _Taken(msgspec.Struct):
    mib: int


async def _bounded(trials: Trials, card: Card, kind: str) -> None:
    """Memory of the machine that the driver gives out, counts. To be killed for it, or refused, is as it should be; to
    be killed before anything was taken shows nothing."""
    payload = canonical_json({"kind": kind, "most_mib": GREEDY_ASKS_MIB})
    try:
        found = await _ask(trials, card, "greedy", _Taken, GREEDY, payload)
    except Unsold as unsold:
        cause = unsold.__cause__
        if not (isinstance(cause, Failure) and cause.code == "limits" and "memory" in cause.sentence):
            raise
        if TAKES not in unsold.lines:
            sentence = f"With {GREEDY.memory_mib} MiB of the machine's memory it does not even wake."
            raise Unsold("does_not_compute", sentence) from None
        return
    if found.mib > GREEDY.memory_mib:
        raise Unsold(
            "memory_not_bounded",
            f"A unit of {GREEDY.memory_mib} MiB can take {found.mib} MiB of the machine's memory ({kind}) through it.",
            "Neither control groups nor the watchdog count what this driver gives out; another version may.",
        )


class Proving:
    """Proves the cards of a node, once, and tries one again when a program failed on it. `prove_card` is told which are
    lent, `changed` called whenever more is known."""

    def __init__(
        self,
        trials: Trials,
        cards: Sequence[Card],
        *,
        driver: str,
        prove_card: Callable[[Card], None],
        obstacle: Callable[[], Problem | None],
        changed: Callable[[], None],
    ) -> None:
        self.over = False
        self.sold: tuple[Proven, ...] = ()
        self.problems: list[Problem] = []
        self._trials = trials
        self._cards = cards
        self._driver = driver
        self._prove_card = prove_card
        self._obstacle = obstacle
        self._changed = changed
        self._tried: dict[Card, float] = {}

    async def run(self, cores: bytes) -> None:
        """With the numeric class of the machine's cores. Ends when every card was tried."""
        in_the_way = self._obstacle()
        found: list[Proven] = []
        if in_the_way is not None:
            self.problems.append(in_the_way)
        else:
            for card in self._cards:
                try:
                    found.append(await prove(self._trials, card, self._driver, cores))
                    self._tried[card] = trio.current_time()
                except Unsold as unsold:
                    self._say(card, unsold)
        self._choose(found)
        self.over = True
        self._changed()

    def _choose(self, found: Sequence[Proven]) -> None:
        """Those of the commonest class: an account has one on chain."""
        counts = Counter(each.numeric_class for each in found)
        chosen = max(sorted(counts), key=lambda each: counts[each], default=b"")
        for each in found:
            if each.numeric_class != chosen:
                sentence = "It is of another numeric class than most of this machine's cards, and a node sells one."
                self._say(each.card, Unsold("other_class", sentence, "Run a node of its own for it."))
            else:
                self._prove_card(each.card)
                self.sold += (each,)

    def _say(self, card: Card, unsold: Unsold) -> None:
        sentence = f"GPU {card.uuid} is not offered. {unsold.sentence}"
        log.warning("%s %s", sentence, unsold.remedy)
        self.problems.append(Problem(code=unsold.code, sentence=sentence, remedy=unsold.remedy))

    async def is_sound(self, card: Card, run_task: Callable[[str], Awaitable[bytes]]) -> bool:
        """A program failed on it: does it still compute what it did? `run_task` runs one of the trials there, now."""
        if trio.current_time() - self._tried.get(card, -math.inf) < RECHECK_S:
            return True
        known = next((each.report for each in self.sold if each.card == card), None)
        try:
            found = msgspec.json.decode(await run_task("measure"), type=Report)
        except (Failure, LocalError, *UNREADABLE) as error:
            found = None
            log.warning("card %s: %s", card.uuid, error)
        self._tried[card] = trio.current_time()  # when it was over: a trial may take longer than what it is good for
        if known is not None and found is not None and found.identity == known.identity:
            return True
        self.sold = tuple(each for each in self.sold if each.card != card)
        sentence = "It computed when the node started, and does not any more."
        self._say(
            card, Unsold("card_failed", sentence, "Look at dmesg for its driver's errors, and start the node again.")
        )
        self._changed()
        return False

    @property
    def offered(self) -> str:
        """For the offer: all that are sold, with the least that any of them measured. "" where none is."""
        if not self.sold:
            return ""
        reports = [each.report for each in self.sold]
        return texts.show(
            texts.Cards(
                count=len(reports),
                name=reports[0].name,
                memory_mib=min(each.memory_mib for each in reports),
                driver=self._driver,
                tflops=min(each.tflops for each in reports),
                to_gib_s=min(each.to_gib_s for each in reports),
            )
        )

    @property
    def numeric_class(self) -> bytes:
        """Of what is sold; b"" where nothing is."""
        return self.sold[0].numeric_class if self.sold else b""
