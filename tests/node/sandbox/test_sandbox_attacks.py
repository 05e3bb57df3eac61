"""What a hostile unit tries, and that it comes to nothing: for the machine, for the node, for the units after it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from fakes.sandboxed import JOB, SECRET, SMALL, Machine, make_unit
from tallymesh.ids import BlobId
from tallymesh_node.interfaces import Failure, Outcome
from tallymesh_node.sandbox.logs import FREE_BYTES, Logs
from tallymesh_node.sandbox.running import PAUSE_S

pytestmark = pytest.mark.slow  # real processes: run by scripts/test, not by plain pytest


REFUSED = {"EPERM", "EACCES", "EROFS", "ENOENT", "ESRCH", "ENOSYS", "ENOTDIR", "EINVAL", "ValueError", "EAFNOSUPPORT"}


@pytest.fixture(autouse=True)
def _the_next_unit_is_untouched(machine: Machine) -> Iterator[None]:
    """After every attack: the same job's next unit runs, alone and in clean surroundings, in the same template."""
    started = machine.executor.pool.templates_started
    yield
    seen = machine.said("surroundings")
    assert seen["pids"] == [1]
    assert seen["tmp"] == []
    assert seen["shm"] == []
    assert machine.executor.pool.templates_started == started
    assert machine.executor.running == 0


# looking around


def test_a_unit_sees_system_and_python_and_nothing_else(machine: Machine, tmp_path: Path) -> None:
    seen = machine.said("surroundings")
    assert seen["ours"] == {"packages": [], "proc": [], "spool": [], "units": [], "work": ["in", "out"]}
    assert set(seen["dev"]) == {"null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr"}
    assert "home" not in seen["root"]
    assert "run" not in seen["root"]
    assert "var" not in seen["root"]
    assert seen["hostname"] == "sandbox"
    assert [line.split(":")[0].strip() for line in seen["interfaces"].splitlines()[2:]] == ["lo"]


def test_two_jobs_share_no_namespace_with_each_other_or_the_machine(machine: Machine) -> None:
    kinds = ("user", "mnt", "pid", "ipc", "net", "uts", "cgroup")
    seen: list[dict[str, str]] = []

    async def alive_at_once() -> None:  # the number of a namespace that is gone is given again
        async with trio.open_nursery() as nursery:
            for job in (b"one", b"one", b"other"):
                unit = make_unit(machine.store, "namespaces", {})
                told = trio.Event()

                def on_line(line: str, told: trio.Event = told) -> None:
                    seen.append(json.loads(line))
                    told.set()

                nursery.start_soon(
                    lambda job=job, unit=unit, on_line=on_line: machine.executor.run(
                        job, unit, machine.inputs(unit), SMALL, on_line=on_line
                    )
                )
                await told.wait()
            nursery.cancel_scope.cancel()

    machine.call(alive_at_once)
    one, same, other = seen
    for kind in kinds:
        assert len({one[kind], other[kind], os.readlink(f"/proc/self/ns/{kind}")}) == 3, kind
    assert one["net"] == same["net"]
    for kind in ("user", "mnt", "pid"):  # a unit has these for itself
        assert one[kind] != same[kind], kind
    for job in (b"one", b"other"):
        machine.call(machine.executor.close_job, job)


def test_a_unit_has_no_rights_at_all(machine: Machine) -> None:
    seen = machine.said("surroundings")
    status = dict(line.split(":\t", 1) for line in seen["status"].splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert seen["uid"] == [65534, 65534, 65534, []] or seen["uid"][3] == [65534]


def test_a_unit_has_no_descriptor_of_the_node_the_template_or_the_job(machine: Machine) -> None:
    with open(os.devnull) as kept:
        os.set_inheritable(kept.fileno(), True)  # something of the node's that is not marked close-on-exec
        targets = machine.said("surroundings")["descriptors"]
    assert targets.pop("0") == "/dev/null"
    assert {name: target.split(":")[0] for name, target in targets.items()} == {"1": "pipe", "2": "pipe", "3": "pipe"}


def test_the_nodes_environment_is_nowhere(machine: Machine) -> None:
    assert SECRET in os.environ.values()
    seen = machine.said("surroundings")
    assert SECRET not in str(seen)
    for process in _inside(machine):  # bubblewrap and its first process show theirs to whoever is in there
        with contextlib.suppress(FileNotFoundError):
            assert SECRET.encode() not in Path(f"/proc/{process}/environ").read_bytes()


def test_files_of_the_machine_cannot_be_read(machine: Machine, tmp_path: Path) -> None:
    secret = tmp_path / "wallet.json"
    secret.write_text("the key")
    places = [str(secret), "/etc/passwd", "/etc/shadow", "/root/.bashrc", "/home", "/var/log", "/run", "/proc/kcore"]
    places += [
        str(machine.executor.pool._spool.folder),
        str(Path.home()),
        "/.tallymesh/spool/j1",
        "/dev/kmsg",
        "/dev/mem",
    ]
    said = machine.said("read", paths=[*places, f"/proc/1/root{secret}", f"/proc/self/cwd/../../..{secret}"])
    found = {place: word for place, word in zip(places, said, strict=False) if word not in REFUSED}
    home = found.pop(str(Path.home()), "done: []")  # Python's own prefix may lie below it, and is all that is shown
    assert all(name.startswith("'.") for name in home.removeprefix("done: [").removesuffix("]").split(", ") if name)
    assert not found


def test_other_jobs_files_cannot_be_found(machine: Machine) -> None:
    secret = secrets.token_hex(16)
    unit = make_unit(machine.store, "sleep", {}, data=secret.encode())

    async def both() -> bytes:
        asleep = trio.Event()

        async def victim() -> None:
            await machine.executor.run(b"victim", unit, machine.inputs(unit), SMALL, on_line=lambda line: asleep.set())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(victim)
            await asleep.wait()
            outcome = await machine.start("every_file", backwards=secret[::-1])
            nursery.cancel_scope.cancel()
        return machine.store.get(outcome.output)

    assert machine.call(both) == b"[]"
    machine.call(machine.executor.close_job, b"victim")


def test_nothing_of_an_earlier_unit_is_left_and_nobody_goes_on_living(machine: Machine) -> None:
    secret = secrets.token_hex(16)
    machine.said("surroundings")  # the job's own process is there
    before = _inside(machine)
    outcome = machine.run("leave", secret=secret)
    assert machine.store.get(outcome.output) == b"left"  # read after its last process was dead
    assert _inside(machine) <= before
    seen = machine.said("peek", backwards=secret[::-1])
    assert seen["files"] == []
    assert seen["out"] == []
    assert seen["pids"] == ["1"]


# reaching out


def test_no_network_and_no_socket_of_the_machine(machine: Machine, tmp_path: Path) -> None:
    name = f"tallymesh-test-{secrets.token_hex(4)}"
    path = tmp_path / "socket"
    reached: list[str] = []
    with contextlib.ExitStack() as stack:
        listeners = []
        for family, kind, address in (
            (socket.AF_UNIX, socket.SOCK_STREAM, "\0" + name),
            (socket.AF_UNIX, socket.SOCK_DGRAM, "\0" + name + "d"),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(path)),
            (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        ):
            listener = stack.enter_context(socket.socket(family, kind))
            listener.bind(address)
            listener.settimeout(0.05)
            if kind == socket.SOCK_STREAM:
                listener.listen()
            listeners.append(listener)
        port = listeners[3].getsockname()[1]
        said = machine.said("connect", abstract=name, path=str(path), port=port)
        said += machine.said("connect", abstract=name + "d", path=str(path), port=port)
        for listener in listeners:
            with contextlib.suppress(TimeoutError):
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()
                else:
                    listener.recv(10)
                reached.append(str(listener))
    assert not reached
    # Everything is refused by the filter but `sendmsg`, whose address it cannot read: there the network namespace
    # holds, in which nobody listens.
    assert [word for word in said if word not in ("EPERM", "ECONNREFUSED")] == []
    assert said.count("ECONNREFUSED") == 2


def test_no_other_process_can_be_seen_or_signalled(machine: Machine) -> None:
    victims = sorted({os.getpid(), os.getppid(), *_inside(machine)})
    said = machine.said("signals", pids=[*victims, 2, 3, 4, 5])
    assert set(said) <= {"ESRCH", "EPERM"}
    assert all(Path(f"/proc/{pid}").exists() for pid in victims)


def test_no_way_to_more_rights(machine: Machine) -> None:
    said = machine.said("privileges")
    assert len(said) == 27
    assert {word for word in said[:-2]} <= {"EPERM", "ENOSYS"}, said
    assert said[-2:] == ["ValueError", "EROFS"], said  # raising a hard limit, writing to /proc


# breaking things


def test_inputs_cannot_be_changed_not_even_through_their_descriptors(machine: Machine) -> None:
    unit = make_unit(machine.store, "tamper", {}, data=b"must stay as it is")
    (name,) = (BlobId(item.blob) for item in unit.inputs)
    mode = machine.store.path(name).stat().st_mode & 0o333

    async def run() -> Outcome:
        return await machine.executor.run(JOB, unit, machine.inputs(unit), SMALL)

    said = json.loads(machine.store.get(machine.call(run).output))
    assert set(said) <= {"EROFS", "EACCES", "EPERM", "EXDEV"}, said
    assert machine.store.path(name).read_bytes() == b"must stay as it is"
    assert machine.store.path(name).stat().st_mode & 0o333 == mode


def test_nothing_outside_its_own_folders_can_be_written(machine: Machine) -> None:
    said = machine.said("litter")
    assert set(said) <= {"EROFS", "EACCES", "EPERM", "ENOENT", "ENOTDIR"}, said


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("output", "symlink"),
        ("metrics", "symlink"),
        ("report", "symlink"),
        ("probe", "symlink"),
        ("failure", "symlink"),
        ("output", "folder"),
        ("metrics", "folder"),
    ],
)
def test_links_in_place_of_outputs_are_not_followed(machine: Machine, tmp_path: Path, name: str, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"secret":1}')
    with pytest.raises(Failure) as caught:
        machine.run("links", target=str(secret), name=name, kind=kind)
    assert caught.value.code == "program"
    assert "secret" not in caught.value.sentence


def test_a_folder_of_outputs_that_was_swapped_is_not_looked_at(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "output").write_text("not yours")
    with pytest.raises(Failure, match="without an output"):
        machine.run("links", target=str(tmp_path), kind="moved")


def test_an_output_over_the_limit_is_not_read(machine: Machine) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("links", target=str(9 << 20), kind="sparse")
    assert caught.value.code == "limits"


def test_an_output_that_its_maker_may_not_read_harms_nobody(machine: Machine) -> None:
    with contextlib.suppress(Failure):  # root reads it, an ordinary user cannot
        machine.run("links", target="", kind="closed")


@pytest.mark.parametrize("how", ["slowly", "shared", "processes"])
def test_a_memory_bomb_is_killed(machine: Machine, how: str) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("memory", replace(SMALL, memory_mib=192), mebibytes=600, how=how)
    assert caught.value.code == "limits"
    assert "memory" in caught.value.sentence, "and not for the time that it took"


def test_one_large_allocation_is_refused_at_once(machine: Machine) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("memory", mebibytes=10_000, how="one")
    assert caught.value.code == "limits"
    assert "MemoryError" in caught.value.sentence


def test_a_fork_bomb_gets_no_further_than_its_limit(machine: Machine) -> None:
    limits = replace(SMALL, processes=8)
    assert int(machine.store.get(machine.run("forks", limits).output)) == 7


def test_a_fork_storm_ends_with_its_unit(machine: Machine) -> None:
    before = _inside(machine)
    with pytest.raises(Failure) as caught:
        machine.run("fork_storm", replace(SMALL, wall_s=0.5))
    assert caught.value.code == "limits"
    assert _inside(machine) <= before


def test_without_leave_to_fork_there_is_none(machine: Machine) -> None:
    assert machine.store.get(machine.run("forks", replace(SMALL, processes=1)).output) == b"0"


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/.tallymesh/work/out"])
def test_a_disk_bomb_stays_within_its_size(machine: Machine, place: str) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("disk", place=place)
    assert caught.value.code == "limits"


def test_one_file_has_a_limit_of_its_own(machine: Machine) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("one_file", replace(SMALL, file_mib=4), mebibytes=8)
    assert caught.value.code == "limits"
    assert "File too large" in caught.value.sentence


def test_files_without_bytes_run_out_too(machine: Machine) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("inodes")
    assert caught.value.code == "limits"


def test_descriptors_run_out(machine: Machine) -> None:
    assert int(machine.store.get(machine.run("descriptors", replace(SMALL, files=32)).output)) == 32 - 4


def test_a_unit_that_does_not_end_is_ended(machine: Machine) -> None:
    with pytest.raises(Failure) as caught:
        machine.run("sleep", replace(SMALL, wall_s=0.4))
    assert (caught.value.code, caught.value.sentence) == ("limits", "It ran longer than 0.4 s.")


@pytest.mark.parametrize("how", ["print", "emit"])
def test_a_flood_of_lines_is_cut_and_counted(machine: Machine, how: str) -> None:
    lines = _listened(machine, "flood", lines=5000, how=how)
    assert len(lines) == SMALL.lines + 1
    assert lines[:2] == ["line 0", "line 1"]
    assert lines[-1] == f"… {5000 - SMALL.lines} more lines were not passed on"


def test_a_flood_of_metrics_is_cut(machine: Machine) -> None:
    seen: list[str] = []
    unit = make_unit(machine.store, "flood", {"lines": 3000, "how": "metric"})

    async def run() -> Outcome:
        return await machine.executor.run(
            JOB, unit, machine.inputs(unit), SMALL, on_metric=lambda name, value: seen.append(name)
        )

    machine.call(run)
    assert len(seen) == SMALL.lines


def test_garbage_in_place_of_events_is_dropped(machine: Machine) -> None:
    assert _listened(machine, "flood", lines=50, how="garbage") == ["… 50 more lines were not passed on"]


def test_an_endless_line_costs_its_writer_time_and_not_the_node(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0
    feed = Logs.feed

    def counted(logs: Logs, pipe: str, data: bytes) -> None:
        nonlocal taken
        taken += len(data)
        feed(logs, pipe, data)

    monkeypatch.setattr(Logs, "feed", counted)
    with pytest.raises(Failure):
        machine.run("flood", replace(SMALL, wall_s=0.6), lines=10**9, how="endless")
    assert taken < 2 * FREE_BYTES + 65536 * 5 / PAUSE_S  # what 5 s let through, were it so slow; unbounded it is 500 MB


def test_units_of_two_jobs_side_by_side_do_not_meet(machine: Machine) -> None:
    """While one job storms, another's units give what they always give."""

    async def run() -> None:
        async with trio.open_nursery() as nursery:

            async def storm() -> None:
                with contextlib.suppress(Failure):
                    await machine.start("fork_storm", replace(SMALL, wall_s=1.0), job=b"storm")

            nursery.start_soon(storm)
            await trio.sleep(0.1)
            for _ in range(2):
                outcome = await machine.start("several", job=b"calm")
                assert machine.store.get(outcome.output) == b"[1,2,3,4,5]"

    machine.call(run)
    for job in (b"storm", b"calm"):
        machine.call(machine.executor.close_job, job)


def _listened(machine: Machine, function: str, **config: object) -> list[str]:
    lines: list[str] = []
    unit = make_unit(machine.store, function, config)

    async def run() -> Outcome:
        return await machine.executor.run(JOB, unit, machine.inputs(unit), SMALL, on_line=lines.append)

    machine.call(run)
    return lines


def _inside(machine: Machine) -> set[int]:
    """Processes of this machine that belong to the sandbox: descendants of the outermost one."""
    zygote = machine.executor.pool.zygote
    assert zygote is not None
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{name}/stat").read_text()
                parents[int(name)] = int(stat[stat.rindex(")") + 2 :].split()[1])
    members = {zygote.pid}
    while more := {pid for pid, parent in parents.items() if parent in members} - members:
        members |= more
    return members
