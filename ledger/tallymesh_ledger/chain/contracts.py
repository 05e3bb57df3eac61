"""The three contracts of one network."""

from __future__ import annotations

import msgspec

from tallymesh.network import Network
from tallymesh_ledger.chain.escrow import JobEscrow
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.staking import Registry, Token


class Contracts(msgspec.Struct, frozen=True):
    """The three of one network."""

    token: Token
    registry: Registry
    escrow: JobEscrow

    @classmethod
    def of(cls, rpc: Rpc, network: Network) -> Contracts:
        addresses = network.contracts
        token = Token(rpc, bytes.fromhex(addresses.token[2:]))
        registry = Registry(rpc, bytes.fromhex(addresses.registry[2:]), token)
        return cls(token, registry, JobEscrow(rpc, bytes.fromhex(addresses.escrow[2:]), token))
