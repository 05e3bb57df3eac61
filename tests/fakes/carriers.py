"""The chain as carriers use it, over the contracts' model; what is sent is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import trio

from fakes.chain import World
from tallymesh.errors import ChainError
from tallymesh.messages import PeerBinding, RelayedBond, RelayedWithdraw
from tallymesh_ledger.chain.contract import compact
from tallymesh_ledger.model.registry import Registry
from tallymesh_ledger.model.signatures import Signature
from tallymesh_node.carriers.terms import Standing


class FakeCarrierChain:
    """Of one account. `price` of gas in wei of the coin; `down` where the chain does not answer it."""

    def __init__(self, world: World, account: bytes) -> None:
        self.world = world
        self.account = account
        self.price = 10**9
        self.down = False
        self.sent: Counter[str] = Counter()
        self.before_mined: Callable[[], None] = lambda: None

    def block_time(self) -> int:
        return self.world.now()

    async def gas_price_wei(self) -> int:
        await self._reach()
        return self.price

    async def standing(self, account: bytes) -> Standing:
        await self._reach()
        registry, escrow = self.world.contracts.registry, self.world.contracts.escrow
        return Standing(
            owner=registry.owner_of(account),
            nonce=registry.nonce_of(account),
            credit=escrow.credit_of(account),
            slots=registry.live_slots(account),
            binding=registry.peer_of(account)[1],
        )

    async def slots_of(self, account: bytes, count: int) -> Sequence[int]:
        await self._reach()
        mine = [n for n, holder in enumerate(self.world.registry(0).slots) if holder == account]
        return mine[len(mine) - count :] if count else []

    async def bond_for(self, request: RelayedBond, signature: bytes) -> bytes:
        signed = Signature(*compact(signature))
        return await self._send("bond_for", lambda: self._registry.bond_for(self.account, request, signed))

    async def withdraw_for(self, request: RelayedWithdraw, slots: Sequence[int], signature: bytes) -> bytes:
        signed = Signature(*compact(signature))
        return await self._send(
            "withdraw_for", lambda: self._registry.withdraw_for(self.account, request, slots, signed)
        )

    async def bind(self, binding: PeerBinding, signature: bytes) -> bytes:
        signed = Signature(*compact(signature))
        return await self._send("bind", lambda: self._registry.bind(self.account, binding, signed))

    @property
    def _registry(self) -> Registry:
        return self.world.contracts.registry

    async def _send(self, what: str, call: Callable[[], object]) -> bytes:
        await self._reach()
        self.before_mined()
        self.world.run(call)
        self.sent[what] += 1
        return what.encode()

    async def _reach(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ChainError("chain_unavailable", "The chain does not answer.", reverted=False)
