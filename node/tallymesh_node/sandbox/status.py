"""Can this machine run foreign code safely, and if not, what is missing: found out by doing it once, without torch.

The check opens a real job in a real outer sandbox and runs a unit in it that tries what it must not be able to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tallymesh.errors import LocalError
from tallymesh_node.sandbox import command
from tallymesh_node.sandbox.spool import OPEN

CHECK_S = 120.0  # measured 0.3 s; a machine that is busy starting everything else may take longer
_REMEDIES = (
    # what is said -> what to do
    ("setting up uid map", "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap."),
    (
        "No permissions to create new namespace",
        "sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000",
    ),
    ("Creating new namespace failed", "sysctl user.max_user_namespaces=10000 (in a container: allow user namespaces)."),
    ("mount proc", "In a container: let it see all of /proc (docker: --security-opt systempaths=unconfined)."),
    ("giving up root failed: unshare", "Start the node as an ordinary user, or give the container CAP_SYS_ADMIN."),
    ("Permission denied", "Let others read Python and this program: chmod -R go+rX on the folder that is named."),
)


class SandboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`sentence` is for people in either case; `remedy` says what to do where `available` is False."""

    available: bool
    sentence: str
    remedy: str = ""
    backend: str = ""
    facts: Mapping[str, str] = {}


def check_sandbox() -> SandboxStatus:
    """Blocks for about 0.3 s: call it in a thread, or before the loop starts. Raises nothing."""
    folder = Path(tempfile.mkdtemp(prefix="tallymesh-check-"))
    try:
        return _check(folder)
    except LocalError as error:
        return _missing(error.sentence, error.remedy)
    except OSError as error:
        return _missing(f"The sandbox cannot be tried: {error}.", "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(folder: Path) -> SandboxStatus:
    os.chmod(folder, OPEN)
    for place in ("job", "job/unit", "job/unit/blobs"):
        (folder / place).mkdir()
        os.chmod(folder / place, OPEN)
    wanted = command.build(folder, environment={}, arguments=[], module="tallymesh_learning.runtime.trial")
    try:
        done = subprocess.run(  # noqa: S603 - our own command line
            wanted.argv, env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_S, check=False
        )
    except subprocess.TimeoutExpired:
        return _missing(f"A trial of the sandbox did not end within {CHECK_S:.0f} s.", "Look at the machine's load.")
    said = done.stderr.decode(errors="replace").strip()[-500:]
    facts = {"kernel": os.uname().release, "bubblewrap": str(command.bubblewrap()), "user": str(os.geteuid())}
    with contextlib.suppress(ValueError, IndexError):
        result = json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1])
        facts |= {str(name): str(value) for name, value in result["facts"].items()}
        if result["holes"]:
            return _missing(
                f"The sandbox does not hold here: {', '.join(result['holes'])}.", "Please report this.", facts
            )
        if not result["error"]:
            sentence = "Code of others runs in bubblewrap: no network, read-only system, limits."
            return SandboxStatus(available=True, sentence=sentence, backend=wanted.backend, facts=facts)
        said = result["error"]
    remedy = next((remedy for mark, remedy in _REMEDIES if mark in said), "")
    return _missing(f"The sandbox does not work here: {said or f'exit status {done.returncode}'}", remedy, facts)


def _missing(sentence: str, remedy: str, facts: Mapping[str, str] | None = None) -> SandboxStatus:
    return SandboxStatus(available=False, sentence=sentence, remedy=remedy, facts=facts or {})
