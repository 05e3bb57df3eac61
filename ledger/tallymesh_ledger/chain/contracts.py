"""The contracts of one network."""

from __future__ import annotations

import msgspec

from tallymesh.network import Network
from tallymesh_ledger.chain.escrow import JobEscrow
from tallymesh_ledger.chain.rewards import Rewards
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.staking import Registry, Token


class Contracts(msgspec.Struct, frozen=True):
    """`rewards` is None on a network that was deployed without them."""

    token: Token
    registry: Registry
    escrow: JobEscrow
    rewards: Rewards | None = None

    @classmethod
    def of(cls, rpc: Rpc, network: Network) -> Contracts:
        addresses = network.contracts
        token = Token(rpc, bytes.fromhex(addresses.token[2:]))
        registry = Registry(rpc, bytes.fromhex(addresses.registry[2:]), token)
        escrow = JobEscrow(rpc, bytes.fromhex(addresses.escrow[2:]), token)
        rewards = Rewards(rpc, bytes.fromhex(addresses.rewards[2:])) if addresses.rewards else None
        return cls(token, registry, escrow, rewards)
