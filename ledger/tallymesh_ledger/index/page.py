"""Logs of a few blocks on their way into the index: decoded, joined with their job and seat, turned into moves.

An event with a field `job` or `seat` belongs to that job and seat; where it names only the seat, the job follows, and
where it names a quarrel, the seat that the quarrel is about. This module knows by name the events that say what a job,
a seat and a quarrel are; everything else is effects.py's table and, for quarrels, quarrels.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, insert, select

from tallymesh.errors import ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import abi
from tallymesh_ledger.chain.rpc import Block
from tallymesh_ledger.index import effects, quarrels, schema
from tallymesh_ledger.index.effects import Move
from tallymesh_ledger.index.quarrels import Party, Quarrels

# Contracts whose events are indexed, and the network file's field for each; what is not deployed is left out.
INDEXED = {
    "Token": "token", "Registry": "registry", "JobEscrow": "escrow", "Rewards": "rewards", "Claims": "claims",
    "Accusations": "accusations", "Court": "court",
}  # fmt: skip
ASKED = 500  # ids in one query: SQLite takes at most some thousand parameters


class Source(msgspec.Struct, frozen=True):
    """A contract whose events are indexed."""

    name: str
    interface: abi.Interface


def sources(network: Network) -> dict[bytes, Source]:
    """By address: each contract that has an address in the network file and an ABI here."""
    found = {}
    folder = resources.files("tallymesh_ledger").joinpath("abi")
    for name, field in INDEXED.items():
        address = getattr(network.contracts, field, "")
        if address and folder.joinpath(f"{name}.json").is_file():
            found[bytes.fromhex(address[2:])] = Source(name, abi.load(name))
    return found


class Page:
    """`times` are the blocks with events."""

    def __init__(
        self, sources: Mapping[bytes, Source], logs: Iterable[Mapping[str, Any]], blocks: Mapping[int, Block]
    ) -> None:
        self.events: list[tuple[str, abi.Event]] = []
        for log in logs:
            source = sources[bytes.fromhex(log["address"][2:])]
            self.events.append((source.name, source.interface.event(log) or _unknown(log)))
        self.times = {event.block_number: blocks[event.block_number] for _, event in self.events}

    def write(self, connection: Connection, constants: Mapping[str, int | bytes]) -> None:
        """All of it, in the caller's transaction. ChainError `missing_events` where an event names a job or a seat of
        which the node has left out the beginning."""
        about = self._quarrels(connection)
        jobs, seats = self._parties(connection, about)
        fed = Quarrels(int(constants.get("courtFee", 0)), lambda seat: Party(jobs[seats[seat][0]], seats[seat][1]))
        self._feed_earlier(connection, fed, set(about.values()))
        counts: dict[int, int] = {}
        rows, moved = [], []
        for contract, event in self.events:
            counts[event.block_number] = counts.get(event.block_number, 0) + 1
            known: dict[str, Any] = dict(constants)
            seat = _id(event, "seat") or about.get(_quarrel_of(contract, event))
            job = _id(event, "job")
            if seat in seats:
                in_job, known["worker"] = seats[seat]
                job = job or in_job
            if job in jobs:
                known["payer"] = jobs[job]
            rule = effects.RULES.get((contract, event.name))
            key = {"block": event.block_number, "log": event.index}
            moves: list[Move] = []
            try:
                if rule is not None:
                    moves += rule.apply(event.values, known)
                moves += fed.feed(contract, event.name, event.values)
            except KeyError as missing:
                raise _missing(event, str(missing)) from None
            moved += [
                {**key, "part": part, "account": move.account, "purse": str(move.purse), "amount": move.amount}
                for part, move in enumerate(moves)
            ]
            details = json.dumps({name: plain(value) for name, value in event.values.items()})
            named = {"contract": contract, "name": event.name, "job": job, "seat": seat}
            rows.append({**key, **named, "tx": event.transaction, "details": details})
        self._insert(connection, schema.blocks, [
            {"number": number, "hash": block.hash, "time": block.timestamp, "events": counts[number]}
            for number, block in self.times.items()
        ])  # fmt: skip
        self._insert(connection, schema.events, rows)
        self._insert(connection, schema.moves, moved)
        self._insert(connection, schema.jobs, [_job(event) for event in self._named("JobOpened")])
        self._insert(connection, schema.seats, [_seat(event) for event in self._named("SeatOpened")])
        self._insert(connection, schema.quarrels, [
            {"id": id_, "block": event.block_number, "seat": about[id_]} for id_, event in self._begun()
        ])  # fmt: skip

    def _named(self, name: str) -> Iterable[abi.Event]:
        return (event for contract, event in self.events if contract == "JobEscrow" and event.name == name)

    def _insert(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            connection.execute(insert(table), [dict(row) for row in rows])

    def _begun(self) -> Iterable[tuple[bytes, abi.Event]]:
        """What quarrels begin in this page: claims, accusations, and samples that go to the Court."""
        for contract, event in self.events:
            field = quarrels.BEGINNINGS.get((contract, event.name))
            if field is not None:
                yield event.values[field], event
            elif (contract, event.name) == quarrels.DISPUTED:
                yield event.values["courtCase"], event

    def _quarrels(self, connection: Connection) -> dict[bytes, bytes]:
        """quarrel -> seat, of all that this page names."""
        named = {id_ for contract, event in self.events if (id_ := _quarrel_of(contract, event))}
        found: dict[bytes, bytes] = {}
        row = schema.quarrels.c
        for some in _chunks(sorted(named)):
            for id_, seat in connection.execute(select(row.id, row.seat).where(row.id.in_(some))):
                found[bytes(id_)] = bytes(seat)
        for id_, event in self._begun():
            seat = event.values.get("seat") or found.get(event.values["claim"])
            if seat is None:
                raise _missing(event, "the claim")
            found[id_] = seat
        return found

    def _feed_earlier(self, connection: Connection, fed: Quarrels, seats: set[bytes]) -> None:
        """What the index has of these seats' quarrels: it was moved already, and is needed for what comes now."""
        row = schema.events.c
        kinds = row.contract.in_(quarrels.CONTRACTS) | (row.contract == "JobEscrow") & row.name.in_(quarrels.ESCROW)
        for some in _chunks(sorted(seats)):
            query = select(row.contract, row.name, row.details).where(row.seat.in_(some), kinds)
            for contract, name, details in connection.execute(query.order_by(row.block, row.log)):
                values = {field: _typed(value) for field, value in json.loads(details).items()}
                for _ in fed.feed(contract, name, values):
                    pass

    def _parties(
        self, connection: Connection, about: Mapping[bytes, bytes]
    ) -> tuple[dict[bytes, bytes], dict[bytes, tuple[bytes, bytes]]]:
        """(job -> payer, seat -> (job, worker)) of all that this page names, in the index or in the page itself."""
        seats = {
            event.values["seat"]: (event.values["job"], event.values["worker"]) for event in self._named("SeatOpened")
        }
        jobs = {event.values["job"]: event.values["payer"] for event in self._named("JobOpened")}
        named = {seat for _, event in self.events if (seat := _id(event, "seat"))} | set(about.values())
        for some in _chunks(sorted(named - seats.keys())):
            row = schema.seats.c
            for seat, job, worker in connection.execute(
                select(row.seat, row.job, row.worker).where(row.seat.in_(some))
            ):
                seats[bytes(seat)] = (bytes(job), bytes(worker))
        named = {job for _, event in self.events if (job := _id(event, "job"))} | {job for job, _ in seats.values()}
        for some in _chunks(sorted(named - jobs.keys())):
            row = schema.jobs.c
            for job, payer in connection.execute(select(row.job, row.payer).where(row.job.in_(some))):
                jobs[bytes(job)] = bytes(payer)
        return jobs, seats


def plain(value: Any) -> Any:
    """As it stands in `details`: bytes as 0x…, numbers as decimal text, the rest as JSON has it."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def _typed(value: Any) -> Any:
    """What `plain` made text, of the kinds that quarrels have."""
    if not isinstance(value, str):
        return value
    return bytes.fromhex(value[2:]) if value.startswith("0x") else int(value)


def _quarrel_of(contract: str, event: abi.Event) -> bytes:
    """The claim, accusation or case that an event of theirs names; empty where it names none."""
    if contract not in quarrels.CONTRACTS:
        return b""
    return next((id_ for name in quarrels.IDS if (id_ := _id(event, name))), b"")


def _id(event: abi.Event, name: str) -> bytes | None:
    value = event.values.get(name)
    return value if isinstance(value, bytes) and len(value) == 32 else None


def _chunks(ids: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (ids[start : start + ASKED] for start in range(0, len(ids), ASKED))


def _job(event: abi.Event) -> dict[str, Any]:
    v = event.values
    opened = {"job": v["job"], "payer": v["payer"], "signer": v["signer"]}
    return {**opened, "wages": v["wages"], "reserve": v["auditReserve"], "block": event.block_number}


def _seat(event: abi.Event) -> dict[str, Any]:
    names = ("seat", "job", "worker", "price", "units", "lock", "until")
    return {**{name: event.values[name] for name in names}, "block": event.block_number}


def _unknown(log: Mapping[str, Any]) -> abi.Event:
    """An event that this version's ABI does not have: kept as it is."""
    return abi.Event(
        name="",
        values={"topics": list(log["topics"]), "data": log["data"]},
        address=bytes.fromhex(log["address"][2:]),
        block_number=int(log["blockNumber"], 16),
        block_hash=bytes.fromhex(log["blockHash"][2:]),
        transaction=bytes.fromhex(log["transactionHash"][2:]),
        index=int(log["logIndex"], 16),
    )


def _missing(event: abi.Event, what: str) -> ChainError:
    return ChainError(
        "missing_events",
        f"The chain's node told of {event.name} in block {event.block_number} and left out what it refers to ({what}).",
        reverted=False,
        remedy="Try again later or with another --rpc; 'tallymesh index rebuild' reads everything anew.",
    )
