"""`up` and `node start|status|stop`: running nodes on this machine."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tallymesh.errors import CallerError, LocalError
from tallymesh_node.cli.output import Json, ago, facts, say_json

if TYPE_CHECKING:
    from tallymesh.api import NodeView
    from tallymesh_node.config import Config
    from tallymesh_node.daemon import Node
    from tallymesh_node.local_network import LocalNetwork

STOP_S: Final = 30.0  # a node that settles what it holds needs a few blocks
POLL_S: Final = 0.1
TWICE: Final = "Use it (tallymesh run PROGRAM), end it with Ctrl-C in its terminal, or give this one a --folder."
CHECKERS: Final = 2  # other accounts of its class that a worker needs on a development network


def up(
    workers: Annotated[int, typer.Option(min=1, max=32, help="Worker nodes, each with a slot of stake.")] = 3,
    folder: Annotated[Path | None, typer.Option(help="Where its files go; by default in the data folder.")] = None,
    json_: Json = False,
) -> None:
    """Run a whole network on this machine, to try things out.

    That is a chain, workers, and a node that submits. It runs the public network's code; only the network file differs.
    Programs find its node by themselves. Ctrl-C ends it and everything that it started; the next start finds jobs,
    results and balances again. A node that ends by itself is started again, up to three times in ten minutes. Three
    workers or more check one another; what fewer cannot check, the submitting node checks itself.

    \b
    Examples:
      tallymesh up
      tallymesh up --workers 5
    """
    from tallymesh import paths
    from tallymesh_node.local_network import LocalNetwork
    from tallymesh_node.store.lock import FolderLock

    _check_platform()
    say = _silent if json_ else _progress
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = folder or paths.home() / "up"
    # Before anything starts: a second chain in the folder would take over the files that the first one's programs read.
    with FolderLock(place, "local network", TWICE), LocalNetwork(place) as network:
        try:
            _serve_local(network, workers, say, json_)
        except KeyboardInterrupt:
            say("ending …")
        finally:
            # What is left is bounded, and an impatient second Ctrl-C would orphan the nodes.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)


def _serve_local(network: LocalNetwork, workers: int, say: Callable[[str], None], as_json: bool) -> None:
    """Start everything, say that it is ready, and wait for the end."""
    say("starting the chain …")
    # Only machines that enough others can check are leased; fewer workers than that must not make a network in which
    # every job waits for ever. The payer's own node checks what they cannot check among themselves.
    others = workers - 1
    # The chain is kept, as the nodes' journals are: their jobs are about its contracts, and balances are still there.
    few = {"class_accounts_min": others, **({} if others else {"class_stake_bp": 0})}  # nobody else has any stake then
    network.start_chain(parameters=few if others < CHECKERS else None, keep=True)
    say("starting the payer's node …")
    payer = network.start_payer()
    say(f"starting {workers} workers …")
    network.start_workers(workers)
    network.wait_ready()
    network.wait_market(payer, workers)
    address = payer.api
    assert address is not None
    if as_json:
        nodes = {name: {"pid": node.pid, "folder": str(node.folder)} for name, node in network.nodes.items()}
        say_json({"url": address[0], "network": str(network.network_path), "nodes": nodes})
    else:
        facts(
            [
                ("ready", f"{workers} workers, network file {network.network_path}"),
                ("node", address[0]),
                ("next", "in another terminal: tallymesh run PROGRAM (yours, or examples/map_area.py of a checkout)"),
                ("end", "Ctrl-C"),
            ]
        )
        sys.stdout.flush()
    from tallymesh_node.cli.restarts import Restarts

    restarts = Restarts(network.nodes, _progress)  # with --json, too: it is no answer but a warning
    chain = network.chain
    assert chain is not None
    while True:
        time.sleep(POLL_S)
        if not chain.running:
            raise LocalError("chain_ended", f"The embedded chain ended by itself:\n{chain.tail()}")
        restarts.look(time.monotonic())


def start(
    submit: Annotated[bool, typer.Option("--submit", help="Also submit jobs from this node.")] = False,
    roles: Annotated[str | None, typer.Option(help="Exactly these, of worker, audit, submit.")] = None,
    stake: Annotated[int | None, typer.Option(min=0, help="Slots of stake to hold; missing ones are bought.")] = None,
    cores: Annotated[int | None, typer.Option(help="Units side by side; 0 to decide by the machine.")] = None,
    memory_mib: Annotated[int | None, typer.Option(help="Memory for all units together.")] = None,
    disk_gib: Annotated[int | None, typer.Option(help="Disk for blobs.")] = None,
    sell: Annotated[str | None, typer.Option(help="What units compute on: cpu, or gpu (an account sells one).")] = None,
    ask_price: Annotated[str | None, typer.Option(help="MESH per core-hour: 0.02.")] = None,
    network: Annotated[Path | None, typer.Option(help="The network file.")] = None,
    home: Annotated[Path | None, typer.Option(help="The node's folder: keys, journal, blobs.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file instead of the usual one.")] = None,
    listen_host: Annotated[str | None, typer.Option(help="Address that peers dial.")] = None,
    listen_port: Annotated[int | None, typer.Option(help="Port that peers dial; 0 for any free one.")] = None,
    announce: Annotated[list[str] | None, typer.Option(help="A multiaddr under which others reach this node.")] = None,
    nearby: Annotated[str | None, typer.Option(help="Find peers on the local network: yes, no, auto.")] = None,
    api_host: Annotated[str | None, typer.Option(help="Address of the API for the owner's own programs.")] = None,
    api_port: Annotated[int | None, typer.Option(help="Port of the API; 0 for any free one.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="Its first line opens the wallet.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    json_: Json = False,
) -> None:
    """Run this machine's node until Ctrl-C or `tallymesh node stop`. No question is asked.

    \b
    Examples:
      tallymesh node start --stake 1
      tallymesh node start --submit --network mynet.json
      TALLYMESH_CORES=2 tallymesh node start --ask-price 0.05
    """
    from tallymesh_node.config import load, unknown_variables

    _check_platform()
    flags: dict[str, Any] = {
        "roles": roles,
        "stake_slots": stake,
        "cores": cores,
        "memory_mib": memory_mib,
        "disk_gib": disk_gib,
        "sell": sell,
        "ask_price": ask_price,
        "network": network,
        "home": home,
        "listen_host": listen_host,
        "listen_port": listen_port,
        "announce": announce or None,
        "nearby": nearby,
        "api_host": api_host,
        "api_port": api_port,
        "password_file": password_file,
        "log_level": log_level,
    }
    settings = load(flags, file=config)
    if submit and not settings.submits:
        settings = load({**flags, "roles": ",".join([*settings.roles, "submit"])}, file=config)
    _start_logging(settings.log_level)
    for name in unknown_variables(os.environ):
        print(f"warning: nothing reads the variable {name}", file=sys.stderr)
    _run(settings, json_)


def status(json_: Json = False) -> None:
    """How this machine's node is: wallet, offer, peers, what is wrong.

    \b
    Examples:
      tallymesh node status
      tallymesh node status --json
    """
    from tallymesh.api import NodeView
    from tallymesh.client.session import current

    view = current().get("/v1/node", NodeView)
    if json_:
        say_json(view)
        return
    facts([*summary(view), ("running", f"since {ago(view.started)}"), ("peers", str(view.peers))])
    for problem in view.problems:
        print(f"problem  {problem.sentence} {problem.remedy}".rstrip())


def stop(json_: Json = False) -> None:
    """End this machine's node in good order: it finishes what it signed.

    \b
    Examples:
      tallymesh node stop
    """
    from tallymesh.client.session import current

    session = current()
    session.post("/v1/node/stop", b"", dict[str, bool])
    deadline = time.monotonic() + STOP_S
    while _answers(session.address.url):
        if time.monotonic() > deadline:
            raise LocalError("still_running", f"The node at {session.address.url} has not ended after {STOP_S:.0f} s.")
        time.sleep(POLL_S)
    if json_:
        say_json({"stopped": session.address.url})
    else:
        print("stopped")


def summary(view: NodeView) -> list[tuple[str, str]]:
    """The lines that a start shows."""
    numeric = f"class {view.numeric_class[:8]}" + (" (being checked)" if view.provisional else "")
    unknown = "nothing is sold" if sells_nothing(view) else "class is being measured"
    without = " · unstaked" if view.probation is None else " · on probation"
    without = without if view.stake_known else " · waiting for the chain"
    stake = f" · {view.slots} slot{'s' * (view.slots != 1)} of stake" if view.staked else without
    stake = stake if view.staked or "worker" in view.roles else ""  # nobody needs any to submit
    return [
        ("node", f"{view.peer_id} on {view.network}, {', '.join(view.roles)}"),
        ("wallet", f"{view.account}{stake}"),
        *([("probation", str(view.probation))] if view.probation is not None else []),
        ("machine", numeric if view.numeric_class.strip("0") else unknown),
        ("sandbox", view.sandbox),
        ("reachable", view.reachable),
        ("near", view.nearby or "-"),
        *([("GPUs", view.gpus)] if view.gpus else []),
        ("offer", _offer_line(view.offer)),
    ]


def sells_nothing(view: NodeView) -> bool:
    """Of a node that was to sell cards, and found none that it could."""
    return view.cards == "none"


def _offer_line(offer: dict[str, Any]) -> str:
    if not offer:
        return ""
    from tallymesh import amounts

    price = amounts.show_per_core_hour(int(offer.get("ask_price", 0)))
    cores = offer.get("cores", "?")
    return f"{cores} core{'s' * (cores != 1)}, {offer.get('memory_mib', 0) / 1024:.1f} GiB, {price} per core-hour"


def _run(settings: Config, as_json: bool) -> None:
    from tallymesh import network, paths, starting

    local = paths.home() / "up" / "network.json"
    if not settings.network.exists() and local.exists():
        raise CallerError(
            "no_network",
            f"There is no network file at {settings.network}.",
            remedy=f"To join this machine's local network: --network {local}",
        )
    network.load(settings.network)  # what is wrong with it is said before a second goes into importing the rest
    from tallymesh_node.wallet import Opening

    wallet = Opening(settings.home, settings.password_file)
    with starting.uncollected():
        import trio

        from tallymesh_node.daemon import Node, run_node

    async def main() -> None:
        node = Node(settings, wallet)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_announce, node, as_json)
            await run_node(node)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def _announce(node: Node, as_json: bool) -> None:
    """Say once that the node is up, and with what."""
    import msgspec
    import trio

    from tallymesh_node.status import NodeStatus

    published = node.home / "api.json"
    began = time.monotonic()
    while not _ours(published):  # noqa: ASYNC110 - written by the server once it listens
        await trio.sleep(POLL_S)
    facade = NodeStatus(node)
    while node.config.works and not facade.ready():  # noqa: ASYNC110 - made of facts of several parts
        await trio.sleep(POLL_S)
    view = facade.view()
    if as_json:
        say_json({**msgspec.to_builtins(view), "ready_after_s": round(time.monotonic() - began, 2)})
        return
    url = msgspec.json.decode(published.read_bytes())["url"]
    facts([*summary(view), ("api", url), ("ready", f"after {time.monotonic() - began:.1f} s")])
    for problem in view.problems:
        print(f"problem  {problem.sentence} {problem.remedy}".rstrip())
    sys.stdout.flush()


def _ours(published: Path) -> bool:
    import msgspec

    try:
        return bool(msgspec.json.decode(published.read_bytes())["pid"] == os.getpid())
    except (OSError, msgspec.DecodeError, KeyError):
        return False


def _answers(url: str) -> bool:
    import httpx

    verify = url.startswith("https:")  # loading the certificate store takes longer than a request on loopback
    try:
        return httpx.get(f"{url}/livez", timeout=2.0, trust_env=False, verify=verify).status_code == 200
    except httpx.TransportError:
        return False


def _start_logging(level: str) -> None:
    import logging

    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("tallymesh").setLevel(level.upper())


def _check_platform() -> None:
    if not sys.platform.startswith("linux"):
        raise CallerError(
            "linux_only",
            f"Nodes run on Linux, and this is {sys.platform}: their sandboxes need its namespaces.",
            remedy="Use WSL2 or a Linux container here; the client (import tallymesh) works anywhere.",
        )


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    pass
