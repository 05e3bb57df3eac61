"""What Registry stores of an account's stake, what it shows of it, and how it moves; the calls stand in registry.py."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from tallymesh_ledger.model.identity import Identity
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Machine, Revert, Store
from tallymesh_ledger.model.token import Token


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
    short: bool


class Stake(msgspec.Struct, frozen=True):
    """Of one account. bonded = live x slotWei - debt + deposit; `unbonding`: (amount, when mature), oldest first."""

    live: int = 0
    deposit: int = 0
    debt: int = 0
    locked: int = 0
    unbonding: tuple[tuple[int, int], ...] = ()
    newcomer_seats: int = 0
    newcomer_unpaid: int = 0


class Stakes(Identity):
    """Balance = sum over all accounts of bonded + unbonding."""

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
        super().__init__(machine, address, class_delay)
        self.escrow = escrow
        self.slot_wei = slot_wei
        self.unbonding_delay = unbonding_delay
        self._token = token
        self._slots: Store[int, Slot] = Store(machine, Slot(ZERO_ADDRESS, 0))
        self._counts: Store[str, int] = Store(machine, 0)
        self._stakes: Store[bytes, Stake] = Store(machine, Stake())

    # Views.

    def stake_of(self, account: bytes) -> tuple[int, int, int]:
        """(free, locked, unbonding); locks rest on live slots and the deposit first."""
        stake = self._stakes[account]
        bonded = stake.live * self.slot_wei - stake.debt + stake.deposit
        released = sum(amount for amount, _ in stake.unbonding)
        return max(0, bonded - stake.locked), stake.locked, released - max(0, stake.locked - bonded)

    def live_slots(self, account: bytes) -> int:
        return self._stakes[account].live

    def deposit_of(self, account: bytes) -> int:
        return self._stakes[account].deposit

    def debt_of(self, account: bytes) -> int:
        return self._stakes[account].debt

    def newcomer_of(self, account: bytes) -> tuple[int, int]:
        return self._stakes[account].newcomer_seats, self._stakes[account].newcomer_unpaid

    def withdrawable(self, account: bytes) -> int:
        now = self._machine.now
        matured = sum(amount for amount, matures in self._stakes[account].unbonding if matures <= now)
        return min(matured, self.stake_of(account)[2])

    def slot_count(self) -> int:
        return self._counts["slots"]

    def slot_at(self, slot: int) -> Slot:
        return self._slots[slot]

    def slots_from(self, first: int, count: int) -> list[Candidate]:
        page = range(first, min(first + count, self._counts["slots"]))
        return [self._candidate(self._slots[slot]) for slot in page]

    def drawn(self, slot: int, block_number: int) -> tuple[bytes, bytes, bytes]:
        """(account, owner, class) of a slot that was live at the block; zeros where it was not, or is short now."""
        found = self._slots[slot]
        gone = found.released_block and found.released_block <= block_number
        if found.added_block > block_number or gone or self.debt_of(found.account):
            return ZERO_ADDRESS, ZERO_ADDRESS, ZERO_WORD
        return found.account, self.owner_of(found.account), self.class_of(found.account)[0]

    # Inside.

    def _deposit(self, account: bytes, amount: int) -> None:
        """It pays the debt first; of the rest whole slots are made, and what is below one stays as deposit."""
        if amount == 0:
            return
        self._emit("Deposited", account=account, amount=amount)
        stake = self._stakes[account]
        paid = min(amount, stake.debt)
        held = stake.deposit + amount - paid
        self._stakes[account] = replace(stake, debt=stake.debt - paid, deposit=held % self.slot_wei)
        if paid:
            self._emit("DebtChanged", account=account, debt=stake.debt - paid)
        if held >= self.slot_wei:
            self._emit("DepositUsed", account=account, amount=held - held % self.slot_wei)
            self._append(account, held // self.slot_wei, payer=self.escrow)

    def _append(self, account: bytes, count: int, *, payer: bytes) -> int:
        first, stake = self._counts["slots"], self._stakes[account]
        for slot in range(first, first + count):
            self._slots[slot] = Slot(account, self._machine.block_number)
        self._counts["slots"] = first + count
        self._stakes[account] = replace(stake, live=stake.live + count)
        self._emit("SlotsBought", account=account, payer=payer, first=first, count=count)
        return first

    def _release(self, account: bytes, slots: Sequence[int]) -> None:
        if not slots:
            raise Revert("NoSlots")
        if self._stakes[account].debt:
            raise Revert("Short", account, self._stakes[account].debt)
        matures = self._machine.now + self.unbonding_delay
        for number in slots:
            self._retire(account, number, matures)
            stake = self._stakes[account]
            unbonding = (*stake.unbonding, (self.slot_wei, matures))
            self._stakes[account] = replace(stake, live=stake.live - 1, unbonding=unbonding)

    def _retire(self, account: bytes, number: int, withdrawable_at: int) -> None:
        slot = self._slots[number]
        if slot.account != account:
            raise Revert("NotYourSlot", number, account)
        if slot.released_block:
            raise Revert("SlotAlreadyReleased", number)
        self._slots[number] = replace(slot, released_block=self._machine.block_number)
        self._emit("SlotReleased", account=account, slot=number, withdrawableAt=withdrawable_at)

    def _release_deposit(self, account: bytes) -> None:
        stake, matures = self._stakes[account], self._machine.now + self.unbonding_delay
        if stake.deposit == 0:
            raise Revert("NoDeposit", account)
        self._stakes[account] = replace(stake, deposit=0, unbonding=(*stake.unbonding, (stake.deposit, matures)))
        self._emit("DepositReleased", account=account, amount=stake.deposit, withdrawableAt=matures)

    def _candidate(self, slot: Slot) -> Candidate:
        owner, numeric_class = self.owner_of(slot.account), self.class_of(slot.account)[0]
        short = self.debt_of(slot.account) > 0
        return Candidate(slot.account, slot.added_block, slot.released_block, owner, numeric_class, short)

    def _by_owner(self, caller: bytes, account: bytes) -> None:
        owner = self.owner_of(account)
        if caller not in (account, owner):
            raise Revert("NotOwner", caller, owner)

    def _by_escrow(self, caller: bytes) -> None:
        if caller != self.escrow:
            raise Revert("NotEscrow", caller)


def without(unbonding: tuple[tuple[int, int], ...], amount: int) -> tuple[tuple[int, int], ...]:
    """The queue after `amount` left it, the oldest first."""
    queue = list(unbonding)
    while amount:
        held, matures = queue[0]
        taken = min(amount, held)
        amount -= taken
        queue[:1] = [(held - taken, matures)] if taken < held else []
    return tuple(queue)
