"""What an account has at stake: slots, a deposit below one, debt, locks, and what unbonds (IRegistry)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from tallymesh.messages import RelayedBond, RelayedWithdraw
from tallymesh_ledger.model.identity import Identity
from tallymesh_ledger.model.machine import ZERO_ADDRESS, ZERO_WORD, Machine, Revert, Store
from tallymesh_ledger.model.signatures import Signature, digest, says
from tallymesh_ledger.model.token import Permit, Token

ALL = 2**96 - 1  # an amount that stands for all of a credit beside the fee
NEWCOMER_SEATS = 3  # open at a time
NEWCOMER_SHARE = 100  # their unpaid value together is at most a slot divided by this


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


class Credits(Protocol):
    """The escrow, as far as Registry knows it."""

    def spend(self, caller: bytes, account: bytes, amount: int, carrier: bytes, fee: int) -> int: ...


class Registry(Identity):
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
        self._nonces: Store[bytes, int] = Store(machine, 0)
        self.credits: Credits  # the escrow, once both are there

    # Everybody's calls.

    def buy_slots(self, caller: bytes, account: bytes, count: int) -> int:
        if account == ZERO_ADDRESS:
            raise Revert("ZeroAddress")
        if count == 0:
            raise Revert("NoSlots")
        first = self._append(account, count, payer=caller)
        self._token.transfer_from(self.address, caller, self.address, count * self.slot_wei)
        return first

    def buy_slots_with_permit(self, caller: bytes, account: bytes, count: int, permit: Permit) -> int:
        self._token.use_permit(caller, self.address, permit)
        return self.buy_slots(caller, account, count)

    def release_slots(self, caller: bytes, account: bytes, slots: Sequence[int]) -> None:
        self._by_owner(caller, account)
        self._release(account, slots)

    def release_deposit(self, caller: bytes, account: bytes) -> None:
        self._by_owner(caller, account)
        self._release_deposit(account)

    def withdraw(self, caller: bytes, account: bytes) -> int:
        amount = self.withdrawable(account)
        if amount == 0:
            raise Revert("NothingToWithdraw", account)
        stake = self._stakes[account]
        self._stakes[account] = replace(stake, unbonding=_without(stake.unbonding, amount))
        owner = self.owner_of(account)
        self._emit("StakeWithdrawn", account=account, to=owner, amount=amount)
        self._token.transfer(self.address, owner, amount)
        return amount

    def settle_debt(self, caller: bytes, account: bytes, slots: Sequence[int]) -> None:
        if not slots:
            raise Revert("NoSlots")
        for number in slots:
            stake = self._stakes[account]
            if stake.debt == 0:
                raise Revert("NotShort", account)
            self._retire(account, number, 0)
            covered = min(self.slot_wei, stake.debt)
            rest = self.slot_wei - covered
            self._stakes[account] = replace(
                stake, live=stake.live - 1, debt=stake.debt - covered, deposit=stake.deposit + rest
            )
        self._emit("DebtChanged", account=account, debt=self._stakes[account].debt)

    # Carried by anybody.

    def bond_for(self, caller: bytes, request: RelayedBond, signature: Signature) -> None:
        self._asked(caller, request, signature)
        spent = self.credits.spend(self.address, request.account, request.amount, caller, request.fee)
        self._deposit(request.account, spent)

    def withdraw_for(self, caller: bytes, request: RelayedWithdraw, slots: Sequence[int], signature: Signature) -> int:
        self._asked(caller, request, signature)
        if len(slots) != request.slots:
            raise Revert("BadCount", len(slots), request.slots)
        if slots:
            self._release(request.account, slots)
        if request.deposit:
            self._release_deposit(request.account)
        amount = self.credits.spend(self.address, request.account, ALL, caller, request.fee)
        if amount:
            self._token.transfer(self.address, self.owner_of(request.account), amount)
        return amount

    # The escrow's calls.

    def try_lock(self, caller: bytes, account: bytes, amount: int) -> bool:
        self._by_escrow(caller)
        stake = self._stakes[account]
        if stake.live == 0 or stake.debt or stake.locked + amount > stake.live * self.slot_wei:
            return False
        self._stakes[account] = replace(stake, locked=stake.locked + amount)
        return True

    def admit(self, caller: bytes, account: bytes, amount: int, value: int) -> tuple[bool, int]:
        self._by_escrow(caller)
        stake = self._stakes[account]
        unpaid = stake.newcomer_unpaid + value
        full = stake.newcomer_seats >= NEWCOMER_SEATS or unpaid > self.slot_wei // NEWCOMER_SHARE
        if stake.live or stake.debt or full:
            return False, 0
        lock = min(amount, max(0, stake.deposit - stake.locked))
        self._stakes[account] = replace(
            stake, locked=stake.locked + lock, newcomer_seats=stake.newcomer_seats + 1, newcomer_unpaid=unpaid
        )
        return True, lock

    def relieve(self, caller: bytes, account: bytes, value: int, closed: bool) -> bool:
        self._by_escrow(caller)
        stake = self._stakes[account]
        self._stakes[account] = replace(
            stake,
            newcomer_unpaid=stake.newcomer_unpaid - value,
            newcomer_seats=stake.newcomer_seats - (1 if closed else 0),
        )
        return stake.live == 0

    def unlock(self, caller: bytes, account: bytes, amount: int) -> None:
        self._by_escrow(caller)
        stake = self._stakes[account]
        self._stakes[account] = replace(stake, locked=stake.locked - amount)

    def deposit(self, caller: bytes, account: bytes, amount: int) -> None:
        self._by_escrow(caller)
        self._deposit(account, amount)

    def slash(self, caller: bytes, account: bytes, amount: int) -> None:
        self._by_escrow(caller)
        stake = self._stakes[account]
        amount = min(amount, stake.locked)
        of_deposit = min(amount, stake.deposit)
        of_slots = min(amount - of_deposit, stake.live * self.slot_wei - stake.debt)
        rest = amount - of_deposit - of_slots
        self._stakes[account] = replace(
            stake,
            deposit=stake.deposit - of_deposit,
            debt=stake.debt + of_slots,
            locked=stake.locked - amount,
            unbonding=_without(stake.unbonding, rest),
        )
        if of_slots:
            self._emit("DebtChanged", account=account, debt=stake.debt + of_slots)
        self._emit("StakeSlashed", account=account, amount=amount)
        self._token.transfer(self.address, self.escrow, amount)

    # Views.

    def stake_of(self, account: bytes) -> tuple[int, int, int]:
        """(free, locked, unbonding); locks rest on live slots and the deposit first."""
        stake = self._stakes[account]
        bonded = stake.live * self.slot_wei - stake.debt + stake.deposit
        released = sum(amount for amount, _ in stake.unbonding)
        return max(0, bonded - stake.locked), stake.locked, released - max(0, stake.locked - bonded)

    def nonce_of(self, account: bytes) -> int:
        return self._nonces[account]

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

    def _asked(self, caller: bytes, request: RelayedBond | RelayedWithdraw, signature: Signature) -> None:
        account, owner = request.account, self.owner_of(request.account)
        if self._machine.now > request.deadline:
            raise Revert("Expired", request.deadline)
        nonce = self._nonces[account]
        if request.nonce != nonce:
            raise Revert("StaleNonce", request.nonce, nonce)
        if not says(owner, digest(self.domain, request), signature, caller):
            raise Revert("NotSigned", owner)
        self._nonces[account] = nonce + 1
        self._emit("Relayed", account=account, carrier=caller, nonce=nonce)

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


def _without(unbonding: tuple[tuple[int, int], ...], amount: int) -> tuple[tuple[int, int], ...]:
    """The queue after `amount` left it, the oldest first."""
    queue = list(unbonding)
    while amount:
        held, matures = queue[0]
        taken = min(amount, held)
        amount -= taken
        queue[:1] = [(held - taken, matures)] if taken < held else []
    return tuple(queue)
