"""MESH: ERC-20 with permit (EIP-2612) and burning, minted once. Errors are those of ERC-6093."""

from __future__ import annotations

from typing import NamedTuple

from tallymesh_ledger.eip712 import Domain, keccak, word
from tallymesh_ledger.model.machine import ZERO_ADDRESS, Machine, Revert, Store
from tallymesh_ledger.model.signatures import HALF_ORDER, recovered

NAME = "Tallymesh"
UNLIMITED = 2**256 - 1  # an allowance that is never used up
_PERMIT = keccak(b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")


class Permit(NamedTuple):
    """Of the caller for the called contract."""

    value: int
    deadline: int
    v: int
    r: bytes
    s: bytes


class Token:
    """Balances add up to the supply, whatever is called."""

    def __init__(self, machine: Machine, address: bytes, holder: bytes, supply: int) -> None:
        self.address = address
        self.domain = Domain(NAME, machine.chain_id, address)
        self._machine = machine
        self.balances: Store[bytes, int] = Store(machine, 0)
        self._allowances: Store[tuple[bytes, bytes], int] = Store(machine, 0)
        self._nonces: Store[bytes, int] = Store(machine, 0)
        self._supply: Store[str, int] = Store(machine, 0)
        self._supply["total"] = supply
        self.balances[holder] = supply

    # Calls.

    def transfer(self, caller: bytes, to: bytes, value: int) -> bool:
        self._move(caller, to, value)
        return True

    def approve(self, caller: bytes, spender: bytes, value: int) -> bool:
        if spender == ZERO_ADDRESS:
            raise Revert("ERC20InvalidSpender", spender)
        self._approve(caller, spender, value)
        return True

    def transfer_from(self, caller: bytes, owner: bytes, to: bytes, value: int) -> bool:
        self._spend(owner, caller, value)
        self._move(owner, to, value)
        return True

    def burn(self, caller: bytes, value: int) -> None:
        self._take(caller, value)
        self._supply["total"] -= value
        self._machine.emit(self.address, "Transfer", **{"from": caller, "to": ZERO_ADDRESS, "value": value})

    def burn_from(self, caller: bytes, account: bytes, value: int) -> None:
        self._spend(account, caller, value)
        self.burn(account, value)

    def permit(
        self, caller: bytes, owner: bytes, spender: bytes, value: int, deadline: int, v: int, r: bytes, s: bytes
    ) -> None:
        """Anyone carries it. A nonce is used up only by a permit that was good."""
        if self._machine.now > deadline:
            raise Revert("ERC2612ExpiredSignature", deadline)
        signed = self.permit_digest(owner, spender, value, deadline)
        if int.from_bytes(s, "big") > HALF_ORDER:
            raise Revert("ECDSAInvalidSignatureS", s)
        parity = (v - 27) << 255
        signer = recovered(signed, r, word(int.from_bytes(s, "big") | parity)) if v in (27, 28) else ZERO_ADDRESS
        if signer == ZERO_ADDRESS:
            raise Revert("ECDSAInvalidSignature")
        if signer != owner:
            raise Revert("ERC2612InvalidSigner", signer, owner)
        self._nonces[owner] += 1
        self._approve(owner, spender, value)

    # Views.

    def balance_of(self, account: bytes) -> int:
        return self.balances[account]

    def allowance(self, owner: bytes, spender: bytes) -> int:
        return self._allowances[owner, spender]

    def nonces(self, owner: bytes) -> int:
        return self._nonces[owner]

    def total_supply(self) -> int:
        return self._supply["total"]

    def permit_digest(self, owner: bytes, spender: bytes, value: int, deadline: int) -> bytes:
        """What the owner signs for its next permit."""
        body = (_PERMIT, owner, spender, value, self._nonces[owner], deadline)
        return keccak(b"\x19\x01" + self.domain.separator + keccak(b"".join(word(part) for part in body)))

    # For the other contracts.

    def use_permit(self, owner: bytes, spender: bytes, permit: Permit) -> None:
        """A permit that does not hold is no error: the allowance decides."""
        mark = self._machine.mark()
        try:
            self.permit(spender, owner, spender, *permit)
        except Revert:
            self._machine.back_to(mark)

    def _move(self, owner: bytes, to: bytes, value: int) -> None:
        if to == ZERO_ADDRESS:
            raise Revert("ERC20InvalidReceiver", to)
        self._take(owner, value)
        self.balances[to] += value
        self._machine.emit(self.address, "Transfer", **{"from": owner, "to": to, "value": value})

    def _take(self, owner: bytes, value: int) -> None:
        balance = self.balances[owner]
        if balance < value:
            raise Revert("ERC20InsufficientBalance", owner, balance, value)
        self.balances[owner] = balance - value

    def _approve(self, owner: bytes, spender: bytes, value: int) -> None:
        self._allowances[owner, spender] = value
        self._machine.emit(self.address, "Approval", owner=owner, spender=spender, value=value)

    def _spend(self, owner: bytes, spender: bytes, value: int) -> None:
        allowed = self._allowances[owner, spender]
        if allowed == UNLIMITED:
            return
        if allowed < value:
            raise Revert("ERC20InsufficientAllowance", spender, allowed, value)
        self._allowances[owner, spender] = allowed - value
