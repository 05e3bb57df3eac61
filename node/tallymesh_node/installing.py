"""The node as a systemd service of its user: the unit file, and nothing that needs root.

It starts the same command as the owner would, again where the node died, and no more where it dies each time: a node
that cannot start as it is set up says so in the journal five times and rests. This module runs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tallymesh.errors import CallerError

NAME = "tallymesh.service"
STOP_S = 90  # a node settles what it holds before it ends
KEPT = (
    "TALLYMESH_HOME",
    "TALLYMESH_CONFIG",
    "TALLYMESH_NETWORK",
    "TALLYMESH_PASSWORD_FILE",
)  # paths: they are looked up
PATHS = ("--network", "--home", "--config", "--password-file")  # options of `tallymesh node start`


def rooted(arguments: Sequence[str], base: Path) -> list[str]:
    """Of `tallymesh node start`, with the paths among them absolute: a service begins in another folder than whoever
    installs it."""
    found: list[str] = []
    for word in arguments:
        name, sign, value = word.partition("=")
        if found and found[-1] in PATHS:
            word = str(base / Path(word).expanduser())
        elif name in PATHS and sign:
            word = f"{name}={base / Path(value).expanduser()}"
        found.append(word)
    return found


def unit_file(arguments: Sequence[str], environment: Mapping[str, str], *, python: str = sys.executable) -> str:
    """The text of the unit. `arguments` follow `tallymesh node start`; of `environment` the folders and files are kept
    that say which node it is. CallerError `bad_argument` where something cannot stand in a unit file."""
    kept = {name: os.path.abspath(os.path.expanduser(environment[name])) for name in KEPT if environment.get(name)}
    command = [python, "-m", "tallymesh_node.cli", "node", "start", *arguments]
    lines = [
        "[Unit]",
        "Description=Tallymesh node",
        "Documentation=man:systemd.service(5)",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=exec",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in kept.items()),
        f"ExecStart={' '.join(_quoted(word, command=True) for word in command)}",
        "KillSignal=SIGTERM",
        # The node ends its sandboxes itself; systemd kills what is left, and only then.
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_S}",
        "Restart=on-failure",
        "RestartSec=10",
        # What its owner does goes first; units are bounded by the node itself.
        "Nice=10",
        "IOSchedulingClass=idle",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def unit_path(environment: Mapping[str, str]) -> Path:
    """Where systemd looks for a user's own units."""
    base = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME") or Path.home()) / ".config")
    return Path(base) / "systemd" / "user" / NAME


def _quoted(word: str, *, command: bool = False) -> str:
    """As systemd.syntax(7) has it: `%` is doubled everywhere, `$` in commands, and the rest is quoted like in C."""
    if any(ord(character) < 32 or ord(character) == 127 for character in word):
        raise CallerError("bad_argument", f"{word!r} has a control character, which a service's file cannot hold.")
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    if command:
        text = text.replace("$", "$$")
    plain = text and all(character.isalnum() or character in "-_./=:,@+" for character in text)
    return text if plain else f'"{text}"'
