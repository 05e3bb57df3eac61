"""The runtime with one layer taken out, for each job whose folder in the spool names it (in a file `without`).

`warm` puts this into the template of a test. The layer goes in the fork that becomes the job, so that other jobs of
the same template have every layer: what an attempt comes to in both differs by this layer alone.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from tallymesh_learning.runtime import isolate, job, seccomp, unit, view


def warm() -> None:
    template = sys.modules["__main__"]  # run by `python -m`: its classes are not those that an import finds
    original = template.Template._become_job

    def become(self: Any, name: str, channel: socket.socket, writer: int) -> Any:
        try:
            wanted = Path(view.SPOOL, name, "without")
            if wanted.exists():
                LAYERS[wanted.read_text()]()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        original(self, name, channel, writer)

    template.Template._become_job = become


def _no_filter() -> None:
    seccomp.install = lambda *, forks, card=False: None  # type: ignore[assignment]


def _no_user_namespace() -> None:
    enter = view.enter_unit

    def enter_unit(name: str, kept: Any) -> int:
        descriptor = enter(name, kept)
        isolate.unshare = lambda flags: None  # type: ignore[assignment]
        isolate.map_own_ids = lambda proc: None  # type: ignore[assignment]
        return descriptor

    view.enter_unit = enter_unit


def _no_process_namespace() -> None:
    unshare = isolate.unshare

    def without(flags: int) -> None:
        if flags != isolate.CLONE_NEWPID:
            unshare(flags)

    isolate.unshare = without
    isolate.enter = lambda descriptor, kind: None  # type: ignore[assignment]


def _nothing_hidden() -> None:
    unmount = isolate.unmount

    def without(target: str) -> None:
        if target not in (view.JOB_PROC, view.SPOOL, view.UNITS):
            unmount(target)

    isolate.unmount = without


def _one_file_system_for_all() -> None:
    prepare = view.prepare_unit
    made: list[str] = []

    def prepare_unit(name: str, disk_mib: int) -> int:
        if not made:
            made.append(name)
            return prepare(name, disk_mib)
        os.mkdir(f"{view.UNITS}/{name}")
        isolate.bind(f"{view.UNITS}/{made[0]}", f"{view.UNITS}/{name}")
        out = f"{view.UNITS}/{name}/work/out"
        for left in os.listdir(out):
            os.unlink(f"{out}/{left}")
        return os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    enter = view.enter_unit

    def enter_unit(name: str, kept: Any) -> int:
        os.makedirs = partial(os.makedirs, exist_ok=True)  # an earlier unit's mount points are there
        return enter(name, kept)

    view.enter_unit = enter_unit
    view.prepare_unit = prepare_unit
    view.remove_unit = lambda name: None  # type: ignore[assignment]


def _mounts(change: Callable[[str, str, int, str], tuple[int, str] | None]) -> Callable[[], None]:
    """`change`: (target, kind, flags, options) -> flags and options, or None: not at all."""

    def apply() -> None:
        mount = isolate.mount

        def changed(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
            wanted = change(target, kind, flags, options)
            if wanted is not None:
                mount(source, target, kind, *wanted)

        isolate.mount = changed

    return apply


def _without_option(name: str) -> Callable[[str, str, int, str], tuple[int, str]]:
    def change(target: str, kind: str, flags: int, options: str) -> tuple[int, str]:
        if target.startswith(f"{view.UNITS}/"):
            options = ",".join(option for option in options.split(",") if not option.startswith(f"{name}="))
        return flags, options

    return change


def _without_limit(kind: int) -> Callable[[], None]:
    def apply() -> None:
        limit = isolate.limit
        isolate.limit = lambda wanted, value: None if wanted == kind else limit(wanted, value)  # type: ignore[assignment]

    return apply


def _without_namespace(flag: int) -> Callable[[], None]:
    def apply() -> None:
        unshare = isolate.unshare

        def without(flags: int) -> None:
            if flags != flag:
                unshare(flags)

        isolate.EVERY_NAMESPACE &= ~flag
        isolate.unshare = without

    return apply


def _writable_inputs() -> None:
    isolate.bind_read_only = isolate.bind  # type: ignore[assignment]


def _descriptors_stay() -> None:
    """In the unit alone: the job's own process keeps closing what is the template's."""
    close = isolate.close_all_but

    def once(keep: Iterable[int]) -> None:
        isolate.close_all_but = lambda keep: None  # type: ignore[assignment]
        close(keep)

    isolate.close_all_but = once


def _nobody_watches() -> None:
    job.Job._watch = lambda self: None  # type: ignore[method-assign, assignment]


LAYERS: dict[str, Callable[[], None]] = {
    "seccomp": _no_filter,
    "unit's user namespace": _no_user_namespace,
    "unit's process namespace": _no_process_namespace,
    "hidden folders": _nothing_hidden,
    "own file system": _one_file_system_for_all,
    "disk size": _mounts(_without_option("size")),
    "inodes": _mounts(_without_option("nr_inodes")),
    "read-only root": _mounts(
        lambda target, kind, flags, options: None if (target, kind) == ("/", "") else (flags, options)
    ),
    "read-only proc": _mounts(
        lambda target, kind, flags, options: (flags & ~(isolate.MS_RDONLY if target == "/proc" else 0), options)
    ),
    "read-only inputs": _writable_inputs,
    "closed descriptors": _descriptors_stay,
    "watchdog": _nobody_watches,
    "network namespace": _without_namespace(isolate.CLONE_NEWNET),
    "ipc namespace": _without_namespace(isolate.CLONE_NEWIPC),
    "uts namespace": _without_namespace(isolate.CLONE_NEWUTS),
    "cgroup namespace": _without_namespace(isolate.CLONE_NEWCGROUP),
} | {
    f"limit {name}": _without_limit(getattr(unit.resource, f"RLIMIT_{name}"))
    for name in ("AS", "NPROC", "NOFILE", "FSIZE", "CORE", "MEMLOCK", "SIGPENDING")
}
