"""What this node's account has, read from the chain now and then, for /metrics and `node status`.

Level-triggered and read-only: a look that fails leaves the figures of the last one and their age. Amounts are floats in
whole tokens, good for graphs and alarms; what counts to the wei is `tallymesh balance` and `tallymesh history`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tallymesh.amounts import WEI_PER_TOKEN
from tallymesh.errors import ChainError, RemoteError
from tallymesh_ledger.chain import Contracts
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_node import beats

log = logging.getLogger(__name__)

LOOK_S = 30.0  # between looks: two a minute, so that an alarm comes before anybody would miss the money
USUAL_GAS = 400_000  # of a transaction that a node sends: opening or finishing a job of four workers takes about that

# Name of each figure (/metrics puts `tallymesh_` before it) and what it says.
FIGURES = {
    "tokens_mesh": "MESH in the account.",
    "credits_mesh": "MESH earned or refunded and not yet withdrawn.",
    "stake_free_mesh": "MESH at stake that no seat locks.",
    "stake_locked_mesh": "MESH at stake that seats lock.",
    "stake_unbonding_mesh": "MESH of released slots that cannot be withdrawn yet.",
    "escrow_mesh": "MESH that the escrow holds for the jobs of this node's owner.",
    "gas_coin": "The chain's own coin in the account, in whole coins.",
    "gas_transactions_left": "How many usual transactions the coin pays for at the present price of gas.",
    "transactions_pending": "Transactions of the account that were sent and are in no block yet.",
    "money_read_timestamp_seconds": "When these figures were read from the chain, Unix time.",
}


class MoneyWatch:
    """One account's figures. `escrow_wei` is what the node's own books say of its jobs."""

    def __init__(
        self,
        rpc: Rpc,
        contracts: Contracts,
        account: bytes,
        escrow_wei: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rpc = rpc
        self._contracts = contracts
        self._account = account
        self._escrow_wei = escrow_wei
        self._clock = clock
        self._figures: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"<MoneyWatch {self._figures}>"

    @property
    def figures(self) -> dict[str, float]:
        """By the names of FIGURES; empty until the first look."""
        return dict(self._figures)

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except (ChainError, RemoteError) as error:
                log.debug("money not read: %s", error)  # the chain's own loop tells the owner
            await beats.pause(LOOK_S)

    async def look(self) -> None:
        """Read everything once. ChainError where the chain cannot be asked: then nothing changed."""
        who = "0x" + self._account.hex()
        answers = await self._rpc.batch([
            ("eth_getBalance", [who, "latest"]),
            ("eth_gasPrice", []),
            ("eth_getTransactionCount", [who, "latest"]),
            ("eth_getTransactionCount", [who, "pending"]),
        ])  # fmt: skip
        for answer in answers:
            if isinstance(answer, ChainError):
                raise answer
        coin, price, mined, sent = (int(answer, 16) for answer in answers)
        stake = await self._contracts.registry.stake_of(self._account)
        tokens = await self._contracts.token.balance_of(self._account)
        credits = await self._contracts.escrow.credit_of(self._account)
        self._figures = {
            "tokens_mesh": tokens / WEI_PER_TOKEN,
            "credits_mesh": credits / WEI_PER_TOKEN,
            "stake_free_mesh": stake.free / WEI_PER_TOKEN,
            "stake_locked_mesh": stake.locked / WEI_PER_TOKEN,
            "stake_unbonding_mesh": stake.unbonding / WEI_PER_TOKEN,
            "escrow_mesh": self._escrow_wei() / WEI_PER_TOKEN,
            "gas_coin": coin / 10**18,
            "gas_transactions_left": coin // max(1, price * USUAL_GAS),
            "transactions_pending": max(0, sent - mined),
            "money_read_timestamp_seconds": self._clock(),
        }
