"""What an account was given of a job's units, and what it must not be given yet: auditors are blind.

The strict reading of docs/PROTOCOL.md section 5.3, in both directions: an account that was given a unit's output, or
one that was made with it, as an input of a unit that it runs or audits, may not audit that unit; and one that was
called for it is given neither before it has committed. docs/decisions/auditors-of-federated-rounds.md says what it
costs. This module knows only names of blobs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


class Given:
    """Contract: depends on the set of events alone, not on their order."""

    def __init__(self) -> None:
        self._accounts: dict[bytes, set[bytes]] = defaultdict(set)  # blob -> accounts that were given it
        self._made_from: dict[bytes, set[bytes]] = defaultdict(set)  # blob -> outputs of units that took it
        self._uncommitted: dict[bytes, tuple[bytes, bytes]] = {}  # AuditOrder -> auditor, and the output under audit
        self._bound: set[bytes] = set()  # AuditOrders whose auditor committed, or can commit no more

    def gave(self, account: bytes, inputs: Iterable[bytes]) -> None:
        """An Assign or an AuditOrder for a unit with these inputs."""
        for blob in inputs:
            self._accounts[blob].add(account)

    def made(self, inputs: Iterable[bytes], output: bytes) -> None:
        """`output` was made from `inputs`."""
        for blob in inputs:
            self._made_from[blob].add(output)

    def called(self, order: bytes, auditor: bytes, output: bytes) -> None:
        """An AuditOrder for the unit whose worker made `output`."""
        if order not in self._bound:
            self._uncommitted[order] = auditor, output

    def bound(self, order: bytes) -> None:
        """Its auditor committed, or can commit no more."""
        self._bound.add(order)
        self._uncommitted.pop(order, None)

    def tainted(self, output: bytes, *, strict: bool = True) -> set[bytes]:
        """Accounts that may not audit the unit that made `output`: they were given it, or (`strict`) something made
        from it."""
        found = set(self._accounts.get(output, ()))
        for made in self._made_from.get(output, ()) if strict else ():
            found |= self._accounts.get(made, set())
        return found

    def waiting(self, inputs: Iterable[bytes]) -> set[bytes]:
        """Accounts that may not be given these inputs yet: they would learn of a result that they were called to
        recompute."""
        wanted = set(inputs)
        return {
            auditor
            for auditor, output in self._uncommitted.values()
            if output in wanted or not wanted.isdisjoint(self._made_from.get(output, ()))
        }
