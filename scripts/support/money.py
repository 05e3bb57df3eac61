"""Where every wei is: read from the chain alone, by anyone."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallymesh.network import Network
from tallymesh_ledger.awards import awarders, awards_of
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_ledger.chain.contract import Contract
from tallymesh_ledger.chain.logs import read_logs


class Account(msgspec.Struct, frozen=True):
    """What one account has in all, in wei of the token. `awards`: credited by Claims, Accusations and Court; `bonds`:
    what a quarrel may still cost it."""

    tokens: int
    stake: int
    credits: int
    awards: int = 0
    bonds: int = 0

    @property
    def total(self) -> int:
        return self.tokens + self.stake + self.credits + self.awards + self.bonds


class Books(msgspec.Struct, frozen=True):
    """The whole token at one moment. `elsewhere`: held by nobody that we know (the deployer's treasury, the faucet,
    what is left for rewards)."""

    accounts: Mapping[bytes, Account]
    supply: int
    escrow_balance: int
    registry_balance: int
    quarrels_balance: int  # of Claims, Accusations and Court together
    held: int  # by jobs: wages, reserve, seats
    credits: int  # the Court's among them
    fees: int  # to burn, and as much for the court
    pool: int  # of the Court: nobody's
    elsewhere: int

    @property
    def balanced(self) -> bool:
        """Every wei of the supply is somewhere, and each contract has exactly what it owes."""
        known = sum(account.tokens for account in self.accounts.values())
        contracts = self.escrow_balance + self.registry_balance + self.quarrels_balance
        stakes = sum(account.stake for account in self.accounts.values())
        quarrels = sum(account.awards + account.bonds for account in self.accounts.values()) + self.pool
        return (
            known + contracts + self.elsewhere == self.supply
            and self.escrow_balance == self.held + self.credits + self.fees
            and self.registry_balance == stakes
            and self.quarrels_balance == quarrels
        )


async def read_books(rpc: Rpc, network: Network, bonds: Mapping[bytes, int], at: int) -> Books:
    """At one block. Events give who ever held anything, views how much; what is at stake in quarrels (`bonds`, of each
    account that takes part) is no view's: an index of the events adds it up."""
    contracts = Contracts.of(rpc, network)
    token, registry, escrow = contracts.token, contracts.registry, contracts.escrow
    found = {account: await _account(rpc, network, account, wei, at) for account, wei in bonds.items()}
    transfers = await _events(rpc, network, token, "Transfer", at)
    quarrels = {each.address: each for each in awarders(rpc, network)}
    others = {event["to"] for event in transfers} - {*found, escrow.address, registry.address, *quarrels, bytes(20)}
    court = [each for each in quarrels.values() if each.NAME == "Court"]
    return Books(
        accounts=found,
        supply=await token.total_supply(at=at),
        escrow_balance=await token.balance_of(escrow.address, at=at),
        registry_balance=await token.balance_of(registry.address, at=at),
        quarrels_balance=sum([await token.balance_of(address, at=at) for address in quarrels]),
        held=await held_by_jobs(rpc, network, contracts, at=at),
        credits=sum(account.credits for account in found.values())
        + sum([await escrow.credit_of(each.address, at=at) for each in court]),
        fees=2 * await escrow.fees_to_burn(at=at),
        pool=sum([int(await each.read("pool", at=at)) for each in court]),
        elsewhere=sum([await token.balance_of(holder, at=at) for holder in others]),
    )


async def _account(rpc: Rpc, network: Network, account: bytes, bonds: int, at: int) -> Account:
    contracts = Contracts.of(rpc, network)
    stake = await contracts.registry.stake_of(account, at=at)
    return Account(
        tokens=await contracts.token.balance_of(account, at=at),
        stake=stake.free + stake.locked + stake.unbonding,
        credits=await contracts.escrow.credit_of(account, at=at),
        awards=await awards_of(rpc, network, account, at=at),
        bonds=bonds,
    )


async def _events(rpc: Rpc, network: Network, contract: Contract, name: str, at: int | None = None) -> list[dict]:
    """The values of every event of that name that the contract ever emitted, up to a block."""
    head = (await rpc.block()).number if at is None else at
    topics = [contract.interface.topics[name]]
    logs = await read_logs(rpc, contract.address, topics, network.contracts.deployed_block, head)
    return [event.values for event in map(contract.interface.event, logs) if event is not None]


async def held_by_jobs(rpc: Rpc, network: Network, contracts: Contracts, *, at: int | None = None) -> int:
    """Free wages, reserves, and what open seats hold."""
    block = (await rpc.block()).number if at is None else at
    jobs = [event["job"] for event in await _events(rpc, network, contracts.escrow, "JobOpened", block)]
    total = sum(state.free + state.reserve for state in await contracts.escrow.jobs_of(jobs, at=block))
    opened = await _events(rpc, network, contracts.escrow, "SeatOpened", block)
    prices = {event["seat"]: event["price"] for event in opened}
    seats = await contracts.escrow.seats_of(list(prices), at=block)
    for seat, price in zip(seats, prices.values(), strict=True):
        total += seat.bond
        if seat.state.name == "OPEN":
            total += (seat.units - seat.paid_units) * price
    return total


async def earned(rpc: Rpc, network: Network, contracts: Contracts) -> dict[bytes, dict[str, int]]:
    """account -> wei credited for `work` and for `audits`, after the fee."""
    result: dict[bytes, dict[str, int]] = {}
    for event in await _events(rpc, network, contracts.escrow, "Settled"):
        entry = result.setdefault(event["worker"], {"work": 0, "audits": 0, "units": 0})
        entry["work"] += event["amount"] - event["fee"]
    for event in await _events(rpc, network, contracts.escrow, "AuditPaid"):
        entry = result.setdefault(event["auditor"], {"work": 0, "audits": 0, "units": 0})
        entry["audits"] += event["amount"]
    return result


async def collected(rpc: Rpc, network: Network) -> dict[bytes, int]:
    """account -> wei of rewards that were ever collected for it."""
    contracts, result = Contracts.of(rpc, network), dict[bytes, int]()
    if contracts.rewards is not None:
        for event in await _events(rpc, network, contracts.rewards, "Collected"):
            result[event["worker"]] = result.get(event["worker"], 0) + event["amount"]
    return result
