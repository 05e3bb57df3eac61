"""`env` and `version`."""

from __future__ import annotations

import shlex

from tallymesh_node.cli.output import Json, facts, say_json


def env(json_: Json = False) -> None:
    """Shell variables for programs that talk to this node.

    \b
    Examples:
      eval "$(tallymesh env)"
      curl -H "Authorization: Bearer $TALLYMESH_TOKEN" "$TALLYMESH_NODE/v1/node"
    """
    from tallymesh.client.discover import find

    address = find()
    variables = {"TALLYMESH_NODE": address.url, "TALLYMESH_TOKEN": address.token}
    if json_:
        say_json(variables)
        return
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def version(json_: Json = False) -> None:
    """Versions of Tallymesh, Python and what computes.

    \b
    Examples:
      tallymesh version
      tallymesh version --json
    """
    import platform
    from importlib import metadata

    import tallymesh

    found = {"tallymesh": tallymesh.__version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "libp2p"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    if json_:
        say_json(found)
    else:
        facts(list(found.items()))
