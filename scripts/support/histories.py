"""Whether every move of each account adds up to what the contracts say, and every payment to the receipts behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tallymesh.network import Network
from tallymesh_ledger import proofs
from tallymesh_ledger.chain import Rpc
from tallymesh_ledger.index import Database, Follower, Purse, Queries
from tallymesh_ledger.index.check import on_chain
from tallymesh_node.evidence import Journals, homes


class History(msgspec.Struct, frozen=True):
    """Of one account: its moves, whether they add up, and how many of its payments the journals prove."""

    moves: int
    adds_up: bool
    payments: int
    proven: int


async def histories(rpc: Rpc, network: Network, folders: Mapping[bytes, Path], index: Path) -> dict[bytes, History]:
    """`folders`: each account's node, the payer's first, which has the tallies that it signed in a lost worker's place.
    The index is made anew from the chain, in that file."""
    journals = Journals([home for folder in folders.values() for home in homes(folder)])
    found: dict[bytes, History] = {}
    with Database(str(index)) as database:
        await Follower(database, rpc, network).rebuild()
        with database.read() as connection:
            queries = Queries(connection)
            at = queries.head().number
            for account in folders:
                jobs, seats = queries.ids_of_payer(account)
                chain = await on_chain(rpc, network, account, jobs, seats, at=at)
                payments, proven = 0, 0
                for seat in queries.seats_of(account):
                    evidence = journals.seat(seat.job, seat.seat)
                    payments += len(seat.settled)
                    proven += sum(
                        evidence is not None and proofs.covers(evidence, each, seat.claims) for each in seat.settled
                    )
                totals = queries.totals(account)
                adds_up = all(totals[purse] == wei for purse, wei in chain.items())
                moves = sum(1 for _ in queries.history(account))
                found[account] = History(moves, adds_up, payments, proven)
    return found


async def at_stake(rpc: Rpc, network: Network, accounts: Sequence[bytes], index: Path) -> tuple[dict[bytes, int], int]:
    """What each account may still lose in quarrels, and the block of which that is true; brings the index up to it."""
    with Database(str(index)) as database:
        await Follower(database, rpc, network).catch_up()
        with database.read() as connection:
            queries = Queries(connection)
            found = {account: queries.totals(account)[Purse.BONDS] for account in accounts}
            return found, queries.head().number
