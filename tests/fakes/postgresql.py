"""A PostgreSQL server of the tests' own: Debian's binaries, a temporary folder, an ordinary user, a socket, no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDERS = Path("/usr/lib/postgresql")  # Debian's; elsewhere the PATH is asked
START_S = 60  # a second or two on a machine of one's own


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, of the newest version here; None where there is none."""
    found = sorted(FOLDERS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])) if FOLDERS.exists() else []
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A running server; gives the URL of its database `postgres`. `folder` is its bin folder."""
    user = _ordinary_user()
    home = Path(tempfile.mkdtemp(prefix="tmpg-"))  # short: a socket's path has at most 107 bytes
    try:
        if user is not None:
            os.chown(home, user.pw_uid, user.pw_gid)
        data = home / "data"
        initdb = [
            folder / "initdb",
            "-D",
            data,
            "-U",
            "tallymesh",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
        _run(initdb, user, home)
        options = f"-k {home} -c listen_addresses='' -c fsync=off -c shared_buffers=16MB -c max_connections=20"
        control = [folder / "pg_ctl", "-D", data, "-l", home / "log", "-w", "-t", str(START_S)]
        _run([*control, "-o", options, "start"], user, home)
        try:
            yield f"postgresql://tallymesh@/postgres?host={home}"
        finally:
            _run([folder / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], user, home)
    finally:
        shutil.rmtree(home)


def _ordinary_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then as its own user, or nobody."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _run(command: list[object], user: pwd.struct_passwd | None, home: Path) -> None:
    rights = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    done = subprocess.run(
        [str(part) for part in command], cwd=home, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, timeout=2 * START_S,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False, **rights,
    )  # fmt: skip
    if done.returncode:
        log = home / "log"
        raise RuntimeError(f"{command[0]}: {done.stderr}{log.read_text() if log.exists() else ''}")
