"""The node's wallet: unlocked or made at start-up, without a question.

The password comes from the file that the owner names; where none is named, one is drawn and kept beside the keystore
(mode 0600), so that a headless node starts by itself. Whoever can read the node's folder can then use the wallet, as
with any key that a daemon must use unattended; `--password-file` puts the password elsewhere.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from tallymesh.errors import CallerError
from tallymesh_ledger import keystore
from tallymesh_ledger.keys import AccountKey

KEYSTORE = "wallet.json"
PASSWORD = "wallet.password"


def open_wallet(home: Path, password_file: Path | None) -> tuple[AccountKey, bool]:
    """(key, whether it was made just now). Blocks for a second: call it in a thread. CallerError, LocalError."""
    path = home / KEYSTORE
    password = _password(home, password_file, may_draw=not path.exists())
    if path.exists():
        return keystore.unlock(path, password), False
    return keystore.create(path, password), True


def _password(home: Path, named: Path | None, *, may_draw: bool) -> str:
    given = _first_line(named) if named else keystore.password_from_environment()
    if given is not None:
        return given
    own = home / PASSWORD
    if own.exists():
        return _first_line(own)
    if not may_draw:
        raise CallerError(
            "locked_wallet",
            f"The wallet in {home} has a password and none was given.",
            remedy="Name its file with --password-file or TALLYMESH_PASSWORD_FILE.",
        )
    drawn = secrets.token_urlsafe(24)
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(drawn + "\n")
        file.flush()
        os.fsync(file.fileno())
    return drawn


def _first_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError("no_password", f"The password file {path} cannot be read: {error}.") from None
    if not lines or not lines[0]:
        raise CallerError("no_password", f"The password file {path} is empty.", remedy="Write it on the first line.")
    return lines[0]
