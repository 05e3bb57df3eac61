"""What Claims, Accusations and Court have credited to an account and not yet paid out, together and one by one."""

from __future__ import annotations

from typing import ClassVar

from tallymesh.network import Network
from tallymesh_ledger.chain.contract import At, Contract, Outcome
from tallymesh_ledger.chain.rpc import Rpc
from tallymesh_ledger.chain.transactions import Sender


class Award(Contract):
    """One of the three: each holds credits, which anybody may have paid out to the account's owner."""

    async def credit_of(self, account: bytes, *, at: At = "latest") -> int:
        return int(await self.read("creditOf", account, at=at))

    async def withdraw(self, sender: Sender, account: bytes) -> Outcome:
        return await self.write(sender, "withdraw", account)


class _Claims(Award):
    NAME: ClassVar[str] = "Claims"


class _Accusations(Award):
    NAME: ClassVar[str] = "Accusations"


class _Court(Award):
    NAME: ClassVar[str] = "Court"


def awarders(rpc: Rpc, network: Network) -> list[Award]:
    """Those that the network has."""
    addresses = network.contracts
    known = ((_Claims, addresses.claims), (_Accusations, addresses.accusations), (_Court, addresses.court))
    return [kind(rpc, bytes.fromhex(address[2:])) for kind, address in known if address]


async def awards_of(rpc: Rpc, network: Network, account: bytes, *, at: At = "latest") -> int:
    """In wei, at one block."""
    return sum([await each.credit_of(account, at=at) for each in awarders(rpc, network)])
