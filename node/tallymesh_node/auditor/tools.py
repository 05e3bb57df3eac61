"""What every part of the auditor needs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from tallymesh.parameters import Parameters
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, Executor, Journal, PeerNetwork
from tallymesh_node.unit_inputs import Specs

log = logging.getLogger("tallymesh.auditor")


@dataclass(frozen=True)
class Tools:
    network: PeerNetwork
    blobs: Blobs
    executor: Executor
    chain: Chain
    journal: Journal
    domains: Domains
    key: AccountKey
    parameters: Parameters
    clock: Callable[[], float]
    cores: Cores
    specs: Specs
    counters: Counter[str]

    @staticmethod
    def sandbox_of(job: bytes) -> bytes:
        """The sandbox in which this node audits a job: not the one in which it may work for the same job, because the
        two end at different times and neither may see what the other left."""
        return blake3(b"tallymesh.audit.sandbox.1" + job).digest()
