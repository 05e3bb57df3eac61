"""What the contracts themselves say that an account has, purse by purse, at the block that an index has reached.

The index adds up moves; this reads the views. Where both agree, no event was missed and none was counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tallymesh.network import Network
from tallymesh_ledger.awards import awards_of
from tallymesh_ledger.chain import Contracts, Rpc, SeatStatus
from tallymesh_ledger.index.effects import Purse


async def on_chain(
    rpc: Rpc, network: Network, account: bytes, jobs: Sequence[bytes], seats: Mapping[bytes, int], *, at: int
) -> dict[Purse, int]:
    """`jobs` are those that the account paid for, `seats` theirs with the price of a unit. ChainError, also where the
    node has forgotten the state of that block (public ones keep some minutes)."""
    contracts = Contracts.of(rpc, network)
    stake = await contracts.registry.stake_of(account, at=at)
    held = sum(job.free + job.reserve for job in await contracts.escrow.jobs_of(jobs, at=at))
    for seat, price in zip(await contracts.escrow.seats_of(list(seats), at=at), seats.values(), strict=True):
        held += seat.bond
        if seat.state is SeatStatus.OPEN:
            held += (seat.units - seat.paid_units) * price
    return {
        Purse.TOKENS: await contracts.token.balance_of(account, at=at),
        Purse.CREDITS: await contracts.escrow.credit_of(account, at=at),
        Purse.STAKE: stake.free + stake.locked + stake.unbonding,
        Purse.ESCROW: held,
        Purse.LOCKED: stake.locked,
        Purse.AWARDS: await awards_of(rpc, network, account, at=at),
    }
