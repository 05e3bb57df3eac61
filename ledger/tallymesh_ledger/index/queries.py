"""What can be asked of an index: an account's history and what it adds up to, seats, jobs, pay over time, the network.

Every answer is of one block, `head`. Sums are made here and not in SQL: amounts are larger than SQLite's numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, func, select

from tallymesh_ledger.index import effects, schema
from tallymesh_ledger.index.effects import Purse
from tallymesh_ledger.proofs import Link

FETCH = 1_000  # rows held at once while a history is read


class Head(msgspec.Struct, frozen=True):
    """The block that the answers are of; `hash` is empty before the first one."""

    number: int
    hash: bytes
    time: int


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """One payment to a seat: units `start` to `units - 1`, by the Accept of `tally`; `chain` proves their receipts."""

    block: int
    time: int
    tx: bytes
    tally: int
    start: int
    units: int
    amount_wei: int
    fee_wei: int
    chain: bytes


class SeatSeen(msgspec.Struct, frozen=True, kw_only=True):
    seat: bytes
    job: bytes
    payer: bytes
    worker: bytes
    price_wei: int
    units: int
    lock_wei: int
    until: int
    opened: int  # Unix time
    closed: int  # 0: not yet
    settled: tuple[Settled, ...]
    claims: tuple[Link, ...] = ()  # what was ever claimed of it, oldest first

    @property
    def paid_units(self) -> int:
        return self.settled[-1].units if self.settled else 0


class JobSeen(msgspec.Struct, frozen=True, kw_only=True):
    job: bytes
    payer: bytes
    signer: bytes
    wages_wei: int
    reserve_wei: int
    opened: int
    seats: int
    closed_seats: int
    held_wei: int  # by the escrow, open seats included


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One move of an account, with what it belongs to. `balance_wei` is what the purse held after it."""

    block: int
    log: int
    time: int
    tx: bytes
    contract: str
    event: str
    purse: Purse
    amount_wei: int
    balance_wei: int
    job: bytes | None = None
    seat: bytes | None = None
    start: int | None = None  # units of a Settled: start … units - 1
    details: dict[str, Any] = {}

    @property
    def says(self) -> str:
        return effects.says(self.contract, self.event)


class Earned(msgspec.Struct, frozen=True, kw_only=True):
    """What an account earned in one period, `start` its first second."""

    start: int
    wei: int = 0  # credited: after fees
    fee_wei: int = 0
    units: int = 0
    audits: int = 0
    seats: int = 0


class Queries:
    """Over one connection, which a reader opened."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def head(self) -> Head:
        row = schema.cursor.c
        found = self._connection.execute(select(row.number, row.hash, row.time)).first()
        return Head(found.number, bytes(found.hash), found.time) if found else Head(-1, b"", 0)

    def counts(self) -> dict[str, int]:
        """Rows of each table."""
        tables = (schema.blocks, schema.events, schema.moves, schema.jobs, schema.seats)
        return {table.name: self._count(select(func.count()).select_from(table)) for table in tables}

    # ---- one account

    def history(self, account: bytes) -> Iterator[Entry]:
        """Every move of the account, oldest first."""
        balances = dict.fromkeys(Purse, 0)
        paid: dict[tuple[Purse, bytes], int] = {}  # seat, as its worker or its payer -> units paid before
        for row in self._moves(account):
            purse = Purse(row.purse)
            balances[purse] += row.amount
            details = json.loads(row.details)
            start = None
            if row.name == "Settled":
                start = paid.get((purse, row.seat), 0)
                paid[purse, row.seat] = int(details["units"])
            yield Entry(
                block=row.block, log=row.log, time=row.time, tx=bytes(row.tx), contract=row.contract, event=row.name,
                purse=purse, amount_wei=row.amount, balance_wei=balances[purse], job=_maybe(row.job),
                seat=_maybe(row.seat), start=start, details=details,
            )  # fmt: skip

    def totals(self, account: bytes) -> dict[Purse, int]:
        """What the account's moves add up to in each purse."""
        sums = dict.fromkeys(Purse, 0)
        moves = schema.moves.c
        query = select(moves.purse, moves.amount).where(moves.account == account)
        for purse, amount in self._stream(query):
            sums[Purse(purse)] += amount
        return sums

    def earned(self, account: bytes, period_s: int, *, since: int = 0) -> list[Earned]:
        """Pay per period of `period_s` seconds (of Unix time), oldest first; periods without pay are left out."""
        periods: dict[int, dict[str, Any]] = {}
        for entry in self.history(account):
            if entry.event not in effects.EARNING or entry.purse not in effects.PAY or entry.time < since:
                continue
            start = entry.time - entry.time % period_s
            period = periods.setdefault(start, {"wei": 0, "fee_wei": 0, "units": 0, "audits": 0, "seats": set()})
            period["wei"] += entry.amount_wei
            period["fee_wei"] += int(entry.details.get("fee", 0))
            if entry.start is not None:
                period["units"] += int(entry.details["units"]) - entry.start
                period["seats"].add(entry.seat)
            period["audits"] += entry.event in effects.AUDITS
        return [Earned(start=start, **{**p, "seats": len(p["seats"])}) for start, p in sorted(periods.items())]

    def accounts(self) -> list[bytes]:
        """Every account that anything was ever moved to or from."""
        query = select(schema.moves.c.account).distinct().order_by(schema.moves.c.account)
        return [bytes(account) for (account,) in self._connection.execute(query)]

    # ---- seats and jobs

    def seats(self, prefix: bytes) -> list[SeatSeen]:
        """Those whose id begins with these bytes."""
        column = schema.seats.c.seat
        query = select(column).where(column >= prefix.ljust(32, b"\0"), column <= prefix.ljust(32, b"\xff"))
        return [self._seat(bytes(seat)) for (seat,) in self._connection.execute(query.order_by(column))]

    def seats_of(self, worker: bytes) -> list[SeatSeen]:
        """Of this worker, newest first."""
        row = schema.seats.c
        query = select(row.seat).where(row.worker == worker).order_by(row.block.desc(), row.seat)
        return [self._seat(bytes(seat)) for (seat,) in self._connection.execute(query).all()]

    def jobs(self, payer: bytes | None = None) -> list[JobSeen]:
        """Newest first."""
        row = schema.jobs.c
        query = select(row.job, row.payer, row.signer, row.wages, row.reserve, schema.blocks.c.time).join_from(
            schema.jobs, schema.blocks, schema.blocks.c.number == row.block
        )
        if payer is not None:
            query = query.where(row.payer == payer)
        held, seats, closed = self._held(payer), self._per_job("SeatOpened"), self._per_job("SeatClosed")
        return [
            JobSeen(
                job=bytes(each.job), payer=bytes(each.payer), signer=bytes(each.signer), wages_wei=each.wages,
                reserve_wei=each.reserve, opened=each.time, seats=seats.get(each.job, 0),
                closed_seats=closed.get(each.job, 0), held_wei=held.get(each.job, 0),
            )
            for each in self._connection.execute(query.order_by(row.block.desc(), row.job)).all()
        ]  # fmt: skip

    def _held(self, payer: bytes | None) -> dict[bytes, int]:
        """job -> what the escrow holds for it."""
        events, moves = schema.events.c, schema.moves.c
        query = (
            select(events.job, moves.amount)
            .join_from(schema.moves, schema.events, (moves.block == events.block) & (moves.log == events.log))
            .where(moves.purse == str(Purse.ESCROW))
        )
        held: dict[bytes, int] = {}
        for job, amount in self._stream(query if payer is None else query.where(moves.account == payer)):
            held[bytes(job)] = held.get(bytes(job), 0) + amount
        return held

    def _per_job(self, name: str) -> dict[bytes, int]:
        events = schema.events.c
        query = select(events.job, func.count()).where(events.contract == "JobEscrow", events.name == name)
        return {bytes(job): count for job, count in self._connection.execute(query.group_by(events.job))}

    def ids_of_payer(self, payer: bytes) -> tuple[list[bytes], dict[bytes, int]]:
        """(jobs, their seats with the price of a unit) that the account ever paid for."""
        jobs, seats = schema.jobs.c, schema.seats.c
        mine = select(jobs.job).where(jobs.payer == payer).order_by(jobs.job)
        theirs = select(seats.seat, seats.price).join_from(schema.seats, schema.jobs, jobs.job == seats.job)
        found = self._connection.execute(theirs.where(jobs.payer == payer).order_by(seats.seat))
        prices = {bytes(seat): int(price) for seat, price in found}
        return [bytes(job) for (job,) in self._connection.execute(mine)], prices

    def _seat(self, seat: bytes) -> SeatSeen:
        row = schema.seats.c
        query = select(schema.seats, schema.jobs.c.payer, schema.blocks.c.time).where(row.seat == seat)
        query = query.join_from(schema.seats, schema.jobs, schema.jobs.c.job == row.job)
        found = self._connection.execute(query.join(schema.blocks, schema.blocks.c.number == row.block)).one()
        events = self._events(schema.events.c.seat == seat)
        settled: list[Settled] = []
        for event in events:
            if event.name != "Settled":
                continue
            said = json.loads(event.details)
            paid = Settled(
                block=event.block, time=event.time, tx=bytes(event.tx), tally=int(said["tally"]),
                start=settled[-1].units if settled else 0, units=int(said["units"]),
                amount_wei=int(said["amount"]), fee_wei=int(said["fee"]), chain=bytes.fromhex(said["chain"][2:]),
            )  # fmt: skip
            settled.append(paid)
        return SeatSeen(
            seat=seat, job=bytes(found.job), payer=bytes(found.payer), worker=bytes(found.worker),
            price_wei=found.price, units=found.units, lock_wei=found.lock, until=found.until, opened=found.time,
            closed=next((event.time for event in events if event.name == "SeatClosed"), 0), settled=tuple(settled),
            claims=_claims(events),
        )  # fmt: skip

    def claims_of(self, seat: bytes) -> tuple[Link, ...]:
        """What was ever claimed of a seat, oldest first: the root and the range that it stands for."""
        return _claims(self._events(schema.events.c.seat == seat))

    # ---- the network

    def sums(self, contract: str, name: str, field: str) -> int:
        """Of one field over all events of a name."""
        events = schema.events.c
        query = select(events.details).where(events.contract == contract, events.name == name)
        return sum(int(json.loads(details)[field]) for (details,) in self._stream(query))

    def number_of(self, contract: str, name: str) -> int:
        """How many events of a name."""
        events = schema.events.c
        query = select(func.count()).select_from(schema.events)
        return self._count(query.where(events.contract == contract, events.name == name))

    # ---- rows

    def _moves(self, account: bytes) -> Iterator[Any]:
        moves, events, blocks = schema.moves.c, schema.events.c, schema.blocks.c
        query = (
            select(
                moves.block, moves.log, moves.purse, moves.amount, events.tx, events.contract, events.name, events.job,
                events.seat, events.details, blocks.time,
            )
            .join_from(schema.moves, schema.events, (moves.block == events.block) & (moves.log == events.log))
            .join(schema.blocks, blocks.number == moves.block)
            .where(moves.account == account)
            .order_by(moves.block, moves.log, moves.part)
        )  # fmt: skip
        return self._stream(query)

    def _events(self, condition: Any) -> Sequence[Any]:
        events, blocks = schema.events.c, schema.blocks.c
        query = (
            select(events.block, events.log, events.name, events.tx, events.details, blocks.time)
            .join_from(schema.events, schema.blocks, blocks.number == events.block)
            .where(condition)
            .order_by(events.block, events.log)
        )
        return self._connection.execute(query).all()

    def _stream(self, query: Select[Any]) -> Iterator[Any]:
        yield from self._connection.execution_options(yield_per=FETCH).execute(query)

    def _count(self, query: Select[Any]) -> int:
        return int(self._connection.execute(query).scalar_one())


def wealth(totals: Mapping[Purse, int]) -> int:
    """All that an account has in MESH: what is locked is a part of the stake."""
    return sum(totals[purse] for purse in effects.WEALTH)


def _claims(events: Sequence[Any]) -> tuple[Link, ...]:
    said = [json.loads(event.details) for event in events if event.name == "Claimed"]
    return tuple(Link(bytes.fromhex(each["root"][2:]), int(each["from"]), int(each["count"])) for each in said)


def _maybe(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
