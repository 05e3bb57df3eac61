"""The kernel calls behind isolation: namespaces, mounts, capabilities, limits. Nothing of torch, jobs or units.

Python 3.11 has none of these in `os`, so they go to libc. Every function raises OSError with the name of the call:
a call that silently did nothing would be a hole. The caller (template.py, job.py) decides the order, which matters.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterable

SANDBOX_ID = 65534  # `nobody`: the user and group that jobs see themselves as, whoever runs the node

CLONE_NEWNS = 0x0002_0000
CLONE_NEWCGROUP = 0x0200_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000
EVERY_NAMESPACE = (
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
)

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x2008_0522
_CAPABILITIES_MAX = 64  # two 32-bit words; the kernel says EINVAL beyond the last that it knows

_DESCRIPTORS_END = 1 << 20  # the kernel's default ceiling (fs.nr_open) for descriptors of one process

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int | bytes | None) -> int:
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def _prctl(option: int, a: int = 0, b: int = 0) -> None:
    _call("prctl", option, *(ctypes.c_ulong(value) for value in (a, b, 0, 0)))  # type: ignore[arg-type]


def unshare(flags: int) -> None:
    """New namespaces for this process (CLONE_NEWPID: for its next child)."""
    _call("unshare", flags)


def enter(descriptor: int, kind: int) -> None:
    """Join the namespace that `descriptor` (from /proc/PID/ns) names."""
    _call("setns", descriptor, kind)


def map_own_ids(proc: int) -> None:
    """In a user namespace just made by `unshare`: keep the one user and group that this process had.

    `proc` is a directory descriptor of a mounted procfs, which may have left the file tree already.
    """
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{SANDBOX_ID} {SANDBOX_ID} 1"),
        ("gid_map", f"{SANDBOX_ID} {SANDBOX_ID} 1"),
    ):
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None)


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """The same files at a second place. A copy of a read-only mount is read-only."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def bind_read_only(source: str, target: str) -> None:
    bind(source, target)
    mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def unmount(target: str) -> None:
    """Take the mount, and all that is mounted in it, out of the file tree."""
    _call("umount2", target.encode(), MNT_DETACH | UMOUNT_NOFOLLOW)


def pivot_into(root: str) -> None:
    """Make `root` (a mount point) the root of the file tree; nothing of the old tree can be reached afterwards."""
    os.chdir(root)
    machine = os.uname().machine
    if machine not in _PIVOT_ROOT:
        raise OSError(f"no sandbox on {machine}: the system call numbers are known for x86_64 and aarch64")
    _call("syscall", _PIVOT_ROOT[machine], b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def adopt_orphans() -> None:
    """Grandchildren whose parent ends become children of this process, which can then wait for them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def hide_memory() -> None:
    """Other processes of this user cannot read this one's memory or attach to it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def drop_privileges() -> None:
    """Give up every capability for good, and the ways to get new ones (set-user-id files, file capabilities)."""
    for capability in range(_CAPABILITIES_MAX):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            if capability == 0:
                raise
            break
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _call("capset", struct.pack("II", _CAPABILITY_VERSION_3, 0), bytes(24))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in `keep`, those that no Python object knows of as well."""
    low = 0
    for descriptor in sorted(set(keep)):
        if low < descriptor:  # Python turns an empty range that starts at 0 into all descriptors
            os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, _DESCRIPTORS_END)


def limit(kind: int, value: int) -> None:
    """Soft and hard limit at once, never above the hard limit that is there already."""
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def virtual_memory_bytes() -> int:
    """Address space of this process now: what RLIMIT_AS counts."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
