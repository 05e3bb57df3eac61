"""The Registry as of any block since its deployment, rebuilt from its events.

Events rather than views at that block, because a public node forgets old states within minutes and keeps logs for ever.
Reading is incremental and level-triggered: each look scans from where the last one ended to the chain's head, whatever
happened between; blocks that were reorganised away are found by their hashes and taken back; and each look compares a
part of the result with what the contract itself says, and starts over where they differ (a node that answered
`getLogs` before it had indexed the block). This module draws nobody: `tallymesh_ledger.registry` does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec
import trio

from tallymesh.errors import ChainError, RemoteError
from tallymesh_ledger.chain.abi import Event
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.chain.rpc import Block, Rpc, block_of
from tallymesh_ledger.chain.staking import Candidate, Registry
from tallymesh_ledger.registry import RegistryAt

ANCHORS = 128  # hashes of scanned heads: a reorganisation deeper than all of them starts the scan over
KEPT = 64  # registries kept ready, one a block that a tally named
CHECK_SLOTS = 100  # compared with the contract in one look, in turn
TRIES = 5  # looks that a reorganisation (or a node that is behind) may spoil before a caller is told
RETRY_S = 0.2

_NAMES = ("SlotsBought", "SlotReleased", "OwnerChanged", "ClassSet", "DebtChanged")


class _Anchor(msgspec.Struct, frozen=True):
    """All events up to this block are known, as long as the block has this hash."""

    number: int
    hash: bytes


class Scan(msgspec.Struct, frozen=True):
    """A look that agreed with the contract: all events up to `number`, whose hash was `hash`, as of `at` (trio's
    clock); `logged` is the newest block among them with one, None where there is none."""

    number: int
    hash: bytes
    at: float
    logged: int | None


class RegistryView:
    """One registry's past and present; may be shared by tasks."""

    def __init__(self, rpc: Rpc, registry: Registry, *, deployed_block: int = 0) -> None:
        self._rpc = rpc
        self._registry = registry
        self._first = deployed_block
        self._turn = trio.Lock()
        self._events: list[Event] = []
        self._anchors: list[_Anchor] = []
        self._kept: OrderedDict[tuple[int, bytes], RegistryAt] = OrderedDict()
        self._class_delay: int | None = None  # of the contract, for ever
        self._checked = 0  # slot at which the next comparison begins
        self.scan: Scan | None = None  # the newest, while no other look is under way

    def __repr__(self) -> str:
        head = self._anchors[-1].number if self._anchors else "nothing"
        return f"<RegistryView scanned={head} events={len(self._events)}>"

    async def at(self, number: int, block_hash: bytes) -> RegistryAt:
        """The registry after block `number`. RemoteError `wrong_block` where the chain has another hash there, or no
        such block: somebody named a block that is not of this chain. ChainError where the chain cannot be asked."""
        kept = self._kept.get((number, block_hash))
        if kept is not None and await self._canonical(number, block_hash):
            self._kept.move_to_end((number, block_hash))
            return kept
        async with self._turn:
            for _ in range(TRIES):
                if not await self._look():
                    await trio.sleep(RETRY_S)
                    continue
                anchor = self._anchors[-1]
                # in one batch, so that both are of one moment: the events below the anchor are of this block's chain
                block, head = await self._blocks(number, anchor.number)
                if head is None or head.hash != anchor.hash:
                    continue
                if block is None or block.hash != block_hash:
                    raise RemoteError("wrong_block", f"The chain has another block {number} than {block_hash.hex()}.")
                return self._keep(self._build(block))
        raise ChainError(
            "chain_unsettled", "The chain's newest blocks keep changing, or its node leaves out events.", reverted=False
        )

    def unchanged(self, block: Block) -> RegistryAt:
        """The registry after `block`, for a caller who knows that its chain goes on from `scan`, without an event."""
        assert self.scan is not None
        found = self._kept.get((block.number, block.hash))
        if found is None:
            found = self._keep(self._build(block))
        return found

    def _keep(self, found: RegistryAt) -> RegistryAt:
        self._kept[found.block_number, found.block_hash] = found
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    async def newest(self, confirmations: int) -> RegistryAt:
        """The registry at the newest block that counts as final."""
        head = await self._rpc.block()
        final = await self._rpc.block(max(0, head.number - confirmations))
        return await self.at(final.number, final.hash)

    # ---- looking

    async def _look(self) -> bool:
        """Bring the events up to the chain's head. False where the chain contradicted itself: then look again."""
        self.scan = None
        if self._class_delay is None:
            self._class_delay = int(await self._registry.read("classDelay"))
        asked_at = trio.current_time()
        await self._take_back()
        head = await self._rpc.block()
        start = self._anchors[-1].number + 1 if self._anchors else self._first
        topics = [self._registry.interface.topics[name] for name in _NAMES]
        logs = await read_logs(self._rpc, self._registry.address, [topics], start, head.number)
        self._events += [event for event in map(self._registry.interface.event, logs) if event is not None]
        if not self._anchors or head.number > self._anchors[-1].number:
            self._anchors = [*self._anchors[1 - ANCHORS :], _Anchor(head.number, head.hash)]
        if not await self._compare(head):
            return False
        anchor, logged = self._anchors[-1], self._events[-1].block_number if self._events else None
        self.scan = Scan(anchor.number, anchor.hash, asked_at, logged)
        return True

    async def _take_back(self) -> None:
        """Forget what was read from blocks that are no longer of the chain."""
        while self._anchors and not await self._canonical(self._anchors[-1].number, self._anchors[-1].hash):
            self._anchors.pop()
        good = self._anchors[-1].number if self._anchors else self._first - 1
        self._events = [event for event in self._events if event.block_number <= good]

    async def _canonical(self, number: int, block_hash: bytes) -> bool:
        (block,) = await self._blocks(number)
        return block is not None and block.hash == block_hash

    async def _blocks(self, *numbers: int) -> list[Block | None]:
        answers = await self._rpc.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
        for answer in answers:
            if isinstance(answer, ChainError):
                raise answer
        return [None if answer is None else block_of(answer) for answer in answers]

    async def _compare(self, head: Block) -> bool:
        """Some slots against the contract's own words; all is forgotten where they differ."""
        total = await self._registry.slot_count(at=head.number)
        ours = self._build(head)
        same = len(ours.slots) == total
        if same and total:
            first = self._checked % total
            theirs = await self._registry.slots_from(first, CHECK_SLOTS, at=head.number)
            same = all(_agrees(ours, first + i, each) for i, each in enumerate(theirs))
            self._checked = first + len(theirs)
        if not same:
            self._anchors, self._events = [], []
        return same

    # ---- rebuilding

    def _build(self, block: Block) -> RegistryAt:
        assert self._class_delay is not None
        slots: list[bytes | None] = []
        owners: dict[bytes, bytes] = {}
        classes: dict[bytes, bytes] = {}
        short: set[bytes] = set()  # owe stake: their slots draw nobody
        waiting: dict[bytes, tuple[int, bytes]] = {}  # account -> (effective at, class)
        for name, values in self._until(block.number):
            account = values["account"]
            if name == "SlotsBought":
                slots += [account] * values["count"]
            elif name == "SlotReleased":
                slots[values["slot"]] = None
            elif name == "OwnerChanged":
                owners[account] = values["owner"]
            elif name == "DebtChanged":
                (short.add if values["debt"] else short.discard)(account)
            else:
                # a class still waiting when the next one is set never counts (Registry.setClass)
                set_at = values["effectiveAt"] - self._class_delay
                before = waiting.get(account)
                if before is not None and before[0] <= set_at:
                    classes[account] = before[1]
                waiting[account] = values["effectiveAt"], values["numericClass"]
        for account, (effective, numeric_class) in waiting.items():
            if effective <= block.timestamp:
                classes[account] = numeric_class
        return RegistryAt(
            block_number=block.number,
            block_hash=block.hash,
            block_time=block.timestamp,
            slots=tuple(None if holder in short else holder for holder in slots),
            owners=owners,
            classes={account: value for account, value in classes.items() if any(value)},
        )

    def _until(self, number: int) -> Iterable[tuple[str, dict[str, Any]]]:
        for event in self._events:
            if event.block_number > number:
                return
            yield event.name, event.values


def _agrees(ours: RegistryAt, slot: int, theirs: Candidate) -> bool:
    """Whether a slot that we rebuilt is what the contract says it is, after the same block."""
    holder = ours.slots[slot]
    dead = theirs.released_block != 0 or theirs.short
    return (
        holder == (None if dead else theirs.account)
        and ours.owner_of(theirs.account) == theirs.owner
        and ours.classes.get(theirs.account, bytes(32)) == theirs.numeric_class
    )
