"""Broken set-ups, each built for real: a container without bubblewrap, a disk of half a MiB, a chain that is another.
The doctor names the fix of each, and finds nothing wrong where nothing is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from fakes.node import FakeNode, serve
from fakes.peers import peer
from tallymesh import network as network_file
from tallymesh.network import Contracts, Network
from tallymesh_ledger import keystore
from tallymesh_node.config import Config, load
from tallymesh_node.doctor import Finding, examine, machine, outside, place
from tallymesh_node.limits import Orders, Pause, orders
from tallymesh_node.local_network import LocalNetwork
from tallymesh_node.machine import Machine, measure
from tallymesh_node.sandbox.command import bubblewrap
from tallymesh_node.store import FolderLock
from tallymesh_node.store.lock import holder

PATIENCE_S = 300.0  # for a child process that takes a second on a machine of one's own
HERE = Machine(cores=4, memory_mib=8192, disk_mib=100_000, cpu="x", architecture="x86_64")


def config(folder: Path, **flags: Any) -> Config:
    return load({"home": folder, **flags}, environment={})


def inside(arguments: list[str], call: str, **variables: str) -> Finding:
    """What a check finds in a container of its own: the same machine, but for `arguments` of bubblewrap."""
    program = f"import msgspec\nfrom pathlib import Path\nfrom tallymesh_node.doctor import machine\n{call}"
    command = [str(bubblewrap()), "--dev-bind", "/", "/", *arguments, "--", sys.executable, "-c", program]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=Finding)


def say(call: str) -> str:
    return f"print(msgspec.json.encode({call}).decode())"


# 1 and 2: the sandbox.


@pytest.mark.slow
def test_bubblewrap_is_missing(tmp_path: Path) -> None:
    binary = os.path.realpath(bubblewrap())
    found = inside(["--ro-bind", "/dev/null", binary], say("machine.sandbox()"), PATH=str(tmp_path))
    assert (found.state, found.code) == ("fix", "no_sandbox")
    assert "bubblewrap is not installed" in found.sentence
    assert "install" in found.remedy


@pytest.mark.slow
def test_user_namespaces_are_off() -> None:
    arguments = ["--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns"]
    found = inside(arguments, say("machine.sandbox()"))
    assert (found.state, found.code) == ("fix", "no_sandbox")
    assert "user.max_user_namespaces" in found.remedy or "allow user namespaces" in found.remedy, found


# 3: the disk.


@pytest.mark.slow
def test_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    here = f"msgspec.convert({msgspec.to_builtins(HERE)!r}, type=__import__('tallymesh_node.machine').machine.Machine)"
    call = say(f"machine.folder(Path({str(tmp_path / 'disk')!r}), {here})")
    found = inside(["--size", str(1 << 19), "--tmpfs", str(tmp_path / "disk")], call)
    assert (found.state, found.code) == ("fix", "disk")
    assert "is full" in found.sentence
    assert "Free some space" in found.remedy
    found = inside(["--ro-bind", str(tmp_path), str(tmp_path)], call)
    assert "cannot be written" in found.sentence
    assert "remount,rw" in found.remedy


def test_hardly_any_disk_is_left(tmp_path: Path) -> None:
    found = machine.folder(tmp_path, msgspec.structs.replace(HERE, disk_mib=machine.LEAST_DISK_MIB - 1))
    assert (found.state, found.code) == ("fix", "disk")
    assert machine.folder(tmp_path, HERE).state == "ok"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    assert machine.folder(tmp_path / "a" / "new" / "one", HERE).state == "ok"
    assert not (tmp_path / "a").exists()


# 4: memory, and more than there is.


def test_the_owner_allows_too_little_memory_for_any_unit(tmp_path: Path) -> None:
    found = machine.memory(config(tmp_path, memory_mib=256), HERE)
    assert (found.state, found.code) == ("fix", "little_memory")
    assert "node limit --memory-mib" in found.remedy
    small = msgspec.structs.replace(HERE, memory_mib=1024)
    assert "container" in machine.memory(config(tmp_path), small).remedy
    assert machine.memory(config(tmp_path), HERE).name == "memory"


def test_the_owner_allows_more_than_there_is(tmp_path: Path) -> None:
    (found,) = machine.allowed(config(tmp_path, cores=400), HERE)
    assert (found.code, found.remedy[:20]) == ("more_than_there_is", "Start with --cores 4")


# 5: the port.


def test_another_program_has_the_port(tmp_path: Path) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = other.getsockname()[1]
        found = machine.port(config(tmp_path, listen_host="127.0.0.1", listen_port=number))
        assert (found.state, found.code) == ("fix", "port_in_use")
        assert f"sport = :{number}" in found.remedy
    assert machine.port(config(tmp_path, listen_host="127.0.0.1", listen_port=0)).state == "ok"
    assert "no such address" in machine.port(config(tmp_path, listen_host="203.0.113.7")).remedy


@asynccontextmanager
async def joined(folder: Path, **flags: Any) -> AsyncIterator[tuple[Config, Network]]:
    """A network of one other peer, over real sockets."""
    async with peer() as other:
        bootstrap = tuple(f"{address}/p2p/{other.peer_id}" for address in other.addresses)
        settings = config(folder, listen_host="127.0.0.1", listen_port=0, **flags)
        yield settings, msgspec.structs.replace(NOWHERE, name=other.topic.split("/")[1], bootstrap=bootstrap)


NOWHERE = Network(
    "test", 1, ("http://127.0.0.1:9",), Contracts("0x" + "11" * 20, "0x" + "22" * 20, "0xabcdef01" + "33" * 16)
)
CLOSED = "/ip4/127.0.0.1/tcp/9"  # discard: nobody listens there


async def test_others_cannot_dial_this_machine(tmp_path: Path) -> None:
    async with joined(tmp_path, announce=[CLOSED]) as (settings, network):
        found = await outside.reach(settings, network)
    assert (found.state, found.code) == ("fix", "unreachable")
    assert "TCP port 9" in found.remedy
    assert "--announce" in found.remedy
    async with joined(tmp_path) as (settings, network):
        assert (await outside.reach(settings, network)).state == "ok"


async def test_nobody_of_the_network_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "JOIN_S", 1.0)
    gone = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
    network = msgspec.structs.replace(NOWHERE, bootstrap=(gone,))
    found = await outside.reach(config(tmp_path, listen_host="127.0.0.1", listen_port=0), network)
    assert (found.state, found.code) == ("fix", "alone")
    assert "may dial out" in found.remedy


# 6: the clock.


@pytest.fixture
def answered() -> Iterator[tuple[str, list[float]]]:
    """A server whose clock is as many seconds ahead of this machine's as the list says: to a node that is the same as
    a clock of its own that is behind."""
    ahead = [0.0]

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response_only(200)
            self.send_header("Date", formatdate(time.time() + ahead[0], usegmt=True))
            self.end_headers()
            self.wfile.write(json.dumps({"jsonrpc": "2.0", "id": 1, "result": "0x1"}).encode())

        def log_message(self, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", ahead
        server.shutdown()
        thread.join()


async def test_the_clock_is_wrong(answered: tuple[str, list[float]]) -> None:
    url, ahead = answered
    network = msgspec.structs.replace(NOWHERE, rpc_urls=(url,))
    assert (await outside.clock(network, None)).state == "ok"
    for seconds, word in ((3600.0, "slow"), (-3600.0, "fast")):
        ahead[0] = seconds
        found = await outside.clock(network, None)
        assert (found.state, found.code) == ("fix", "wrong_clock")
        assert word in found.sentence
        assert "timedatectl set-ntp true" in found.remedy
    assert (await outside.clock(NOWHERE, int(time.time()) + 3600)).code == "wrong_clock", "by a block of the future"
    assert (await outside.clock(NOWHERE, int(time.time()) - 3600)).state == "unknown", "an idle chain has old blocks"


# 7 and 8: the network file and the chain.


@pytest.mark.parametrize("data", [None, b"", b"{", b'{"name": "x"}', b"\xff"])
def test_the_network_file_is_missing_or_something_else(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "network.json").write_bytes(data)
    found, network = place.network(config(tmp_path))
    assert (found.state, network) == ("fix", None)
    assert found.code in ("no_network", "bad_network")
    assert "--network" in found.remedy


async def test_the_rpc_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "PATIENCE_S", 0.5)
    found, newest = await outside.chain(NOWHERE)
    assert (found.state, found.code, newest) == ("fix", "chain_unavailable", None)
    assert "RPC URL" in found.remedy


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    with LocalNetwork(tmp_path_factory.mktemp("doctor")) as network:
        network.start_chain()
        yield network


@pytest.mark.slow
async def test_the_network_file_is_of_another_chain_or_of_a_chain_that_was_begun_anew(local: LocalNetwork) -> None:
    right = local.network
    assert (await outside.chain(right))[0].state == "ok"
    assert (await outside.clock(right, None)).state == "ok"
    found, _ = await outside.chain(msgspec.structs.replace(right, chain_id=right.chain_id + 1))
    assert (found.state, found.code) == ("fix", "wrong_chain")
    assert "network file" in found.remedy
    strange = msgspec.structs.replace(right.contracts, escrow="0x" + "11" * 20)
    found, _ = await outside.chain(msgspec.structs.replace(right, contracts=strange))
    assert (found.state, found.code) == ("fix", "wrong_network")
    assert "get the file again" in found.remedy


# 9: gas and stake.


@pytest.mark.slow
async def test_the_account_has_neither_gas_nor_stake(local: LocalNetwork, tmp_path: Path) -> None:
    poor = b"\x77" * 20
    gas, stake = await outside.account(local.network, poor, config(tmp_path))
    assert (gas.state, gas.code) == ("fix", "no_gas")
    assert poor.hex() in gas.remedy
    assert (stake.state, stake.code) == ("fix", "unstaked")
    assert "--stake 1" in stake.remedy
    assert "1000 MESH" in stake.remedy
    assert [each.name for each in await outside.account(local.network, poor, config(tmp_path, roles="submit"))] == [
        "gas"
    ]


# 10: the wallet.


@pytest.mark.slow
def test_the_wallet_is_locked_missing_damaged_or_of_another_password(tmp_path: Path) -> None:
    settings = config(tmp_path)
    found, key = place.wallet(settings)
    assert (found.state, key) == ("note", None), "a first start makes it"
    made = keystore.create(tmp_path / "wallet.json", "right")
    found, key = place.wallet(settings)
    assert (found.state, found.code, key) == ("fix", "locked_wallet", None)
    assert "--password-file" in found.remedy
    (tmp_path / "password").write_text("wrong\n")
    settings = config(tmp_path, password_file=tmp_path / "password")
    found, key = place.wallet(settings)
    assert (found.state, found.code, key) == ("fix", "wrong_password", None)
    assert "backup" in found.remedy
    (tmp_path / "password").write_text("right\n")
    found, key = place.wallet(settings)
    assert found.state == "ok"
    assert key is not None
    assert key.address == made.address
    (tmp_path / "wallet.json").write_text("{")
    found, key = place.wallet(settings)
    assert (found.state, found.code, key) == ("fix", "bad_keystore", None)
    assert "backup" in found.remedy
    assert "--password-file" in place.wallet(config(tmp_path, password_file=tmp_path / "none"))[0].remedy


# 11: two nodes, and a pause that was forgotten.


def test_another_node_works_in_the_folder(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with FolderLock(tmp_path):
        assert holder(tmp_path) == os.getpid()
        (found,), view = place.node(tmp_path, os.getpid())
        assert (found.state, found.code, view) == ("fix", "locked", None)
        assert str(os.getpid()) in found.sentence
        assert "TALLYMESH_HOME" in found.remedy
    assert holder(tmp_path) is None


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b"{",
        b"\xff",
        b'{"x": ' + b"[" * 10_000,
        b'{"url": 7}',
        b'{"url": "http://[", "token": "t"}',
        b'{"url": ""}',
    ],
)
def test_a_node_whose_word_on_where_it_answers_is_torn_does_not_answer(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "api.json").write_bytes(torn)
    (found,), view = place.node(tmp_path, 0)
    assert (found.state, found.code, view) == ("fix", "locked", None)


def test_its_owner_paused_it_and_forgot(tmp_path: Path) -> None:
    assert place.owner(tmp_path) == []
    orders.save(tmp_path, Orders(pause=Pause(float("inf")), changes={"cores": 1}))
    paused, changed = place.owner(tmp_path)
    assert (paused.state, paused.remedy) == ("fix", "tallymesh node resume")
    assert (changed.state, changed.remedy) == ("note", "tallymesh node limit --reset")
    (tmp_path / orders.NAME).write_text("{")
    assert place.owner(tmp_path)[0].code == "bad_orders"


# 12: a node that was started with flags which nobody types again.


def test_a_node_that_runs_is_asked_what_it_was_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its network file is elsewhere, its wallet's password was typed, and it works for nobody."""
    monkeypatch.setattr(outside, "PATIENCE_S", 0.1)
    home, mine, other = tmp_path / "home", tmp_path / "mine.json", tmp_path / "other.json"
    network_file.save(NOWHERE, mine)
    network_file.save(msgspec.structs.replace(NOWHERE, name="other"), other)
    node = FakeNode(home)
    node.network_file = mine
    (home / "wallet.json").write_text("{")
    with serve(node), FolderLock(home):
        found = {each.name: each for each in trio.run(examine, config(home))}
        named = {each.name: each for each in trio.run(examine, config(home, network=other))}
    assert (found["network"].state, str(mine) in found["network"].sentence) == ("ok", True), found["network"]
    assert (found["wallet"].state, found["wallet"].sentence.split(",")[0]) == ("ok", node.view().account)
    assert not {"sandbox", "stake", "port"} & found.keys()
    assert str(other) in named["network"].sentence, "what is typed is meant"
    mine.unlink()
    with serve(node), FolderLock(home):
        found = {each.name: each for each in trio.run(examine, config(home))}
    assert (found["network"].state, found["network"].code) == ("fix", "no_network"), "its next start would fail"


# The whole.


@pytest.mark.slow
async def test_every_fix_has_a_remedy_and_one_fault_does_not_hide_another(local: LocalNetwork, tmp_path: Path) -> None:
    network_file.save(local.network, tmp_path / "network.json")
    orders.save(tmp_path, Orders(pause=Pause(float("inf"))))
    settings = config(tmp_path, listen_host="127.0.0.1", listen_port=0, cores=4096)
    told: list[Finding] = []
    found = await examine(settings, told.append)
    assert told == found, "each is told as soon as it is known"
    assert {each.code for each in found if each.state == "fix"} >= {"paused", "more_than_there_is"}
    assert {each.name for each in found} >= {"disk", "memory", "wallet", "network", "sandbox", "port", "chain", "clock"}
    assert all(each.remedy for each in found if each.state == "fix")
    assert measure(tmp_path).cores < 4096
