"""Stake is bought, locked, slashed, released and withdrawn (IRegistry)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from tallymesh.messages import RelayedBond, RelayedWithdraw
from tallymesh_ledger.model.machine import ZERO_ADDRESS, Machine, Revert, Store
from tallymesh_ledger.model.signatures import Signature, digest, says
from tallymesh_ledger.model.stakes import Stakes, without
from tallymesh_ledger.model.token import Permit, Token

ALL = 2**96 - 1  # an amount that stands for all of a credit beside the fee
NEWCOMER_SEATS = 3  # open at a time
NEWCOMER_SHARE = 100  # their unpaid value together is at most a slot divided by this


class Credits(Protocol):
    """The escrow, as far as Registry knows it."""

    def spend(self, caller: bytes, account: bytes, amount: int, carrier: bytes, fee: int) -> int: ...


class Registry(Stakes):
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
        super().__init__(
            machine,
            address,
            token,
            escrow,
            slot_wei=slot_wei,
            unbonding_delay=unbonding_delay,
            class_delay=class_delay,
        )
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
        self._stakes[account] = replace(stake, unbonding=without(stake.unbonding, amount))
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
            unbonding=without(stake.unbonding, rest),
        )
        if of_slots:
            self._emit("DebtChanged", account=account, debt=stake.debt + of_slots)
        self._emit("StakeSlashed", account=account, amount=amount)
        self._token.transfer(self.address, self.escrow, amount)

    # Inside.

    def nonce_of(self, account: bytes) -> int:
        return self._nonces[account]

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
