"""pip in a process that starts no other: ``python -P -m tallymesh.client.pip_alone download …``.

Wheels are read; what is no wheel has to be built, and building is running it, which pip does in a process of its own
whatever ``--only-binary`` says, where a package names an address of source among its needs (PEP 508, ``name @ URL``).
Here that process is refused, and so is the program that would fetch a repository. This module resolves nothing.
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any, Final

REFUSED: Final = "no process is started to build a package"
# https://docs.python.org/3/library/audit_events.html
_STARTS: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
)
_KEYRING: Final = "keyring"  # the program that pip asks for an index's password, where its owner said so


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook. An OSError, because pip does without `lsb_release` and the like where they cannot be started."""
    if event in _STARTS and not _asks_for_a_password(event, arguments):
        raise PermissionError(REFUSED)


def _asks_for_a_password(event: str, arguments: tuple[Any, ...]) -> bool:
    """No package has a say in what that program is given."""
    if event != "subprocess.Popen" or not isinstance(arguments[1], list | tuple) or not arguments[1]:
        return False
    return os.path.basename(os.fsdecode(arguments[1][0])) == _KEYRING


if __name__ == "__main__":
    sys.addaudithook(refuse)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
