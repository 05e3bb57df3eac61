"""What units do in these tests, good and bad. Runs inside the sandbox; `run_unit` has the runner's place and contract.

A unit's entry is ``attacker:FUNCTION``, its config the function's arguments; what the function returns is its output.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attempts

from tallymesh.units import canonical_json, decode_unit

Emit = Callable[[str, Any], None]
MEBIBYTE = 1 << 20


def warm() -> None:
    import torch

    torch.nn.Linear(2, 2)(torch.zeros(1, 2)).sum().backward()


def run_unit(work: Path, emit: Emit) -> None:
    unit = decode_unit((work / "in" / "unit").read_bytes())
    name = unit.entry.split(":")[1]
    function = globals().get(name) or getattr(attempts, name)
    try:
        result = function(work, emit, **json.loads(unit.config))
    except Exception as error:
        said = {"code": "program", "sentence": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        (work / "out" / "failure").write_text(json.dumps(said))
        return
    if result is not None:
        (work / "out" / "output").write_bytes(result if isinstance(result, bytes) else canonical_json(result))


def tried(*attempts: Callable[[], Any]) -> list[str]:
    """What each attempt came to: the name of the errno, or `done: RESULT`."""
    said = []
    for attempt in attempts:
        try:
            said.append(f"done: {attempt()!r}"[:200])
        except OSError as error:
            said.append(errno.errorcode.get(error.errno or 0, repr(error)))
        except Exception as error:
            said.append(type(error).__name__)
    return said


def syscall(number: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(value) for value in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return int(result)


# good


def echo(work: Path, emit: Emit, times: int = 1) -> bytes:
    print("on the console")
    emit("line", "through emit")
    emit("metric", ["loss", 0.5])
    (work / "out" / "metrics").write_bytes(canonical_json({"loss": 0.5}))
    (work / "out" / "report").write_text(json.dumps({"seconds": {"compute": 0.25}, "steps": 3}))
    if (work / "in" / "probe").exists():
        (work / "out" / "probe").write_bytes((work / "in" / "probe").read_bytes()[::-1])
    return b"".join(path.read_bytes() for path in sorted((work / "in" / "blobs").iterdir())) * times


def train(work: Path, emit: Emit) -> dict[str, Any]:
    import torch

    began = time.monotonic()
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    for _ in range(3):
        model.zero_grad()
        model(torch.ones(2, 4)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
    return {"sum": float(model.weight.sum()), "seconds": time.monotonic() - began}


def several(work: Path, emit: Emit) -> list[int]:
    """Processes, threads, pipes and an event loop work as libraries expect."""
    import asyncio

    with multiprocessing.get_context("fork").Pool(2) as pool:
        squares = pool.map(abs, [-1, -2, -3])
    said = subprocess.run(["/bin/echo", "4"], capture_output=True, check=True, text=True).stdout
    return [*squares, int(said), asyncio.run(asyncio.sleep(0, 5))]


def sleep(work: Path, emit: Emit, seconds: float = 60.0) -> bytes:
    emit("line", "asleep")
    time.sleep(seconds)
    return b"slept"


def spin(work: Path, emit: Emit, seconds: float) -> bytes:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return b"spun"


# looking around


def use_packages(work: Path, emit: Emit, module: str) -> dict[str, Any]:
    """What a unit can do with its packages: import them, and nothing that changes them."""
    from importlib import metadata

    from tallymesh_learning.runtime import packages

    folder = work / "in" / "packages"
    place = folder / module / "__init__.py"
    with packages.importable(folder):
        found = __import__(module)
        said = {
            "value": found.VALUE,
            "file": found.__file__,
            "version": metadata.version(module),
            "torch": sys.modules["torch"].__file__,
        }
    said["gone"] = module not in sys.modules
    said["folders"] = sorted(os.listdir(folder))
    said["writes"] = tried(
        lambda: place.write_text("changed"),
        lambda: place.unlink(),
        lambda: (folder / "torch.py").write_text(""),
        lambda: os.chmod(place, 0o777),
        lambda: os.rename(folder, work / "out" / "packages"),
        lambda: (folder / module).rmdir(),
        lambda: os.link(place, work / "out" / "link"),
    )
    return said


def surroundings(work: Path, emit: Emit) -> dict[str, Any]:
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            descriptors[name] = os.readlink(f"/proc/self/fd/{name}")
    mounts = Path("/proc/self/mountinfo").read_text()
    return {
        "root": sorted(os.listdir("/")),
        "ours": {name: sorted(os.listdir(f"/.tallymesh/{name}")) for name in os.listdir("/.tallymesh")},
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")},
        "environment": dict(os.environ),
        "init": Path("/proc/1/environ").read_text(),
        "descriptors": descriptors,
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "uid": [os.getuid(), os.geteuid(), os.getgid(), os.getgroups()],
        "status": Path("/proc/self/status").read_text(),
        "interfaces": Path("/proc/net/dev").read_text(),
        "hostname": socket.gethostname(),
        "mounts": mounts,
        "tmp": [name for name in os.listdir("/tmp") if f" /tmp/{name}" not in mounts],  # a clone may lie there
        "shm": os.listdir("/dev/shm"),
        "dev": sorted(os.listdir("/dev")),
    }


def with_card(work: Path, emit: Emit, names: list[str]) -> dict[str, Any]:
    """What a unit of a card finds, and what it reads from files of /dev by these names."""
    found = {name: Path("/dev", name).read_bytes().decode() for name in names if Path("/dev", name).exists()}
    return {
        "dev": sorted(os.listdir("/dev")),
        "read": found,
        "visible": {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")},
        "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        "addresses": resource.getrlimit(resource.RLIMIT_AS)[0],
        "filters": [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Seccomp:")],
    }


def broken_driver() -> None:
    raise OSError("CUDA driver version is insufficient")


def namespaces(work: Path, emit: Emit) -> None:
    """Told, and then kept."""
    emit("line", json.dumps({name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}))
    time.sleep(60)


def affinity(work: Path, emit: Emit) -> dict[str, Any]:
    core = resource.getrlimit(resource.RLIMIT_CORE)
    widening, dumping = tried(
        lambda: os.sched_setaffinity(0, range(os.cpu_count() or 1)),
        lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    cores = sorted(os.sched_getaffinity(0))
    return {"cores": cores, "widening": widening, "core": list(core), "dumping": dumping, "nice": nice}


def read(work: Path, emit: Emit, paths: list[str]) -> list[str]:
    return tried(*(lambda path=path: os.listdir(path) if os.path.isdir(path) else open(path).read() for path in paths))


def every_file(work: Path, emit: Emit, backwards: str) -> list[str]:
    """Files outside the system directories whose bytes contain the text. (The unit's own config would, forwards.)"""
    text = backwards[::-1]
    found = []
    for top in sorted(set(os.listdir("/")) - {"usr", "proc", "sys", "dev", "lib", "lib64", "bin", "sbin"}):
        for folder, folders, names in os.walk(f"/{top}"):
            if folder in (sys.prefix, sys.base_prefix):
                folders.clear()
                continue
            for name in names:
                with contextlib.suppress(OSError):
                    if text.encode() in Path(folder, name).read_bytes():
                        found.append(f"{folder}/{name}")
    return found


# reaching out


def connect(work: Path, emit: Emit, abstract: str, path: str, port: int) -> list[str]:
    def dial(family: int, kind: int, address: Any) -> None:
        with socket.socket(family, kind) as channel:
            channel.settimeout(1.0)
            channel.connect(address)

    def through_a_pair(address: str) -> None:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other:
            one.sendto(b"hello", address)

    def through_a_message(address: str) -> None:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other:
            one.sendmsg([b"hello"], [], 0, address)

    def redial(address: str) -> None:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other:
            one.connect(address)

    return tried(
        lambda: dial(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)),
        lambda: dial(socket.AF_INET, socket.SOCK_DGRAM, ("8.8.8.8", 53)),
        lambda: dial(socket.AF_INET6, socket.SOCK_STREAM, ("::1", port)),
        lambda: dial(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract),
        lambda: dial(socket.AF_UNIX, socket.SOCK_STREAM, path),
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
        lambda: socket.socket(40, socket.SOCK_STREAM),  # AF_VSOCK: to the machine's hypervisor
        lambda: through_a_pair("\0" + abstract),
        lambda: through_a_message("\0" + abstract),
        lambda: redial("\0" + abstract),
    )


def signals(work: Path, emit: Emit, pids: list[int]) -> list[str]:
    return tried(
        *(lambda pid=pid: os.kill(pid, signal.SIGKILL) for pid in pids if pid != os.getpid()),
        lambda: os.kill(os.getppid() or 99999, signal.SIGKILL),
        lambda: os.killpg(4711, signal.SIGKILL),
    )


def privileges(work: Path, emit: Emit) -> list[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    intel = os.uname().machine == "x86_64"

    def call(name: str, *arguments: Any) -> None:
        if getattr(libc, name)(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    def clone_user() -> None:
        pid = syscall(56 if intel else 220, 0x1000_0000 | 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)

    return tried(
        *(lambda flag=flag: call("unshare", flag) for flag in (0x1000_0000, 0x2_0000, 0x2000_0000, 0x4000_0000)),
        clone_user,
        lambda: call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None),
        lambda: call("mount", b"", b"/", None, 4096 | 32, None),
        lambda: call("umount2", b"/proc", 2),
        lambda: call("umount2", str(work / "in").encode(), 2),
        lambda: call("ptrace", 0, 0, 0, 0),
        lambda: call("setns", 0, 0),
        lambda: os.chroot("/tmp"),
        lambda: os.setuid(0),
        lambda: os.setgroups([]),
        lambda: os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(254, 0)),
        lambda: os.memfd_create("hole"),
        lambda: call("shmget", 0, MEBIBYTE, 0o1600),
        lambda: syscall(250 if intel else 219, 0, -3, 0),  # keyctl
        lambda: syscall(425, 8, 0),  # io_uring_setup
        lambda: syscall(321 if intel else 280, 0, 0, 0),  # bpf
        lambda: syscall(298 if intel else 241, 0, 0, -1, -1, 0),  # perf_event_open
        lambda: syscall(428, -100, 0, 0),  # open_tree: the new mount interface
        lambda: syscall(430, 0, 0),  # fsopen
        lambda: syscall(447, 0),  # memfd_secret
        lambda: syscall(323 if intel else 282, 0),  # userfaultfd
        lambda: resource.setrlimit(resource.RLIMIT_AS, (-1, -1)),
        lambda: open("/proc/sys/kernel/hostname", "w"),
    )


# breaking things


def tamper(work: Path, emit: Emit) -> list[str]:
    target = next((work / "in" / "blobs").iterdir())
    reader = os.open(target, os.O_RDONLY)
    return tried(
        lambda: target.write_bytes(b"forged"),
        lambda: os.chmod(target, 0o666),
        lambda: os.fchmod(reader, 0o666),
        lambda: os.open(f"/proc/self/fd/{reader}", os.O_RDWR),
        lambda: os.truncate(target, 0),
        lambda: os.unlink(target),
        lambda: os.rename(target, target.with_name("other")),
        lambda: os.link(target, work / "out" / "output"),
        lambda: (work / "in" / "more").write_bytes(b"more"),
        lambda: os.utime(target),
    )


def litter(work: Path, emit: Emit) -> list[str]:
    places = ["/usr/hole", "/hole", "/etc/hole", "/dev/hole", "/.tallymesh/hole", sys.prefix + "/hole", "/proc/hole"]
    places += [str(work / "in" / "hole"), "/dev/null/hole", os.path.dirname(__file__) + "/hole"]
    return tried(*(lambda place=place: open(place, "w").write("hole") for place in places))


def leave(work: Path, emit: Emit, secret: str) -> bytes:
    """Everything a unit may write to, and a process that means to stay."""
    for place in ("/tmp/left", "/dev/shm/left", str(work / "out" / "left"), str(work / "left")):
        Path(place).write_text(secret)
    unit = os.getpid()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(0.005)
                with contextlib.suppress(OSError):
                    os.write(3, b'["line","still here"]\n')
                if ended(unit):  # before, the output is the unit's to write, whichever of its processes does it
                    (work / "out" / "output").write_text("rewritten after the end")
        os._exit(0)
    return b"left"


def ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def links(work: Path, emit: Emit, target: str, name: str = "output", kind: str = "symlink") -> None:
    place = work / "out" / name
    if name != "output":
        (work / "out" / "output").write_bytes(b"fine")
    if kind == "symlink":
        place.symlink_to(target)
    elif kind == "folder":
        place.mkdir()
    elif kind == "sparse":
        with open(place, "wb") as file:
            file.truncate(int(target))
    elif kind == "closed":
        place.write_bytes(b"closed")
        place.chmod(0)
    elif kind == "moved":  # the folder itself is replaced
        (work / "out").rename(work / "old")
        (work / "out").symlink_to(target)


def memory(work: Path, emit: Emit, mebibytes: int, how: str) -> bytes:
    if how == "one":
        block = bytearray(mebibytes * MEBIBYTE)
        return str(len(block)).encode()
    if how == "shared":
        shared = mmap.mmap(-1, mebibytes * MEBIBYTE)
        for place in range(0, len(shared), 4096):
            shared[place] = 1
        return b"shared"
    if how == "processes":  # each stays under its own limit
        for _ in range(8):
            if os.fork() == 0:
                kept = bytearray(b"x") * (mebibytes * MEBIBYTE // 8)
                time.sleep(60)
                os._exit(len(kept) & 1)
        time.sleep(60)
    kept = []
    for _ in range(mebibytes):
        kept.append(bytearray(os.urandom(4096)) * 256)
        time.sleep(0.0005)
    return b"kept"


def forks(work: Path, emit: Emit) -> bytes:
    """A fork bomb that counts how many it came to, then stays."""
    count = 0
    while True:
        try:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            count += 1
        except OSError:
            return str(count).encode()


def fork_storm(work: Path, emit: Emit) -> None:
    with contextlib.suppress(OSError):
        while True:
            os.fork()
    time.sleep(60)


def disk(work: Path, emit: Emit, place: str) -> bytes:
    written = 0
    block = b"x" * MEBIBYTE
    for index in range(10_000):
        with open(f"{place}/{index}", "wb", buffering=0) as file:
            written += file.write(block)
    return str(written).encode()


def one_file(work: Path, emit: Emit, mebibytes: int) -> bytes:
    with open("/tmp/large", "wb", buffering=0) as file:
        for _ in range(mebibytes):
            if file.write(b"x" * MEBIBYTE) < MEBIBYTE:
                file.write(b"x" * MEBIBYTE)
    return b"written"


def inodes(work: Path, emit: Emit) -> None:
    for index in range(1_000_000):
        os.close(os.open(f"/tmp/{index}", os.O_CREAT | os.O_WRONLY))


def descriptors(work: Path, emit: Emit) -> bytes:
    kept = []
    try:
        while True:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        count = str(len(kept)).encode()
        for descriptor in kept:
            os.close(descriptor)
        return count


def flood(work: Path, emit: Emit, lines: int, how: str) -> bytes:
    for index in range(lines):
        if how == "emit":
            emit("line", f"line {index}")
        elif how == "metric":
            emit("metric", ["m", index])
        elif how == "garbage":
            os.write(3, b'["line", [[[[\xff\xfe' + b"[" * 3000 + b"\n")
        elif how == "endless":
            os.write(1, b"x" * 65536)
        else:
            print(f"line {index}")
    sys.stdout.flush()
    return b"said"


def die(work: Path, emit: Emit, how: str) -> None:
    if how == "exit":
        os._exit(3)
    elif how == "segv":
        ctypes.string_at(0)
    elif how == "raise":
        raise RuntimeError("the program's own error")
    elif how == "blame":
        (work / "out" / "failure").write_text(json.dumps({"code": "sandbox", "sentence": "not my fault"}))
        os._exit(0)
    elif how == "garbage":
        (work / "out" / "failure").write_bytes(b"\xff\xfe{")
        os._exit(0)
    elif how == "setup":
        os._exit(97)


def lie(work: Path, emit: Emit, name: str, text: str) -> bytes:
    (work / "out" / name).write_text(text)
    return b"fine"


def peek(work: Path, emit: Emit, backwards: str) -> dict[str, Any]:
    """Whether anything of an earlier unit, or of another job, can be seen."""
    return {
        "files": every_file(work, emit, backwards),
        "out": os.listdir(work / "out"),
        "pids": [name for name in os.listdir("/proc") if name.isdigit()],
    }
