"""The carrier's side: says what it asks for, checks a request against the chain, sends it, and earns its fee.

Nothing is kept: a request's nonce is good once, so whoever comes first has carried it. What strangers can make this
node do is bounded by peer, by account and in all, before anything is asked of the chain.
"""

from __future__ import annotations

import logging
from collections import Counter

import trio

from tallymesh import exchange, wire
from tallymesh.errors import ChainError, RemoteError
from tallymesh.exchange import CarriedAnswer, CarryRequest, CarryTermsAnswer, CarryTermsRequest
from tallymesh.messages import PeerBinding, RelayedBond, RelayedWithdraw
from tallymesh_ledger import keys
from tallymesh_ledger.chain.fees import GasPolicy
from tallymesh_ledger.eip712 import Domains
from tallymesh_node.carriers import terms
from tallymesh_node.carriers.chain import CarrierChain
from tallymesh_node.carriers.terms import Request
from tallymesh_node.interfaces import PeerNetwork
from tallymesh_node.network.gossip import Buckets

log = logging.getLogger("tallymesh.carriers")

ASKS_BURST, ASKS_PER_S = 10, 1 / 60  # of one peer, for terms: a nodes asks before each request
CARRIES_BURST, CARRIES_PER_S = 3, 1 / 600  # of one peer: an account withdraws once in a while
MAX_AT_ONCE = 4  # requests in work: each waits for a block
PRICE_S = 10.0  # for which a gas price is good enough to say what is asked


class Carrier:
    """`least_wei` is what the owner asks for at least; 0 carries nothing."""

    def __init__(
        self, network: PeerNetwork, chain: CarrierChain, domains: Domains, policy: GasPolicy, least_wei: int
    ) -> None:
        self._network = network
        self._chain = chain
        self._domains = domains
        self._policy = policy
        self._least_wei = least_wei
        self._asks = Buckets(ASKS_BURST, ASKS_PER_S)
        self._carries = Buckets(CARRIES_BURST, CARRIES_PER_S)
        self._busy: set[bytes] = set()  # accounts whose request is in work
        self._price: tuple[float, int] | None = None
        self.counters: Counter[str] = Counter()

    def open(self) -> None:
        if self._least_wei:
            self._network.serve(CarryTermsRequest.NAME, self.say_terms)
            self._network.serve(CarryRequest.NAME, self.carry)

    async def say_terms(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, CarryTermsRequest, peer=peer)
        self._limit(self._asks, peer)
        if not 0 <= request.slots <= terms.SLOTS_MAX:
            raise RemoteError("bad_count", f"{terms.SLOTS_MAX} slots at most are released at once.", peer=peer)
        gas = terms.GAS_BOND if request.bond else terms.GAS_WITHDRAW + request.slots * terms.GAS_SLOT
        return exchange.encode(CarryTermsAnswer(str(await self._fee(gas + terms.GAS_BIND * request.bind))))

    async def carry(self, peer: str, body: bytes) -> bytes:
        request = exchange.decode(body, CarryRequest, peer=peer)
        expected: type[RelayedBond] | type[RelayedWithdraw] = RelayedBond if request.bond else RelayedWithdraw
        signed = wire.decode(request.request, expected, peer=peer)
        message: Request = signed.message
        if message.account in self._busy or len(self._busy) >= MAX_AT_ONCE:
            raise RemoteError("busy", "Other requests are being carried.", peer=peer)
        self._limit(self._carries, peer)
        self._busy.add(message.account)
        try:
            standing = await self._chain.standing(message.account)
            keys.check(self._domains, signed, standing.owner, peer=peer)
            binding = self._binding(request.binding, message.account, standing.binding, peer)
            gas = terms.gas_of(message, bind=binding is not None)
            refusal = terms.refusal(message, standing, now=self._chain.block_time(), fee_wei=await self._fee(gas))
            if refusal is not None:
                raise RemoteError(refusal.code, refusal.sentence, peer=peer)
            transaction = await self._send(message, signed.signature, peer)
            if binding is not None:  # after what pays for it
                await self._bind(binding)
        finally:
            self._busy.discard(message.account)
        self.counters["carried"] += 1
        self.counters["carried_fees_gwei"] += message.fee // 10**9
        return exchange.encode(CarriedAnswer(transaction))

    async def _send(self, message: Request, signature: bytes, peer: str) -> bytes:
        try:
            if isinstance(message, RelayedBond):
                return await self._chain.bond_for(message, signature)
            slots = await self._chain.slots_of(message.account, message.slots)
            return await self._chain.withdraw_for(message, slots, signature)
        except ChainError as error:  # the asker tries the next carrier; of ours it needs to know no more
            log.info("not carried: %s", error)
            raise RemoteError(error.code, f"It could not be carried: {error.sentence}", peer=peer) from None

    async def _bind(self, binding: wire.Signed) -> None:
        try:
            await self._chain.bind(binding.message, binding.signature)
        except ChainError as error:
            log.info("a binding was not carried: %s", error)

    def _binding(self, data: bytes, account: bytes, version: int, peer: str) -> wire.Signed | None:
        if not data:
            return None
        signed = keys.open_signed(self._domains, data, PeerBinding, account, peer=peer)
        if signed.message.account != account:
            raise RemoteError("bad_binding", "The binding is of another account than the request.", peer=peer)
        return signed if signed.message.version > version else None

    def _limit(self, buckets: Buckets, peer: str) -> None:
        if not buckets.take(peer.encode(), trio.current_time()):
            raise RemoteError("too_often", "This peer has asked often of late.", peer=peer)

    async def _fee(self, gas: int) -> int:
        now = trio.current_time()
        if self._price is None or now - self._price[0] > PRICE_S:
            self._price = now, await self._chain.gas_price_wei()
        return terms.fee_up(gas, self._price[1], self._policy, self._least_wei)
