"""Encrypted keystores in eth-account's format (Web3 Secret Storage, version 3), mode 0600.

The key derivation takes 0.55 s and 298 MB, and eth-keyfile, which eth-account does this with, 0.4 s to load: both in a
child process, so that the daemon never holds that memory. A password that was drawn (`drawn=True`) needs no costly
derivation: nobody guesses 192 random bits, however fast a guess is. Passwords and secrets travel to the child through a
pipe, never as arguments. This module asks nobody for a password; its callers do (`password_from_environment`, or a
prompt). Its functions block: call them from a thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tallymesh import starting
from tallymesh.errors import CallerError, LocalError
from tallymesh_ledger.keys import AccountKey

PASSWORD_FILE = "TALLYMESH_PASSWORD_FILE"
MAX_KEYSTORE_BYTES = 64 * 1024  # they have about 500
CHILD_S = 120.0  # scrypt on a machine that is busy and slow
LIGHT_N = 4096  # scrypt's cost for a drawn password: what geth calls light
DERIVED_BYTES = 32  # what every wallet derives: half encrypts, half proves the password
DERIVATION_BYTES_MAX = 1 << 30  # wallets take a quarter of it, and a file must not use up the machine


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
    request = {"do": "encrypt", "secret": secret.hex(), "password": password, "n": LIGHT_N if drawn else None}
    _write(path, _answer(_child(request), path))
    return key


def import_keystore(path: Path, source: Path, password: str) -> AccountKey:
    """Take over another program's keystore (geth's, for one): opened to see that the password fits, copied."""
    key = unlock(source, password)
    if path.exists():
        raise _exists(path)
    _write(path, _read(source))
    return key


def unlock(path: Path, password: str) -> AccountKey:
    """The key in the file. CallerError: `no_wallet`, `bad_keystore`, `wrong_password`."""
    document = _read(path)
    _check_cost(path, document)
    answer = _answer(_child({"do": "decrypt", "document": document, "password": password}), path)
    try:
        key = AccountKey(bytes.fromhex(answer["secret"]))
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
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
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


def _exists(path: Path) -> CallerError:
    return CallerError(
        "wallet_exists", f"There is a wallet at {path} already.", remedy="Move it away first; it may hold money."
    )


def _check_cost(path: Path, document: dict[str, Any]) -> None:
    """scrypt takes 128 bytes times n, r and p: a file may state any."""
    work = document["crypto"].get("kdfparams")
    n, r, p = (work.get(name, 1) for name in "nrp") if isinstance(work, dict) else (0, 0, 0)
    size = work.get("dklen", DERIVED_BYTES) if isinstance(work, dict) else 0
    if not all(type(number) is int and number > 0 for number in (n, r, p)) or size != DERIVED_BYTES:
        raise _damaged(path, "its key derivation is not described")
    if 128 * n * r * p > DERIVATION_BYTES_MAX:
        raise _damaged(path, f"its key derivation asks for too much (n {n}, r {r}, p {p})")


def _damaged(path: Path, why: str) -> CallerError:
    return CallerError("bad_keystore", f"{path} is not a keystore: {why}.", remedy="Restore it from your backup.")


# ---- the child


def _child(request: dict[str, Any]) -> dict[str, Any]:
    environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "tallymesh_ledger.keystore"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=CHILD_S,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalError("keystore", f"The process that opens keystores failed: {error}.") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise LocalError("keystore", f"The process that opens keystores failed: {last[0]}.") from None
    return answer


def _answer(answer: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was asked for, or the problem as an error about the file."""
    problem = answer.get("problem")
    if problem == "password":
        raise CallerError(
            "wrong_password",
            f"The password does not open the wallet {path}.",
            remedy="Name the file of the right one with --password-file; or put the wallet back from a backup: "
            "tallymesh wallet import.",
        )
    if problem == "memory":
        raise LocalError("keystore", f"This machine has too little free memory to open {path}: a quarter of a GiB.")
    if problem is not None:
        raise _damaged(path, problem)
    return answer


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    """In the child: the only place that loads eth-keyfile and runs the key derivation."""
    with starting.uncollected():
        from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

    password = request["password"].encode()
    if request["do"] == "encrypt":
        secret = bytes.fromhex(request["secret"])
        document: dict[str, Any] = create_keyfile_json(secret, password, kdf="scrypt", iterations=request["n"])
        return document
    try:
        found = decode_keyfile_json(request["document"], password)
    except MemoryError:
        return {"problem": "memory"}
    except ValueError as error:  # "MAC mismatch" is how a wrong password shows
        return {"problem": "password" if "MAC" in str(error) else f"it is damaged ({error})"}
    except (KeyError, TypeError, AttributeError, NotImplementedError) as error:
        return {"problem": f"it is damaged ({type(error).__name__}: {error})"}
    return {"secret": bytes(found).hex()}


if __name__ == "__main__":
    print(json.dumps(_serve(json.load(sys.stdin))))
