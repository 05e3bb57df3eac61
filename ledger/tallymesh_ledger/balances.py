"""What an account has, read from the chain alone: no wallet, no node, no trust in anybody's books.

Amounts in wei of MESH, except the gas coin's own.
"""

from __future__ import annotations

import msgspec

from tallymesh.network import Network
from tallymesh_ledger.awards import awards_of
from tallymesh_ledger.chain.contracts import Contracts
from tallymesh_ledger.chain.escrow import Job
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.collecting import collectable
from tallymesh_ledger.eip712 import word
from tallymesh_ledger.keys import checksum


class OpenEscrow(msgspec.Struct, frozen=True, kw_only=True):
    """A job of this payer that still holds money outside its seats, or has open seats."""

    job: bytes
    free_wei: int  # wages that no open seat holds
    reserve_wei: int
    open_seats: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """All that one account has, at one block."""

    account: bytes
    block_number: int
    tokens_wei: int
    gas_wei: int  # the chain's own coin
    stake_free_wei: int
    stake_locked_wei: int
    stake_unbonding_wei: int
    slots: int
    credits_wei: int  # earned or refunded, not yet withdrawn
    awards_wei: int = 0  # credited by Claims, Accusations and Court, not yet withdrawn
    rewards_wei: int | None = None  # of past periods, not yet collected; None on a network without rewards
    escrows: tuple[OpenEscrow, ...] = ()

    def __repr__(self) -> str:
        who = checksum(self.account)
        return f"<Balance {who} block={self.block_number} tokens={self.tokens_wei} credits={self.credits_wei}>"


async def read_balance(rpc: Rpc, network: Network, account: bytes) -> Balance:
    """Everything as of the newest block, so that the parts add up. ChainError where the chain cannot be asked."""
    contracts = Contracts.of(rpc, network)
    head = await rpc.block()
    at = head.number
    gas_wei = int(await rpc.call("eth_getBalance", "0x" + account.hex(), hex(at)), 16)
    stake = await contracts.registry.stake_of(account, at=at)
    rewards = await collectable(rpc, network, account, at=at)
    return Balance(
        account=account,
        block_number=at,
        tokens_wei=await contracts.token.balance_of(account, at=at),
        gas_wei=gas_wei,
        stake_free_wei=stake.free,
        stake_locked_wei=stake.locked,
        stake_unbonding_wei=stake.unbonding,
        slots=await contracts.registry.live_slots(account, at=at),
        credits_wei=await contracts.escrow.credit_of(account, at=at),
        awards_wei=await awards_of(rpc, network, account, at=at),
        rewards_wei=None if rewards is None else sum(rewards.values()),
        escrows=await _open_escrows(rpc, contracts, network.contracts.deployed_block, account, at),
    )


async def _open_escrows(rpc: Rpc, contracts: Contracts, first: int, payer: bytes, at: int) -> tuple[OpenEscrow, ...]:
    jobs = await _jobs_of(rpc, contracts, first, payer, at)
    found = await contracts.escrow.jobs_of(jobs, at=at)
    return tuple(
        OpenEscrow(job=job, free_wei=state.free, reserve_wei=state.reserve, open_seats=state.open_seats)
        for job, state in zip(jobs, found, strict=True)
        if _holds(state)
    )


def _holds(state: Job) -> bool:
    return bool(state.free or state.reserve or state.open_seats)


async def _jobs_of(rpc: Rpc, contracts: Contracts, first: int, payer: bytes, at: int) -> list[bytes]:
    """Every job that the account ever paid for, from the events that say so."""
    interface = contracts.escrow.interface
    topics = [interface.topics["JobOpened"], None, word(payer)]
    logs = await read_logs(rpc, contracts.escrow.address, topics, first, at)
    events = [interface.event(log) for log in logs]
    return [event.values["job"] for event in events if event is not None]
