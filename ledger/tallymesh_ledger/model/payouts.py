"""How credit leaves the escrow: withdrawn to an account's owner, burned as fees, or sent to Registry at its word."""

from __future__ import annotations

from tallymesh_ledger.model.books import Books
from tallymesh_ledger.model.machine import Revert
from tallymesh_ledger.model.registry import ALL


class Payouts(Books):
    """Withdrawals."""

    def withdraw(self, caller: bytes, account: bytes) -> int:
        amount = self.credits[account]
        if amount == 0:
            raise Revert("NothingToWithdraw", account)
        self.credits[account] = 0
        owner = self._registry.owner_of(account)
        self._emit("CreditWithdrawn", account=account, to=owner, amount=amount)
        self._token.transfer(self.address, owner, amount)
        return amount

    def burn_fees(self, caller: bytes) -> int:
        amount = self._fees["burn"]
        if amount == 0:
            raise Revert("NothingToBurn")
        self._fees["burn"] = 0
        self.credits[self.court] += amount
        self._emit("FeesBurned", amount=amount)
        self._token.burn(self.address, amount)
        return amount

    def spend(self, caller: bytes, account: bytes, amount: int, carrier: bytes, fee: int) -> int:
        if caller != self._registry.address:
            raise Revert("NotRegistry", caller)
        credit = self.credits[account]
        needed = fee if amount == ALL else amount + fee
        if credit < needed:
            raise Revert("TooLittleCredit", account, credit)
        spent = credit - fee if amount == ALL else amount
        self.credits[account] = credit - spent - fee
        self.credits[carrier] += fee
        self._emit("CreditSpent", account=account, carrier=carrier, amount=spent, fee=fee)
        if spent:
            self._token.transfer(self.address, self._registry.address, spent)
        return spent
