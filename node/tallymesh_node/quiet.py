"""What the contracts said of an account, kept for as long as the newest headers say that none of them did anything.

A node at rest asks the same few things every few seconds. Whatever changes an answer logs something in one of the
network's contracts (a test holds that), so while all of them are silent (`newest.py`) the answer is the same. It is
asked again after a while all the same, and at once when a transaction of this account was mined: its effect is known to
the caller before its block is to the loop. This module knows no contract but their addresses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import trio

from tallymesh.network import Contracts
from tallymesh_ledger.chain import Sender
from tallymesh_node.newest import SOON, Newest

KEPT = 2_048  # answers: four for each of the accounts that a refresh of the market asks about

Key = tuple[str, bytes]  # what was asked, of which account
Value = TypeVar("Value")


class _Said(msgspec.Struct, frozen=True):
    value: Any
    since: int  # newest block when it was asked
    at: float  # … and trio's clock


class Quiet:
    def __init__(self, newest: Newest, contracts: Contracts, sender: Sender) -> None:
        self._newest = newest
        self._sender = sender
        named = (contracts.registry, contracts.escrow, contracts.claims, contracts.accusations, contracts.court)
        self._contracts = [bytes.fromhex(address[2:]) for address in named if address]
        self._said: OrderedDict[Key, _Said] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Quiet {len(self._said)} answers>"

    async def ask(self, key: Key, question: Callable[[], Awaitable[Value]]) -> Value:
        """The kept answer, or a new one."""

        async def one(_: Sequence[bytes]) -> list[Value]:
            return [await question()]

        return (await self.ask_many(key[0], [key[1]], one))[0]

    async def ask_many(
        self, what: str, accounts: Sequence[bytes], question: Callable[[Sequence[bytes]], Awaitable[Sequence[Value]]]
    ) -> list[Value]:
        """One answer an account, in order; only those that are not kept are asked for, together."""
        kept = {account: said.value for account in accounts if (said := self._kept((what, account))) is not None}
        missing = [account for account in dict.fromkeys(accounts) if account not in kept]
        if missing:
            since, at = self._newest.number, trio.current_time()
            for account, value in zip(missing, await question(missing), strict=True):
                kept[account] = value
                if since is not None:
                    self._keep((what, account), _Said(value, since, at))
        return [kept[account] for account in accounts]

    def _kept(self, key: Key) -> _Said | None:
        said = self._said.get(key)
        if said is None or said.since < self._sender.mined_block:
            return None
        silent = all(self._newest.silent(contract, said.since, said.at, lately=SOON) for contract in self._contracts)
        return said if silent else None

    def _keep(self, key: Key, said: _Said) -> None:
        self._said[key] = said
        self._said.move_to_end(key)
        while len(self._said) > KEPT:
            self._said.popitem(last=False)
