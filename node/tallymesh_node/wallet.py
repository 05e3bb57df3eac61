"""The node's wallet: unlocked or made at start-up, without a question, while the rest of the node is being imported.

The password comes from the file that the owner names; where none is named, one is drawn and kept beside the keystore
(mode 0600), so that a headless node starts by itself. Whoever can read the node's folder can then use the wallet, as
with any key that a daemon must use unattended; `--password-file` puts the password elsewhere.
"""

from __future__ import annotations

import os
import secrets
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from tallymesh.errors import CallerError
from tallymesh_ledger import keystore
from tallymesh_ledger.keys import AccountKey

KEYSTORE = "wallet.json"
PASSWORD = "wallet.password"
OUTBOX = "transactions.sqlite"  # what the account signed and is not final yet


class Opening:
    """A wallet that is being unlocked in the background: the key derivation takes half a second outside of Python's
    lock, and importing the daemon takes longer. One that is missing is made only by `result`, for which the folder
    must be locked."""

    def __init__(self, home: Path, password_file: Path | None) -> None:
        self._home = home
        self._password_file = password_file
        self._found: Future[tuple[AccountKey, bool]] | None = None
        if (home / KEYSTORE).exists():
            self._found = Future()
            Thread(target=self._open, args=(self._found,), name="tallymesh-wallet", daemon=True).start()

    def _open(self, found: Future[tuple[AccountKey, bool]]) -> None:
        try:
            found.set_result(open_wallet(self._home, self._password_file))
        except BaseException as error:
            found.set_exception(error)

    def result(self) -> tuple[AccountKey, bool]:
        """As `open_wallet`: blocks, and raises what it raises."""
        return self._found.result() if self._found else open_wallet(self._home, self._password_file)


def open_wallet(home: Path, password_file: Path | None) -> tuple[AccountKey, bool]:
    """(key, whether it was made just now). Blocks for a second: call it in a thread. CallerError, LocalError."""
    path = home / KEYSTORE
    exists = path.exists()
    password, drawn = _password(home, password_file, may_draw=not exists)
    if exists:
        return keystore.unlock(path, password), False
    return keystore.create(path, password, drawn=drawn), True


def _password(home: Path, named: Path | None, *, may_draw: bool) -> tuple[str, bool]:
    """The password, and whether it is one that was drawn just now."""
    given = _first_line(named) if named else keystore.password_from_environment()
    if given is not None:
        return given, False
    own = home / PASSWORD
    if own.exists() and not (may_draw and own.stat().st_size == 0):
        return _first_line(own), False
    if not may_draw:
        raise CallerError(
            "locked_wallet",
            f"The wallet in {home} has a password and none was given.",
            remedy="Name its file with --password-file or TALLYMESH_PASSWORD_FILE.",
        )
    own.unlink(missing_ok=True)  # empty and without a wallet: a start that ended while it wrote it
    drawn = secrets.token_urlsafe(24)
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(drawn + "\n")
        file.flush()
        os.fsync(file.fileno())
    return drawn, True


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError("no_password", f"The password file {path} cannot be read: {error}.") from None
    if not lines or not lines[0]:
        raise CallerError("no_password", f"The password file {path} is empty.", remedy="Write it on the first line.")
    return lines[0]
