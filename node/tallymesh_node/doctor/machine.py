"""Checks of this machine alone: folder, disk, memory, port, sandbox. Each blocks for less than a second or two; none
asks anybody else, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from pathlib import Path

import psutil

from tallymesh_node.capacity import from_machine, shortfalls
from tallymesh_node.config import Config
from tallymesh_node.doctor.findings import Finding, fix, note, ok
from tallymesh_node.gpus import cards, obstacle, told
from tallymesh_node.machine import Machine
from tallymesh_node.sandbox import groups
from tallymesh_node.sandbox.status import check_sandbox

LEAST_DISK_MIB = 1024  # a program, a data set, a few checkpoints; the journal must never wait for room
LEAST_MEMORY_MIB = 1024  # torch alone maps 650 MiB; a unit that asks for less than this is rare
PROBE_BYTES = 1 << 20  # written and flushed: a quota or a full disk shows at this size
MAX_PORT_SENTENCE = 200


def folder(home: Path, machine: Machine) -> Finding:
    """Whether the node can write what it signs, and has room."""
    probe = home / f"doctor-{secrets.token_hex(4)}"
    made = [path for path in (home, *home.parents) if not path.exists()]
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with probe.open("xb") as file:
                file.write(os.urandom(PROBE_BYTES))  # a file system may store zeros in no room at all
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
            for path in made:
                path.rmdir()
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "is full" if full else f"cannot be written ({error.strerror})"
        remedy = (
            "Free some space, or put the node's folder on another disk with TALLYMESH_HOME."
            if full
            else f"Make it yours: chown -R $(id -u) {home}; or choose another with TALLYMESH_HOME. "
            "A disk that is mounted read-only: mount -o remount,rw."
        )
        return fix("disk", "disk", f"The node's folder {home} {what}: nothing could be signed.", remedy)
    if machine.disk_mib < LEAST_DISK_MIB:
        return fix(
            "disk",
            "disk",
            f"{machine.disk_mib} MiB are free where {home} lies: under {LEAST_DISK_MIB} MiB no job fits.",
            "Free some space, or put the node's folder on another disk with TALLYMESH_HOME.",
        )
    return ok("disk", f"{machine.disk_mib // 1024} GiB free in {home}")


def memory(config: Config, machine: Machine) -> Finding:
    """What would be offered, and what is free at this moment."""
    offered = from_machine(machine, config, None, confirmed=False).memory_mib
    if offered < LEAST_MEMORY_MIB:
        limited = 0 < config.memory_mib < LEAST_MEMORY_MIB
        return fix(
            "memory",
            "little_memory",
            f"{offered} MiB would be offered, and hardly any unit runs in less than {LEAST_MEMORY_MIB}.",
            f"Allow more: tallymesh node limit --memory-mib {2 * LEAST_MEMORY_MIB} (or memory_mib in config.toml)."
            if limited
            else "This machine, or its container, has too little memory to work; it can still submit jobs.",
        )
    free = psutil.virtual_memory().available >> 20
    if free < LEAST_MEMORY_MIB:
        return fix(
            "memory",
            "little_memory",
            f"{offered} MiB would be offered, of which {free} are free now.",
            "End what uses the memory, or lend less: tallymesh node limit --memory-mib.",
        )
    return ok("memory", f"{offered} MiB to offer, {free} free now")


def gpus(machine: Machine, config: Config, *, runs: bool = False) -> list[Finding]:
    """Nothing where there is none, and none is to be sold: most machines are like that. Where the node `runs`, it has
    control groups or says itself that it has none: those of this process may be others (a service's are its own)."""
    if config.sell != "gpu":
        return [note("gpus", told(machine.gpus))] if machine.gpus else []
    found = obstacle(cards(), bounded=runs or groups.find() is not None)
    if found is not None:
        return [fix("gpus", found.code, found.sentence, found.remedy)]
    return [note("gpus", f"{told(machine.gpus, selling=True)} yet: the node tries them when it starts (node status)")]


def allowed(config: Config, machine: Machine) -> list[Finding]:
    """Where the owner allows more than there is."""
    return [
        fix("limits", problem.code, problem.sentence, problem.remedy)
        for problem in shortfalls(machine, config)
        if not (problem.code == "more_than_there_is" and machine.disk_mib < LEAST_DISK_MIB)  # said by `folder`
    ]


def port(config: Config) -> Finding:
    """Whether the node could listen. Only for a folder in which no node runs."""
    family = socket.AF_INET6 if ":" in config.listen_host else socket.AF_INET
    where = f"{config.listen_host}:{config.listen_port}"
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((config.listen_host, config.listen_port))
            probe.listen(1)
    except OSError as error:
        remedies = {
            errno.EADDRINUSE: f"Find it with: ss -ltnp 'sport = :{config.listen_port}'. Or choose another port: "
            "--listen-port (0 takes any that is free).",
            errno.EACCES: "Choose a port of 1024 or more with --listen-port.",
            errno.EADDRNOTAVAIL: "This machine has no such address: --listen-host 0.0.0.0 listens on all of its own.",
        }
        said = "another program listens there" if error.errno == errno.EADDRINUSE else str(error.strerror)
        remedy = remedies.get(error.errno or 0, "Choose another with --listen-host and --listen-port.")
        return fix("port", "port_in_use", f"The node cannot listen on {where}: {said}."[:MAX_PORT_SENTENCE], remedy)
    return ok("port", f"{where} can be listened on")


def sandbox() -> Finding:
    """By running foreign code in one: see sandbox/status.py."""
    found = check_sandbox()
    if found.available:
        return ok("sandbox", found.sentence)
    remedy = found.remedy or "Look at what it says; the node can submit jobs without a sandbox (--roles submit)."
    return fix("sandbox", "no_sandbox", found.sentence, remedy)
