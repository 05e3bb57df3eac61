"""Which rewards an account can collect: one for each period that is over and in which fees on its pay were burned."""

from __future__ import annotations

from tallymesh.errors import ChainError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.logs import read_logs
from tallymesh_ledger.chain.rpc import block_of
from tallymesh_ledger.eip712 import word


async def collectable(rpc: Rpc, network: Network, worker: bytes, *, at: int) -> dict[int, int] | None:
    """period -> wei at block `at`; None on a network without rewards. ChainError where the chain cannot be asked."""
    contracts = Contracts.of(rpc, network)
    if contracts.rewards is None:
        return None
    escrow = contracts.escrow
    length = int(await escrow.read("periodLength", at=at))
    now = (await rpc.block(at)).timestamp // length
    periods = sorted(period for period in await _paid_in(rpc, contracts, network, worker, length, at) if period < now)
    rewards = await contracts.rewards.read_many([("rewardOf", [worker, period]) for period in periods], at=at)
    return {period: int(wei) for period, wei in zip(periods, rewards, strict=True) if wei}


async def _paid_in(rpc: Rpc, contracts: Contracts, network: Network, worker: bytes, length: int, at: int) -> set[int]:
    """Periods in which the worker was paid, from the events that say so."""
    escrow = contracts.escrow
    topics = [escrow.interface.topics["Settled"], None, word(worker)]
    logs = await read_logs(rpc, escrow.address, topics, network.contracts.deployed_block, at)
    numbers = sorted({int(log["blockNumber"], 16) for log in logs})
    blocks = await rpc.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
    for block in blocks:
        if isinstance(block, ChainError):
            raise block
    return {block_of(block).timestamp // length for block in blocks if block is not None}
