"""A local network in memory: everybody on it hears what anybody says, at once. Passes for `nearby.Lan`."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from tallymesh_node.network.nearby import Place

MASK = "255.255.255.0"


class Wire:
    """What several machines are plugged into."""

    def __init__(self) -> None:
        self.machines: list[FakeLan] = []
        self.said: list[tuple[float, str, bytes]] = []

    def plug(self, address: str) -> FakeLan:
        machine = FakeLan(self, address)
        self.machines.append(machine)
        return machine

    def send(self, origin: str, packet: bytes) -> None:
        self.said.append((trio.current_time(), origin, packet))
        for machine in self.machines:
            if machine.listens:
                machine.inbox.send_nowait((packet, origin))


class FakeLan:
    """One machine. `address` may change, and `refuses` says why its port cannot be opened."""

    def __init__(self, wire: Wire, address: str) -> None:
        self.wire = wire
        self.address = address
        self.refuses = ""
        self.listens = False
        self.inbox, self._outbox = trio.open_memory_channel[tuple[bytes, str]](10_000)

    def places(self) -> Sequence[Place]:
        return [Place(self.address, MASK)] if self.address else []

    async def listen(self, places: Sequence[Place]) -> str:
        self.listens = bool(places) and not self.refuses
        return self.refuses

    async def say(self, place: Place, packet: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.wire.send(place.address, packet)

    async def hear(self) -> tuple[bytes, str]:
        return await self._outbox.receive()
