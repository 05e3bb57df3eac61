"""Bindings of Token (MESH) and Registry: who speaks for an account, what it has at stake, where it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tallymesh.messages import PeerBinding, RelayedBond, RelayedWithdraw
from tallymesh_ledger.chain.contract import At, Contract, Outcome, compact, struct
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.transactions import Sender
from tallymesh_ledger.eip712 import keccak, word
from tallymesh_ledger.newcomers import Newcomer

# A class that waits may come into force between the estimate and the block: then a word more is written, at 22,100 gas.
CLASS_ROOM = 25_000
PERMIT_S = 3600  # a permit of ours is good for this long: mined or worthless
_PERMIT = keccak(b"Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")


class Stake(msgspec.Struct, frozen=True):
    """Wei; the three add up to all that the registry holds for the account."""

    free: int
    locked: int
    unbonding: int


class Candidate(msgspec.Struct, frozen=True):
    """A slot with all that a draw asks about its account."""

    account: bytes
    added_block: int
    released_block: int  # 0: never
    owner: bytes
    numeric_class: bytes
    short: bool  # owes stake: drawn for nothing


class Token(Contract):
    """MESH, an ERC-20 with permits. Amounts in wei."""

    NAME = "Token"

    async def balance_of(self, account: bytes, *, at: At = "latest") -> int:
        return int(await self.read("balanceOf", account, at=at))

    async def total_supply(self, *, at: At = "latest") -> int:
        return int(await self.read("totalSupply", at=at))

    async def transfer(self, sender: Sender, to: bytes, amount: int) -> Outcome:
        return await self.write(sender, "transfer", to, amount)

    async def permit(self, sender: Sender, spender: bytes, amount: int) -> tuple[Any, ...]:
        """A signed EIP-2612 permit as the contracts take it, for one use. Hold `sender.permits` until it is mined."""
        nonce, separator = await self.read_many([("nonces", [sender.address]), ("DOMAIN_SEPARATOR", [])])
        deadline = (await self.rpc.block()).timestamp + PERMIT_S
        body = keccak(b"".join(map(word, (_PERMIT, sender.address, spender, amount, nonce, deadline))))
        signature = sender.sign_digest(keccak(b"\x19\x01" + separator + body))
        return (amount, deadline, signature[64], signature[:32], signature[32:64])


class Registry(Contract):
    """Who speaks for an account, what it has at stake, in which class it computes."""

    NAME = "Registry"

    def __init__(self, rpc: Rpc, address: bytes, token: Token) -> None:
        super().__init__(rpc, address)
        self.token = token

    async def stake_of(self, account: bytes, *, at: At = "latest") -> Stake:
        return Stake(*await self.read("stakeOf", account, at=at))

    async def stakes_of(self, accounts: Sequence[bytes], *, at: At = "latest") -> list[Stake]:
        found = await self.read_many([("stakeOf", [account]) for account in accounts], at=at)
        return [Stake(*each) for each in found]

    async def live_slots(self, account: bytes, *, at: At = "latest") -> int:
        return int(await self.read("liveSlots", account, at=at))

    async def newcomers(self, accounts: Sequence[bytes], *, at: At = "latest") -> list[Newcomer]:
        """What each has as a newcomer, in one round trip."""
        calls = [(name, [account]) for account in accounts for name in ("newcomerOf", "depositOf")]
        found = await self.read_many(calls, at=at)
        pairs = zip(found[::2], found[1::2], strict=True)
        return [Newcomer(seats, unpaid, deposit) for (seats, unpaid), deposit in pairs]

    async def slot_wei(self) -> int:
        return int(await self.read("slotWei"))

    async def slot_count(self, *, at: At = "latest") -> int:
        return int(await self.read("slotCount", at=at))

    async def slots_from(self, first: int, count: int, *, at: At = "latest") -> list[Candidate]:
        found = await self.read("slotsFrom", first, count, at=at)
        return [struct(Candidate, each) for each in found]

    async def class_of(self, account: bytes, *, at: At = "latest") -> tuple[bytes, bytes, int]:
        """(class in force, the one that replaces it, from when on: 0 where none is waiting)."""
        current, following, effective = await self.read("classOf", account, at=at)
        return current, following, effective

    async def owner_of(self, account: bytes, *, at: At = "latest") -> bytes:
        return bytes(await self.read("ownerOf", account, at=at))

    async def peer_of(self, account: bytes, *, at: At = "latest") -> tuple[bytes, int]:
        """(hash of the peer id, version of the binding); zeros where it was never bound."""
        peer_id_hash, version = await self.read("peerOf", account, at=at)
        return peer_id_hash, version

    async def withdrawable(self, account: bytes, *, at: At = "latest") -> int:
        return int(await self.read("withdrawable", account, at=at))

    async def buy_slots(self, sender: Sender, account: bytes, count: int) -> Outcome:
        """`count` slots for `account`, paid by the sender, in one transaction."""
        async with sender.permits:
            permit = await self.token.permit(sender, self.address, count * await self.slot_wei())
            return await self.write(sender, "buySlotsWithPermit", account, count, permit)

    async def release_slots(self, sender: Sender, account: bytes, slots: Sequence[int]) -> Outcome:
        return await self.write(sender, "releaseSlots", account, list(slots))

    async def release_deposit(self, sender: Sender, account: bytes) -> Outcome:
        return await self.write(sender, "releaseDeposit", account)

    async def withdraw(self, sender: Sender, account: bytes) -> Outcome:
        return await self.write(sender, "withdraw", account)

    async def deposit_of(self, account: bytes, *, at: At = "latest") -> int:
        """Stake below one slot."""
        return int(await self.read("depositOf", account, at=at))

    async def debt_of(self, account: bytes, *, at: At = "latest") -> int:
        """What was slashed of the account's slots and not paid yet: until then it gets no lease."""
        return int(await self.read("debtOf", account, at=at))

    async def settle_debt(self, sender: Sender, account: bytes, slots: Sequence[int]) -> Outcome:
        """Pay the debt by releasing these slots of the account; anyone may."""
        return await self.write(sender, "settleDebt", account, list(slots))

    async def nonce_of(self, account: bytes, *, at: At = "latest") -> int:
        """The nonce of the account's next relayed request."""
        return int(await self.read("nonceOf", account, at=at))

    async def bond_for(
        self, sender: Sender, request: RelayedBond, signature: bytes, *, brings_wei: int | None = None
    ) -> Outcome:
        """Turn credit into stake as the account's owner signed; the request's fee is credited to the sender."""
        return await self.write(sender, "bondFor", request, compact(signature), brings_wei=brings_wei)

    async def withdraw_for(
        self,
        sender: Sender,
        request: RelayedWithdraw,
        slots: Sequence[int],
        signature: bytes,
        *,
        brings_wei: int | None = None,
    ) -> Outcome:
        """Pay out credit and release stake as the account's owner signed; `slots` are as many as the request says."""
        signed = compact(signature)
        return await self.write(sender, "withdrawFor", request, list(slots), signed, brings_wei=brings_wei)

    async def bind(self, sender: Sender, binding: PeerBinding, signature: bytes) -> Outcome:
        """Record the account's binding; anyone may carry it."""
        return await self.write(sender, "bind", binding, compact(signature))

    async def set_class(self, sender: Sender, numeric_class: bytes) -> Outcome:
        return await self.write(sender, "setClass", numeric_class, gas_room=CLASS_ROOM)

    async def propose_owner(self, sender: Sender, account: bytes, following: bytes) -> Outcome:
        return await self.write(sender, "proposeOwner", account, following)

    async def accept_owner(self, sender: Sender, account: bytes) -> Outcome:
        return await self.write(sender, "acceptOwner", account)
