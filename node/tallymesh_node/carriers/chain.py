"""The chain as carriers and those who ask them use it, and the one over the contracts.

Raises ChainError. Writes return when mined; each is refused (`not_worth_gas`) where the owner knows what the coin is
worth and the fee is worth less than the gas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tallymesh.messages import PeerBinding, RelayedBond, RelayedWithdraw
from tallymesh_node.carriers.terms import Standing
from tallymesh_node.escrow import EscrowChain


class CarrierChain(Protocol):
    def block_time(self) -> int: ...

    async def gas_price_wei(self) -> int: ...

    async def standing(self, account: bytes) -> Standing: ...

    async def slots_of(self, account: bytes, count: int) -> Sequence[int]:
        """Numbers of `count` live slots of the account, the newest ones; fewer where it has fewer."""

    async def bond_for(self, request: RelayedBond, signature: bytes) -> bytes:
        """Hash of the mined transaction, here and below."""

    async def withdraw_for(self, request: RelayedWithdraw, slots: Sequence[int], signature: bytes) -> bytes: ...

    async def bind(self, binding: PeerBinding, signature: bytes) -> bytes: ...


class RegistryChain:
    def __init__(self, chain: EscrowChain) -> None:
        self._chain = chain
        self._registry = chain.contracts.registry

    def block_time(self) -> int:
        return self._chain.block_time()

    async def gas_price_wei(self) -> int:
        return int(await self._chain.rpc.call("eth_gasPrice"), 16)

    async def standing(self, account: bytes) -> Standing:
        calls = [(name, [account]) for name in ("ownerOf", "nonceOf", "liveSlots", "peerOf")]
        owner, nonce, slots, (_, version) = await self._registry.read_many(calls)
        credit = await self._chain.credits(account)
        return Standing(owner=bytes(owner), nonce=nonce, credit=credit, slots=slots, binding=version)

    async def slots_of(self, account: bytes, count: int) -> Sequence[int]:
        # As of now and not of a final block: a slot that came a minute ago counts in what `standing` says, too.
        newest = await self._chain.rpc.block()
        registry = await self._chain.registry_at(newest.number, newest.hash)
        mine = [number for number, holder in enumerate(registry.slots) if holder == account]
        return mine[len(mine) - count :] if count else []

    async def bond_for(self, request: RelayedBond, signature: bytes) -> bytes:
        sender, fee = self._chain.sender, request.fee
        return (await self._registry.bond_for(sender, request, signature, brings_wei=fee)).mined.hash

    async def withdraw_for(self, request: RelayedWithdraw, slots: Sequence[int], signature: bytes) -> bytes:
        sender, fee = self._chain.sender, request.fee
        return (await self._registry.withdraw_for(sender, request, slots, signature, brings_wei=fee)).mined.hash

    async def bind(self, binding: PeerBinding, signature: bytes) -> bytes:
        return (await self._registry.bind(self._chain.sender, binding, signature)).mined.hash
