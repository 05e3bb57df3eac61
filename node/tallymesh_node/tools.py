"""What roles that run units need of the world; each adds what only it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from blake3 import blake3

from tallymesh.exchange import Source
from tallymesh.parameters import Parameters
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, Executor, Journal, PeerNetwork
from tallymesh_node.unit_inputs import Specs


@dataclass(frozen=True, kw_only=True)
class UnitTools:
    network: PeerNetwork
    blobs: Blobs
    executor: Executor
    chain: Chain
    journal: Journal
    domains: Domains
    key: AccountKey
    parameters: Parameters
    cores: Cores
    specs: Specs
    counters: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class CaseTools(UnitTools):
    """Of a role that recomputes units because others quarrel about them on chain."""

    SANDBOX: ClassVar[bytes]  # in front of a claim or case: its sandbox has a name that no other role's has

    source_of: Callable[[bytes], Source | None]  # an account's peer, by its offer
    account_of: Callable[[str], bytes | None]  # the account that a valid PeerBinding gives a peer

    @classmethod
    def sandbox_of(cls, subject: bytes) -> bytes:
        """The sandbox in which this node recomputes for a claim or case: none in which it works for the same job."""
        return blake3(cls.SANDBOX + subject).digest()
