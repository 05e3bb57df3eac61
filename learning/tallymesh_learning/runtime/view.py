"""What a job sees of the file system, and what each of its units sees.

Outer sandbox (bubblewrap, made by the node): /usr, /lib…, the Python prefix and packages, /proc, /dev, /tmp and
/.tallymesh with the spool and the unpacked packages of jobs, all read-only but /tmp. A job gets a new root with the
same system directories and its own part of the spool only. A unit gets besides a tmpfs of its own, which is its work
folder, /tmp and /dev/shm at once, so that one size bounds them together, and of the packages those that the node names
beside its inputs. These functions run as the first process of the job or of the unit, with every capability in the
job's own user namespace and none outside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from tallymesh_learning.runtime import isolate

OURS = "/.tallymesh"  # a name that no machine has at its root: Python may be installed anywhere else
SPOOL = f"{OURS}/spool"  # the node's folder of inputs; in a job's view, the job's part of it
PACKAGES = f"{OURS}/packages"  # the node's folder of unpacked sets; a job's first process sees all, a unit its own
WORK = f"{OURS}/work"
UNITS = f"{OURS}/units"  # in a job's view: one tmpfs for each running unit
JOB_PROC = f"{OURS}/proc"  # the job's own procfs; units get another one and lose this
_ROOT = f"{OURS}/root"  # in the outer view: where a job's root is put together
_TMP = "/tmp"  # noqa: S108
_DEVICES = ("null", "zero", "full", "random", "urandom")
_REPLACED = {"proc", "dev", "tmp", OURS[1:]}  # what a job does not take over from the outer root
_QUIET = isolate.MS_NOSUID | isolate.MS_NODEV

SET = "set"  # beside a unit's inputs: names the folder of its packages
INODES_MAX = 32_768  # files of one unit: each costs the kernel about a kibibyte that no size limit sees
_ROOT_OPTIONS = "size=1m,nr_inodes=8192,mode=755"  # mount points and links only


def enter_job(name: str, devices: Sequence[str] = ()) -> list[str]:
    """Replace the outer view by the job's. Called once, as the first process of new namespaces, a user namespace among
    them: so no mount that is made here reaches the outer view (man 7 mount_namespaces). `devices` are names of files of
    the outer /dev that it gets beside the usual ones: those of its card.

    Returns the folders below /tmp that are part of the system (a clone or an environment that was put there).
    """
    entries = {entry.name: os.readlink(entry.path) if entry.is_symlink() else "" for entry in os.scandir("/")}
    kept = _mounts_below(_TMP)
    isolate.mount("tmpfs", _ROOT, "tmpfs", options=_ROOT_OPTIONS)  # quiet and read-only when it is complete: below
    for entry, link in sorted(entries.items()):
        if entry in _REPLACED:
            continue
        if link:
            os.symlink(link, f"{_ROOT}/{entry}")
        else:
            os.mkdir(f"{_ROOT}/{entry}")
            isolate.bind(f"/{entry}", f"{_ROOT}/{entry}", recursive=True)
    for directory in ("/dev", "/dev/shm", "/proc", _TMP, OURS, WORK, SPOOL, PACKAGES, UNITS, JOB_PROC):  # noqa: S108
        os.mkdir(f"{_ROOT}{directory}")
    for folder in kept:
        os.makedirs(f"{_ROOT}{folder}")
        isolate.bind(folder, f"{_ROOT}{folder}")
    for device in (*_DEVICES, *devices):
        os.close(os.open(f"{_ROOT}/dev/{device}", os.O_CREAT | os.O_WRONLY))
        isolate.bind(f"/dev/{device}", f"{_ROOT}/dev/{device}")
    for link, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"{_ROOT}/dev/{link}")
    # They are already: what others use, too, is worth a second lock.
    isolate.bind_read_only(f"{SPOOL}/{name}", f"{_ROOT}{SPOOL}")
    isolate.bind_read_only(PACKAGES, f"{_ROOT}{PACKAGES}")
    isolate.mount("proc", f"{_ROOT}{JOB_PROC}", "proc", _QUIET | isolate.MS_NOEXEC)
    isolate.mount("tmpfs", f"{_ROOT}{UNITS}", "tmpfs", _QUIET, _ROOT_OPTIONS)
    isolate.pivot_into(_ROOT)
    isolate.mount("", "/", flags=isolate.MS_REMOUNT | isolate.MS_BIND | isolate.MS_RDONLY | _QUIET)
    return kept


def prepare_unit(name: str, disk_mib: int) -> int:
    """The unit's file system, made by the job before it forks. Returns a descriptor of the folder of outputs, which
    outlives the mount: the node reads through it when the unit and everything that it started is dead."""
    place = f"{UNITS}/{name}"
    os.mkdir(place)
    try:
        options = f"size={disk_mib}m,nr_inodes={INODES_MAX},mode=755"
        isolate.mount("tmpfs", place, "tmpfs", _QUIET, options)
    except OSError:
        os.rmdir(place)
        raise
    try:
        for directory in ("work", "work/in", "work/out", "tmp", "shm"):
            os.mkdir(f"{place}/{directory}", 0o755)
        return os.open(f"{place}/work/out", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        remove_unit(name)
        raise


def remove_unit(name: str) -> None:
    isolate.unmount(f"{UNITS}/{name}")
    os.rmdir(f"{UNITS}/{name}")


def is_full(name: str) -> bool:
    """Whether the unit has no byte or no file left of what it may write."""
    facts = os.statvfs(f"{UNITS}/{name}")
    return facts.f_bfree == 0 or facts.f_ffree == 0


def enter_unit(name: str, kept: Sequence[str]) -> int:
    """Replace the job's view by the unit's. Called as the first process of the unit's process namespace. `kept` is
    what `enter_job` returned.

    Returns a directory descriptor of the job's procfs, which only map_own_ids needs; the caller closes it.
    """
    isolate.unshare(isolate.CLONE_NEWNS)
    place = f"{UNITS}/{name}"
    isolate.bind(f"{place}/work", WORK)
    isolate.bind(f"{SPOOL}/{name}", f"{WORK}/in")
    chosen = _packages_of(name)
    if chosen:
        isolate.bind(f"{PACKAGES}/{chosen}", f"{WORK}/in/packages")  # a copy of what is read-only in the job's view
    handles = [(folder, os.open(folder, os.O_PATH | os.O_CLOEXEC)) for folder in kept]
    isolate.bind(f"{place}/tmp", _TMP)  # noqa: S108
    for folder, handle in handles:
        os.makedirs(folder)
        isolate.bind(f"{JOB_PROC}/self/fd/{handle}", folder)
        os.close(handle)
    isolate.bind(f"{place}/shm", "/dev/shm")  # noqa: S108
    isolate.mount("proc", "/proc", "proc", _QUIET | isolate.MS_NOEXEC | isolate.MS_RDONLY)
    descriptor = os.open(JOB_PROC, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for hidden in (JOB_PROC, SPOOL, PACKAGES, UNITS):
        isolate.unmount(hidden)
    os.chdir(WORK)
    return descriptor


def _packages_of(name: str) -> str:
    """The set that the node chose for a unit; it is no word of the job's."""
    try:
        with open(f"{SPOOL}/{name}/{SET}") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _mounts_below(folder: str) -> list[str]:
    """Mount points below `folder`, outer ones first. (man 5 proc_pid_mountinfo: field 5, with octal escapes.)"""
    with open("/proc/self/mountinfo") as file:
        points = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in file]
    return sorted(point for point in points if point.startswith(folder + "/"))
