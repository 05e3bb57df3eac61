"""What every part of a quarrel's three sides needs, and how it waits."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from blake3 import blake3

from tallymesh.errors import ChainError
from tallymesh.exchange import Source
from tallymesh.messages import Order
from tallymesh.parameters import Parameters
from tallymesh.units import Unit
from tallymesh_ledger.court import Terms
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.cores import Cores
from tallymesh_node.interfaces import Blobs, Chain, CourtChain, Executor, Journal, PeerNetwork
from tallymesh_node.quarrels.values import Values
from tallymesh_node.unit_inputs import Specs

log = logging.getLogger("tallymesh.quarrels")

LOOKS = 25  # at a case in the shortest of its windows: what is due is done in its first part
LOOK_MIN_S, LOOK_MAX_S = 1.0, 60.0
MAX_VALUES = 32  # cases of which the values found so far are kept: what a party named once, it goes on from


@dataclass(frozen=True)
class Tools:
    network: PeerNetwork
    blobs: Blobs
    executor: Executor
    chain: Chain
    court: CourtChain
    journal: Journal
    domains: Domains
    key: AccountKey
    parameters: Parameters
    cores: Cores
    specs: Specs
    source_of: Callable[[bytes], Source | None]  # an account's peer, by its offer
    account_of: Callable[[str], bytes | None]  # the account that a valid PeerBinding gives a peer
    counters: Counter[str]
    _values: OrderedDict[bytes, Values] = field(default_factory=OrderedDict)

    @staticmethod
    def sandbox_of(case: bytes) -> bytes:
        """The sandbox in which this node recomputes for a case: none in which it works for the same job."""
        return blake3(b"tallymesh.court.sandbox.1" + case).digest()

    def values(self, case: bytes, order: Order, work_ms: int, unit: Unit) -> Values:
        """The disputed unit's, found here; the same for a case until too many others came."""
        if case not in self._values:
            self._values[case] = Values(
                unit,
                order=order,
                work_ms=work_ms,
                sandbox=self.sandbox_of(case),
                blobs=self.blobs,
                executor=self.executor,
                cores=self.cores,
                parameters=self.parameters,
            )
        self._values.move_to_end(case)
        while len(self._values) > MAX_VALUES:
            self._values.popitem(last=False)
        return self._values[case]


def look_s(terms: Terms) -> float:
    """Between looks at a case."""
    shortest = min(terms.move_s, terms.commit_s, terms.reveal_s, terms.appeal_s)
    return min(LOOK_MAX_S, max(LOOK_MIN_S, shortest / LOOKS))


async def tried(what: str, call: Awaitable[None]) -> bool:
    """Send something that anybody may have sent before: what reverts was done already, or is not due any more; the
    next look at the chain says which. ChainError where the chain could not be asked, or gas is too dear."""
    try:
        await call
    except ChainError as error:
        if not error.reverted:
            raise
        log.info("%s: %s", what, error)
        return False
    return True
