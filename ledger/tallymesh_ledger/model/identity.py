"""The part of Registry that says who speaks for an account, who owns it, and in which class it computes."""

from __future__ import annotations

import msgspec

from tallymesh.messages import PeerBinding
from tallymesh_ledger.eip712 import Domain
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Machine, Revert, Store
from tallymesh_ledger.model.signatures import Signature, digest, recovered


class ClassChange(msgspec.Struct, frozen=True):
    current: bytes = ZERO_WORD
    next: bytes = ZERO_WORD
    effective_at: int = 0


class Identity:
    """Bindings, owners, classes."""

    def __init__(self, machine: Machine, address: bytes, class_delay: int) -> None:
        self.address = address
        self.class_delay = class_delay
        self.domain = Domain("Tallymesh Registry", machine.chain_id, address)
        self._machine = machine
        self._classes: Store[bytes, ClassChange] = Store(machine, ClassChange())
        self._owners: Store[bytes, bytes] = Store(machine, ZERO_ADDRESS)
        self._proposed: Store[bytes, bytes] = Store(machine, ZERO_ADDRESS)
        self._peers: Store[bytes, tuple[bytes, int]] = Store(machine, (ZERO_WORD, 0))

    def bind(self, caller: bytes, binding: PeerBinding, signature: Signature) -> None:
        version = self._peers[binding.account][1]
        if binding.version <= version:
            raise Revert("StaleBinding", binding.version, version)
        signer = recovered(digest(self.domain, binding), *signature)
        if signer != binding.account or signer == ZERO_ADDRESS:
            raise Revert("BadSignature", binding.account, signer)
        self._peers[binding.account] = (binding.peer_id_hash, binding.version)
        self._emit("Bound", account=binding.account, peerIdHash=binding.peer_id_hash, version=binding.version)

    def propose_owner(self, caller: bytes, account: bytes, following: bytes) -> None:
        owner = self.owner_of(account)
        if caller != owner:
            raise Revert("NotOwner", caller, owner)
        self._proposed[account] = following
        self._emit("OwnerProposed", account=account, next=following)

    def accept_owner(self, caller: bytes, account: bytes) -> None:
        proposed = self._proposed[account]
        if caller != proposed:
            raise Revert("NotProposed", caller, proposed)
        previous = self.owner_of(account)
        self._owners[account] = caller
        self._proposed[account] = ZERO_ADDRESS
        self._emit("OwnerChanged", account=account, previous=previous, owner=caller)

    def set_class(self, caller: bytes, numeric_class: bytes) -> None:
        effective_at = self._machine.now + self.class_delay
        self._classes[caller] = ClassChange(self.class_of(caller)[0], numeric_class, effective_at)
        self._emit("ClassSet", account=caller, numericClass=numeric_class, effectiveAt=effective_at)

    def class_of(self, account: bytes) -> tuple[bytes, bytes, int]:
        """(in force, the one that replaces it, from when on: 0 where none is waiting)."""
        change = self._classes[account]
        if self._machine.now >= change.effective_at:
            return change.next, ZERO_WORD, 0
        return change.current, change.next, change.effective_at

    def owner_of(self, account: bytes) -> bytes:
        return self._owners[account] if self._owners[account] != ZERO_ADDRESS else account

    def proposed_owner_of(self, account: bytes) -> bytes:
        return self._proposed[account]

    def peer_of(self, account: bytes) -> tuple[bytes, int]:
        return self._peers[account]

    def _emit(self, name: str, **values: object) -> None:
        self._machine.emit(self.address, name, **values)
