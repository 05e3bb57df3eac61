"""What the parts of the payer's role need of the world, and how they start what takes time."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from tallymesh.errors import ChainError, LocalError, TallymeshError
from tallymesh.exchange import Source
from tallymesh.parameters import Parameters
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.complaints import level
from tallymesh_node.interfaces import Blobs, Chain, Executor, Journal, PeerNetwork
from tallymesh_scheduler.matching import Candidate

log = logging.getLogger("tallymesh.payer")

MAX_DOING = 256  # requests, fetches and own units of one job at a time; what does not fit is started a moment later
RETRY_S = 0.5  # after a failure; doubled …
RETRY_MAX_S = 15.0  # … up to this


class Offers(Protocol):
    """The part of the node's offer book that a payer needs."""

    def candidates(self, now: int) -> Sequence[Candidate]: ...

    def source_of(self, account: bytes) -> Source | None:
        """Where the account's peer is reached, None where no offer of it is known."""

    def note_unreachable(self, account: bytes, sentence: str) -> None:
        """What the last dial said; "" when it answered."""


@dataclass(frozen=True)
class Tools:
    """`executor` is None on a node that runs nothing itself; `numeric_class` is b"" there, and while it is measured."""

    network: PeerNetwork
    blobs: Blobs
    executor: Executor | None
    chain: Chain
    journal: Journal
    domains: Domains
    key: AccountKey
    parameters: Parameters
    offers: Offers
    clock: Callable[[], float]  # Unix seconds, for people
    numeric_class: Callable[[], bytes]

    @property
    def source(self) -> Source:
        return Source(self.network.peer_id, tuple(self.network.addresses))


class Doing:
    """What is under way for one job, by key: at most once each, retried with growing pauses by whoever asks again.

    Contract: an operating error (TallymeshError) ends one try; LocalError `disk` and bugs end the driver.
    """

    def __init__(self, nursery: trio.Nursery | None, wake: Callable[[], None]) -> None:
        self._nursery = nursery
        self._wake = wake
        self._running: set[tuple[Any, ...]] = set()
        self._again: dict[tuple[Any, ...], tuple[int, float]] = {}  # key -> (failures, not before)
        self.errors: dict[tuple[Any, ...], TallymeshError] = {}

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return key in self._running

    def failures(self, key: tuple[Any, ...]) -> int:
        return self._again.get(key, (0, 0.0))[0]

    def start(self, key: tuple[Any, ...], function: Callable[..., Awaitable[None]], *arguments: Any) -> bool:
        """False where it is under way, pausing after a failure, or too much else is going on."""
        assert self._nursery is not None, "only a driver that runs does anything"
        if key in self._running or len(self._running) >= MAX_DOING:
            return False
        if trio.current_time() < self._again.get(key, (0, 0.0))[1]:
            return False
        self._running.add(key)
        self._nursery.start_soon(self._run, key, function, arguments)
        return True

    async def _run(
        self, key: tuple[Any, ...], function: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]
    ) -> None:
        try:
            await function(*arguments)
        except TallymeshError as error:
            if isinstance(error, LocalError) and error.code == "disk":
                raise
            failures = self.failures(key) + 1
            pause = min(RETRY_MAX_S, RETRY_S * 2.0 ** min(failures - 1, 10))
            self._again[key] = (failures, trio.current_time() + pause)
            self.errors[key] = error
            usual = logging.WARNING if isinstance(error, ChainError) else logging.DEBUG
            log.log(level(error, usual), "%s failed (%d): %s", key[0], failures, error)
        else:
            self._again.pop(key, None)
            self.errors.pop(key, None)
        finally:
            self._running.discard(key)
            self._wake()
