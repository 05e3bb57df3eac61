"""What the commands about money share: which network, which chain node, which index, whose account."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar, overload

import typer

from tallymesh.errors import CallerError, ChainError
from tallymesh_node.cli.account import address_of, own_address, wallet_folder

if TYPE_CHECKING:
    from tallymesh.network import Network
    from tallymesh_ledger.chain import Rpc
    from tallymesh_ledger.index import Database, Progress
    from tallymesh_node.config import Config

T = TypeVar("T")
PATIENCE_S: Final = 10.0  # with a chain that does not answer while an index is read: public nodes have slow minutes
SAY_AFTER_S: Final = 1.0  # what takes longer says how far it is
_UNITS: Final = {"min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

NetworkFile = Annotated[Path | None, typer.Option("--network", help="The network file.")]
RpcUrl = Annotated[str | None, typer.Option("--rpc", help="Ask this chain node instead of the network file's.")]
IndexUrl = Annotated[
    str | None,
    typer.Option(
        "--index",
        envvar="TALLYMESH_INDEX",
        help="Where the index of events is: a file (by default in the data folder), or postgresql://user@host/name.",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Answer from the index as it is; ask no chain.")]
Since = Annotated[str, typer.Option(help="Only what is newer: 90min, 24h, 7d, 4w or a date, 2026-01-31.")]


class Source:
    """One network as a command found it."""

    def __init__(self, network: Path | None, rpc: str | None, index: str | None) -> None:
        from tallymesh import network as network_file
        from tallymesh_node.config import load

        self.home = load().home
        self.path = network_path(load({"network": network}))
        self.network: Network = network_file.load(self.path)
        self._rpc = rpc
        contracts = self.network.contracts
        name = f"{self.network.chain_id}-{contracts.escrow[2:10].lower()}.sqlite"
        self.index_url = index or str(self.home / "index" / name)

    def ask(self, question: Callable[[Rpc], Awaitable[T]], *, patience_s: float = PATIENCE_S) -> T:
        """Run it against the chain. ChainError in words that fit the network."""
        import trio

        from tallymesh_ledger.chain import Rpc

        urls = (self._rpc,) if self._rpc else self.network.rpc_urls

        async def asked() -> T:
            async with Rpc(urls, chain_id=self.network.chain_id, patience_s=patience_s) as rpc:
                return await question(rpc)

        try:
            return trio.run(asked)
        except ChainError as error:
            raise in_words(error, self.path, self._rpc) from None

    @contextmanager
    def index(self, *, offline: bool = False) -> Iterator[Database]:
        """The index, brought up to the chain's newest final block first unless it is to answer as it is."""
        from tallymesh_ledger.index import Database

        with Database(self.index_url) as database:
            if not offline:
                self.catch_up(database)
            else:
                _refuse_empty(database)
            yield database

    def catch_up(self, database: Database, *, rebuild: bool = False) -> Progress:
        from tallymesh_ledger.index import Follower

        async def read(rpc: Rpc) -> Progress:
            follower = Follower(database, rpc, self.network, say=_Teller())
            return await (follower.rebuild() if rebuild else follower.catch_up())

        return self.ask(read)

    def account(self, text: str | None) -> bytes:
        """The address given, or the wallet's own."""
        if not text:
            say_other_wallet(self.home, self.path)
        return address_of(text or own_address(self.home))


def _refuse_empty(database: Database) -> None:
    """An account that never had anything, and an index that was never filled, would look the same."""
    from tallymesh_ledger.index import Queries

    with database.read() as connection:
        if Queries(connection).head().number >= 0:
            return
    raise CallerError(
        "empty_index",
        f"Nothing was read into the index {database.shown} yet.",
        remedy="Run 'tallymesh index sync', or leave out --offline.",
    )


class _Teller:
    """Says on standard error how far a reading is, where it takes long."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SAY_AFTER_S

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SAY_AFTER_S
            print(f"reading the chain: block {progress.block} of {progress.target} …", file=sys.stderr, flush=True)


def network_path(config: Config) -> Path:
    """The network file: as named, else the one of the node that runs here, else the usual one, else that of a local
    network which runs, or ran, here."""
    from tallymesh_node.config import NETWORK_FILE
    from tallymesh_node.running import network_in_use

    found, local = network_in_use(config), local_network()
    usual = config.home / NETWORK_FILE
    return local if found == usual and not usual.exists() and local.exists() else found


def local_network() -> Path:
    from tallymesh import paths

    return paths.home() / "up" / "network.json"


def say_other_wallet(home: Path, network: Path) -> None:
    """Where another wallet than the owner's pays a local network's jobs: a zero would look like a loss."""
    from tallymesh_ledger import keystore
    from tallymesh_ledger.keys import checksum
    from tallymesh_node.wallet import KEYSTORE

    payer = home / "up" / "payer" / KEYSTORE
    if network.absolute() != local_network().absolute() or not payer.exists() or wallet_folder(home) != home:
        return
    address = checksum(keystore.address_in(payer))
    print(f"This is the wallet in {home}; the local network's jobs are paid by {address}.", file=sys.stderr)


def in_words(error: ChainError, path: Path, rpc: str | None) -> ChainError:
    """The chain of a local network runs as long as it does, which "check the RPC URL" would not tell anybody."""
    if error.code != "chain_unavailable" or rpc is not None or path.absolute() != local_network().absolute():
        return error
    return ChainError(
        error.code,
        "The local network has ended, and its chain with it.",
        reverted=False,
        remedy="Start it again with 'tallymesh up' in another terminal: its balances and jobs are kept.",
    )


def since(text: str, now: float) -> int:
    """Unix time that `--since` means; 0 for an empty one. CallerError `bad_since`."""
    if not text:
        return 0
    span = re.fullmatch(r"(\d{1,6})(min|h|d|w)", text)
    if span:
        return max(0, int(now) - int(span[1]) * _UNITS[span[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CallerError("bad_since", f"{text!r} is no time.", remedy="Write 24h, 7d or 2026-01-31.") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def when(moment: int) -> str:
    """Unix time as people read it: UTC, as the chain's."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


def short(id_: bytes | None) -> str:
    return id_.hex()[:12] if id_ else ""


@overload
def hex_(id_: bytes) -> str: ...


@overload
def hex_(id_: bytes | None) -> str | None: ...


def hex_(id_: bytes | None) -> str | None:
    """As programs are told of it. JSON by itself would make base64 of bytes."""
    return None if id_ is None else "0x" + id_.hex()
