"""The command line. Every command loads what it needs when it runs, so that `tallymesh version` answers at once."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `tallymesh` program."""
    from tallymesh_node.cli.app import app

    app()
