"""Whose account a command is about, and how its wallet is opened: addresses, the wallet's place, its password."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallymesh import paths
from tallymesh.errors import CallerError

if TYPE_CHECKING:
    from tallymesh_ledger.keys import AccountKey

PasswordFile = Annotated[Path | None, typer.Option(help="Its first line is the wallet's password.")]


def home_folder() -> Path:
    """The node's folder, as configured."""
    from tallymesh_node.config import load

    return load().home


def own_address(home: Path) -> str:
    """The wallet's, which stays closed. Raises where there is no wallet."""
    from tallymesh_ledger import keystore
    from tallymesh_ledger.keys import checksum
    from tallymesh_node.wallet import KEYSTORE

    return checksum(keystore.address_in(wallet_folder(home) / KEYSTORE))


def address_of(text: str) -> bytes:
    """CallerError `bad_address`, also where the checksum of a mixed-case one is wrong."""
    try:
        address = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        address = b""
    if len(address) != 20:
        raise CallerError("bad_address", f"{text!r} is not an address.", remedy="Write it like 0x7c5e…, 40 hex digits.")
    if text.removeprefix("0x") not in (text.removeprefix("0x").lower(), text.removeprefix("0x").upper()):
        from tallymesh_ledger.keys import checksum

        if checksum(address).removeprefix("0x") != text.removeprefix("0x"):
            raise CallerError("bad_address", f"{text} has a wrong checksum.", remedy="Is there a typing error in it?")
    return address


def wallet_folder(home: Path) -> Path:
    """Where the wallet is: in the node's folder, or in that of a local network which runs, or ran, here."""
    from tallymesh_node.wallet import KEYSTORE

    local = home / "up" / "payer"
    return local if (local / KEYSTORE).exists() and not (home / KEYSTORE).exists() else home


def open_wallet(home: Path, password_file: Path | None) -> AccountKey:
    """The node's own key. Takes half a second: the keystore is slow on purpose."""
    from tallymesh_ledger import keystore
    from tallymesh_node.wallet import KEYSTORE, PASSWORD

    folder = wallet_folder(home)
    keystore.address_in(folder / KEYSTORE)  # says what is missing before a password is asked for
    drawn = folder / PASSWORD
    if password_file is None and drawn.exists() and keystore.password_from_environment() is None:
        password_file = drawn
    return keystore.unlock(folder / KEYSTORE, asked_password(password_file))


def asked_password(named: Path | None) -> str:
    """Given, or drawn by the node before, or asked for. CallerError `no_password`."""
    from tallymesh_node.wallet import PASSWORD

    given = given_password(named)
    if given is None and (home_folder() / PASSWORD).exists():
        given = given_password(home_folder() / PASSWORD)
    if given is None and sys.stdin.isatty():
        given = str(typer.prompt("Password", hide_input=True))
    if given is None:
        raise CallerError(
            "no_password",
            "The wallet has a password and none was given.",
            remedy="Name its file with --password-file or TALLYMESH_PASSWORD_FILE.",
        )
    return given


def given_password(named: Path | None) -> str | None:
    """From the file that was named, or the environment; None where neither says one."""
    from tallymesh_ledger import keystore

    if named is None:
        return keystore.password_from_environment()
    try:
        lines = paths.expanded(named).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError("no_password", f"The password file {named} cannot be read: {error}.") from None
    if not lines or not lines[0]:
        raise CallerError("no_password", f"The password file {named} is empty.", remedy="Write it on the first line.")
    return lines[0]
