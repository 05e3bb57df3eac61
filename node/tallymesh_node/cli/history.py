"""`history` and `earnings`: where an account's money came from and went, to the last wei."""

from __future__ import annotations

import csv
import sys
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh.errors import CallerError, ChainError
from tallymesh_node.cli import source
from tallymesh_node.cli.output import Json, facts, say_json, table
from tallymesh_node.cli.source import IndexUrl, NetworkFile, Offline, RpcUrl, Since, Source

if TYPE_CHECKING:
    from tallymesh_ledger.index import Entry, Head, Purse, Queries
    from tallymesh_node.evidence import Journals

SEATS_KEPT: Final = 64  # whose receipts are held at once while a history is read
Address = Annotated[str | None, typer.Argument(metavar="ADDRESS", help="0x…; the wallet's own without one.")]


class Per(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"


_SECONDS: Final = {Per.HOUR: 3600, Per.DAY: 86_400, Per.WEEK: 7 * 86_400}


def history(
    address: Address = None,
    since: Since = "",
    csv_: Annotated[bool, typer.Option("--csv", help="Comma-separated values, one move a line.")] = False,
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    index: IndexUrl = None,
    offline: Offline = False,
    json_: Json = False,
) -> None:
    """Every move of an account's money, and whether it adds up to what the chain says.

    Each payment is shown with its job, seat and units; where a node on this machine has their receipts, they are
    compared with the chain value that was settled. Needs no node and no wallet.

    \b
    Examples:
      tallymesh history
      tallymesh history 0x7c5e… --since 7d
      tallymesh history 0x7c5e… --csv > moves.csv
      tallymesh history --json | jq .adds_up
    """
    if csv_ and json_:
        raise CallerError("two_formats", "--csv and --json are two forms of the same.", remedy="Choose one.")
    found = Source(network, rpc, index)
    from tallymesh_ledger.index import Queries  # slow to import: after what is refused at once

    account = found.account(address)
    first = source.since(since, time.time())
    with found.index(offline=offline) as database, database.read() as connection:
        queries = Queries(connection)
        head = queries.head()
        rows = _rows(queries, account, first)
        if csv_:
            _write_csv(rows)
            return
        shown = list(rows)
        totals = queries.totals(account)
        jobs, seats = queries.ids_of_payer(account)
    chain, problem = _on_chain(found, account, jobs, seats, head) if not offline else ({}, "not asked")
    if json_:
        say_json(_json(account, head, shown, totals, chain, problem))
    else:
        _print(account, head, shown, totals, chain, problem)


def earnings(
    address: Address = None,
    per: Annotated[Per, typer.Option(help="Length of one line.")] = Per.DAY,
    since: Since = "",
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    index: IndexUrl = None,
    offline: Offline = False,
    json_: Json = False,
) -> None:
    """What an account earned over time: pay for units and audits, after fees.

    \b
    Examples:
      tallymesh earnings
      tallymesh earnings 0x7c5e… --per week --since 2026-01-01
      tallymesh earnings --json | jq '.periods[-1].earned_wei'
    """
    found = Source(network, rpc, index)
    from tallymesh import amounts
    from tallymesh_ledger.index import Queries
    from tallymesh_ledger.keys import checksum

    account = found.account(address)
    with found.index(offline=offline) as database, database.read() as connection:
        periods = Queries(connection).earned(account, _SECONDS[per], since=source.since(since, time.time()))
        head = Queries(connection).head()
    total = sum(period.wei for period in periods)
    if json_:
        lines = [
            {
                "start": period.start, "earned_wei": str(period.wei), "fee_wei": str(period.fee_wei),
                "units": period.units, "audits": period.audits, "seats": period.seats,
            }
            for period in periods
        ]  # fmt: skip
        say_json(
            {
                "account": checksum(account), "block": head.number, "per": per.value, "earned_wei": str(total),
                "periods": lines,
            }
        )  # fmt: skip
        return
    form = 16 if per is Per.HOUR else 10
    table(
        ["from", "earned", "fees", "units", "audits", "seats"],
        [
            [
                source.when(each.start)[:form], amounts.show(each.wei), amounts.show(each.fee_wei), str(each.units),
                str(each.audits), str(each.seats),
            ]
            for each in periods
        ],
        empty="Nothing earned yet.",
    )  # fmt: skip
    if periods:
        print(f"together {amounts.show(total)}, as of block {head.number}")


# ---- one account's rows


def _rows(queries: Queries, account: bytes, first: int) -> Iterator[tuple[Entry, dict[str, Any]]]:
    """Each entry since then, with its receipts where a payment has some."""
    from tallymesh_node.evidence import Journals, homes

    receipts = _Receipts(Journals(homes()), queries)
    for entry in queries.history(account):
        if entry.time >= first:
            yield entry, receipts.of(entry)


class _Receipts:
    """How many receipts of a payment are on this machine, and whether they lead to what was settled."""

    def __init__(self, journals: Journals, queries: Queries) -> None:
        self._journals = journals
        self._queries = queries
        self._kept: OrderedDict[bytes, Any] = OrderedDict()

    def of(self, entry: Entry) -> dict[str, Any]:
        if entry.start is None or entry.seat is None or entry.job is None:
            return {}
        from tallymesh_ledger import proofs
        from tallymesh_ledger.claims import CLAIM_TALLY

        if entry.seat not in self._kept:
            self._kept[entry.seat] = self._journals.seat(entry.job, entry.seat)
            if len(self._kept) > SEATS_KEPT:
                self._kept.popitem(last=False)
        evidence = self._kept[entry.seat]
        units = int(entry.details["units"])
        if evidence is None:
            return {"here": 0, "proven": None}
        here = sum(1 for position in range(entry.start, units) if position in evidence.leaves)
        payment = _payment(entry)
        claims = self._queries.claims_of(entry.seat) if payment.tally == CLAIM_TALLY else ()
        return {"here": here, "proven": proofs.covers(evidence, payment, claims)}


def _payment(entry: Entry) -> Any:
    from tallymesh_ledger.index import Settled

    said = entry.details
    return Settled(
        block=entry.block, time=entry.time, tx=entry.tx, tally=int(said["tally"]), start=entry.start or 0,
        units=int(said["units"]), amount_wei=int(said["amount"]), fee_wei=int(said["fee"]),
        chain=bytes.fromhex(said["chain"][2:]),
    )  # fmt: skip


def _on_chain(
    found: Source, account: bytes, jobs: list[bytes], seats: dict[bytes, int], head: Head
) -> tuple[dict[Purse, int], str]:
    """What the contracts say at the index's block, or why they cannot."""
    from tallymesh_ledger.index.check import on_chain

    try:
        return (
            found.ask(lambda rpc: on_chain(rpc, found.network, account, jobs, seats, at=max(0, head.number))), ""
        )  # fmt: skip
    except ChainError as error:
        return {}, error.sentence


# ---- how it is told


def _plain(entry: Entry, receipts: dict[str, Any]) -> dict[str, Any]:
    """One row for programs."""
    said = entry.details
    row: dict[str, Any] = {
        "time": entry.time, "block": entry.block, "tx": source.hex_(entry.tx),
        "event": f"{entry.contract}.{entry.event}",
        "purse": entry.purse.value, "amount_wei": str(entry.amount_wei), "balance_wei": str(entry.balance_wei),
        "job": source.hex_(entry.job), "seat": source.hex_(entry.seat), "counterparty": _counterparty(entry),
    }  # fmt: skip
    if entry.start is not None:
        row |= {
            "first_unit": entry.start, "end_unit": int(said["units"]), "tally": int(said["tally"]),
            "fee_wei": said["fee"], "chain": said["chain"], "receipts": receipts,
        }  # fmt: skip
    return row


def _counterparty(entry: Entry) -> str | None:
    """The other side of a transfer."""
    if entry.event != "Transfer":
        return None
    return str(entry.details["from" if entry.amount_wei > 0 else "to"])


def _write_csv(rows: Iterable[tuple[Entry, dict[str, Any]]]) -> None:
    columns = [
        "time", "block", "tx", "event", "purse", "amount_wei", "balance_wei", "job", "seat", "counterparty",
        "first_unit", "end_unit", "tally", "fee_wei", "chain", "receipts_here", "receipts_proven",
    ]  # fmt: skip
    writer = csv.DictWriter(sys.stdout, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for entry, receipts in rows:
        row = _plain(entry, receipts)
        known = row.pop("receipts", {})
        if known:
            row |= {"receipts_here": known["here"], "receipts_proven": known["proven"]}
        row["time"] = source.when(entry.time).replace(" ", "T") + "Z"
        writer.writerow({name: "" if value is None else value for name, value in row.items()})


def _json(
    account: bytes,
    head: Head,
    rows: list[tuple[Entry, dict[str, Any]]],
    totals: dict[Purse, int],
    chain: dict[Purse, int],
    problem: str,
) -> dict[str, Any]:
    from tallymesh_ledger.keys import checksum

    return {
        "account": checksum(account),
        "block": head.number,
        "entries": [_plain(*row) for row in rows],
        "totals_wei": {purse.value: str(wei) for purse, wei in totals.items()},
        "chain_wei": {purse.value: str(wei) for purse, wei in chain.items()} or None,
        "adds_up": _same(totals, chain) if chain else None,
        "problem": problem,
    }


def _print(
    account: bytes,
    head: Head,
    rows: list[tuple[Entry, dict[str, Any]]],
    totals: dict[Purse, int],
    chain: dict[Purse, int],
    problem: str,
) -> None:
    from tallymesh import amounts
    from tallymesh_ledger.index import Purse
    from tallymesh_ledger.keys import checksum

    table(
        ["time (UTC)", "what", "purse", "amount", "after", "job", "seat", "units", "receipts"],
        [_line(entry, receipts) for entry, receipts in rows],
        empty="No move of money (yet, or in this time).",
    )
    print()
    names = {
        Purse.LOCKED: "locked (of the stake)",
        Purse.BONDS: "bonds (at stake in quarrels)",
        Purse.REWARDS: "rewards (in the tokens)",
    }
    facts(
        [
            ("account", checksum(account)),
            *((names.get(purse, purse.value), amounts.show(wei)) for purse, wei in totals.items() if wei),
            ("block", str(head.number)),
            ("adds up", _verdict(totals, chain, problem)),
        ]
    )


def _verdict(totals: dict[Purse, int], chain: dict[Purse, int], problem: str) -> str:
    if not chain:
        return f"not compared with the chain: {problem}"
    wrong = [purse for purse in chain if totals[purse] != chain[purse]]
    if not wrong:
        return "yes, each purse is what the contracts say, to the wei"
    told = ", ".join(f"{purse.value} {totals[purse]} here and {chain[purse]} on chain" for purse in wrong)
    return f"NO: {told} (wei). Make the index anew: tallymesh index rebuild"


def _same(totals: dict[Purse, int], chain: dict[Purse, int]) -> bool:
    """Purse by purse, as far as the contracts have a view of it."""
    return all(totals[purse] == wei for purse, wei in chain.items())


def _line(entry: Entry, receipts: dict[str, Any]) -> list[str]:
    from tallymesh import amounts

    units = ""
    if entry.start is not None:
        last = int(entry.details["units"]) - 1
        units = f"{entry.start}-{last}" if last > entry.start else str(last)
    proven = {True: "proven", False: "incomplete", None: "elsewhere"}[receipts["proven"]] if receipts else ""
    sign = "+" if entry.amount_wei > 0 else ""
    return [
        source.when(entry.time), entry.says, entry.purse.value, sign + amounts.show(entry.amount_wei, symbol=False),
        amounts.show(entry.balance_wei, symbol=False), source.short(entry.job), source.short(entry.seat), units, proven,
    ]  # fmt: skip
