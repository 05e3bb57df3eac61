"""Who may talk to the API: one bearer token in a file of mode 0600, and the `Host` names under which the node is meant.

Loopback is not a border: any web page in the owner's browser can send requests to it. Without the token they get
nothing, and the `Host` check keeps a page that rebinds its own name to 127.0.0.1 from even asking (it would send its
own name). There are no CORS headers on purpose. This module does not know HTTP servers or routes.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tallymesh.client.discover import Running
from tallymesh.errors import LocalError

TOKEN_BYTES = 32  # 256 bits: not to be guessed over any number of requests
TOKEN_FILE = "api.token"  # kept over restarts, so that a Prometheus that scrapes the node can name it
API_FILE = "api.json"  # {url, token, pid, network} of the node that runs now; removed when it ends

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by nobody else at any moment. LocalError `disk`."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        os.replace(draft, path)
    except OSError as error:
        raise LocalError("disk", f"Cannot write {path}: {error.strerror}.") from None


def load_token(home: Path) -> str:
    """The token of the node in `home`, made on first use. A file that others can read is not trusted any more."""
    path = home / TOKEN_FILE
    try:
        token = path.read_text().strip()
        if len(token) >= TOKEN_BYTES and not path.stat().st_mode & 0o077:
            return token
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError("bad_token_file", f"Cannot read {path}: {error}", remedy="Remove it.") from None
    token = secrets.token_urlsafe(TOKEN_BYTES)
    write_private(path, token.encode() + b"\n")
    return token


def _sayable(path: str) -> str:
    """The path; "" where its bytes are no text, which JSON cannot say: such a file has to be named to each command."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return ""
    return path


class Published:
    """`api.json` while the node runs: how programs on this machine find it."""

    def __init__(self, home: Path, url: str, token: str, network: Path | None = None) -> None:
        self._path = home / API_FILE
        named = "" if network is None else _sayable(str(network.absolute()))
        self._body = msgspec.json.encode(Running(url=url, token=token, pid=os.getpid(), network=named))

    def write(self) -> None:
        write_private(self._path, self._body)

    def remove(self) -> None:
        """Unless another node has taken the folder over meanwhile."""
        try:
            if self._path.read_bytes() == self._body:
                self._path.unlink()
        except OSError:
            pass  # gone already, or its folder is: nothing of ours is left behind


class Access:
    """Compares tokens in constant time and `Host` headers with a fixed set."""

    def __init__(self, token: str, hosts: Iterable[str]) -> None:
        self._token = token.encode()
        self._hosts = frozenset(hosts)

    def token_is_right(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode(errors="surrogateescape"), self._token
        )

    def host_is_right(self, host: str) -> bool:
        return host.lower() in self._hosts


def host_names(listen_host: str, port: int, extra: Iterable[str] = ()) -> set[str]:
    """Values of `Host` that mean a server listening there. `extra` names it from outside (a reverse proxy)."""
    names = set(extra)
    bare = listen_host.strip("[]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        names.add(bare)
    else:
        if not address.is_unspecified:
            names.add(f"[{bare}]" if address.version == 6 else bare)
    names.update(_LOOPBACK_NAMES)
    return {f"{name.lower()}{suffix}" for name in names for suffix in (f":{port}", "")}


def local_name(listen_host: str) -> str:
    """How a program on this machine reaches a server that listens there, as it stands in a URL."""
    bare = listen_host.strip("[]")
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return bare
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{bare}]" if address.version == 6 else bare
