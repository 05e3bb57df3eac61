"""Commands that the project has a name for and that come later: each says so, and what there is to do until then.

They are not in the list of `tallymesh --help`: whoever knows their names is answered.
"""

from __future__ import annotations

from typing import Any, Final

import typer

from tallymesh.errors import CallerError
from tallymesh_node.cli.output import Json

# Whatever follows is taken: it is the command that does not exist, not its arguments that are wrong.
ANYTHING: Final[dict[str, Any]] = {"allow_extra_args": True, "ignore_unknown_options": True}

_WHAT: Final = {
    "data": ("Sharing data that stays with its holder", "Pass a Dataset of your own to tallymesh.train."),
    "deploy": ("Serving a model on the network", "Run it here: job.result.load() gives the module."),
    "model": ("The registry of models", "'tallymesh result JOB --out model.safetensors' writes a trained model."),
    "invite": ("Inviting others into a group", "Hand on the network file: 'tallymesh network' says where it is."),
    "join": ("Joining a group", "'tallymesh node start --network FILE' joins the network of a network file."),
    "login": ("Choosing a network by name", "Name its network file: --network FILE."),
    "logout": ("Locking the wallet of a running node", "'tallymesh node stop' ends the node, and with it the key."),
}


def _help(name: str) -> str:
    what, remedy = _WHAT[name]
    return f"{what} comes in a later version. {remedy}\n\n\b\nExamples:\n  tallymesh {name}"


COMMANDS: Final = {name: _help(name) for name in _WHAT}


def later(context: typer.Context, json_: Json = False) -> None:
    what, remedy = _WHAT[str(context.info_name)]
    raise CallerError("not_yet", f"{what} comes in a later version.", remedy=remedy)
