"""Where every wei is: read from the chain alone, by anyone."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallymesh.network import Network
from tallymesh_ledger.balances import Balance, read_balance
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.logs import read_logs


class Account(msgspec.Struct, frozen=True):
    """What one account has in all, in wei of the token."""

    tokens: int
    stake: int
    credits: int

    @property
    def total(self) -> int:
        return self.tokens + self.stake + self.credits


class Books(msgspec.Struct, frozen=True):
    """The whole token at one moment. `elsewhere`: held by nobody that we know (the deployer's treasury, the faucet)."""

    accounts: Mapping[bytes, Account]
    supply: int
    escrow_balance: int
    registry_balance: int
    held: int  # by jobs: wages, reserve, seats
    credits: int
    fees: int  # to burn, and as much for the court
    elsewhere: int

    @property
    def balanced(self) -> bool:
        """Every wei of the supply is somewhere, and the escrow has exactly what it owes."""
        known = sum(account.tokens for account in self.accounts.values())
        whole = known + self.escrow_balance + self.registry_balance + self.elsewhere == self.supply
        stakes = sum(account.stake for account in self.accounts.values())
        return whole and self.escrow_balance == self.held + self.credits + self.fees and stakes == self.registry_balance


async def balances(rpc: Rpc, network: Network, accounts: list[bytes]) -> dict[bytes, Balance]:
    return {account: await read_balance(rpc, network, account) for account in accounts}


def account_of(balance: Balance) -> Account:
    stake = balance.stake_free_wei + balance.stake_locked_wei + balance.stake_unbonding_wei
    return Account(balance.tokens_wei, stake, balance.credits_wei)


async def read_books(rpc: Rpc, network: Network, accounts: list[bytes]) -> Books:
    """Events give who ever held anything; views give how much."""
    contracts = Contracts.of(rpc, network)
    token, registry, escrow = contracts.token, contracts.registry, contracts.escrow
    found = await balances(rpc, network, accounts)
    first = network.contracts.deployed_block
    head = (await rpc.block()).number
    transfers = [token.interface.event(log) for log in await read_logs(rpc, token.address, [], first, head)]
    holders = {event.values["to"] for event in transfers if event is not None and event.name == "Transfer"}
    others = holders - set(accounts) - {escrow.address, registry.address, bytes(20)}
    elsewhere = sum([await token.balance_of(holder) for holder in others])
    return Books(
        accounts={account: account_of(balance) for account, balance in found.items()},
        supply=await token.total_supply(),
        escrow_balance=await token.balance_of(escrow.address),
        registry_balance=await token.balance_of(registry.address),
        held=await held_by_jobs(rpc, network, contracts),
        credits=sum(balance.credits_wei for balance in found.values()),
        fees=2 * await escrow.fees_to_burn(),
        elsewhere=elsewhere,
    )


async def events(rpc: Rpc, network: Network, contracts: Contracts, name: str) -> list[dict]:
    """The values of every event of that name that the escrow ever emitted."""
    escrow = contracts.escrow
    head = (await rpc.block()).number
    topics = [escrow.interface.topics[name]]
    logs = await read_logs(rpc, escrow.address, topics, network.contracts.deployed_block, head)
    return [event.values for event in map(escrow.interface.event, logs) if event is not None]


async def held_by_jobs(rpc: Rpc, network: Network, contracts: Contracts) -> int:
    """Free wages, reserves, and what open seats hold."""
    jobs = [event["job"] for event in await events(rpc, network, contracts, "JobOpened")]
    total = sum(state.free + state.reserve for state in await contracts.escrow.jobs_of(jobs))
    prices = {event["seat"]: event["price"] for event in await events(rpc, network, contracts, "SeatOpened")}
    for seat, price in zip(await contracts.escrow.seats_of(list(prices)), prices.values(), strict=True):
        total += seat.bond
        if seat.state.name == "OPEN":
            total += (seat.units - seat.paid_units) * price
    return total


async def earned(rpc: Rpc, network: Network, contracts: Contracts) -> dict[bytes, dict[str, int]]:
    """account -> wei credited for `work` and for `audits`, after the fee."""
    result: dict[bytes, dict[str, int]] = {}
    for event in await events(rpc, network, contracts, "Settled"):
        entry = result.setdefault(event["worker"], {"work": 0, "audits": 0, "units": 0})
        entry["work"] += event["amount"] - event["fee"]
    for event in await events(rpc, network, contracts, "AuditPaid"):
        entry = result.setdefault(event["auditor"], {"work": 0, "audits": 0, "units": 0})
        entry["audits"] += event["amount"]
    return result
