"""`stake add|release` and `withdraw`: the owner's own transactions, signed by the node's wallet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from tallymesh.errors import CallerError
from tallymesh_node.cli.account import PasswordFile, open_wallet, wallet_folder
from tallymesh_node.cli.output import Json, facts, say_json
from tallymesh_node.cli.source import NetworkFile, RpcUrl, Source, hex_, when

if TYPE_CHECKING:
    from tallymesh_ledger.chain import Contracts, Sender

T = TypeVar("T")
SLOTS_MAX: Final = 200  # in one transaction: what a block's gas is good for
PAGE: Final = 500  # slots read at once while one's own are looked for

Slots = Annotated[int, typer.Argument(min=1, max=SLOTS_MAX, help="How many slots.")]


def add(
    slots: Slots = 1,
    password_file: PasswordFile = None,
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    json_: Json = False,
) -> None:
    """Buy slots of stake for the wallet's account, with its tokens.

    A worker needs one slot at least; each seat locks a part of the stake until a day after it closed.

    \b
    Examples:
      tallymesh stake add
      tallymesh stake add 3 --json
    """
    from tallymesh import amounts

    async def buy(sender: Sender, contracts: Contracts) -> dict[str, Any]:
        price = await contracts.registry.slot_wei()
        tokens = await contracts.token.balance_of(sender.address)
        if tokens < slots * price:
            raise CallerError(
                "too_few_tokens",
                f"{slots} slot{'s cost' if slots > 1 else ' costs'} {amounts.show_up(slots * price)}, the account has "
                f"{amounts.show(tokens)}.",
                remedy="Send it tokens, or withdraw what it earned: 'tallymesh withdraw'.",
            )
        done = await contracts.registry.buy_slots(sender, sender.address, slots)
        return {"transaction": hex_(done.mined.hash), "bought": slots, "paid_wei": str(slots * price)}

    told = send(Source(network, rpc, None), password_file, buy)
    _say(told, json_, [("bought", f"{slots} slot{'s' * (slots > 1)} for {amounts.show(int(told['paid_wei']))}")])


def release(
    slots: Slots = 1,
    password_file: PasswordFile = None,
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    json_: Json = False,
) -> None:
    """Release slots, the newest first: they count in no draw from now on, and can be withdrawn after the delay.

    What a seat has locked stays locked until its lock ends. A node that was started with --stake N buys slots up to N
    again: start it with fewer.

    \b
    Examples:
      tallymesh stake release
      tallymesh stake release 2
    """
    from tallymesh import amounts

    async def let_go(sender: Sender, contracts: Contracts) -> dict[str, Any]:
        mine = await _live_slots(contracts, sender.address)
        if len(mine) < slots:
            raise CallerError(
                "too_few_slots",
                f"The account has {len(mine)} live slot{'s' * (len(mine) != 1)}, not {slots}.",
                remedy="See 'tallymesh balance'.",
            )
        chosen = sorted(mine)[-slots:]
        done = await contracts.registry.release_slots(sender, sender.address, chosen)
        at = max(event.values["withdrawableAt"] for event in done.of("SlotReleased"))
        wei = slots * await contracts.registry.slot_wei()
        return {"transaction": hex_(done.mined.hash), "slots": chosen, "withdrawable_at": at, "unbonding_wei": str(wei)}

    told = send(Source(network, rpc, None), password_file, let_go)
    amount = amounts.show(int(told["unbonding_wei"]))
    _say(told, json_, [("released", f"{amount}, to be withdrawn from {when(told['withdrawable_at'])} UTC on")])


def withdraw(
    relayed: Annotated[
        bool, typer.Option("--relayed", help="Without gas: the running node has others send it, for a fee.")
    ] = False,
    slots: Annotated[int, typer.Option(help="With --relayed: so many slots are released, too.")] = 0,
    deposit: Annotated[bool, typer.Option("--deposit", help="With --relayed: release the deposit, too.")] = False,
    max_fee: Annotated[str | None, typer.Option(help="With --relayed: MESH; a tenth of the credit else.")] = None,
    password_file: PasswordFile = None,
    network: NetworkFile = None,
    rpc: RpcUrl = None,
    json_: Json = False,
) -> None:
    """Pay out what the account earned, and stake that has finished unbonding, to its owner.

    What claims, accusations and the Court have credited comes with it. A running worker does the same by itself when it
    pays.

    \b
    Examples:
      tallymesh withdraw
      tallymesh withdraw --json | jq .credits_wei
      tallymesh withdraw --relayed --max-fee 0.05
    """
    from tallymesh import amounts

    if relayed:
        from tallymesh_node.cli import carried

        carried.withdraw(slots=slots, deposit=deposit, max_fee=max_fee, as_json=json_)
        return
    if slots or deposit or max_fee is not None:
        raise CallerError(
            "bad_usage",
            "--slots, --deposit and --max-fee go with --relayed.",
            remedy="Without --relayed slots are released by 'tallymesh stake release'.",
        )

    found = Source(network, rpc, None)

    async def draw(sender: Sender, contracts: Contracts) -> dict[str, Any]:
        from tallymesh_ledger.awards import awarders

        told: dict[str, Any] = {"transactions": [], "credits_wei": "0", "awards_wei": "0", "stake_wei": "0"}
        if await contracts.escrow.credit_of(sender.address):
            done = await contracts.escrow.withdraw(sender, sender.address)
            told["transactions"].append(hex_(done.mined.hash))
            told["credits_wei"] = str(sum(event.values["amount"] for event in done.of("CreditWithdrawn")))
        for each in awarders(sender.rpc, found.network):
            if await each.credit_of(sender.address):
                done = await each.withdraw(sender, sender.address)
                told["transactions"].append(hex_(done.mined.hash))
                paid = sum(event.values["amount"] for event in done.of("CreditWithdrawn"))
                told["awards_wei"] = str(int(told["awards_wei"]) + paid)
        if await contracts.registry.withdrawable(sender.address):
            done = await contracts.registry.withdraw(sender, sender.address)
            told["transactions"].append(hex_(done.mined.hash))
            told["stake_wei"] = str(sum(event.values["amount"] for event in done.of("StakeWithdrawn")))
        if not told["transactions"]:
            stake = await contracts.registry.stake_of(sender.address)
            waits = f" {amounts.show(stake.unbonding)} of stake is still unbonding." if stake.unbonding else ""
            raise CallerError(
                "nothing_to_withdraw", f"The account has no credits.{waits}", remedy="See 'tallymesh balance'."
            )
        return told

    told = send(found, password_file, draw)
    lines = [
        (name, amounts.show(int(told[key])))
        for name, key in (("credits", "credits_wei"), ("awards", "awards_wei"), ("stake", "stake_wei"))
        if told[key] != "0"
    ]
    _say(told, json_, lines)


def send(
    found: Source, password_file: Path | None, work: Callable[[Sender, Contracts], Awaitable[T]]
) -> T:  # fmt: skip
    """Open the wallet, then the chain. What is sent is kept beside the wallet, as a running node does: a command that
    was killed and is given again waits for its first transaction."""
    from tallymesh_ledger.chain import Contracts, Rpc, Sender
    from tallymesh_ledger.chain.outbox import FileOutbox
    from tallymesh_node.config import load
    from tallymesh_node.wallet import OUTBOX

    key = open_wallet(found.home, password_file)
    outbox = FileOutbox(wallet_folder(found.home) / OUTBOX)
    network, policy = found.network, load().gas_policy

    async def sent(rpc: Rpc) -> T:
        confirmations = network.parameters.confirmations
        sender = Sender(rpc, key, outbox=outbox, policy=policy, facts=network.chain, confirmations=confirmations)
        return await work(sender, Contracts.of(rpc, network))

    try:
        return found.ask(sent)
    finally:
        outbox.close()


async def _live_slots(contracts: Contracts, account: bytes) -> list[int]:
    """Numbers of the account's slots that were not released."""
    total, mine = await contracts.registry.slot_count(), []
    for first in range(0, total, PAGE):
        page = await contracts.registry.slots_from(first, PAGE)
        mine += [first + i for i, slot in enumerate(page) if slot.account == account and not slot.released_block]
    return mine


def _say(told: dict[str, Any], as_json: bool, lines: list[tuple[str, str]]) -> None:
    if as_json:
        say_json(told)
        return
    hashes = told.get("transactions") or [told["transaction"]]
    facts([*lines, *(("transaction", each) for each in hashes)])
