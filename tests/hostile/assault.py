"""What a hostile test listens with, and what it sends with: requests of honest peers as they pass, and others made of
them, whose answers are counted. A handler that fails, or is cut for its slowness, is a fault."""

from __future__ import annotations

from collections import Counter

import msgspec
import trio

from fakes.network import FakeNetwork, World
from tallymesh.errors import RemoteError

SAMPLES = 2  # requests of a kind that are made over, for each receiver
ANSWER_S = 130.0  # of virtual time: a handler is cut after 120

# Marks of variants (lies.py) that nobody may take, whatever was signed before.
FORGED = (
    "signed by",
    "signed for",
    "no signature",
    "twin",
    "version",
    "too many",
    "too few",
    "second form",
    "in its place",
)


class Wiretap:
    """Requests as they pass: (sender, receiver, name, body), each kind a few times for each receiver."""

    def __init__(self, world: World) -> None:
        self.seen: Counter[tuple[str, str]] = Counter()
        self.caught: list[tuple[str, str, str, bytes]] = []
        self.own = False
        self._more = trio.Event()
        world.tap = self.take

    def take(self, sender: str, receiver: str, frame: bytes) -> None:
        if self.own or sender == "stranger" or receiver == "stranger":
            return
        request = msgspec.msgpack.decode(frame)
        if isinstance(request, list) and len(request) == 2 and request[0] not in ("ok", "refused"):
            name, body = request
            self.seen[receiver, name] += 1
            if self.seen[receiver, name] <= SAMPLES:
                self.caught.append((sender, receiver, name, body))
                self._more.set()

    async def wait(self, name: str = "") -> tuple[str, str, str, bytes]:
        """The next that was caught, of that name; those before it are dropped."""
        while True:
            while self.caught:
                found = self.caught.pop(0)
                if name in ("", found[2]):
                    return found
            self._more = trio.Event()
            await self._more.wait()


class Assault:
    def __init__(self, world: World) -> None:
        self.world = world
        self.codes: Counter[tuple[str, str]] = Counter()
        self.faults: list[str] = []
        self.taken: list[str] = []

    async def send(self, by: FakeNetwork, receiver: str, name: str, kind: str, body: bytes) -> None:
        peer = self.world.networks[receiver].source
        try:
            with trio.fail_after(ANSWER_S):
                await by.request(peer, name, body, timeout_s=ANSWER_S)
            self.taken.append(f"{name}: {kind}")
            self.codes[name, "ok"] += 1
        except RemoteError as error:
            self.codes[name, error.code] += 1
            if error.code in ("internal", "timeout") or not error.sentence:
                self.faults.append(f"{name}: {kind}: {error.code}: {error.sentence}")
