"""Where the owner's node is: `connect`, else the environment, else the config, else one that runs here.

It never falls back to anything else: work that was meant for the network must not silently run on this machine.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from tallymesh import paths
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError

# In the data folder: the node that was started here, and the payer of a local network (`tallymesh up`).
API_FILES: Final = ("api.json", "up/payer/api.json")
REMEDY: Final = (
    "Run 'tallymesh up' (a local network), 'tallymesh node start' (to lend this machine) or 'tallymesh node start "
    "--submit' (for jobs of your own) in another terminal; 'tallymesh run --backend local PROGRAM' needs none of them."
)


class Address(msgspec.Struct, frozen=True):
    """A node's API and the token that it wants. `source` says in a few words where this was found."""

    url: str
    token: str
    source: str = "connect()"

    def __repr__(self) -> str:
        return f"<Address {self.url} from {self.source}>"  # a token in a traceback is a token in a log


class Running(msgspec.Struct, frozen=True):
    """What a node that runs has written into its folder, as `api.json`."""

    url: str
    token: str
    pid: int = 0
    network: str = ""  # the network file that it was started with

    def __repr__(self) -> str:
        return f"<Running {self.url} pid={self.pid}>"


_connected: Address | None = None


def connect(url: str, token: str) -> None:
    """Talk to this node from now on, in this process. CallerError `bad_node` where it is no http URL."""
    global _connected
    _connected = Address(_checked(url, "connect()"), token)


def disconnect() -> None:
    """Forget `connect`."""
    global _connected
    _connected = None


def find(environment: Mapping[str, str] | None = None) -> Address:
    """The node to talk to. CallerError `no_node` with the commands that start one."""
    env = os.environ if environment is None else environment
    return _connected or _from_environment(env) or _from_config() or _running_here() or _no_node()


def _from_environment(env: Mapping[str, str]) -> Address | None:
    url = env.get("TALLYMESH_NODE")
    if not url:
        return None
    url = _checked(url, "TALLYMESH_NODE")
    token = env.get("TALLYMESH_TOKEN") or ""
    if not token and env.get("TALLYMESH_TOKEN_FILE"):
        token = _token_in(Path(env["TALLYMESH_TOKEN_FILE"]))
    if not token:
        here = _running_here()
        token = here.token if here is not None and here.url == url else ""
    if not token:
        raise CallerError(
            "no_token", f"TALLYMESH_NODE says {url}, and no token comes with it.", remedy="Set TALLYMESH_TOKEN too."
        )
    return Address(url, token, "TALLYMESH_NODE")


def _from_config() -> Address | None:
    path = paths.config_file()
    try:
        table: Any = tomllib.loads(path.read_text()).get("client", {})
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        raise CallerError("bad_config", f"{path} cannot be read: {error}") from None
    if not isinstance(table, dict) or not table.get("node"):
        return None
    if not table.get("token_file"):
        raise CallerError("bad_config", f"{path}: [client] names a node and no token_file.")
    token_file = path.parent / paths.expanded(str(table["token_file"]))
    return Address(_checked(str(table["node"]), str(path)), _token_in(token_file), str(path))


def _running_here() -> Address | None:
    for name in API_FILES:
        path = paths.home() / name
        found = running(path)
        if found is not None:
            return Address(_checked(found.url, str(path)), found.token, str(path))
    return None


def running(path: Path) -> Running | None:
    """The node that wrote this `api.json`; None where it has ended."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Running)
    except (OSError, *UNREADABLE):
        return None
    return found if found.pid == 0 or _alive(found.pid) else None


def _alive(pid: int) -> bool:
    """A node that was killed leaves its file behind."""
    if sys.platform == "win32":
        return True  # no node runs there, and os.kill would not ask about a process but interrupt it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # another user's: it is there
    return True


def _token_in(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CallerError("no_token", f"The token file {path} cannot be read: {error}") from None


def _checked(url: str, where: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise CallerError(
            "bad_node", f"{where}: {url!r} is not a URL.", remedy='Write it like "http://127.0.0.1:4080".'
        )
    return url.rstrip("/")


def _no_node() -> NoReturn:
    # Another node may run elsewhere on this machine: who named a folder is told which one was looked into.
    where = f"in {paths.home()}, which TALLYMESH_HOME names" if os.environ.get("TALLYMESH_HOME") else "on this machine"
    raise CallerError("no_node", f"No node runs {where}.", remedy=REMEDY)
