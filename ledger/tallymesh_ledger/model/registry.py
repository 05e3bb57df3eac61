"""Who speaks for an account, what it has at stake, and in which class it computes (IRegistry)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tallymesh.messages import PeerBinding
from tallymesh_ledger.eip712 import Domain
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Machine, Revert, Store
from tallymesh_ledger.model.signatures import Signature, digest, recovered
from tallymesh_ledger.model.token import Permit, Token

WITHDRAW_MAX = 64  # releases that one withdrawal takes


class Slot(msgspec.Struct, frozen=True):
    account: bytes
    added_block: int
    released_block: int = 0  # 0: live


class Candidate(msgspec.Struct, frozen=True):
    """A slot with all that a draw asks about its account."""

    account: bytes
    added_block: int
    released_block: int
    owner: bytes
    numeric_class: bytes


class Unbonding(msgspec.Struct, frozen=True):
    """What is left of one release."""

    amount: int
    matures: int


class ClassChange(msgspec.Struct, frozen=True):
    current: bytes = ZERO_WORD
    next: bytes = ZERO_WORD
    effective_at: int = 0


class Registry:
    """Stake of an account: free + locked + unbonding = all that is held for it."""

    def __init__(
        self,
        machine: Machine,
        address: bytes,
        token: Token,
        escrow: bytes,
        *,
        slot_wei: int,
        unbonding_delay: int,
        class_delay: int,
    ) -> None:
        self.address = address
        self.escrow = escrow
        self.slot_wei = slot_wei
        self.unbonding_delay = unbonding_delay
        self.class_delay = class_delay
        self.domain = Domain("Tallymesh Registry", machine.chain_id, address)
        self._machine = machine
        self._token = token
        self._slots: Store[int, Slot] = Store(machine, Slot(ZERO_ADDRESS, 0))
        self._counts: Store[str, int] = Store(machine, 0)
        self._live: Store[bytes, int] = Store(machine, 0)
        self._locked: Store[bytes, int] = Store(machine, 0)
        self._unbonding: Store[bytes, tuple[Unbonding, ...]] = Store(machine, ())
        self._classes: Store[bytes, ClassChange] = Store(machine, ClassChange())
        self._owners: Store[bytes, bytes] = Store(machine, ZERO_ADDRESS)
        self._proposed: Store[bytes, bytes] = Store(machine, ZERO_ADDRESS)
        self._peers: Store[bytes, tuple[bytes, int]] = Store(machine, (ZERO_WORD, 0))

    # Identity.

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

    # Stake.

    def buy_slots(self, caller: bytes, account: bytes, count: int) -> int:
        if account == ZERO_ADDRESS:
            raise Revert("ZeroAddress")
        if count == 0:
            raise Revert("NoSlots")
        first = self._counts["slots"]
        for slot in range(first, first + count):
            self._slots[slot] = Slot(account, self._machine.block_number)
        self._counts["slots"] = first + count
        self._live[account] += count
        self._emit("SlotsBought", account=account, payer=caller, first=first, count=count)
        self._token.transfer_from(self.address, caller, self.address, count * self.slot_wei)
        return first

    def buy_slots_with_permit(self, caller: bytes, account: bytes, count: int, permit: Permit) -> int:
        self._token.use_permit(caller, self.address, permit)
        return self.buy_slots(caller, account, count)

    def release_slots(self, caller: bytes, account: bytes, slots: Sequence[int]) -> None:
        owner = self.owner_of(account)
        if caller not in (account, owner):
            raise Revert("NotOwner", caller, owner)
        if not slots:
            raise Revert("NoSlots")
        matures = self._machine.now + self.unbonding_delay
        for number in slots:
            slot = self._slots[number]
            if slot.account != account:
                raise Revert("NotYourSlot", number, account)
            if slot.released_block:
                raise Revert("SlotAlreadyReleased", number)
            self._slots[number] = msgspec.structs.replace(slot, released_block=self._machine.block_number)
            self._emit("SlotReleased", account=account, slot=number, withdrawableAt=matures)
            self._live[account] -= 1
            self._unbonding[account] += (Unbonding(self.slot_wei, matures),)

    def withdraw(self, caller: bytes, account: bytes) -> int:
        amount = self._withdrawable(account, WITHDRAW_MAX)
        if amount == 0:
            raise Revert("NothingToWithdraw", account)
        left, queue = amount, list(self._unbonding[account])
        while left:
            taken = min(left, queue[0].amount)
            left -= taken
            if taken == queue[0].amount:
                queue.pop(0)
            else:
                queue[0] = msgspec.structs.replace(queue[0], amount=queue[0].amount - taken)
        self._unbonding[account] = tuple(queue)
        owner = self.owner_of(account)
        self._emit("StakeWithdrawn", account=account, to=owner, amount=amount)
        self._token.transfer(self.address, owner, amount)
        return amount

    def try_lock(self, caller: bytes, account: bytes, amount: int) -> bool:
        self._by_escrow(caller)
        if self._live[account] == 0 or self.stake_of(account)[0] < amount:
            return False
        self._locked[account] += amount
        return True

    def unlock(self, caller: bytes, account: bytes, amount: int) -> None:
        self._by_escrow(caller)
        self._locked[account] -= amount

    # Views.

    def stake_of(self, account: bytes) -> tuple[int, int, int]:
        """(free, locked, unbonding); locks rest on live slots first."""
        live, locked = self._live[account] * self.slot_wei, self._locked[account]
        released = sum(one.amount for one in self._unbonding[account])
        return max(0, live - locked), locked, released - max(0, locked - live)

    def live_slots(self, account: bytes) -> int:
        return self._live[account]

    def withdrawable(self, account: bytes) -> int:
        return self._withdrawable(account, len(self._unbonding[account]))

    def slot_count(self) -> int:
        return self._counts["slots"]

    def slot_at(self, slot: int) -> Slot:
        return self._slots[slot]

    def slots_from(self, first: int, count: int) -> list[Candidate]:
        page = range(first, min(first + count, self._counts["slots"]))
        return [self._candidate(self._slots[slot]) for slot in page]

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

    # Inside.

    def _withdrawable(self, account: bytes, releases: int) -> int:
        matured = sum(one.amount for one in self._unbonding[account][:releases] if one.matures <= self._machine.now)
        return min(matured, self.stake_of(account)[2])

    def _candidate(self, slot: Slot) -> Candidate:
        owner, numeric_class = self.owner_of(slot.account), self.class_of(slot.account)[0]
        return Candidate(slot.account, slot.added_block, slot.released_block, owner, numeric_class)

    def _by_escrow(self, caller: bytes) -> None:
        if caller != self.escrow:
            raise Revert("NotEscrow", caller)

    def _emit(self, name: str, **values: object) -> None:
        self._machine.emit(self.address, name, **values)
