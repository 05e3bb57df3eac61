"""`doctor`: what is wrong with this machine as a node, and what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tallymesh_node.cli.output import Json, say_json

if TYPE_CHECKING:
    from tallymesh_node.doctor import Finding

_WIDTH = 9  # of the longest name
_MARK = {"ok": "ok  ", "fix": "FIX ", "note": "note", "unknown": "?   "}


def doctor(
    home: Annotated[
        Path | None, typer.Option(help="The node's folder; by default TALLYMESH_HOME or the data folder.")
    ] = None,
    network: Annotated[Path | None, typer.Option(help="The network file.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file instead of the usual one.")] = None,
    json_: Json = False,
) -> None:
    """Try everything that a node needs, and name the fix of what does not work.

    Folder, memory, wallet, sandbox, port, network file, chain, clock, gas and stake, and whether others can dial this
    machine; a node that runs is asked what it lacks. Exit code 1 where something is to be mended. Nothing is changed.

    \b
    Examples:
      tallymesh doctor
      tallymesh doctor --network mynet.json
      tallymesh doctor --json
    """
    import trio

    from tallymesh_node.config import load
    from tallymesh_node.doctor import examine

    settings = load({"home": home, "network": network}, file=config)
    if json_:
        found = trio.run(examine, settings)
        say_json(found)
    else:
        found = trio.run(examine, settings, _show)
    if any(finding.state == "fix" for finding in found):
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    print(f"{_MARK[finding.state]}  {finding.name.ljust(_WIDTH)}  {finding.sentence}", flush=True)
    if finding.remedy:
        print(f"      {' ' * _WIDTH}  -> {finding.remedy}", flush=True)
