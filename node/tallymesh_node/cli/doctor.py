"""`doctor`: what is wrong with this machine as a node, and what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tallymesh_node.cli.output import Json, say_json

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
    found = trio.run(examine, settings)
    if json_:
        say_json(found)
    else:
        width = max(len(finding.name) for finding in found)
        for finding in found:
            print(f"{_MARK[finding.state]}  {finding.name.ljust(width)}  {finding.sentence}")
            if finding.remedy:
                print(f"      {' ' * width}  -> {finding.remedy}")
    if any(finding.state == "fix" for finding in found):
        raise typer.Exit(1)
