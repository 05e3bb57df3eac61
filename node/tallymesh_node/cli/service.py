"""`node install`: the node as a service of its user, by systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

import typer

from tallymesh.errors import CallerError, LocalError
from tallymesh_node.cli.output import Json, facts, say_json

SYSTEMD_S = 60.0  # for one answer of systemd; it takes milliseconds


def install(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="For 'node start', after '--': -- --stake 1 --cores 2", show_default=False),
    ] = None,
    print_: Annotated[bool, typer.Option("--print", help="Only show the service's file.")] = False,
    start: Annotated[bool, typer.Option(help="Start it now and at each login.")] = True,
    remove: Annotated[bool, typer.Option("--remove", help="Stop the service and remove its file.")] = False,
    json_: Json = False,
) -> None:
    """Make this machine's node a service of yours: it starts by itself and comes back when it dies.

    Nothing of it needs root. A service of a user ends at logout unless you say 'loginctl enable-linger' once. Settings
    stay in config.toml; TALLYMESH_HOME and the other paths of this shell are written into the service. What such a node
    could not start with is refused: words that 'node start' does not have, no network file. Exit code 1 where it could
    not be started: the file is there then, and the next step is named.

    \b
    Examples:
      tallymesh node install -- --stake 1
      tallymesh node install --print
      tallymesh node install --remove
    """
    from tallymesh_node.installing import rooted, unit_file, unit_path

    path = unit_path(os.environ)
    if remove:
        _remove(path, json_)
        return
    words = rooted(arguments or [], Path.cwd())
    text = unit_file(words, os.environ)
    if print_:
        if json_:
            say_json({"path": str(path), "text": text})
        else:
            print(text, end="")
        return
    _check(context.find_root().command, words)
    _write(path, text)
    said = _systemctl("daemon-reload")
    if start and not said:
        said = _systemctl("enable", "--now", path.name)
    if json_:
        say_json({"path": str(path), "started": start and not said, "problem": said})
    else:
        facts(
            [
                ("service", str(path)),
                ("started", "" if said or not start else "yes, and at each login"),
                ("problem", said),
                ("next", "systemctl --user enable --now tallymesh" if said or not start else "tallymesh node status"),
                ("logout", "to keep it running then: loginctl enable-linger"),
            ]
        )
    if said and start:
        raise typer.Exit(1)  # a script that goes on would believe that a node runs


def _check(commands: Any, words: list[str]) -> None:
    """What would end the node at each start, where that can be seen now. `commands` are the program's."""
    from tallymesh import network
    from tallymesh_node.config import load
    from tallymesh_node.running import network_of

    said = commands.commands["node"].commands["start"].make_context("tallymesh node start", list(words)).params
    settings = load({"network": said["network"], "home": said["home"]}, file=said["config"])
    try:
        network.load(settings.network)
    except CallerError as error:
        running = network_of(settings.home)
        raise CallerError(
            error.code,
            f"The service's node could not start. {error.sentence}",
            remedy="Copy the network's file to that place, or name it: tallymesh node install -- --network "
            f"{running or 'FILE'}",
        ) from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as error:
        raise LocalError("disk", f"{path} cannot be written: {error.strerror}.") from None


def _remove(path: Path, as_json: bool) -> None:
    if not path.exists():
        raise CallerError("no_service", f"There is no service at {path}.")
    said = _systemctl("disable", "--now", path.name)
    try:
        path.unlink()
    except OSError as error:
        raise LocalError("disk", f"{path} cannot be removed: {error.strerror}.") from None
    said = said or _systemctl("daemon-reload")
    if as_json:
        say_json({"removed": str(path), "problem": said})
    else:
        facts([("removed", str(path)), ("problem", said)])


def _systemctl(*words: str) -> str:
    """What went wrong, or ""."""
    program = shutil.which("systemctl")
    if program is None:
        return "There is no systemd here."
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command line
            [program, "--user", *words],
            capture_output=True,
            text=True,
            timeout=SYSTEMD_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"systemctl --user {words[0]}: {error}"
    if not done.returncode:
        return ""
    lines = done.stderr.strip().splitlines()
    return f"systemctl --user {words[0]}: {lines[0] if lines else f'exit status {done.returncode}'}"
