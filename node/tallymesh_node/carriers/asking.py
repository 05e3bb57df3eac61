"""The side of whoever has no gas: asks staked peers what they want, signs for the cheapest, and falls back to the next.

Every request of one round has the same nonce, so at most one of them counts, whoever sends which: the account never
pays two fees. Nothing is kept: what is due is read from the chain, after a restart too.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import msgspec
import trio

from tallymesh import amounts, exchange
from tallymesh.errors import CallerError, ChainError, RemoteError
from tallymesh.exchange import CarriedAnswer, CarryRequest, CarryTermsAnswer, CarryTermsRequest, Source
from tallymesh.messages import RelayedBond, RelayedWithdraw
from tallymesh_ledger.eip712 import Domains
from tallymesh_ledger.keys import AccountKey
from tallymesh_node.carriers.chain import CarrierChain
from tallymesh_node.carriers.terms import Request, Standing
from tallymesh_node.interfaces import PeerNetwork
from tallymesh_node.market.envelope import Binding

log = logging.getLogger("tallymesh.carriers")

CARRIERS_MAX = 16  # asked for their terms in one round
TERMS_S = 10.0  # for an answer to that
CARRY_S = 120.0  # for a carrier to have it mined
GOOD_S = 900  # for which a request is signed
SEEN_S = 30.0  # for our own look at the chain to show what a carrier says that it did
FEE_SHARE = 10  # a fee may be this part of what is moved, unless the owner says how much it may be


class Carried(msgspec.Struct, frozen=True):
    transaction: bytes  # empty where somebody carried it without answering
    fee_wei: int
    peer: str


class Asking:
    """`carriers` are the peers that may be asked: those of accounts with stake."""

    def __init__(
        self,
        network: PeerNetwork,
        chain: CarrierChain,
        domains: Domains,
        key: AccountKey,
        binding: Binding,
        carriers: Callable[[], Sequence[Source]],
    ) -> None:
        self._network = network
        self._chain = chain
        self._domains = domains
        self._key = key
        self._binding = binding
        self._carriers = carriers
        self._turn = trio.Lock()  # one nonce at a time

    async def bond(self, amount: int, *, fee_max: int = 0) -> Carried:
        """Turn so much of the account's credit into stake."""

        def build(fee: int, nonce: int, deadline: int) -> Request:
            return RelayedBond(account=self._key.address, amount=amount, fee=fee, nonce=nonce, deadline=deadline)

        return await self._ask(build, bond=True, slots=0, fee_max=fee_max, moves=amount)

    async def withdraw(self, *, slots: int = 0, deposit: bool = False, fee_max: int = 0) -> Carried:
        """Pay the credit out, and begin to release so many slots and the deposit."""

        def build(fee: int, nonce: int, deadline: int) -> Request:
            return RelayedWithdraw(
                account=self._key.address, slots=slots, deposit=deposit, fee=fee, nonce=nonce, deadline=deadline
            )

        return await self._ask(build, bond=False, slots=slots, fee_max=fee_max, moves=0)

    async def _ask(
        self, build: Callable[[int, int, int], Request], *, bond: bool, slots: int, fee_max: int, moves: int
    ) -> Carried:
        """CallerError where it cannot be signed or paid, RemoteError `no_carrier` where nobody did it."""
        async with self._turn:
            standing = await self._chain.standing(self._key.address)
            if standing.owner != self._key.address:
                raise CallerError(
                    "not_owner",
                    "The account's owner is another key: only that may spend its credit.",
                    remedy="Sign with the owner's wallet, or pay the gas.",
                )
            if not standing.credit:
                raise CallerError(
                    "no_credit",
                    "The account has no credit, and the fee is paid out of that.",
                    remedy="Wait for pay. What has gas does it by itself: tallymesh withdraw, tallymesh stake release",
                )
            limit = fee_max or min(moves or standing.credit, standing.credit) // FEE_SHARE
            bind = standing.binding < self._binding.message.version
            offers, said = await self._terms(bond=bond, slots=slots, bind=bind)
            for fee, carrier in offers:
                if fee > min(limit, standing.credit):
                    said.append(f"{carrier.peer_id[-8:]} asks {amounts.show_up(fee)}")
                    continue
                deadline = self._chain.block_time() + GOOD_S
                done = await self._try(carrier, build(fee, standing.nonce, deadline), standing, bind, said)
                if done is not None:
                    return done
            raise RemoteError(
                "no_carrier",
                f"Nobody carried it for at most {amounts.show(min(limit, standing.credit))}: "
                f"{'; '.join(said[:5]) or 'no staked peer is known'}.",
                remedy="Allow a higher fee (--max-fee), or try again when there is more credit."
                if limit < standing.credit
                else "Try again when there is more credit: the fee is paid out of that.",
            )

    async def _terms(self, *, bond: bool, slots: int, bind: bool) -> tuple[list[tuple[int, Source]], list[str]]:
        """(fee, carrier) of whoever answers, the cheapest first, and why the others did not."""
        body = exchange.encode(CarryTermsRequest(bond=bond, slots=slots, bind=bind))
        found: list[tuple[int, Source]] = []
        said: list[str] = []

        async def ask(carrier: Source) -> None:
            try:
                answer = await self._network.request(carrier, CarryTermsRequest.NAME, body, timeout_s=TERMS_S)
                fee = exchange.decode(answer, CarryTermsAnswer, peer=carrier.peer_id).fee
                if not (fee.isascii() and fee.isdecimal() and len(fee) <= 29):  # uint96
                    raise RemoteError("bad_message", "A fee is wei as a decimal string.", peer=carrier.peer_id)
                found.append((int(fee), carrier))
            except RemoteError as error:
                said.append(f"{carrier.peer_id[-8:]}: {error.sentence}")

        async with trio.open_nursery() as nursery:
            known = list(self._carriers())
            for carrier in random.sample(known, min(CARRIERS_MAX, len(known))):  # not the same ones for ever
                nursery.start_soon(ask, carrier)
        return sorted(found, key=lambda each: (each[0], each[1].peer_id)), said

    async def _try(
        self, carrier: Source, message: Request, standing: Standing, bind: bool, said: list[str]
    ) -> Carried | None:
        """None where the next one is to be asked. Whatever a carrier answers, the chain's nonce is what counts."""
        binding = self._key.sign(self._domains, self._binding.message).body if bind else b""
        signed = self._key.sign(self._domains, message).body
        body = exchange.encode(CarryRequest(bond=isinstance(message, RelayedBond), request=signed, binding=binding))
        transaction, wait_s = b"", 0.0
        try:
            answer = await self._network.request(carrier, CarryRequest.NAME, body, timeout_s=CARRY_S)
            transaction, wait_s = exchange.decode(answer, CarriedAnswer, peer=carrier.peer_id).transaction, SEEN_S
        except RemoteError as error:
            said.append(f"{carrier.peer_id[-8:]}: {error.sentence}")
            log.info("%s did not carry our request: %s", carrier.peer_id, error)
        if await self._counted(standing.nonce, wait_s):
            return Carried(transaction, message.fee, carrier.peer_id)
        return None

    async def _counted(self, nonce: int, wait_s: float) -> bool:
        """Whether a request with that nonce was used up; looked at until it shows, where a carrier says so."""
        until = trio.current_time() + wait_s
        while True:
            try:
                if (await self._chain.standing(self._key.address)).nonce > nonce:
                    return True
            except ChainError:
                if trio.current_time() >= until:
                    raise
            if trio.current_time() >= until:
                return False
            await trio.sleep(1.0)
