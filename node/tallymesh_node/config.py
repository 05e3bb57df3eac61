"""What a node is told by its owner: one frozen record out of defaults, a TOML file, the environment and flags, the
later ones winning. A key that nobody knows is refused with its line, so that a typing error never goes unnoticed.

This module reads files and variables, and knows nothing of what the values are used for.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tallymesh import amounts, paths
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError

if TYPE_CHECKING:
    from tallymesh_ledger.chain.fees import GasPolicy
    from tallymesh_node.limits import Limits

ROLES: Final = ("worker", "audit", "submit")
SANDBOXES: Final = ("warm", "strict")
NEARBY: Final = ("auto", "yes", "no")
PACKAGES: Final = ("any", "base")
SELLS: Final = ("cpu", "gpu")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
PREFIX: Final = "TALLYMESH_"
NETWORK_FILE: Final = "network.json"  # in the node's folder, where nobody names another
MAX_FILE_BYTES: Final = 256 * 1024  # a config has a few lines; anything bigger is another file
SAID_MAX: Final = 300  # characters of what is wrong with it: a message repeats no key or value of a whole file
# Variables of the client and of the machinery around the node, which share the prefix.
OTHER_VARIABLES: Final = frozenset({"NODE", "TOKEN", "TOKEN_FILE", "BUDGET", "BACKEND", "NEWCOMERS", "CONFIG", "INDEX"})

SECONDS_PER_HOUR: Final = 3600
# What an owner may change while the node runs (`tallymesh node limit`).
CHANGEABLE: Final = (
    "cores", "memory_mib", "disk_gib", "bandwidth_mib_s", "hours", "only_idle", "idle_after_s", "hand_over_s",
)  # fmt: skip


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``[client]``: which node the owner's programs talk to when the environment does not say."""

    node: str = ""
    token_file: Path | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """0 and "" mean: let the node decide by what it measures."""

    home: Path  # keys, journal, blobs; one node a folder
    network: Path  # the network file
    names_network: bool = False  # a flag, a variable or the file says which; else it is where it would be looked for
    listen_host: str = "0.0.0.0"  # noqa: S104 - libp2p: peers are other machines
    listen_port: int = 4001  # 0: any free one
    announce: tuple[str, ...] = ()  # multiaddrs under which others reach us, where we cannot see them ourselves
    # Look for peers on the local network, and be found there. auto: where the network file names no peer to begin with;
    # elsewhere it would tell every café that this machine is here, and find nobody whom gossip does not find.
    nearby: str = "auto"
    api_host: str = "127.0.0.1"
    api_port: int = 0  # any free one: `api.json` says which
    api_names: tuple[str, ...] = ()  # further values of `Host` that mean this node (a reverse proxy's name)
    roles: tuple[str, ...] = ("worker", "audit")
    cores: int = 0  # units side by side
    memory_mib: int = 0
    disk_gib: int = 0
    bandwidth_mib_s: int = 0  # of blobs, each way; a slower transfer than the least of 1 would be given up by peers
    hours: tuple[str, ...] = ()  # in which the machine is lent, by the owner's clock; none: at any time
    only_idle: bool = False  # lent only while nobody uses it
    idle_after_s: int = 300  # so long without its owner
    hand_over_s: int = 60  # what runs may end within this, when the owner takes the machine back
    ask_price: str = "0.02"  # MESH per core-hour of the reference core
    gas_price_max: str = ""  # gwei of the native coin per gas: dearer transactions wait
    coin_price: str = ""  # MESH that one native coin is worth: pay is not redeemed where its gas is worth more
    carry_fee: str = "0.01"  # MESH at least for carrying what an account without gas has signed; 0: none is carried
    claim_patience_s: int = 600  # a payer is silent so much longer than it may be before its unpaid work is claimed
    stake_slots: int = 0  # slots to hold; fewer are bought up to this, more are left alone
    password_file: Path | None = None
    sandbox: str = "warm"  # jobs are forks of one warm template; strict: each has one of its own, 210 MB
    packages: str = "any"  # wheels that travel with a job run in its sandbox; base: no unit that brings some is taken
    sell: str = "cpu"  # what units compute on; gpu: those of jobs that ask for one, each on a card of its own
    log_level: str = "info"
    client: ClientConfig = ClientConfig()

    @property
    def ask_price_wei_per_second(self) -> int:
        """Rounded up: the owner never sells below what was asked."""
        return -(-amounts.parse(self.ask_price) // SECONDS_PER_HOUR)

    @property
    def limits(self) -> Limits:
        from tallymesh_node.limits import Hours, Limits

        return Limits(
            cores=self.cores,
            memory_mib=self.memory_mib,
            disk_gib=self.disk_gib,
            bandwidth_mib_s=self.bandwidth_mib_s,
            hours=Hours.parse(self.hours),
            only_idle=self.only_idle,
            idle_after_s=self.idle_after_s,
            hand_over_s=self.hand_over_s,
        )

    @property
    def carry_fee_wei(self) -> int:
        return amounts.parse(self.carry_fee)

    @property
    def gas_policy(self) -> GasPolicy:
        from tallymesh_ledger.chain.fees import GasPolicy  # the chain client: most commands need none of it

        return GasPolicy(
            price_max_wei=amounts.parse(self.gas_price_max) // 10**9 if self.gas_price_max else 0,
            coin_price_wei=amounts.parse(self.coin_price) if self.coin_price else 0,
        )

    def looks_nearby(self, bootstrap: Sequence[str]) -> bool:
        """Whether peers of the local network are looked for, on a network whose file names these to begin with."""
        return self.nearby == "yes" or (self.nearby == "auto" and not bootstrap)

    @property
    def works(self) -> bool:
        return "worker" in self.roles

    @property
    def audits(self) -> bool:
        return "audit" in self.roles

    @property
    def submits(self) -> bool:
        return "submit" in self.roles


def _path(value: Any, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("a path is text without zeros")
    return (base / paths.expanded(value)).absolute()


def _text(value: Any, base: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _words(value: Any, base: Path) -> tuple[str, ...]:
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("expected a list of texts")
    return tuple(part for part in parts if part)


def _roles(value: Any, base: Path) -> tuple[str, ...]:
    chosen = set(_words(value, base))
    if not chosen or not chosen <= set(ROLES):
        raise ValueError(f"roles are some of {', '.join(ROLES)}")
    return tuple(role for role in ROLES if role in chosen)


def _level(value: Any, base: Path) -> str:
    if value not in LOG_LEVELS:
        raise ValueError(f"a log level is one of {', '.join(LOG_LEVELS)}")
    return str(value)


def _amount(value: Any, base: Path) -> str:
    amounts.parse(value)
    return str(value)


def _hours(value: Any, base: Path) -> tuple[str, ...]:
    # Days of one span are apart by commas, too: in a variable or a flag, spans are apart by semicolons.
    given = tuple(part.strip() for part in value.split(";")) if isinstance(value, str) else value
    texts = tuple(text for text in given if text) if isinstance(given, list | tuple) else None
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected spans as texts")
    from tallymesh_node.limits.hours import Hours

    Hours.parse(texts)
    return texts


def _flag(value: Any, base: Path) -> bool:
    found = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(str(value).lower())
    if found is None or isinstance(value, float):
        raise ValueError("expected true or false")
    return found


def _number(low: int, high: int) -> Callable[[Any, Path], int]:
    def parse(value: Any, base: Path) -> int:
        number = int(value) if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value) else value
        if type(number) is not int or not low <= number <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return number

    return parse


def _sandbox(value: Any, base: Path) -> str:
    if value not in SANDBOXES:
        raise ValueError(f"a sandbox is one of {', '.join(SANDBOXES)}")
    return str(value)


def _nearby(value: Any, base: Path) -> str:
    if value not in NEARBY:
        raise ValueError(f"expected one of {', '.join(NEARBY)}")
    return str(value)


def _packages(value: Any, base: Path) -> str:
    if value not in PACKAGES:
        raise ValueError(f"packages are one of {', '.join(PACKAGES)}")
    return str(value)


def _sell(value: Any, base: Path) -> str:
    if value not in SELLS:
        raise ValueError(f"what is sold is one of {', '.join(SELLS)}")
    return str(value)


_PARSERS: Final[dict[str, Callable[[Any, Path], Any]]] = {
    "home": _path,
    "network": _path,
    "listen_host": _text,
    "listen_port": _number(0, 65535),
    "announce": _words,
    "nearby": _nearby,
    "api_host": _text,
    "api_port": _number(0, 65535),
    "api_names": _words,
    "roles": _roles,
    "cores": _number(0, 4096),
    "memory_mib": _number(0, 1 << 30),
    "disk_gib": _number(0, 1 << 20),
    "bandwidth_mib_s": _number(0, 1 << 20),
    "hours": _hours,
    "only_idle": _flag,
    "idle_after_s": _number(1, 24 * 3600),
    "hand_over_s": _number(0, 24 * 3600),
    "ask_price": _amount,
    "gas_price_max": _amount,
    "coin_price": _amount,
    "carry_fee": _amount,
    "claim_patience_s": _number(1, 7 * 24 * 3600),
    "stake_slots": _number(0, 100_000),
    "password_file": _path,
    "sandbox": _sandbox,
    "packages": _packages,
    "sell": _sell,
    "log_level": _level,
}
_CLIENT_PARSERS: Final[dict[str, Callable[[Any, Path], Any]]] = {"node": _text, "token_file": _path}


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Config:
    """The record, or CallerError `bad_config` that names the line, the variable or the flag. A flag of None was not
    given. `file` must exist when it is named; the usual place may be empty."""
    env = os.environ if environment is None else environment
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    named = file or (Path(env["TALLYMESH_CONFIG"]) if env.get("TALLYMESH_CONFIG") else None)
    usual = Path(given["home"]) / "config.toml" if "home" in given else paths.config_file()
    values: dict[str, Any] = {}
    if named is not None or usual.exists():
        values.update(_from_file(named or usual))
    for name in _PARSERS:
        text = env.get(PREFIX + name.upper())
        if text:
            values[name] = _parse(name, text, Path.cwd(), f"{PREFIX}{name.upper()}")
    for name, value in given.items():
        assert name in _PARSERS, name
        values[name] = _parse(name, value, Path.cwd(), f"--{name.replace('_', '-')}")
    values.setdefault("home", paths.home().absolute())
    names_network = "network" in values  # be it the usual place
    values.setdefault("network", values["home"] / NETWORK_FILE)
    return Config(**values, names_network=names_network)


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """With an owner's later changes. CallerError `bad_config` where one is unknown or makes no sense."""
    for name in changes:
        if name not in CHANGEABLE:
            raise CallerError(
                "bad_config",
                f"{name!r} cannot be changed while the node runs.",
                remedy=f"What can: {', '.join(CHANGEABLE)}.",
            )
    found = {name: _parse(name, value, Path.cwd(), "tallymesh node limit") for name, value in changes.items()}
    return msgspec.structs.replace(config, **found)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that nothing reads: most likely typing errors, worth a warning."""
    known = {name.upper() for name in _PARSERS} | OTHER_VARIABLES
    return sorted(name for name in environment if name.startswith(PREFIX) and name[len(PREFIX) :] not in known)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise CallerError("bad_config", f"{path} is over {MAX_FILE_BYTES} bytes: this is no config.")
        source = data.decode()
        table = tomllib.loads(source)
    except OSError as error:
        raise CallerError("bad_config", f"{path} cannot be read: {error.strerror}.") from None
    except UNREADABLE as error:
        raise CallerError("bad_config", f"{path} is not TOML: {error}.") from None
    client = table.pop("client", {})
    if not isinstance(client, dict):
        raise CallerError("bad_config", f"{_where(path, source, 'client')}: [client] is a table.")
    base = path.absolute().parent
    values = {name: _known(_PARSERS, name, value, base, path, source, "") for name, value in table.items()}
    told = {name: _known(_CLIENT_PARSERS, name, value, base, path, source, "client") for name, value in client.items()}
    return {**values, "client": ClientConfig(**told)}


def _known(
    parsers: Mapping[str, Callable[[Any, Path], Any]],
    name: str,
    value: Any,
    base: Path,
    path: Path,
    source: str,
    table: str,
) -> Any:
    where = _where(path, source, name, table)
    if name not in parsers:
        raise CallerError(
            "bad_config",
            f"{where}: there is no key {name[:SAID_MAX]!r}.",
            remedy=f"Known are {', '.join(sorted(parsers))}.",
        )
    return _parse(name, value, base, where, parsers)


def _parse(
    name: str, value: Any, base: Path, where: str, parsers: Mapping[str, Callable[[Any, Path], Any]] = _PARSERS
) -> Any:
    try:
        return parsers[name](value, base)
    except (ValueError, CallerError) as error:
        said = ", ".join(map(str, value)) if isinstance(value, tuple) else repr(value)  # of the command line
        raise CallerError("bad_config", f"{where}: {name} = {said[:SAID_MAX]}: {str(error)[:SAID_MAX]}") from None


def _where(path: Path, source: str, name: str, table: str = "") -> str:
    """`file, line n`: tomllib does not keep lines, so the key is looked up again in the text."""
    current = ""
    for number, line in enumerate(source.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header:
            current = header.group(1).strip("\"' ")
            if not table and current.split(".")[0] == name:
                return f"{path}, line {number}"
        elif current == table and re.match(rf"""\s*["']?{re.escape(name)}["']?\s*[.=]""", line):
            return f"{path}, line {number}"
    return str(path)
