"""Where files live: the XDG folders, or one folder that `TALLYMESH_HOME` names (a local network: one a node)."""

from __future__ import annotations

import os
from pathlib import Path

from tallymesh.errors import CallerError


def home() -> Path:
    """Data folder of the node on this machine; not created here."""
    explicit = os.environ.get("TALLYMESH_HOME")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "tallymesh"


def config_file() -> Path:
    explicit = os.environ.get("TALLYMESH_HOME")
    if explicit:
        return Path(explicit) / "config.toml"
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "tallymesh" / "config.toml"


def expanded(path: str | Path) -> Path:
    """What a person wrote, with a home in the place of its ``~``. CallerError `bad_path` where nobody has that name."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise CallerError(
            "bad_path", f"{path} is in the home of nobody on this machine.", remedy="Write the whole path."
        ) from None
