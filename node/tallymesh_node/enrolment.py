"""Brings this account onto the chain: gas and tokens where a faucet gives them, slots, the peer's binding, the class.
Without a slot it is on probation: what it earns becomes its first one, and `newcomer` says how far it is.

Level-triggered: compares what should be with what the chain says, does what is missing, and looks again; a restart, a
lost transaction or a slot that was slashed needs no special case. What cannot be done is a problem with a remedy that
`status` shows. An account that has credit and no coin for gas asks carriers to turn the one into slots. This module
knows a faucet only as a URL of the network file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import httpx
import trio

from tallymesh import amounts
from tallymesh.api import Problem
from tallymesh.errors import CallerError, ChainError, RemoteError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts
from tallymesh_ledger.keys import checksum
from tallymesh_ledger.newcomers import Newcomer
from tallymesh_node import beats
from tallymesh_node.carriers.asking import FEE_SHARE, Asking
from tallymesh_node.complaints import level
from tallymesh_node.escrow import EscrowChain
from tallymesh_node.market.envelope import Binding

log = logging.getLogger("tallymesh.enrolment")

RETRY_S = 2.0  # while something is missing
WATCH_S = 30.0  # when all is as it should be
FAUCET_TIMEOUT_S = 10.0
PROBATION_S = 5.0  # … but for what is still to be earned: people watch it grow
CARRIED_S = 600.0  # between two rounds of asking carriers: they are asked a fee, and remember who asks often
GAS_MIN = 1_500_000  # about ten transactions: an account that cannot buy so much asks a faucet


class Enrolment:
    """`slots` is how many slots the account should hold at least; 0 leaves stake alone (a submitter needs none). With
    `works` what it has earned counts, too: binding and class of an account that came to a slot are put on chain.

    The account of a peer that is bound already moves to this one, once, at the start: `rebind` signs it anew with a
    higher version. A node whose binding was replaced while it ran leaves the account to the other (`replaced`): two
    nodes of one wallet would bind it, and set its class, in turns for ever."""

    def __init__(
        self,
        chain: EscrowChain,
        network: Network,
        binding: Binding,
        *,
        slots: int,
        works: bool = False,
        rebind: Callable[[int], Binding] | None = None,
    ) -> None:
        self._chain = chain
        self._network = network
        self._binding = binding
        self._rebind = rebind
        self.bound = False  # this node's peer speaks for the account, as the chain said last
        self.replaced = False  # it did, and another's does now
        self._wanted_slots = slots
        self._works = works
        self._carried_at = -CARRIED_S
        self.asking: Asking | None = None  # opened after the network
        self.newcomer: Newcomer | None = None  # while a worker's account has no slot
        self._changed = trio.Event()
        self._retry_s = RETRY_S
        self._class = b""
        self.slots = 0
        self.known = False  # whether the chain has said how many
        self.chain_class = b""
        self.done = False
        self.problems: Sequence[Problem] = ()

    @property
    def _contracts(self) -> Contracts:
        return self._chain.contracts

    def set_class(self, numeric_class: bytes) -> None:
        """The class that was measured; it is put on chain and counts there after the delay."""
        if numeric_class != self._class:
            self._class = numeric_class
            self.look()

    def look(self) -> None:
        """At the chain, now: something else says that it has changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def run(self) -> None:
        while True:
            changed, self._retry_s = self._changed, RETRY_S
            try:
                self.done = await self._reconcile()
            except ChainError as error:
                self.done = False
                if all(each.code != error.code for each in self.problems):  # once, not every few seconds
                    log.log(level(error), "not enrolled yet: %s", error)
                self.problems = (Problem(code=error.code, sentence=error.sentence, remedy=error.remedy),)
            settled_s = PROBATION_S if self.newcomer is not None else WATCH_S
            with trio.move_on_after(beats.left(settled_s if self.done else self._retry_s)):
                await changed.wait()

    async def _reconcile(self) -> bool:
        account, registry = self._chain.account, self._contracts.registry
        self.slots = await registry.live_slots(account)
        self.newcomer = (await self._chain.newcomers([account]))[0] if self._works and not self.slots else None
        self.known = True
        if await self._is_replaced(account):
            return True
        await self._fund()
        missing = self._wanted_slots - self.slots
        if missing > 0:
            needed = missing * await registry.slot_wei()
            tokens = await self._contracts.token.balance_of(account)
            if tokens < needed:
                await self._bond(needed - await registry.deposit_of(account))
                self.problems = (
                    Problem(
                        code="unstaked",
                        sentence=f"{missing} more slot{'s' * (missing > 1)} of stake cost {amounts.show_up(needed)}, "
                        f"the account has {amounts.show(tokens)}.",
                        remedy=f"Send tokens to {checksum(account)}, or start with fewer slots. An account without any "
                        "gets work from payers that allow newcomers, and what it earns becomes its first slot.",
                    ),
                )
                return False
            await registry.buy_slots(self._chain.sender, account, missing)
            self.slots = await registry.live_slots(account)
            held = f"{self.slots} slot{'s' * (self.slots != 1)}"
            log.info("bought %d for %s: the account holds %s of stake", missing, amounts.show(needed), held)
        stands = bool(self._wanted_slots or (self._works and self.slots))
        if stands and not self.bound:
            await self._bind(account)
        current, following, effective = await registry.class_of(account)
        self.chain_class = current
        if self._class == following != current:  # nothing but time is missing
            self._retry_s = min(WATCH_S, max(RETRY_S, effective - self._chain.block_time()))
        if stands and self._class and self._class not in (current, following):
            await registry.set_class(self._chain.sender, self._class)
            log.info("numeric class %s is on chain from the end of its delay", self._class[:4].hex())
            return False
        self.slots = await registry.live_slots(account)
        self.problems = ()
        return not self._class or current == self._class or not stands

    async def _bond(self, missing_wei: int) -> None:
        """Let carriers turn credit into stake, where that fills the next slots and there is no coin to do it alone."""
        if self.asking is None or trio.current_time() < self._carried_at + CARRIED_S:
            return
        credit = await self._chain.credits(self._chain.account)
        if credit <= missing_wei or await self._chain.rpc.balance(self._chain.account):
            return
        self._carried_at = trio.current_time()
        try:
            done = await self.asking.bond(missing_wei, fee_max=min(credit - missing_wei, missing_wei // FEE_SHARE))
            log.info(
                "carried: %s of credit is stake now, for %s", amounts.show(missing_wei), amounts.show(done.fee_wei)
            )
        except (CallerError, RemoteError) as error:
            log.info("no carrier: %s", error)

    async def _bind(self, account: bytes) -> None:
        own = self._binding.message.peer_id_hash
        bound, version = await self._contracts.registry.peer_of(account)
        if bound != own:
            if version >= self._binding.message.version:
                if self._rebind is None:
                    return
                self._binding = self._rebind(version + 1)
                log.info("the account is bound to another peer: it moves to this one")
            message = self._binding.message
            await self._contracts.registry.bind(self._chain.sender, message, self._binding.account_signature)
        self.bound = True

    async def _is_replaced(self, account: bytes) -> bool:
        """Whether another peer speaks for the account since this node's did."""
        if not (self.bound or self.replaced):
            return False
        bound, version = await self._contracts.registry.peer_of(account)
        self.bound = bound == self._binding.message.peer_id_hash
        self.replaced = not self.bound and version > 0  # else a reorganisation took it back: it is bound again
        if self.replaced:
            self.problems = ()
        return self.replaced

    async def _fund(self) -> None:
        """Ask the network's faucet, where it has one, for an account that cannot pay for a transaction."""
        if not self._network.faucet:
            return
        who = "0x" + self._chain.account.hex()
        answers = await self._chain.rpc.batch([("eth_gasPrice", []), ("eth_getBalance", [who, "latest"])])
        for answer in answers:
            if isinstance(answer, ChainError):
                raise answer
        price_wei, balance_wei = (int(answer, 16) for answer in answers)
        if balance_wei >= GAS_MIN * price_wei:
            return
        try:
            async with httpx.AsyncClient(timeout=FAUCET_TIMEOUT_S, trust_env=False) as http:
                answer = await http.post(self._network.faucet, json={"address": checksum(self._chain.account)})
        except httpx.HTTPError as error:
            raise ChainError("faucet", f"The faucet cannot be reached: {error}.", reverted=False) from None
        if answer.status_code != 200:
            raise ChainError("faucet", f"The faucet said {answer.status_code}: {answer.text[:200]}", reverted=False)
