"""What hostile units try, one function an attempt: it returns what it got hold of, or raises what stopped it.

Runs inside the sandbox, in the runner's place (attacker.py). So an attempt that fails is a unit that fails, and one
that succeeds is a unit with an output. Each is as small as what it shows.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Emit = Callable[[str, Any], None]
MEBIBYTE = 1 << 20
INTEL = platform.machine() == "x86_64"


def libc(name: str, *arguments: Any) -> int:
    result = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return int(result)


def syscall(intel: int, arm: int, *arguments: int) -> int:
    values = [ctypes.c_long(value) for value in arguments]
    return libc("syscall", ctypes.c_long(intel if INTEL else arm), *values)


def nothing_found(what: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, what)


# looking around


def read_a_file_of_the_owner(work: Path, emit: Emit, path: str) -> str:
    return Path(path).read_text()


def read_it_through_proc(work: Path, emit: Emit, path: str) -> str:
    for process in [name for name in os.listdir("/proc") if name.isdecimal()]:
        for place in ("root", "cwd"):
            with contextlib.suppress(OSError):
                return Path(f"/proc/{process}/{place}{path}").read_text()
    raise nothing_found(path)


def read_it_by_a_handle(work: Path, emit: Emit, path: str) -> int:
    return syscall(304, 265, -100, 0, 0)  # open_by_handle_at: a file by its number, wherever it is mounted


def list_the_owners_home(work: Path, emit: Emit) -> list[str]:
    found = [name for place in ("/home", "/root", "/etc/passwd", "/var", "/run", "/media") for name in _list(place)]
    if not found:
        raise nothing_found("nobody's home")
    return found


def _list(place: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [place] if os.path.isfile(place) else [f"{place}/{name}" for name in os.listdir(place) if name[0] != "."]
    return []


def read_the_nodes_environment(work: Path, emit: Emit, backwards: str) -> list[str]:
    secret = backwards[::-1]
    found = [name for name, value in os.environ.items() if secret in value]
    for process in [name for name in os.listdir("/proc") if name.isdecimal()]:
        with contextlib.suppress(OSError):
            if secret.encode() in Path(f"/proc/{process}/environ").read_bytes():
                found.append(process)
    if not found:
        raise nothing_found("the secret")
    return found


def keep_a_secret(work: Path, emit: Emit) -> None:
    """The neighbour: what it was given it also writes down."""
    for number, path in enumerate((work / "in" / "blobs").iterdir()):
        Path(f"/tmp/{number}").write_bytes(path.read_bytes())
    emit("line", "written")
    time.sleep(60)


def read_a_neighbours_files(work: Path, emit: Emit, backwards: str) -> list[str]:
    """Of another unit of the same job: its inputs, what it writes."""
    secret = backwards[::-1].encode()
    found = []
    for top in ("/.tallymesh", "/tmp", "/dev/shm"):
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name != "proc" and f"{folder}/{name}" != sys.prefix]
            for name in names:
                with contextlib.suppress(OSError):
                    if secret in Path(folder, name).read_bytes():
                        found.append(f"{folder}/{name}")
    if not found:
        raise nothing_found("the secret")
    return found


def see_processes_of_the_job(work: Path, emit: Emit) -> list[str]:
    """By the procfs that its first process has for itself."""
    found = [name for name in os.listdir("/.tallymesh/proc") if name.isdecimal()]
    if not found:
        raise nothing_found("any process")
    return found


def read_what_was_left(work: Path, emit: Emit) -> list[str]:
    found = [place for place in ("/tmp/left", "/dev/shm/left", f"{work}/left") if os.path.exists(place)]
    if not found:
        raise nothing_found("anything")
    return found


def leave_something(work: Path, emit: Emit) -> bytes:
    for place in ("/tmp/left", "/dev/shm/left", f"{work}/left"):
        Path(place).write_text("for the next one")
    return b"left"


def learn_the_machines_name(work: Path, emit: Emit) -> str:
    name = socket.gethostname()
    if name == "sandbox":
        raise nothing_found("a name")
    return name


def learn_the_owners_service(work: Path, emit: Emit) -> list[str]:
    """The control group of the node: user, session, container."""
    told = [line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    if set(told) == {"/"}:
        raise nothing_found("more than the root")
    return told


def list_the_machines_shared_memory(work: Path, emit: Emit) -> list[str]:
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    if not rows:
        raise nothing_found("a segment")
    return rows


def read_the_kernels_log(work: Path, emit: Emit) -> int:
    return syscall(103, 116, 3, 0, 0)


def use_a_descriptor_of_the_node(work: Path, emit: Emit) -> list[str]:
    found = []
    for number in range(4, 64):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    found = [each for each in found if each.startswith("socket:") or "pidfd" in each]
    if not found:
        raise OSError(errno.EBADF, "no descriptor")
    return found


# reaching out


def open_a_connection(work: Path, emit: Emit) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as channel:
        return str(channel)


def send_a_datagram(work: Path, emit: Emit) -> str:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as channel:
        return str(channel)


def ask_the_kernel_for_its_routes(work: Path, emit: Emit) -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as channel:
        return str(channel)


def call_the_hypervisor(work: Path, emit: Emit) -> str:
    with socket.socket(40, socket.SOCK_STREAM) as channel:
        return str(channel)


def dial_an_abstract_name(work: Path, emit: Emit, name: str) -> str:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.connect("\0" + name)
        return name


def post_to_an_abstract_name(work: Path, emit: Emit, name: str) -> int:
    """sendmsg keeps the address behind a pointer, where no filter sees it."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        return one.sendmsg([b"hello"], [], 0, "\0" + name)


def kill_everything(work: Path, emit: Emit) -> str:
    os.kill(-1, signal.SIGKILL)
    return "killed"


def see_other_processes(work: Path, emit: Emit) -> list[int]:
    found = [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) not in (1, os.getpid())]
    if not found:
        raise ProcessLookupError(errno.ESRCH, "alone")
    return found


def trace_a_process(work: Path, emit: Emit) -> int:
    return libc("ptrace", 0, 0, 0, 0)


def read_a_process(work: Path, emit: Emit) -> int:
    return syscall(310, 270, os.getppid() or 1, 0, 0, 0, 0, 0)  # process_vm_readv


def take_a_descriptor_of_a_process(work: Path, emit: Emit) -> int:
    return syscall(438, 438, os.pidfd_open(os.getpid()), 0, 0)  # pidfd_getfd


# getting out


def make_a_user_namespace(work: Path, emit: Emit) -> int:
    return libc("unshare", 0x1000_0000)


def clone_into_a_namespace(work: Path, emit: Emit) -> int:
    process = syscall(56, 220, 0x1000_0000 | int(signal.SIGCHLD), 0, 0, 0, 0)
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def join_a_namespace(work: Path, emit: Emit) -> int:
    return libc("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), 0)


def mount_a_folder(work: Path, emit: Emit) -> int:
    return libc("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None)


def mount_the_new_way(work: Path, emit: Emit) -> int:
    return syscall(428, 428, -100, 0, 0)  # open_tree


def take_a_mount_away(work: Path, emit: Emit) -> int:
    return libc("umount2", f"{work}/in".encode(), 2)


def change_the_root(work: Path, emit: Emit) -> str:
    os.chroot("/tmp")
    return "changed"


def make_a_device(work: Path, emit: Emit) -> str:
    os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(254, 0))
    return "made"


def become_root(work: Path, emit: Emit) -> int:
    os.setuid(0)
    return os.getuid()


def become_root_by_a_program(work: Path, emit: Emit) -> int:
    """Whatever set-user-id program there is."""
    reader, writer = os.pipe()
    for program in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp"):
        if os.path.exists(program) and os.fork() == 0:
            os.close(reader)
            os.set_inheritable(writer, True)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.execv(program, [program, "--version"])
    os.close(writer)
    while os.read(reader, 4096):
        pass
    effective = {line.split()[2] for line in Path("/proc/self/status").read_text().splitlines() if "Uid" in line}
    if "0" not in effective:
        raise PermissionError(errno.EPERM, "still nobody")
    return os.geteuid()


def join_a_keyring(work: Path, emit: Emit) -> int:
    return syscall(250, 219, 1, 0, 0, 0, 0)  # keyctl: a session of one's own


def set_up_io_uring(work: Path, emit: Emit) -> int:
    parameters = ctypes.create_string_buffer(120)
    return syscall(425, 425, 8, ctypes.addressof(parameters))


def load_a_kernel_program(work: Path, emit: Emit) -> int:
    return syscall(321, 280, 0, 0, 0)  # bpf


def count_the_kernels_events(work: Path, emit: Emit) -> int:
    return syscall(298, 241, 0, 0, -1, -1, 0)  # perf_event_open


def hold_the_kernel_in_a_page_fault(work: Path, emit: Emit) -> int:
    return syscall(323, 282, 1)  # userfaultfd


def hide_memory_in_a_descriptor(work: Path, emit: Emit) -> int:
    return os.memfd_create("hole")


def hide_memory_in_a_segment(work: Path, emit: Emit) -> int:
    return libc("shmget", 0, MEBIBYTE, 0o1600)


def hide_memory_in_a_pipe(work: Path, emit: Emit) -> int:
    return int(fcntl.fcntl(os.pipe()[1], 1031, MEBIBYTE))  # F_SETPIPE_SZ


def call_by_another_abi(work: Path, emit: Emit) -> int:
    """The same kernel by the numbers of a 32-bit program (mov eax, getpid; int 0x80; ret)."""
    if not INTEL:
        raise OSError(errno.ENOSYS, "no such entry")
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    place = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(place)())


def type_into_the_terminal(work: Path, emit: Emit) -> str:
    fcntl.ioctl(0, 0x5412, b"x")  # TIOCSTI
    return "typed"


def write_to_the_system(work: Path, emit: Emit, folder: str) -> str:
    Path(folder, "hole").write_text("hole")
    return "written"


def write_to_the_root(work: Path, emit: Emit) -> str:
    Path("/hole").write_text("for the next one")
    return "written"


def change_an_input(work: Path, emit: Emit) -> str:
    """Which is a hard link into the node's store."""
    target = next(path for path in (work / "in" / "blobs").iterdir() if path.read_bytes() == b"the data")
    target.chmod(0o666)
    target.write_bytes(b"forged")
    return target.name


def change_a_package(work: Path, emit: Emit) -> str:
    place = next((work / "in" / "packages").rglob("*.py"))
    place.write_text("changed")
    return place.read_text()


def change_an_input_through_its_descriptor(work: Path, emit: Emit) -> int:
    reader = os.open(next((work / "in" / "blobs").iterdir()), os.O_RDONLY)
    return os.open(f"/proc/self/fd/{reader}", os.O_RDWR)


def read_a_file_of_root(work: Path, emit: Emit, path: str) -> str:
    return Path(path).read_text()


def hide_from_the_machines_want_of_memory(work: Path, emit: Emit) -> str:
    Path("/proc/self/oom_score_adj").write_text("0")
    return Path("/proc/self/oom_score_adj").read_text()


def raise_a_limit(work: Path, emit: Emit) -> list[int]:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return list(resource.getrlimit(resource.RLIMIT_CORE))


def come_before_others(work: Path, emit: Emit) -> int:
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    return os.getpriority(os.PRIO_PROCESS, 0)


def take_every_core(work: Path, emit: Emit) -> int:
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return len(os.sched_getaffinity(0))


# bombs


def fork_bomb(work: Path, emit: Emit) -> int:
    """Children that stay, until there can be no more."""
    for _ in range(100_000):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    return 100_000


def few_children(work: Path, emit: Emit, count: int) -> int:
    for _ in range(count):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    return count


def crowd_the_neighbours_out(work: Path, emit: Emit) -> None:
    """As many processes as it may, and then it stays."""
    with contextlib.suppress(OSError):
        while True:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
    emit("line", "crowded")
    time.sleep(60)


def thread_bomb(work: Path, emit: Emit, count: int) -> int:
    stop = threading.Event()
    started = 0
    threading.stack_size(65536)
    try:
        for _ in range(count):
            threading.Thread(target=stop.wait, daemon=True).start()
            started += 1
    finally:
        stop.set()
    return started


def reserve_memory(work: Path, emit: Emit, mebibytes: int) -> int:
    return len(mmap.mmap(-1, mebibytes * MEBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def memory_of_many(work: Path, emit: Emit, mebibytes: int, processes: int, hold_s: float) -> str:
    """Each process stays under its own limit; together they do not."""
    reader, writer = os.pipe()
    for _ in range(processes):
        if os.fork() == 0:
            block = bytearray(b"x") * (mebibytes * MEBIBYTE)
            os.write(writer, b"." if block else b"")
            time.sleep(60)
    ready = 0
    while ready < processes:
        if select.select([reader], [], [], 0.05)[0]:
            ready += len(os.read(reader, 1))
        if os.waitpid(-1, os.WNOHANG)[0]:
            raise MemoryError("one of them was killed")
    time.sleep(hold_s)
    return "held"


def lock_memory(work: Path, emit: Emit) -> int:
    block = mmap.mmap(-1, MEBIBYTE)
    place = ctypes.addressof(ctypes.c_char.from_buffer(block))
    return libc("mlock", ctypes.c_void_p(place), ctypes.c_size_t(MEBIBYTE))


def disk_bomb(work: Path, emit: Emit, mebibytes: int) -> int:
    for index in range(mebibytes):
        with open(f"/tmp/{index}", "wb", buffering=0) as file:
            if file.write(b"x" * MEBIBYTE) != MEBIBYTE:
                raise OSError(errno.ENOSPC, "full")
    return mebibytes


def inode_bomb(work: Path, emit: Emit, count: int) -> int:
    for index in range(count):
        os.symlink("nowhere", f"/dev/shm/{index}")
    return count


def one_large_file(work: Path, emit: Emit, mebibytes: int) -> int:
    with open("/tmp/large", "wb") as file:
        file.truncate(mebibytes * MEBIBYTE)
    return mebibytes


def large_output(work: Path, emit: Emit, mebibytes: int) -> None:
    with open(work / "out" / "output", "wb") as file:
        file.truncate(mebibytes * MEBIBYTE)


def descriptor_bomb(work: Path, emit: Emit, count: int) -> int:
    kept: list[int] = []
    try:
        kept.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(count))
    finally:
        for descriptor in kept:
            os.close(descriptor)
    return len(kept)


def timer_bomb(work: Path, emit: Emit, count: int) -> int:
    for _ in range(count):
        libc("timer_create", 1, None, ctypes.byref(ctypes.c_void_p()))
    return count


def core_dump(work: Path, emit: Emit) -> int:
    """Of which the kernel makes a file, or starts the owner's handler of dumps."""
    process = os.fork()
    if process == 0:
        os.abort()
    _, status = os.waitpid(process, 0)
    if not os.WCOREDUMP(status):
        raise OSError(errno.ENOTSUP, "no core was dumped")
    return status


def time_bomb(work: Path, emit: Emit, seconds: float) -> str:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BaseException):
            time.sleep(end - time.monotonic())
    return "still here"


# poisoned outputs


def output_is_a_link(work: Path, emit: Emit, path: str) -> None:
    (work / "out" / "output").symlink_to(path)


def output_is_a_folder(work: Path, emit: Emit) -> None:
    (work / "out" / "output").mkdir()


def output_is_an_input(work: Path, emit: Emit) -> None:
    os.link(next((work / "in" / "blobs").iterdir()), work / "out" / "output")


def metrics_that_never_end(work: Path, emit: Emit) -> bytes:
    (work / "out" / "metrics").write_text("[" * 100_000)
    return b"fine"


def report_out_of_bounds(work: Path, emit: Emit) -> bytes:
    (work / "out" / "report").write_text(json.dumps({"seconds": {"\x1b[2J": -1e300}, "steps": -1}))
    return b"fine"


def blame_the_machine(work: Path, emit: Emit) -> None:
    (work / "out" / "failure").write_text(json.dumps({"code": "sandbox", "sentence": "It was not me."}))
    os._exit(0)


def pose_as_a_sandbox_that_failed(work: Path, emit: Emit) -> None:
    os._exit(97)


def die_by_its_own_hand(work: Path, emit: Emit) -> None:
    """As if the machine had run out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGSEGV)
    raise PermissionError(errno.EPERM, "the first process of a namespace is not killed from within")


def poisoned_archive(work: Path, emit: Emit, path: str) -> list[str]:
    """A program whose files have other names than modules: never a file, never over one of the runtime's own."""
    import msgspec

    from tallymesh import program

    with program.importable(program.unpack(msgspec.msgpack.encode([(path, b"caught = True")]))):
        return [path]
