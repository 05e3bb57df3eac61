"""A whole network on this machine: the embedded chain, some workers and a node that submits, each a process with a
folder of its own on loopback. It runs the public network's code; only the network file differs.

Plain subprocesses and files, so that programs, tests and benchmarks can use it without an event loop. This module
knows nodes only from outside: their command line, their folders and their HTTP API.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from tallymesh import network as network_file
from tallymesh.errors import LocalError
from tallymesh.network import Network
from tallymesh_node.guardian import Guardian

START_S = 240.0  # for one process to be ready: a loaded machine imports for a while; one that ended is not waited for
STOP_S = 10.0  # to end in good order, then it is killed
POLL_S = 0.05  # the first pause between two looks, each a request that costs both sides 1 to 2 ms of CPU …
POLL_MAX_S, POLL_GROWTH = 0.25, 1.25  # … and the longest, after a second
LOG_TAIL = 2_000  # characters of a log that an error shows
NODES, CHAIN = 0, 1  # batches, in the order in which they end: nodes can still settle
NODE_COMMAND = (sys.executable, "-m", "tallymesh_node.cli", "node", "start")


class Process:
    """One child process with its folder and its log. Ended by its id, never by name."""

    popen: Callable[..., Any] = subprocess.Popen  # what begins it, for whoever begins processes in another way

    def __init__(self, name: str, folder: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.command = list(command)
        self.environment = dict(environment)
        self.log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        self.started: Callable[[int], None] | None = None  # told the pid of every start, later ones too
        self._child: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._child = self.popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.name == "chain" else log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which ends its children in order
            )
        if self.started is not None:
            self.started(self._child.pid)

    def first_line(self) -> str:
        """What the process prints when it is ready."""
        assert self._child is not None
        assert self._child.stdout is not None
        return self._child.stdout.readline().decode()

    def wait(self, what: str, ready: Callable[[], bool], *, timeout_s: float = START_S) -> None:
        deadline = time.monotonic() + timeout_s
        pause_s = POLL_S
        while not ready():
            if not self.running:
                raise LocalError("start_failed", f"{self.name} ended before {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise LocalError("start_failed", f"{self.name}: {what} took over {timeout_s:g} s:\n{self.tail()}")
            time.sleep(pause_s)
            pause_s = min(POLL_MAX_S, pause_s * POLL_GROWTH)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log.exists() else ""

    def signal(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def end(self, deadline: float) -> None:
        """Wait for the end that was asked for, and force it at the deadline (of time.monotonic)."""
        if self._child is None:
            return
        try:
            self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()


class NodeProcess(Process):
    """A node. `command` may be another program that starts one (a test's cheat)."""

    def __init__(
        self,
        name: str,
        folder: Path,
        network: Path,
        *,
        roles: Sequence[str],
        slots: int = 0,
        listen_port: int = 0,
        command: Sequence[str] = NODE_COMMAND,
        settings: Mapping[str, str] = {},
    ) -> None:
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TALLYMESH_")},
            "TALLYMESH_HOME": str(folder),
            "TALLYMESH_NETWORK": str(network),
            "TALLYMESH_ROLES": ",".join(roles),
            "TALLYMESH_STAKE_SLOTS": str(slots),
            "TALLYMESH_LISTEN_HOST": "127.0.0.1",
            "TALLYMESH_LISTEN_PORT": str(listen_port),
            **{f"TALLYMESH_{key.upper()}": value for key, value in settings.items()},
        }
        super().__init__(name, folder, command, environment)
        self._http = httpx.Client(timeout=10.0, trust_env=False)

    @property
    def api(self) -> tuple[str, str] | None:
        """(url, token), None before the node listens."""
        try:
            found = json.loads((self.folder / "api.json").read_bytes())
            return found["url"], found["token"]
        except (FileNotFoundError, json.JSONDecodeError, KeyError):
            return None

    def get(self, path: str) -> Any:
        """A GET on the node's API, decoded."""
        api = self.api
        if api is None:
            raise LocalError("not_ready", f"{self.name} does not listen yet.")
        url, token = api
        try:
            answer = self._http.get(url + path, headers={"Authorization": f"Bearer {token}"})
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise LocalError("not_ready", f"{self.name} did not answer {path}: {error}") from None
        return answer.json()

    def ready(self) -> bool:
        """Joined, and its first offer out where it works."""
        api = self.api
        if api is None:
            return False
        try:
            return self._http.get(api[0] + "/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def end(self, deadline: float) -> None:
        super().end(deadline)
        self._http.close()


class LocalNetwork:
    """Use as a context manager: what it started is ended when the block ends, whatever happened. Should this process be
    killed, its guardian ends them."""

    def __init__(self, folder: Path, *, name: str = "local") -> None:
        self.folder = folder.absolute()
        self.name = name
        self.chain: Process | None = None
        self.nodes: dict[str, NodeProcess] = {}
        self.network_path = self.folder / "network.json"
        self._guardian: Guardian | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def network(self) -> Network:
        return network_file.load(self.network_path)

    def start_chain(self, *, port: int = 0, parameters: Mapping[str, Any] | None = None, keep: bool = False) -> None:
        """Start the embedded chain and write the network file. `parameters` replace single development ones."""
        folder = self.folder / "chain"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tallymesh_ledger.embedded_chain", "--folder", str(folder)]
        command += ["--port", str(port), "--name", self.name, *(["--state"] if keep else [])]
        if parameters:
            (folder / "parameters.json").write_text(json.dumps(dict(parameters)))
            command += ["--parameters", str(folder / "parameters.json")]
        self.chain = Process("chain", folder, command, os.environ)
        self._start(self.chain, CHAIN)
        line = self.chain.first_line()
        if not line:
            raise LocalError("start_failed", f"The embedded chain did not start:\n{self.chain.tail()}")
        network_file.save(network_file.load(Path(json.loads(line)["network"])), self.network_path)

    def start_payer(self, name: str = "payer", *, settings: Mapping[str, str] = {}) -> NodeProcess:
        """A node that submits jobs. The first one is also where the others join."""
        node = self.add(name, roles=("submit",), settings=settings)
        node.wait("it listened", lambda: node.api is not None)
        view = node.get("/v1/node")
        if not int(node.environment["TALLYMESH_LISTEN_PORT"]):  # should it start again, others look for it there
            port = view["addresses"][0].split("/tcp/")[1].split("/")[0]
            node.environment["TALLYMESH_LISTEN_PORT"] = port
        if not self.network.bootstrap:
            addresses = tuple(f"{address}/p2p/{view['peer_id']}" for address in view["addresses"])
            network_file.save(msgspec.structs.replace(self.network, bootstrap=addresses), self.network_path)
        return node

    def add(
        self,
        name: str,
        *,
        roles: Sequence[str] = ("worker", "audit"),
        slots: int = 0,
        command: Sequence[str] = NODE_COMMAND,
        settings: Mapping[str, str] = {},
    ) -> NodeProcess:
        node = NodeProcess(
            name,
            self.folder / name,
            self.network_path,
            roles=roles,
            slots=slots,
            command=command,
            settings=settings,
        )
        self.nodes[name] = node
        self._start(node, NODES)
        return node

    def _start(self, process: Process, batch: int) -> None:
        guardian = self._guardian = self._guardian or Guardian(STOP_S)
        process.started = lambda pid: guardian.watch(pid, batch)
        process.start()

    def start_workers(self, count: int, *, slots: int = 1, settings: Mapping[str, str] = {}) -> list[NodeProcess]:
        """Start them side by side; `wait_matched_class` and `wait_ready` say when they are of use."""
        return [self.add(f"worker{i}", slots=slots, settings=settings) for i in range(1, count + 1)]

    def wait_ready(self, nodes: Sequence[NodeProcess] | None = None, *, timeout_s: float = START_S) -> None:
        for node in nodes if nodes is not None else list(self.nodes.values()):
            node.wait("it was ready", node.ready, timeout_s=timeout_s)

    def wait_market(self, payer: NodeProcess, workers: int, *, timeout_s: float = START_S) -> None:
        """Until the payer knows that many staked offers whose class was measured and counts on chain: then a job starts
        at once, with all of them."""

        def complete() -> bool:
            offers = payer.get("/v1/offers")
            ready = [o for o in offers if o["staked"] and o["class_counts"] and not o["provisional"]]
            return len(ready) >= workers

        payer.wait(f"{workers} workers could be leased", complete, timeout_s=timeout_s)

    def stop(self) -> None:
        """End everything: nodes first, then the chain, so that they can still settle."""
        for batch in (list(self.nodes.values()), [self.chain] if self.chain else []):
            for process in batch:
                process.signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            for process in batch:
                process.end(deadline)
        if self._guardian is not None:
            self._guardian.close()
            self._guardian = None
