"""Brings an index up to the chain: in bounded pages, each one transaction, from wherever the last one ended.

Before each page the newest block that was read is looked up by its hash; where the chain has another one there, the
newest block that both know is found and everything above it is taken back. A page is kept with the hash that its end
had before its logs were read, so that a chain which moved meanwhile is found out by the next look. So it may be
stopped at any point, run by several processes at once, and pointed at a chain that was wound back: it goes on from what
is still true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import trio
from sqlalchemy import Connection, delete, insert, select, update

from tallymesh.errors import CallerError, ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain.rpc import Block, Rpc, block_of
from tallymesh_ledger.index import effects, schema
from tallymesh_ledger.index.database import Database
from tallymesh_ledger.index.page import Page, Source, sources

PAGE_BLOCKS = 5_000  # of one eth_getLogs at first (public nodes allow 500 to 10,000) …
PAGE_BLOCKS_MIN = 10  # … halved where the node refuses, down to this, the smallest that a free plan allows …
PAGE_BLOCKS_MAX = 50_000  # … doubled where there was little in it, up to this
PAGE_LOGS_MANY = 4_000  # a page of more logs is halved next time: bounds memory and the transaction …
PAGE_LOGS_FEW = 1_000  # … and one of fewer doubled …
GROW_AFTER = 8  # … after so many that passed: a size that was refused is not tried again at once
ANCHORS = 256  # hashes of blocks without events that are kept: a deeper reorganisation goes back to one with events
LOOKS = 64  # hashes compared in one batch while the newest common block is looked for
TRIES = 10  # pages that a chain in motion may spoil before a caller is told
RETRY_S = 0.2
POLL_S = 2.0  # between looks for new blocks, when it follows


class Progress(msgspec.Struct, frozen=True):
    """How far an index has come; `target` is the newest block that counts as final."""

    block: int
    target: int
    pages: int = 0
    events: int = 0
    taken_back: int = 0  # times that blocks had to be taken back


class Cursor(msgspec.Struct, frozen=True):
    number: int
    hash: bytes  # empty before the first page


class Follower:
    """Reads one network's events into one index."""

    def __init__(
        self, database: Database, rpc: Rpc, network: Network, *, say: Callable[[Progress], None] = lambda _: None
    ) -> None:
        self._database = database
        self._rpc = rpc
        self._network = network
        self._say = say
        self._first = network.contracts.deployed_block
        self._sources: dict[bytes, Source] = sources(network)
        self._constants: dict[str, int | bytes] = {}
        self._page_max = network.chain.logs_blocks_max or PAGE_BLOCKS_MAX
        self._page = min(PAGE_BLOCKS, self._page_max)
        self._passed = GROW_AFTER  # pages since one was refused
        self.progress = Progress(self._first - 1, self._first - 1)

    def __repr__(self) -> str:
        return f"<Follower {self._database.shown} block={self.progress.block}/{self.progress.target}>"

    async def catch_up(self) -> Progress:
        """Up to the newest final block. ChainError where the chain cannot be asked, or keeps changing; CallerError
        `other_network` where the index is of other contracts."""
        await self._prepare()
        head = await self._rpc.block()
        target = max(self._first - 1, head.number - self._network.parameters.confirmations)
        spoiled = 0
        while True:
            cursor = await self._take_back()
            self.progress = msgspec.structs.replace(self.progress, block=cursor.number, target=target)
            self._say(self.progress)
            if cursor.number >= target:
                return self.progress
            if not await self._read(cursor, min(cursor.number + self._page, target)):
                spoiled += 1
                if spoiled >= TRIES:
                    raise ChainError(
                        "chain_unsettled", "The chain's blocks keep changing while they are read.", reverted=False
                    )
                await trio.sleep(RETRY_S)

    async def follow(self, poll_s: float = POLL_S) -> None:
        """Keep up until cancelled; a chain that cannot be asked is asked again."""
        while True:
            try:
                await self.catch_up()
            except ChainError as error:
                if error.code not in ("chain_unavailable", "chain_unsettled"):
                    raise
            await trio.sleep(poll_s)

    async def rebuild(self) -> Progress:
        """Forget everything and read the chain from the contracts' first block."""
        await trio.to_thread.run_sync(self._database.clear)
        return await self.catch_up()

    # ---- what the index is of

    async def _prepare(self) -> None:
        """Names the network in a new index; makes one of another version anew; refuses one of another network."""
        addresses = self._network.contracts
        wanted = {
            "chain": str(self._network.chain_id),
            "contracts": f"{addresses.token} {addresses.registry} {addresses.escrow}",
            "first": str(self._first),
            "version": f"{schema.version()} {' '.join(source.name for source in self._sources.values())}",
        }
        found = await trio.to_thread.run_sync(self._meta)
        if found.get("version") not in (None, wanted["version"]):
            await trio.to_thread.run_sync(self._database.clear)
            found = {}
        if not found:
            wanted |= await self._read_constants()
            await trio.to_thread.run_sync(self._name, wanted)
            found = await trio.to_thread.run_sync(self._meta)
        for name in ("chain", "contracts", "first"):
            if found[name] != wanted[name]:
                raise CallerError(
                    "other_network",
                    f"The index in {self._database.shown} is of another network.",
                    remedy="Name another place with --index, or make it anew with 'tallymesh index rebuild'.",
                )
        self._constants = {name: int(found[name]) for name in effects.CONSTANTS if name in found}
        self._constants |= {name: bytes.fromhex(found[name]) for name in effects.PARTIES}

    async def _read_constants(self) -> dict[str, str]:
        """Of the contracts that this network has."""
        found = {}
        for address, source in self._sources.items():
            for name, (contract, view) in {**effects.CONSTANTS, **effects.PARTIES}.items():
                if contract == source.name:
                    function = source.interface.functions[view]
                    call = {"to": "0x" + address.hex(), "data": "0x" + function.encode().hex()}
                    answer = await self._rpc.call("eth_call", call, "latest")
                    value = function.decode(bytes.fromhex(answer[2:]))
                    found[name] = value.hex() if isinstance(value, bytes) else str(value)
        return found

    def _meta(self) -> dict[str, str]:
        with self._database.read() as connection:
            return {name: value for name, value in connection.execute(select(schema.meta))}

    def _name(self, values: dict[str, str]) -> None:
        with self._database.write() as connection:
            if connection.execute(select(schema.meta)).first() is None:
                connection.execute(
                    insert(schema.meta), [{"name": name, "value": value} for name, value in values.items()]
                )
                connection.execute(insert(schema.cursor), {"id": 0, "number": self._first - 1, "hash": b"", "time": 0})

    # ---- what is still true

    async def _take_back(self) -> Cursor:
        """Where to go on: the newest block of the index that the chain still has. What is above it goes."""
        cursor = await trio.to_thread.run_sync(self._cursor)
        (block,) = await self._blocks([cursor.number]) if cursor.hash else (None,)
        if not cursor.hash or (block is not None and block.hash == cursor.hash):
            return cursor
        below = cursor.number
        good = Block(self._first - 1, b"", b"", 0)
        while known := await trio.to_thread.run_sync(self._anchors, below):
            there = await self._blocks([number for number, _ in known])
            same = [b for b, (_, hash_) in zip(there, known, strict=True) if b is not None and b.hash == hash_]
            if same:
                good = same[0]
                break
            below = known[-1][0] - 1
        await trio.to_thread.run_sync(self._forget_above, cursor, good)
        self.progress = msgspec.structs.replace(self.progress, taken_back=self.progress.taken_back + 1)
        return await trio.to_thread.run_sync(self._cursor)

    def _cursor(self) -> Cursor:
        with self._database.read() as connection:
            row = connection.execute(select(schema.cursor.c.number, schema.cursor.c.hash)).one()
            return Cursor(row.number, bytes(row.hash))

    def _anchors(self, below: int) -> list[tuple[int, bytes]]:
        """Blocks whose hash is known, newest first."""
        blocks = schema.blocks.c
        with self._database.read() as connection:
            rows = connection.execute(
                select(blocks.number, blocks.hash)
                .where(blocks.number <= below)
                .order_by(blocks.number.desc())
                .limit(LOOKS)
            )
            return [(row.number, bytes(row.hash)) for row in rows]

    def _forget_above(self, cursor: Cursor, good: Block) -> None:
        with self._database.write() as connection:
            if _advance(connection, cursor, good):
                for table, block in schema.FROM_BLOCKS:
                    connection.execute(delete(table).where(block > good.number))

    # ---- one page

    async def _read(self, cursor: Cursor, end: int) -> bool:
        """Blocks after the cursor up to `end`. False where the chain moved meanwhile, and nothing was kept."""
        # before its logs: had the chain moved when they were read, the next look takes this block back
        (last,) = await self._blocks([end])
        if last is None:
            return False
        try:
            logs = await self._logs(cursor.number + 1, end)
        except ChainError as error:
            if error.code != "rpc_error" or self._page <= PAGE_BLOCKS_MIN:
                raise
            self._page, self._passed = max(PAGE_BLOCKS_MIN, self._page // 2), 0
            return True  # no page, and nothing is wrong with the chain: the next one is smaller
        numbers = sorted({int(log["blockNumber"], 16) for log in logs})
        found = {block.number: block for block in await self._blocks(numbers) if block is not None}
        if any(not _stands(log, found) for log in logs):
            return False  # they are of blocks that are no more
        page = Page(self._sources, logs, found)
        kept = await trio.to_thread.run_sync(self._keep, cursor, last, page)
        if kept:
            progress = self.progress
            self.progress = msgspec.structs.replace(
                progress, pages=progress.pages + 1, events=progress.events + len(page.events)
            )
            self._passed += 1
            if len(logs) > PAGE_LOGS_MANY:
                self._page = max(PAGE_BLOCKS_MIN, self._page // 2)
            elif len(logs) < PAGE_LOGS_FEW and self._passed >= GROW_AFTER:
                self._page = min(self._page_max, self._page * 2)
        return True  # where another process was faster, go on from what it wrote

    async def _logs(self, start: int, end: int) -> list[dict[str, Any]]:
        addresses = ["0x" + address.hex() for address in self._sources]
        wanted = {"address": addresses, "fromBlock": hex(start), "toBlock": hex(end)}
        logs: list[dict[str, Any]] = await self._rpc.call("eth_getLogs", wanted)
        return sorted(logs, key=lambda log: (int(log["blockNumber"], 16), int(log["logIndex"], 16)))

    async def _blocks(self, numbers: Sequence[int]) -> list[Block | None]:
        answers = await self._rpc.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
        for answer in answers:
            if isinstance(answer, ChainError):
                raise answer
        return [None if answer is None else block_of(answer) for answer in answers]

    def _keep(self, cursor: Cursor, last: Block, page: Page) -> bool:
        with self._database.write() as connection:
            if not _advance(connection, cursor, last):
                return False
            page.write(connection, self._constants)
            if last.number not in page.times:
                connection.execute(
                    insert(schema.blocks),
                    {"number": last.number, "hash": last.hash, "time": last.timestamp, "events": 0},
                )
            self._thin(connection)
            return True

    def _thin(self, connection: Connection) -> None:
        """Old ends of pages without events say nothing any more."""
        blocks = schema.blocks.c
        oldest = connection.execute(
            select(blocks.number).where(blocks.events == 0).order_by(blocks.number.desc()).offset(ANCHORS).limit(1)
        ).scalar_one_or_none()
        if oldest is not None:
            connection.execute(delete(schema.blocks).where(blocks.events == 0, blocks.number <= oldest))


def _stands(log: dict[str, Any], found: dict[int, Block]) -> bool:
    block = found.get(int(log["blockNumber"], 16))
    return block is not None and block.hash == bytes.fromhex(log["blockHash"][2:]) and not log.get("removed", False)


def _advance(connection: Connection, cursor: Cursor, block: Block) -> bool:
    """Move the cursor, if it is where we believe it is; else another process wrote meanwhile."""
    row = schema.cursor.c
    moved = connection.execute(
        update(schema.cursor)
        .where(row.number == cursor.number, row.hash == cursor.hash)
        .values(number=block.number, hash=block.hash, time=block.timestamp)
    )
    return moved.rowcount == 1
