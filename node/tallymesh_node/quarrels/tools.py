"""What every part of a quarrel's three sides needs, and how it waits."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar

from tallymesh.messages import Order
from tallymesh.units import Unit
from tallymesh_ledger.court import Terms
from tallymesh_node import looks
from tallymesh_node.interfaces import CourtChain
from tallymesh_node.quarrels.values import Values
from tallymesh_node.tools import CaseTools

log = logging.getLogger("tallymesh.quarrels")

MAX_VALUES = 32  # cases of which the values found so far are kept: what a party named once, it goes on from


@dataclass(frozen=True, kw_only=True)
class Tools(CaseTools):
    SANDBOX: ClassVar[bytes] = b"tallymesh.court.sandbox.1"

    court: CourtChain
    _values: OrderedDict[bytes, Values] = field(default_factory=OrderedDict)

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
    return looks.pause_s(terms.move_s, terms.commit_s, terms.reveal_s, terms.appeal_s)
