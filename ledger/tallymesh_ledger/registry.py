"""The Registry as of one block: slots, owners, numeric classes, and who may audit what.

A value, read from the chain by chain/registry_view.py and from then on pure: anyone with the same block draws the same
auditors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from tallymesh_ledger import sampling


class RegistryAt(msgspec.Struct, frozen=True, kw_only=True):
    """`slots[i]` is the account of slot i, None where it was released or its account owes stake; owners and classes
    hold only what was set, and classes only what is effective at `block_time`."""

    block_number: int
    block_hash: bytes
    block_time: int
    slots: tuple[bytes | None, ...]
    owners: Mapping[bytes, bytes] = {}
    classes: Mapping[bytes, bytes] = {}

    def owner_of(self, account: bytes) -> bytes:
        return self.owners.get(account, account)

    def slots_of(self, account: bytes) -> int:
        return sum(1 for holder in self.slots if holder == account)

    def class_weight(self, numeric_class: bytes, *, besides: bytes) -> tuple[int, int]:
        """(accounts, share of all live slots in bp) of a class without the account `besides`."""
        live = [holder for holder in self.slots if holder is not None]
        members = [a for a in live if a != besides and self.classes.get(a) == numeric_class]
        return len(set(members)), len(members) * sampling.BP // len(live) if live else 0

    def admissible(
        self, *, payer: bytes, signer: bytes, worker: bytes, numeric_class: bytes, excluded: Collection[bytes]
    ) -> set[bytes]:
        """Accounts that may audit this worker's unit: staked, in its class, and neither a party to the job, nor of a
        party's owner, nor excluded (given the output or something made from it, called before, or struck off)."""
        parties = {payer, signer, worker}
        owners = {self.owner_of(party) for party in parties}
        return {
            account
            for account in self.slots
            if account is not None
            and account not in parties
            and account not in excluded
            and self.owner_of(account) not in owners
            and self.classes.get(account) == numeric_class
        }

    def draw_auditor(
        self, seed: bytes, index: int, draw: int, admissible: Collection[bytes], *, first_attempt: int = 0
    ) -> tuple[int, bytes] | None:
        """(attempt, account) of the next admissible slot, or None; see sampling.draw_auditor."""

        def account_at(slot: int) -> bytes | None:
            account = self.slots[slot]
            return account if account in admissible else None

        return sampling.draw_auditor(seed, index, draw, len(self.slots), account_at, first_attempt=first_attempt)
