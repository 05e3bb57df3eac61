"""Wallet files: keystores in the format of geth and eth-account (`sealing`), mode 0600, whole or not at all.

A password that was drawn (`drawn=True`) needs no costly derivation: nobody guesses 192 random bits, however fast a
guess is. This module asks nobody for a password; its callers do (`password_from_environment`, or a prompt). Its
functions block, half a second where a password was chosen: call them from a thread.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from tallymesh.errors import CallerError, LocalError
from tallymesh_ledger import sealing
from tallymesh_ledger.keys import AccountKey

PASSWORD_FILE = "TALLYMESH_PASSWORD_FILE"
MAX_KEYSTORE_BYTES = 64 * 1024  # they have about 500
LIGHT_N = 4096  # scrypt's cost for a drawn password, 10 ms: what geth calls light


def password_from_environment() -> str | None:
    """The password of a headless wallet: the first line of the file that ``TALLYMESH_PASSWORD_FILE`` names."""
    name = os.environ.get(PASSWORD_FILE)
    if not name:
        return None
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError("no_password", f"The password file {name} cannot be read: {error}.") from None
    if not lines or not lines[0]:
        raise CallerError("no_password", f"The password file {name} is empty.", remedy="Write it on the first line.")
    return lines[0]


def create(path: Path, password: str, *, drawn: bool = False) -> AccountKey:
    """A new key in a new file. CallerError `wallet_exists` where there is one: a key is never overwritten. `drawn` says
    that the password is a long random one, which no person chose."""
    return import_secret(path, AccountKey.generate().secret, password, drawn=drawn)


def import_secret(path: Path, secret: bytes, password: str, *, drawn: bool = False) -> AccountKey:
    """Keep `secret` (32 bytes) in a new file."""
    _check_password(password)
    try:
        key = AccountKey(secret)
    except (ValueError, TypeError):
        raise CallerError("bad_secret", "This is not a secp256k1 key: it has 32 bytes and is not zero.") from None
    if path.exists():
        raise _exists(path)
    _write(path, sealing.sealed(key, _bytes_of(password), LIGHT_N if drawn else sealing.N))
    return key


def import_keystore(path: Path, source: Path, password: str) -> AccountKey:
    """Take over another program's keystore (geth's, for one): opened to see that the password fits, copied."""
    key = unlock(source, password)
    if path.exists():
        raise _exists(path)
    _write(path, {**_read(source), "address": key.address.hex()})  # some programs leave it out; ours ask it of the file
    return key


def unlock(path: Path, password: str) -> AccountKey:
    """The key in the file. CallerError: `no_wallet`, `bad_keystore`, `wrong_password`."""
    document = _read(path)
    try:
        key = AccountKey(sealing.opened(document["crypto"], _bytes_of(password)))
    except sealing.WrongPassword:
        raise CallerError(
            "wrong_password",
            f"The password does not open the wallet {path}.",
            remedy="Name the file of the right one with --password-file; or put the wallet back from a backup: "
            "tallymesh wallet import.",
        ) from None
    except sealing.Unreadable as error:
        raise _damaged(path, str(error)) from None
    except ValueError:
        raise _damaged(path, "what it holds is no key") from None
    stated = document.get("address")
    if stated is not None and str(stated).removeprefix("0x").lower() != key.address.hex():
        raise CallerError("bad_keystore", f"{path} holds another key than the address it states.")
    return key


def export_secret(path: Path, password: str) -> bytes:
    """The bare key (32 bytes), for a backup on paper."""
    return unlock(path, password).secret


def address_in(path: Path) -> bytes:
    """Whose key the file holds, without opening it."""
    try:
        address = bytes.fromhex(str(_read(path)["address"]).removeprefix("0x"))
    except (KeyError, ValueError):
        address = b""
    if len(address) != 20:
        raise _damaged(path, "it states no address")
    return address


# ---- files


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEYSTORE_BYTES + 1)
    except FileNotFoundError:
        raise CallerError(
            "no_wallet",
            f"There is no wallet at {path}.",
            remedy="Run 'tallymesh wallet create' or 'tallymesh wallet import'.",
        ) from None
    except OSError as error:
        raise LocalError("no_wallet", f"The wallet {path} cannot be read: {error}.") from None
    if len(data) > MAX_KEYSTORE_BYTES:
        raise _damaged(path, "it is too large")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(document, dict) or document.get("version") != 3 or not isinstance(document.get("crypto"), dict):
        raise _damaged(path, "it is not a version 3 keystore")
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    """Whole or not at all, on disk when it returns, and never over another wallet."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")  # in containers ids of processes come again
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise LocalError("disk", f"The folder {path.parent} cannot be made: {error}.") from None
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(document).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # unlike rename, fails where the name is taken
        finally:
            draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise LocalError("disk", f"The wallet {path} cannot be written: {error}.") from None


def _check_password(password: str) -> None:
    if not password:
        raise CallerError("no_password", "A wallet needs a password that is not empty.")


def _bytes_of(password: str) -> bytes:
    try:
        return password.encode()
    except UnicodeEncodeError:
        raise CallerError("no_password", "The password is no text: it cannot be written in UTF-8.") from None


def _exists(path: Path) -> CallerError:
    return CallerError(
        "wallet_exists", f"There is a wallet at {path} already.", remedy="Move it away first; it may hold money."
    )


def _damaged(path: Path, why: str) -> CallerError:
    return CallerError("bad_keystore", f"{path} is not a keystore: {why}.", remedy="Restore it from your backup.")
