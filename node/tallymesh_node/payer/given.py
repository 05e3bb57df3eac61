"""Who was given what by an Assign of this job: such an account may not audit the unit that made it.

The strict reading of docs/PROTOCOL.md section 5.3: neither an account that was given a unit's output as an input, nor
one that was given an output which was made with it. docs/decisions/auditors-of-federated-rounds.md says what it costs.
This module knows only names of blobs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


class Given:
    """Contract: depends on the set of events alone, not on their order."""

    def __init__(self) -> None:
        self._accounts: dict[bytes, set[bytes]] = defaultdict(set)  # blob -> accounts that were given it
        self._made_from: dict[bytes, set[bytes]] = defaultdict(set)  # blob -> outputs of units that took it

    def assigned(self, account: bytes, inputs: Iterable[bytes]) -> None:
        for blob in inputs:
            self._accounts[blob].add(account)

    def received(self, inputs: Iterable[bytes], output: bytes) -> None:
        """`output` was made from `inputs`."""
        for blob in inputs:
            self._made_from[blob].add(output)

    def tainted(self, output: bytes) -> set[bytes]:
        """Accounts that were given `output`, or something made from it."""
        found = set(self._accounts.get(output, ()))
        for made in self._made_from.get(output, ()):
            found |= self._accounts.get(made, set())
        return found
