"""Checks that ask others: the chain by its RPC URLs, the clock by their answers, the account by the contracts, and
whether peers can dial this machine by asking one to."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx
import trio

from tallymesh import amounts
from tallymesh.errors import ChainError, LocalError, TallymeshError
from tallymesh.network import Network
from tallymesh_ledger.chain import Contracts, Rpc
from tallymesh_node.config import Config
from tallymesh_node.doctor.findings import Finding, failed, fix, note, ok, unknown
from tallymesh_node.market.envelope import MAX_SKEW_S
from tallymesh_node.network import check_reachability, open_nearby, open_network
from tallymesh_node.network.keys import generate

PATIENCE_S = 15.0  # for the chain: somebody waits for the answer, and a node tries for longer
DATE_S = 10.0
NEAR_S = 5.0  # for who is on the local network: nodes there answer within a second
JOIN_S = 15.0  # for a first peer: a connect takes milliseconds
LOOK_S = 0.1
LEAST_GAS_CALLS = 300_000  # gas of the dearest thing that a start does: bind, set a class, buy a slot


async def chain(network: Network) -> tuple[Finding, int | None]:
    """Whether it answers, is the right one, and holds this network's contracts; the time of its newest block."""
    try:
        async with Rpc(network.rpc_urls, chain_id=network.chain_id, patience_s=PATIENCE_S) as rpc:
            block = await rpc.block()
            for name in ("registry", "escrow", "token"):
                address = getattr(network.contracts, name)
                if await rpc.call("eth_getCode", address, "latest") in ("0x", "", None):
                    return (
                        fix(
                            "chain",
                            "wrong_network",
                            f"Chain {network.chain_id} has no contract at the {name}'s address {address}.",
                            "The network file is of another network, or of a chain that was begun anew: get the file "
                            "again from whoever runs the network.",
                        ),
                        block.timestamp,
                    )
    except ChainError as error:
        return failed("chain", error, "Check rpc_urls in the network file, and that this machine is online."), None
    return ok("chain", f"block {block.number}, asked of {', '.join(network.rpc_urls)}"), block.timestamp


async def clock(network: Network, newest: int | None) -> Finding:
    """This machine's clock against what the RPC URLs' servers say (the `Date` of an HTTP answer, whole seconds), and
    against the newest block, which no honest chain stamps ahead of time."""
    found: list[float] = []
    async with httpx.AsyncClient(timeout=DATE_S, trust_env=False) as client:
        for url in network.rpc_urls:
            try:
                began = time.time()
                answer = await client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []})
                told = parsedate_to_datetime(answer.headers["Date"]).timestamp()
                found.append((began + time.time()) / 2 - told)
            except (httpx.HTTPError, httpx.InvalidURL, KeyError, ValueError):
                continue
    if newest is not None and newest > time.time() + MAX_SKEW_S:
        found.append(time.time() - newest)
    if not found:
        return unknown("clock", "Nobody could be asked for the time.")
    off = sorted(found, key=abs)[len(found) // 2]
    if abs(off) > MAX_SKEW_S:
        return fix(
            "clock",
            "wrong_clock",
            f"This machine's clock is {abs(off):.0f} s {'fast' if off > 0 else 'slow'}: offers and leases would not be "
            f"believed ({MAX_SKEW_S} s are).",
            "Set it by the network's time: sudo timedatectl set-ntp true.",
        )
    return ok("clock", f"right within {max(1.0, abs(off)):.0f} s")


async def account(network: Network, address: bytes, config: Config) -> list[Finding]:
    """Gas for its transactions, and stake for work."""
    try:
        async with Rpc(network.rpc_urls, chain_id=network.chain_id, patience_s=PATIENCE_S) as rpc:
            contracts = Contracts.of(rpc, network)
            gas_wei = await rpc.balance(address)
            price_wei = int(await rpc.call("eth_gasPrice"), 16)
            slots = await contracts.registry.live_slots(address)
            tokens_wei = await contracts.token.balance_of(address)
    except TallymeshError as error:
        return [unknown("account", f"The chain did not say what the account has: {error.sentence}")]
    found = []
    who = "0x" + address.hex()
    if gas_wei < LEAST_GAS_CALLS * price_wei:
        found.append(
            fix(
                "gas",
                "no_gas",
                f"The account has {'no' if not gas_wei else 'hardly any'} gas: a start needs about "
                f"{amounts.show_up(LEAST_GAS_CALLS * price_wei).removesuffix(' MESH')} of the chain's coin.",
                f"Send some of the chain's coin to {who}. Without any it works on probation, and others carry what it "
                "earns.",
            )
        )
    else:
        found.append(ok("gas", "there is enough of the chain's coin"))
    if not config.works:
        return found
    if slots:
        found.append(ok("stake", f"{slots} slot{'s' * (slots != 1)}"))
    elif tokens_wei >= network.parameters.slot_wei:
        found.append(
            fix("stake", "unstaked", "The account holds no slot, but tokens for one.", "tallymesh stake add 1")
        )
    else:
        need = amounts.show_up(network.parameters.slot_wei - tokens_wei)
        found.append(
            fix(
                "stake",
                "unstaked",
                f"The account holds no slot and lacks {need} for one: only jobs that allow newcomers give it work.",
                f"Send {need} to {who}, then start with --stake 1; or work on probation: what it earns becomes one.",
            )
        )
    return found


async def reach(config: Config, network: Network) -> Finding:
    """Listen as the node would (under a name of its own), join, and ask a peer to dial back. Only where no node runs in
    the folder."""
    if not network.bootstrap:
        return await _near(config, network)
    try:
        listen = (f"/ip4/{config.listen_host}/tcp/{config.listen_port}",)
        async with open_network(
            generate(), network.topic, listen=listen, announce=config.announce, bootstrap=network.bootstrap
        ) as host:
            with trio.move_on_after(JOIN_S):
                while not host.peers:  # noqa: ASYNC110 - asked of libp2p, which tells nobody
                    await trio.sleep(LOOK_S)
            if not host.peers:
                return fix(
                    "reachable",
                    "alone",
                    f"None of the network's {len(network.bootstrap)} bootstrap peers answers.",
                    "Check that this machine is online and may dial out; else the network file is out of date: get it "
                    "again from whoever runs the network.",
                )
            found = await check_reachability(host)
    except (LocalError, TallymeshError) as error:
        return failed("reachable", error, "Choose another address with --listen-host, --listen-port or --announce.")
    if found.reachable is None:
        return unknown("reachable", found.sentence)
    if found.reachable:
        return ok("reachable", found.sentence)
    port = host.addresses[0].rsplit("/", 1)[-1] if host.addresses else str(config.listen_port)
    return fix(
        "reachable",
        "unreachable",
        f"Others cannot dial this machine: {found.sentence}",
        f"Open TCP port {port} in the firewall (sudo ufw allow {port}/tcp) and forward it in the router, or name an "
        "address that others can dial with --announce.",
    )


async def _near(config: Config, network: Network) -> Finding:
    """Who is heard on the local network, where the network file names nobody."""
    nobody = "The network file names nobody to join through"
    if not config.looks_nearby(network.bootstrap):
        return note("reachable", f"{nobody}, and --nearby no keeps this node from looking on the local network.")
    listen = (f"/ip4/{config.listen_host}/tcp/{config.listen_port}",)
    try:
        async with open_network(generate(), network.topic, listen=listen) as host, open_nearby(host) as nearby:
            with trio.move_on_after(NEAR_S):
                while nearby.listens and not nearby.peers:  # noqa: ASYNC110 - nobody is told, few wait
                    await trio.sleep(LOOK_S)
            return note("reachable", f"{nobody}. On the local network: {nearby.sentence}.")
    except LocalError as error:
        return failed("reachable", error, "Choose another address with --listen-host or --listen-port.")
