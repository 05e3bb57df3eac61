"""`balance` and `wallet`: reading accounts from the chain, and keeping the node's own key."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh.errors import CallerError, ChainError
from tallymesh_node.cli.account import (
    PasswordFile,
    address_of,
    asked_password,
    given_password,
    home_folder,
    own_address,
)
from tallymesh_node.cli.output import Json, facts, say_json
from tallymesh_node.cli.source import in_words, network_path, say_other_wallet

if TYPE_CHECKING:
    from tallymesh.network import Network
    from tallymesh_ledger.balances import Balance

PATIENCE_S: Final = 3.0  # with a chain that does not answer: somebody is waiting for this command


def balance(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="ADDRESS", help="0x…; the wallet's own without one.")
    ] = None,
    rpc: Annotated[str | None, typer.Option(help="Ask this chain node instead of the network file's.")] = None,
    network: Annotated[Path | None, typer.Option(help="The network file.")] = None,
    json_: Json = False,
) -> None:
    """What an account has, read from the chain.

    Tokens, gas coin, stake, credits and open escrows. Needs no node and no wallet.

    \b
    Examples:
      tallymesh balance
      tallymesh balance 0x7c5e… --rpc http://127.0.0.1:8545 --network mynet.json
      tallymesh balance --json | jq '.[0].tokens_wei'
    """
    import trio

    from tallymesh import network as network_file
    from tallymesh_node.config import load

    config = load({"network": network})
    path = network_path(config)
    described = network_file.load(path)
    accounts = [address_of(text) for text in addresses or [own_address(config.home)]]
    if not addresses:
        say_other_wallet(config.home, path)
    try:
        found = trio.run(_read, described, rpc, accounts)
    except ChainError as error:
        raise in_words(error, path, rpc) from None
    if json_:
        say_json([_as_json(each) for each in found])
        return
    for index, each in enumerate(found):
        if index:
            print()
        facts(_lines(each))


def show(json_: Json = False) -> None:
    """The wallet's address. It is not opened.

    \b
    Examples:
      tallymesh wallet show
    """
    from tallymesh_node.wallet import KEYSTORE

    home = home_folder()
    address = own_address(home)
    if json_:
        say_json({"address": address, "keystore": str(home / KEYSTORE)})
    else:
        facts([("address", address), ("keystore", str(home / KEYSTORE))])


def create(password_file: PasswordFile = None, json_: Json = False) -> None:
    """A new wallet in the node's folder. `tallymesh node start` does this by itself.

    Without a password file one is asked for on a terminal, and drawn and kept beside the keystore elsewhere.

    \b
    Examples:
      tallymesh wallet create
      tallymesh wallet create --password-file ~/secret
    """
    from tallymesh_ledger import keystore
    from tallymesh_ledger.keys import checksum
    from tallymesh_node.wallet import KEYSTORE, PASSWORD, open_wallet

    home = home_folder()
    path = home / KEYSTORE
    if path.exists():
        raise CallerError(
            "wallet_exists", f"There is a wallet at {path} already.", remedy="See 'tallymesh wallet show'."
        )
    password = given_password(password_file)
    if password is None and sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    if password is None:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, _ = open_wallet(home, None)
    else:
        key = keystore.create(path, password)
    _made(checksum(key.address), path, json_, drawn=home / PASSWORD if password is None else None)


def export(
    password_file: PasswordFile = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether to show it.")] = False,
    json_: Json = False,
) -> None:
    """Show the bare private key, for a backup on paper. Whoever sees it owns the account.

    \b
    Examples:
      tallymesh wallet export
      tallymesh wallet export --yes --password-file ~/secret > key.txt
    """
    from tallymesh_ledger import keystore
    from tallymesh_node.wallet import KEYSTORE

    path = home_folder() / KEYSTORE
    address = keystore.address_in(path)
    if not yes and not (sys.stdin.isatty() and typer.confirm("Show the private key on this screen?")):
        raise CallerError("not_confirmed", "The key was not shown.", remedy="Confirm, or pass --yes.")
    secret = keystore.export_secret(path, asked_password(password_file)).hex()
    if json_:
        from tallymesh_ledger.keys import checksum

        say_json({"address": checksum(address), "secret": secret})
    else:
        print(secret)


def import_(
    source: Annotated[Path | None, typer.Argument(help="A keystore file; without it a private key is read.")] = None,
    password_file: PasswordFile = None,
    json_: Json = False,
) -> None:
    """Take over a key: a keystore, or hex from standard input.

    The keystore may be another program's, geth's for one.

    \b
    Examples:
      tallymesh wallet import UTC--2026-01-01T00-00-00Z--7c5e…
      tallymesh wallet import --password-file ~/secret < key.txt
    """
    from tallymesh_ledger import keystore
    from tallymesh_ledger.keys import checksum
    from tallymesh_node.wallet import KEYSTORE

    path = home_folder() / KEYSTORE
    if source is not None:
        key = keystore.import_keystore(path, source, asked_password(password_file))
    else:
        text = typer.prompt("Private key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
        try:
            secret = bytes.fromhex(text.strip().removeprefix("0x"))
        except ValueError:
            raise CallerError("bad_secret", "A private key is 64 hex digits.") from None
        key = keystore.import_secret(path, secret, asked_password(password_file))
    _made(checksum(key.address), path, json_)


async def _read(network: Network, rpc_url: str | None, accounts: Sequence[bytes]) -> list[Balance]:
    from tallymesh_ledger.balances import read_balance
    from tallymesh_ledger.chain import Rpc

    urls = (rpc_url,) if rpc_url else network.rpc_urls
    async with Rpc(urls, chain_id=network.chain_id, patience_s=PATIENCE_S) as rpc:
        return [await read_balance(rpc, network, account) for account in accounts]


def _lines(found: Balance) -> list[tuple[str, str]]:
    from tallymesh import amounts
    from tallymesh_ledger.keys import checksum

    slots = f" ({found.slots} slot{'s' * (found.slots != 1)})" if found.slots else ""
    escrows = [
        (
            "escrow",
            f"job {escrow.job.hex()[:12]}: {amounts.show(escrow.free_wei)} free, "
            f"{amounts.show(escrow.reserve_wei)} for audits, {escrow.open_seats} open seats",
        )
        for escrow in found.escrows
    ]
    return [
        ("account", checksum(found.account)),
        ("tokens", amounts.show(found.tokens_wei)),
        ("credits", f"{amounts.show(found.credits_wei)} (earned or refunded, not yet withdrawn)"),
        ("stake", f"{amounts.show(found.stake_free_wei)} free, {amounts.show(found.stake_locked_wei)} locked{slots}"),
        ("unbonding", amounts.show(found.stake_unbonding_wei) if found.stake_unbonding_wei else ""),
        (
            "awards",
            f"{amounts.show(found.awards_wei)} (claims and court, not yet withdrawn)" if found.awards_wei else "",
        ),
        ("rewards", f"{amounts.show(found.rewards_wei)} (tallymesh rewards collect)" if found.rewards_wei else ""),
        ("gas coin", amounts.show(found.gas_wei, symbol=False)),
        *escrows,
        ("block", str(found.block_number)),
    ]


def _as_json(found: Balance) -> dict[str, Any]:
    """Wei as decimal strings, ids as hex."""
    import msgspec

    from tallymesh_ledger.keys import checksum

    plain = {
        name: str(value) if name.endswith("_wei") and value is not None else value
        for name, value in msgspec.structs.asdict(found).items()
    }
    plain["account"] = checksum(found.account)
    plain["escrows"] = [
        {
            "job": escrow.job.hex(),
            "free_wei": str(escrow.free_wei),
            "reserve_wei": str(escrow.reserve_wei),
            "open_seats": escrow.open_seats,
        }
        for escrow in found.escrows
    ]
    return plain


def _made(address: str, path: Path, as_json: bool, *, drawn: Path | None = None) -> None:
    if as_json:
        say_json({"address": address, "keystore": str(path)})
        return
    rows = [("address", address), ("keystore", f"{path} (back it up: tallymesh wallet export)")]
    facts([*rows, ("password", f"drawn, and kept in {drawn}" if drawn is not None else "")])
