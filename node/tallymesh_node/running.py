"""What the node that runs in a folder has said of itself there, for commands that are typed without the flags that it
was started with. This module opens no file but that one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tallymesh.client.discover import API_FILES, running

if TYPE_CHECKING:
    from tallymesh_node.config import Config


def network_of(home: Path) -> Path | None:
    """The network file of the node that runs in this folder; None where none runs, or none says so."""
    found = running(home / API_FILES[0])
    return Path(found.network) if found is not None and found.network else None


def network_in_use(config: Config) -> Path:
    """The network file that a command is about: the one that is named (flag, variable, config), else that of the node
    which runs here, else the usual place."""
    return config.network if config.names_network else network_of(config.home) or config.network
