"""What this node can sell: the machine as measured, bounded by its owner, and the numeric class by a canary run.

The canary runs in a sandbox like any unit. Its result is cached for all nodes of this user by processor, torch build
and profile, so that a restart offers its class at once; it is then confirmed in the background, and an offer says so
until it is (`provisional`). A node that offers nothing confirms it when it has a sandbox for its own sake.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from tallymesh.api import Problem
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import LocalError
from tallymesh_learning.runtime import profile
from tallymesh_node.config import Config
from tallymesh_node.interfaces import Failure
from tallymesh_node.machine import Machine
from tallymesh_node.market.publisher import Capacity
from tallymesh_node.proving import Proving

log = logging.getLogger(__name__)

RESERVED_MIB = 512  # of the machine's memory, for the node itself and the system
MAX_CACHE_BYTES = 4096
RETRY_S = 10.0


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """What the canary found: the numeric class (hex), and the CPU score in thousandths of the reference core."""

    numeric_class: str = msgspec.field(name="class")
    cpu_score: int


def from_machine(
    machine: Machine, config: Config, canary: Canary | None, *, confirmed: bool, proving: Proving | None = None
) -> Capacity:
    """The offer's contents: never more than the machine has, never more than the owner allows. With `proving` the node
    sells its proven cards: a unit on each, under their class, with a core beside it."""
    memory = max(0, machine.memory_mib - RESERVED_MIB)
    disk = machine.disk_mib
    cores = min(machine.cores, config.cores) if config.cores else machine.cores
    numeric_class = bytes.fromhex(canary.numeric_class) if canary else bytes(32)
    if proving is not None:
        cores = min(cores, max(1, len(proving.sold)))
        numeric_class = proving.numeric_class or bytes(32)
    return Capacity(
        cores=cores,
        memory_mib=min(memory, config.memory_mib) if config.memory_mib else memory,
        disk_mib=min(disk, config.disk_gib * 1024) if config.disk_gib else disk,
        gpus=proving.offered if proving is not None else "",
        cpu_score=canary.cpu_score if canary else 0,
        ask_price=config.ask_price_wei_per_second,
        numeric_class=numeric_class,
        provisional=not (canary and confirmed and (proving is None or proving.sold)),
    )


def shortfalls(machine: Machine, config: Config) -> list[Problem]:
    """Where the owner allows more than there is: less is offered than the config says, and nobody should wonder why."""
    memory = max(0, machine.memory_mib - RESERVED_MIB)
    terms = (
        ("cores", config.cores, machine.cores, ""),
        ("memory-mib", config.memory_mib, memory, f" (and keeps {RESERVED_MIB} MiB for itself)"),
        ("disk-gib", config.disk_gib, machine.disk_mib // 1024, " free"),
    )
    return [
        Problem(
            code="more_than_there_is",
            sentence=f"The owner allows --{name} {allowed}, this machine has {has}{kept}: {has} are offered.",
            remedy=f"Start with --{name} {has} or less; 0 offers what there is.",
        )
        for name, allowed, has, kept in terms
        if allowed > has
    ]


class Canaries:
    """The canary's result: cached, then confirmed. `run` calls `found(canary, confirmed)` whenever it knows more."""

    def __init__(
        self, machine: Machine, run_task: Callable[[str], Awaitable[bytes]], wanted: trio.Event | None = None
    ) -> None:
        """What is cached already is confirmed from when `wanted` is set (without it at once)."""
        self._run_task = run_task
        self._wanted = wanted
        self._path = _cache_folder() / f"canary-{_key(machine)}.json"

    def cached(self) -> Canary | None:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(MAX_CACHE_BYTES), type=Canary)
        except (OSError, *UNREADABLE):
            return None

    async def run(self, found: Callable[[Canary, bool], None]) -> None:
        cached = self.cached()
        if cached is not None:
            found(cached, False)
            if self._wanted is not None:
                await self._wanted.wait()
        while True:
            try:
                canary = msgspec.json.decode(await self._run_task("canary"), type=Canary)
                break
            except (Failure, LocalError, *UNREADABLE) as error:
                log.warning("the numeric class cannot be measured: %s", error)
                await trio.sleep(RETRY_S)
        if cached is not None and cached.numeric_class != canary.numeric_class:
            log.warning("the numeric class changed since it was cached: the new one is used")
        self._keep(canary)
        found(canary, True)

    def _keep(self, canary: Canary) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            draft.write_bytes(msgspec.json.encode(canary))
            os.replace(draft, self._path)
        except OSError as error:  # a cache that cannot be written costs the next start two seconds, no more
            log.info("the canary's result is not cached: %s", error)


def _key(machine: Machine) -> str:
    about = json.dumps([machine.cpu, profile.profile_hash().hex()])
    return hashlib.blake2b(about.encode(), digest_size=12).hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tallymesh"
