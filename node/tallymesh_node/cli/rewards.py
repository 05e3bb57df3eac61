"""`rewards show|collect`: what the burned fees of past periods give back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh.errors import CallerError
from tallymesh_node.cli.account import PasswordFile
from tallymesh_node.cli.output import Json, facts, say_json, table
from tallymesh_node.cli.source import NetworkFile, RpcUrl, Source, hex_
from tallymesh_node.cli.stake import send

if TYPE_CHECKING:
    from tallymesh_ledger.chain import Contracts, Rpc, Sender

PERIODS_MAX: Final = 20  # collected in one go, the oldest first: each is a transaction

Address = Annotated[str | None, typer.Argument(metavar="ADDRESS", help="0x…; the wallet's own without one.")]


def show(address: Address = None, network: NetworkFile = None, rpc: RpcUrl = None, json_: Json = False) -> None:
    """Rewards that an account can collect. Needs no node and no wallet.

    \b
    Examples:
      tallymesh rewards show
      tallymesh rewards show 0x7c5e… --json
    """
    from tallymesh import amounts
    from tallymesh_ledger.keys import checksum

    found = Source(network, rpc, None)
    account = found.account(address)
    periods = found.ask(lambda rpc: _periods(rpc, found, account))
    if json_:
        say_json({"account": checksum(account), "periods_wei": {str(p): str(wei) for p, wei in periods.items()},
                  "rewards_wei": str(sum(periods.values()))})  # fmt: skip
        return
    table(
        ["period", "reward"],
        [[str(period), amounts.show(wei)] for period, wei in periods.items()],
        empty="Nothing to collect: a reward comes when a period is over in which the account was paid for units.",
    )


def collect(
    password_file: PasswordFile = None, network: NetworkFile = None, rpc: RpcUrl = None, json_: Json = False
) -> None:
    """Collect the rewards of all past periods for the wallet's account, paid to its owner; one transaction a period.

    \b
    Examples:
      tallymesh rewards collect
      tallymesh rewards collect --json | jq .collected_wei
    """
    from tallymesh import amounts

    found = Source(network, rpc, None)

    async def take(sender: Sender, contracts: Contracts) -> dict[str, Any]:
        periods = await _periods(sender.rpc, found, sender.address)
        if not periods:
            raise CallerError(
                "nothing_to_collect", "There is no reward to collect.", remedy="See 'tallymesh rewards show'."
            )
        assert contracts.rewards is not None
        told: dict[str, Any] = {"transactions": [], "periods_wei": {}}
        for period in list(periods)[:PERIODS_MAX]:
            done = await contracts.rewards.collect(sender, sender.address, period)
            told["transactions"].append(hex_(done.mined.hash))
            told["periods_wei"][str(period)] = str(sum(event.values["amount"] for event in done.of("Collected")))
        told["collected_wei"] = str(sum(map(int, told["periods_wei"].values())))
        return told

    told = send(found, password_file, take)
    if json_:
        say_json(told)
        return
    count = len(told["transactions"])
    facts([
        ("collected", f"{amounts.show(int(told['collected_wei']))} of {count} period{'s' * (count > 1)}"),
        *(("transaction", each) for each in told["transactions"]),
    ])  # fmt: skip


async def _periods(rpc: Rpc, found: Source, account: bytes) -> dict[int, int]:
    from tallymesh_ledger.collecting import collectable

    head = await rpc.block()
    periods = await collectable(rpc, found.network, account, at=head.number)
    if periods is None:
        raise CallerError("no_rewards", f"The network {found.network.name} has no rewards.")
    return periods
