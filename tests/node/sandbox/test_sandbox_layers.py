"""What hostile units try (inside/attempts.py), and which layer of the sandbox stops each.

Every attempt fails, as a unit of the job that made it fails, and leaves the next one untouched. Then every layer is
taken out by itself, and an attempt that failed succeeds: so each layer earns its place. docs/TRUST.md shows both
tables, and argues the few layers that stop nothing by themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace

from fakes import wheels as made
from fakes.sandboxed import INSIDE, JOB, SECRET, SMALL, Machine, kept_alive, make_unit
from tallymesh import wheels
from tallymesh_learning.runtime import view
from tallymesh_learning.runtime.view import INODES_MAX
from tallymesh_node.interfaces import Failure, Limits
from tallymesh_node.sandbox import command, drop, executor, outputs, spool

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest

TRUST = Path(__file__).resolve().parents[3] / "docs/TRUST.md"
FEW = replace(SMALL, processes=8)
TIGHT = replace(SMALL, memory_mib=192)


class Attempt(msgspec.Struct, frozen=True):
    """Function of inside/attempts.py, its arguments (texts in braces are filled in), how it ends, what stops it."""

    name: str
    config: dict[str, Any] = {}
    code: str = "program"
    layer: str = ""  # without which it succeeds
    limits: Limits = SMALL
    before: str = ""  # an attempt that a unit of the same job makes first
    beside: str = ""  # … and meanwhile
    bare: dict[str, Any] | None = None  # arguments without the layer, where they differ
    label: str = ""
    sure: bool = True  # False: kernels may be set up to refuse it by themselves

    def __str__(self) -> str:
        return self.label or self.name


PATH, NAME, BACKWARDS = {"path": "{secret}"}, {"name": "{name}"}, {"backwards": "{backwards}"}
ATTEMPTS = [
    # looking around
    Attempt("read_a_file_of_the_owner", PATH, layer="what is shown"),
    Attempt("read_it_through_proc", PATH),
    Attempt("read_it_by_a_handle", PATH),
    Attempt("list_the_owners_home"),
    Attempt("read_the_nodes_environment", BACKWARDS, layer="empty environment"),
    Attempt("read_a_neighbours_files", BACKWARDS, layer="hidden folders", beside="keep_a_secret"),
    Attempt("see_processes_of_the_job", layer="hidden folders"),
    Attempt("read_what_was_left", layer="own file system", before="leave_something"),
    Attempt("learn_the_machines_name", layer="uts namespace"),
    Attempt("learn_the_owners_service", layer="cgroup namespace"),
    Attempt("list_the_machines_shared_memory", layer="ipc namespace"),
    Attempt("read_the_kernels_log"),
    Attempt("use_a_descriptor_of_the_node", layer="closed descriptors"),
    Attempt("read_a_file_of_root", {"path": "{folder}/of-root"}),
    # reaching out
    Attempt("open_a_connection", layer="seccomp"),
    Attempt("send_a_datagram", layer="seccomp", sure=False),
    Attempt("ask_the_kernel_for_its_routes", layer="seccomp"),
    Attempt("call_the_hypervisor"),
    Attempt("dial_an_abstract_name", NAME),
    Attempt("post_to_an_abstract_name", NAME, layer="network namespace"),
    Attempt("kill_everything", layer="unit's process namespace", beside="sleep"),
    Attempt("see_other_processes", layer="unit's process namespace", beside="sleep"),
    Attempt("trace_a_process", layer="seccomp", sure=False),
    Attempt("read_a_process", layer="seccomp"),
    Attempt("take_a_descriptor_of_a_process", layer="seccomp"),
    # getting out
    Attempt("make_a_user_namespace", layer="seccomp"),
    Attempt("clone_into_a_namespace", layer="seccomp"),
    Attempt("join_a_namespace"),
    Attempt("mount_a_folder"),
    Attempt("mount_the_new_way"),
    Attempt("take_a_mount_away"),
    Attempt("change_the_root"),
    Attempt("make_a_device"),
    Attempt("become_root"),
    Attempt("become_root_by_a_program"),
    Attempt("join_a_keyring", layer="seccomp", sure=False),
    Attempt("set_up_io_uring", layer="seccomp", sure=False),
    Attempt("load_a_kernel_program"),
    Attempt("count_the_kernels_events"),
    Attempt("hold_the_kernel_in_a_page_fault", layer="seccomp", sure=False),
    Attempt("hide_memory_in_a_descriptor", layer="seccomp"),
    Attempt("hide_memory_in_a_segment", layer="seccomp"),
    Attempt("hide_memory_in_a_pipe", layer="seccomp"),
    Attempt("call_by_another_abi"),
    Attempt("type_into_the_terminal"),
    Attempt("write_to_the_system", {"folder": "{folder}/open"}, layer="read-only system"),
    Attempt("write_to_the_root", layer="read-only root"),
    Attempt("change_an_input", layer="read-only inputs"),
    Attempt("change_an_input_through_its_descriptor"),
    Attempt("hide_from_the_machines_want_of_memory", layer="read-only proc"),
    Attempt("raise_a_limit"),
    Attempt("come_before_others"),
    Attempt("take_every_core"),
    # bombs
    Attempt("fork_bomb", code="limits", limits=FEW),
    Attempt("thread_bomb", {"count": 80}, code="limits", layer="limit NPROC", limits=FEW),
    Attempt(
        "few_children", {"count": 4}, code="", layer="unit's user namespace", limits=FEW,
        beside="crowd_the_neighbours_out", label="crowd_the_neighbours_out",
    ),
    Attempt("reserve_memory", {"mebibytes": 4096}, code="limits", layer="limit AS"),
    Attempt(
        "memory_of_many", {"mebibytes": 60, "processes": 5, "hold_s": 60.0}, code="limits", layer="watchdog",
        limits=TIGHT, bare={"mebibytes": 60, "processes": 5, "hold_s": 0.0},
    ),
    Attempt("lock_memory", code="limits", layer="limit MEMLOCK"),
    Attempt("disk_bomb", {"mebibytes": 40}, code="limits", layer="disk size"),
    Attempt("inode_bomb", {"count": INODES_MAX + 10}, code="limits", layer="inodes"),
    Attempt("one_large_file", {"mebibytes": 20}, code="limits", layer="limit FSIZE"),
    Attempt("large_output", {"mebibytes": 9}, code="limits", layer="size of outputs"),
    Attempt("descriptor_bomb", {"count": 100}, code="limits", layer="limit NOFILE"),
    Attempt("timer_bomb", {"count": 300}, code="limits", layer="limit SIGPENDING"),
    Attempt("core_dump", layer="limit CORE"),
    Attempt("time_bomb", {"seconds": 90.0}, code="limits", limits=replace(SMALL, wall_s=0.5)),
    # poisoned outputs
    Attempt("output_is_a_link", PATH, layer="links not followed"),
    Attempt("output_is_a_folder", layer="plain files only"),
    Attempt("output_is_an_input"),
    Attempt("metrics_that_never_end"),
    Attempt("report_out_of_bounds"),
    Attempt("blame_the_machine", layer="who may be blamed"),
    Attempt("pose_as_a_sandbox_that_failed"),
    Attempt("die_by_its_own_hand"),
    *(
        Attempt("poisoned_archive", {"path": path}, label=f"poisoned_archive {path}")
        for path in ("../../hole.py", "/tmp/hole.py", "torch/__init__.py", "os.py", "a\0b.py", "hole.so")
    ),
]  # fmt: skip


def fill(config: dict[str, Any], facts: dict[str, str]) -> dict[str, Any]:
    return {name: value.format(**facts) if isinstance(value, str) else value for name, value in config.items()}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that units see, with what an owner's own could hold."""
    folder = tmp_path_factory.mktemp("shown")
    folder.chmod(0o755)
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    if os.geteuid() == 0:  # an ordinary user's files are those of the sandbox's user: there it may read them
        (folder / "of-root").write_text("the key")
        (folder / "of-root").chmod(0o600)
        os.chown(folder / "open", drop.SANDBOX_ID, drop.SANDBOX_ID)
    return folder


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory, shown: Path) -> Iterator[dict[str, str]]:
    """What attempts look for: a file of the owner's, a name on which somebody listens, the node's secret."""
    folder = tmp_path_factory.mktemp("owner")
    folder.chmod(0o755)
    (folder / "wallet.json").write_text("the key")
    name = f"tallymesh-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TALLYMESH_PASSWORD", SECRET)
            yield {"secret": str(folder / "wallet.json"), "name": name, "backwards": SECRET[::-1], "folder": str(shown)}


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory, shown: Path, facts: dict[str, str]) -> Iterator[Machine]:
    """With every layer, but for jobs that `without` names."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # an owner that wants dumps of programs
    with kept_alive(tmp_path_factory.mktemp("strong"), slots=3, warm="weaken:warm", extra=[INSIDE, shown]) as kept:
        kept.run("echo")  # its job's sandbox is open
        yield kept
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def come_to(machine: Machine, attempt: Attempt, config: dict[str, Any], job: bytes = JOB) -> bytes:
    """What the attempt got hold of; else Failure."""

    async def run() -> bytes:
        if attempt.before:
            await machine.start(attempt.before, job=job)
        beside = trio.Event()
        async with trio.open_nursery() as nursery:
            if attempt.beside:
                unit = make_unit(machine.store, attempt.beside, {}, data=SECRET.encode())

                async def live() -> None:
                    # Where the attempt kills it, the neighbour fails; where it does not, it is cancelled.
                    with contextlib.suppress(Failure):
                        await machine.executor.run(
                            job, unit, machine.inputs(unit), attempt.limits, on_line=lambda line: beside.set()
                        )

                nursery.start_soon(live)
                await beside.wait()
            try:
                outcome = await machine.start(attempt.name, attempt.limits, job, **config)
            finally:
                nursery.cancel_scope.cancel()
        return machine.store.get(outcome.output)

    try:
        return machine.call(run)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=str)
def test_what_a_hostile_unit_tries_fails_and_the_next_one_is_untouched(
    strong: Machine, facts: dict[str, str], attempt: Attempt
) -> None:
    pool = strong.executor.pool
    before = pool.templates_started, pool.sandboxes_opened
    if attempt.code:
        with pytest.raises(Failure) as caught:
            come_to(strong, attempt, fill(attempt.config, facts))
        assert caught.value.code == attempt.code, caught.value.sentence
    else:
        come_to(strong, attempt, fill(attempt.config, facts))
    assert (pool.templates_started, pool.sandboxes_opened) == before  # not even the job's own sandbox had to go
    assert strong.executor.running == 0
    seen = strong.said("surroundings")
    assert (seen["pids"], seen["tmp"], seen["shm"]) == ([1], [], [])


def test_there_are_at_least_thirty_of_them() -> None:
    assert len({attempt.name for attempt in ATTEMPTS}) >= 60


# one layer less

LIMITS = ("AS", "NPROC", "NOFILE", "FSIZE", "CORE", "MEMLOCK", "SIGPENDING")
INNER = [
    "seccomp", "unit's user namespace", "unit's process namespace", "hidden folders", "own file system", "disk size",
    "inodes", "read-only root", "read-only proc", "closed descriptors", "watchdog",
    *(f"limit {name}" for name in LIMITS),
]  # fmt: skip
NAMESPACES = {"network namespace": "net", "ipc namespace": "ipc", "uts namespace": "uts", "cgroup namespace": "cgroup"}
OUTER = ["what is shown", "read-only system", "read-only inputs", "empty environment", *NAMESPACES]
OWN_PROCS = ("/proc", view.JOB_PROC)
OWN_MOUNTS = ("/", "/tmp", "/dev/shm", view.WORK, view.UNITS)
ENDS = ["links not followed", "plain files only", "size of outputs", "who may be blamed"]


def of_layer(layer: str) -> list[Attempt]:
    return [attempt for attempt in ATTEMPTS if attempt.layer == layer]


def test_every_layer_has_an_attempt_that_it_alone_stops() -> None:
    assert {attempt.layer for attempt in ATTEMPTS} - {""} == {*INNER, *OUTER, *ENDS}


@contextlib.contextmanager
def weakened(machine: Machine, layer: str) -> Iterator[bytes]:
    """A job that is opened without `layer` (inside/weaken.py)."""
    key = f"without {layer}".encode()
    opener = spool.Spool.open_job

    def open_job(self: spool.Spool, job: str) -> None:
        opener(self, job)
        (self.folder / job / "without").write_text(layer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool.Spool, "open_job", open_job)
        machine.call(machine.executor.prepare, key)
    try:
        yield key
    finally:
        machine.call(machine.executor.close_job, key)


def succeeds(machine: Machine, attempt: Attempt, facts: dict[str, str], job: bytes = JOB) -> None:
    config = fill(attempt.config if attempt.bare is None else attempt.bare, facts)
    if attempt.code:
        with contextlib.nullcontext() if attempt.sure else contextlib.suppress(Failure):
            assert come_to(machine, attempt, config, job)
    else:  # here the unit is the victim
        with pytest.raises(Failure):
            come_to(machine, attempt, config, job)


@pytest.mark.parametrize("layer", INNER)
def test_without_a_layer_within_an_attempt_succeeds(
    strong: Machine, facts: dict[str, str], monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    if layer == "watchdog":  # which is alone where there are no control groups
        monkeypatch.setattr(strong.executor.units, "groups", None)
    with weakened(strong, layer) as job:
        for attempt in of_layer(layer):
            succeeds(strong, attempt, facts, job)


def test_a_control_group_bounds_memory_where_the_watchdog_is_too_late(strong: Machine, facts: dict[str, str]) -> None:
    """Where this machine has one for us: else there is nothing between the watchdog and the machine's memory."""
    (attempt,) = of_layer("watchdog")
    with weakened(strong, "watchdog") as job:
        if strong.executor.units.groups is None:
            succeeds(strong, attempt, facts, job)
            return
        with pytest.raises(Failure) as caught:
            come_to(strong, attempt, {"mebibytes": 100, "processes": 5, "hold_s": 15.0}, job)
        assert (caught.value.code, caught.value.sentence) == ("limits", "It used more than 192 MiB of memory.")
        assert strong.said("surroundings", job=job)["pids"] == [1]


@pytest.mark.parametrize("layer", OUTER)
def test_without_a_layer_around_it_an_attempt_succeeds(
    tmp_path: Path, shown: Path, facts: dict[str, str], monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    """A template of its own, started by the real command less one thing. A namespace of a kind is there twice, around
    the template and around the job; both are left out."""
    if layer == "cgroup namespace" and set(re.findall(r":(/.*)", Path("/proc/self/cgroup").read_text())) == {"/"}:
        return  # a machine whose node is in no group: there is nothing to learn
    take_out(layer, facts, tmp_path, monkeypatch)
    with segment(), kept_alive(tmp_path, slots=2, warm="weaken:warm", extra=[INSIDE, shown]) as machine:
        inner = layer in NAMESPACES or layer == "read-only inputs"
        with weakened(machine, layer) if inner else contextlib.nullcontext(JOB) as job:
            for attempt in of_layer(layer):
                succeeds(machine, attempt, facts, job)


def test_every_mount_of_a_jobs_own_is_as_quiet_and_as_small_as_it_can_be(strong: Machine) -> None:
    """No device and no program of another user's is in reach through them, and what nobody should write to could not
    be filled. Seen from a unit whose job's own folders are not hidden from it."""
    with weakened(strong, "hidden folders") as job:
        mounts = strong.said("surroundings", job=job)["mounts"]
    found: dict[str, tuple[set[str], set[str]]] = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        place = before.split(" ")[4]
        if kind in ("tmpfs", "proc") and place in (*OWN_MOUNTS, *OWN_PROCS):
            found[place] = set(before.split(" ")[5].split(",")), set(options.split(","))
    assert set(found) == {*OWN_MOUNTS, *OWN_PROCS}
    for place, (flags, _) in found.items():
        assert {"nosuid", "nodev"} <= flags, place
        assert place not in OWN_PROCS or "noexec" in flags, place
    for place in ("/", view.UNITS):
        assert {"size=1024k", "nr_inodes=8192"} <= found[place][1], place


def test_what_a_unit_is_given_is_locked_twice_and_the_inner_lock_holds_alone(
    tmp_path: Path, shown: Path, facts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (attempt,) = of_layer("read-only inputs")
    take_out("read-only inputs", facts, tmp_path, monkeypatch)
    with kept_alive(tmp_path, slots=2, warm="weaken:warm", extra=[INSIDE, shown]) as machine:
        plot = made.build("plot", "1.0", {"plot/__init__.py": made.MODULE})
        machine.store.put(plot)
        given = make_unit(machine.store, "change_a_package", {})
        unit = replace(given, inputs=(*given.inputs, *wheels.inputs([made.wheel("plot", "1.0", plot)])))

        def change(job: bytes) -> bytes:
            outcome = machine.call(machine.executor.run, job, unit, machine.inputs(unit), SMALL)
            return machine.store.get(outcome.output)

        with pytest.raises(Failure, match="Read-only file system"):
            come_to(machine, attempt, fill(attempt.config, facts))
        with pytest.raises(Failure, match="Read-only file system"):
            change(JOB)
        with weakened(machine, "read-only inputs") as job:
            assert change(job) == b'"changed"'


def take_out(layer: str, facts: dict[str, str], folder: Path, patch: pytest.MonkeyPatch) -> None:
    build = command.build

    def without(place: Path, **options: Any) -> command.Command:
        made = build(place, **options)
        wanted = json.loads(made.argv[-1]) if made.dropped else {"argv": list(made.argv), "paths": []}
        argv, helper = wanted["argv"], list(made.argv[:-1])
        if layer == "what is shown":
            owners = str(Path(facts["secret"]).parent)
            argv[argv.index("--proc") : argv.index("--proc")] = ["--ro-bind", owners, owners]
            wanted["paths"].append(owners)
        elif layer == "read-only system":
            argv[:] = ["--bind" if word == "--ro-bind" else word for word in argv]
        elif layer == "read-only inputs":
            for locked in (place, options["packages"]):
                argv[argv.index(os.path.realpath(locked)) - 1] = "--bind"
        elif layer == "empty environment":
            argv.remove("--clearenv")
            copy = folder / "drop.py"
            copy.write_text(
                Path(drop.__file__).read_text().replace('wanted["argv"], {})', 'wanted["argv"], os.environ)')
            )
            helper[-1:] = [str(copy)]
        elif layer in NAMESPACES:
            kinds = ["user", "pid", *(kind for kind in NAMESPACES.values() if kind != NAMESPACES[layer])]
            place_of_all = argv.index("--unshare-all")
            argv[place_of_all : place_of_all + 2] = [f"--unshare-{kind}" for kind in kinds]
            if layer == "uts namespace":
                del argv[argv.index("--hostname") : argv.index("--hostname") + 2]
        if made.dropped:
            argv = [*helper, json.dumps(wanted)]
        return command.Command(tuple(argv), made.backend, made.dropped)

    patch.setattr(executor, "build", without)
    if layer == "empty environment":
        start = subprocess.Popen

        def popen(argv: Any, **options: Any) -> Any:
            return start(argv, **{**options, "env": None})

        patch.setattr(subprocess, "Popen", popen)
    if layer == "read-only inputs":
        link = spool.Spool._link

        def owned(self: spool.Spool, source: Path, target: Path) -> bool:  # as an ordinary user's store is
            if os.geteuid() == 0:
                os.chown(source, drop.SANDBOX_ID, drop.SANDBOX_ID)
            return link(self, source, target)

        patch.setattr(spool.Spool, "_link", owned)


@contextlib.contextmanager
def segment() -> Iterator[None]:
    """System V shared memory of this machine."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.shmget(0, 4096, 0o1600)
    assert number >= 0
    try:
        yield
    finally:
        libc.shmctl(number, 0, None)


class Shim:
    """A module in which a few names differ."""

    def __init__(self, module: Any, **names: Any) -> None:
        self.__dict__.update(vars(module), **names)


@pytest.mark.parametrize("layer", ENDS)
def test_without_a_layer_of_the_node_an_attempt_succeeds(
    strong: Machine, facts: dict[str, str], monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    (attempt,) = of_layer(layer)
    config = fill(attempt.config, facts)
    if layer == "links not followed":
        monkeypatch.setattr(outputs, "os", Shim(os, O_NOFOLLOW=0))
        assert come_to(strong, attempt, config) == b"the key"
    elif layer == "plain files only":
        monkeypatch.setattr(outputs, "stat", Shim(outputs.stat, S_ISREG=lambda mode: True))
        with pytest.raises(IsADirectoryError):  # which nobody expects
            come_to(strong, attempt, config)
    elif layer == "size of outputs":
        read_file = outputs.read_file
        monkeypatch.setattr(outputs, "read_file", lambda folder, name, size_max: read_file(folder, name, 1 << 40))
        assert len(come_to(strong, attempt, config)) > attempt.limits.output_mib << 20
    else:
        monkeypatch.setattr(outputs, "_CODES", {*outputs._CODES, "sandbox"})
        with pytest.raises(Failure) as caught:
            come_to(strong, attempt, config)
        assert caught.value.code == "sandbox"


def test_the_page_on_trust_names_every_layer_and_what_succeeds_without_it() -> None:
    page = TRUST.read_text()
    section = page[page.index("## The sandbox, layer by layer") :]
    rows = dict(re.findall(r"^\| ([^|]+?) \| [^|]+ \| ([^|]+?) \|$", section, re.MULTILINE))
    for layer in (*INNER, *OUTER, *ENDS):
        names = sorted({str(attempt) for attempt in of_layer(layer)})
        assert set(re.findall(r"`(\w+)`", rows.get(layer, ""))) == set(names), layer
