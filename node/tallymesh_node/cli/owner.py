"""`node pause|resume|limit`: what the owner allows, said to a node that runs or will run (tallymesh_node/limits)."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh.errors import CallerError
from tallymesh_node.cli.output import Json, facts, say_json

if TYPE_CHECKING:
    from tallymesh_node.limits import Orders, Pause

Home = Annotated[Path | None, typer.Option(help="The node's folder; by default TALLYMESH_HOME or the data folder.")]
# What a zero in the configuration means (tallymesh_node/config.py); of a length of time it is a zero.
_ZERO: Final = {
    "cores": "all there are",
    "memory_mib": "all there is",
    "disk_gib": "half of what is free",
    "bandwidth_mib_s": "no limit",
}
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def pause(
    for_: Annotated[str, typer.Option("--for", help="90min, 2h, 1d; without it until 'node resume'.")] = "",
    now: Annotated[bool, typer.Option("--now", help="Do not wait for the units that run: kill them.")] = False,
    home: Home = None,
    json_: Json = False,
) -> None:
    """Take this machine back: offer nothing, and hand over what runs.

    Within a second the node begins nothing new. Units that run may end (60 seconds, or 'hand_over_s'); then it leaves
    its seats, and others go on with them. Whatever has a receipt is paid. A pause outlives a restart.

    \b
    Examples:
      tallymesh node pause
      tallymesh node pause --for 2h
      tallymesh node pause --now
    """
    from tallymesh_node.limits import Orders, Pause

    until = time.time() + _duration(for_) if for_ else float("inf")
    folder, said = _said(home)
    _save(folder, Orders(pause=Pause(until, at_once=now), changes=said.changes))
    if json_:
        say_json({"paused": True, "until": until if for_ else None, "at_once": now, "node_runs": _runs(folder)})
    else:
        print(f"paused{f' for {for_}' if for_ else ', until: tallymesh node resume'}")
        _say_where(folder)


def resume(home: Home = None, json_: Json = False) -> None:
    """Lend this machine again, after 'node pause'.

    \b
    Examples:
      tallymesh node resume
    """
    from tallymesh_node.limits import Orders

    folder, said = _said(home)
    _save(folder, Orders(changes=said.changes))
    if json_:
        say_json({"paused": False, "node_runs": _runs(folder)})
    else:
        print("lent again" if said.pause is not None else "it was not paused")
        _say_where(folder)


def limit(
    cores: Annotated[int | None, typer.Option(help="Units side by side; 0: all cores.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory for all units together; 0: what there is.")] = None,
    disk_gib: Annotated[int | None, typer.Option(help="Disk for blobs; 0: half of what is free.")] = None,
    bandwidth: Annotated[int | None, typer.Option(help="MiB a second of blobs, each way; 0: no limit.")] = None,
    hours: Annotated[
        list[str] | None, typer.Option(help="When it is lent: 22:00-07:00, 'mon-fri 19:00-23:30'; '' for any time.")
    ] = None,
    only_idle: Annotated[bool | None, typer.Option(help="Lend it only while nobody uses it.")] = None,
    idle_after: Annotated[int | None, typer.Option(help="Seconds without its owner before it is lent.")] = None,
    hand_over: Annotated[int | None, typer.Option(help="Seconds for what runs, when it is taken back.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was said; config.toml holds again.")] = False,
    home: Home = None,
    json_: Json = False,
) -> None:
    """Change what this machine lends, while its node runs. Without an option: show what holds.

    What is said here takes the place of config.toml until '--reset'. Seats that do not fit any more are handed over.

    \b
    Examples:
      tallymesh node limit
      tallymesh node limit --cores 2 --memory-mib 4096
      tallymesh node limit --hours 22:00-07:00 --hours sat,sun
      tallymesh node limit --only-idle
      tallymesh node limit --reset
    """
    from tallymesh_node.config import CHANGEABLE, changed, load
    from tallymesh_node.limits import Orders

    asked: dict[str, Any] = {
        "cores": cores,
        "memory_mib": memory_mib,
        "disk_gib": disk_gib,
        "bandwidth_mib_s": bandwidth,
        "hours": None if hours is None else tuple(text for text in hours if text),
        "only_idle": only_idle,
        "idle_after_s": idle_after,
        "hand_over_s": hand_over,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    folder, said = _said(home)
    changes = {**({} if reset else said.changes), **given}
    settings = changed(load({"home": folder}), changes)
    if given or reset:
        _save(folder, Orders(pause=said.pause, changes=changes))
    shown = {name: getattr(settings, name) for name in CHANGEABLE}
    pause = said.pause if said.pause is not None and said.pause.until > time.time() else None
    if json_:
        say_json({"limits": shown, "changed": sorted(changes), "paused": pause is not None, "node_runs": _runs(folder)})
        return
    rows = [(name, _shown(name, value) + (" (changed)" if name in changes else "")) for name, value in shown.items()]
    facts([("paused", _until(pause) if pause is not None else ""), *rows])
    if given or reset:
        _say_where(folder)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "; ".join(value) or "any time"
    return str(value) if value else _ZERO.get(name, "0")


def _until(pause: Pause) -> str:
    if pause.until == float("inf"):
        return "until: tallymesh node resume"
    return time.strftime("until %Y-%m-%d %H:%M:%S", time.localtime(pause.until))


def _runs(folder: Path) -> bool:
    from tallymesh_node.store.lock import holder

    return holder(folder) is not None


def _say_where(folder: Path) -> None:
    """Who meant another folder than the node's would believe that its machine is its own again."""
    if not _runs(folder):
        print(f"no node runs in {folder} now: it holds from the next start on", file=sys.stderr)


def _said(home: Path | None) -> tuple[Path, Orders]:
    from tallymesh import paths
    from tallymesh_node.limits import orders

    folder = paths.expanded(home or paths.home()).absolute()
    return folder, orders.load(folder)


def _save(folder: Path, said: Orders) -> None:
    from tallymesh_node.limits import orders

    orders.save(folder, said)


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d)", text.strip())
    if found is None or not int(found[1]):
        raise CallerError("bad_duration", f"{text!r} is no length of time.", remedy="Write 90min, 2h or 1d.")
    return float(int(found[1]) * _SECONDS[found[2]])
