"""Why pip found no wheels, told as an error of ours: whose fault it is, and what to do. pip has no codes for programs,
so its words are read; what none of them fits is passed on as it stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tallymesh.client.pip_alone import REFUSED
from tallymesh.client.stubs import LOCAL
from tallymesh.errors import CallerError, LocalError, TallymeshError
from tallymesh.wheels import normal

_MISSING: Final = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+?)(?=[<>=!~;\[\s]|$)(.*)")
_TAKEN: Final = re.compile(r"(?m)^\s*(?:Collecting|Processing) (.+?)(?: \(from .*\))?\s*$")  # what pip works on
_NO_PROGRAM: Final = "No permission to execute"  # as pip tells the same of git and its like
_VERSIONS: Final = re.compile(r"\(from versions: (.*)\)")
_NETWORK: Final = (
    "Retrying (Retry(",
    "Failed to establish a new connection",
    "NewConnectionError",
    "Name or service not known",
    "Temporary failure in name resolution",
    "ProxyError",
    "SSLError",
    "Read timed out",
)
_ON_YOUR_SIDE: Final = "Use it on your side and pass what it makes, or ask for a version that has wheels."
SAID_MAX: Final = 600  # characters of pip's words


def explain(output: str, log: str, base: Mapping[str, str]) -> TallymeshError:
    """`output` is what pip printed, `log` its verbose log, `base` the versions that workers have."""
    said = "\n".join(line for line in output.splitlines() if line.startswith("ERROR:"))
    if "Invalid requirement" in said:
        line = next(line for line in said.splitlines() if "Invalid requirement" in line)
        return CallerError(
            "bad_requirement", _plain(line), remedy='A requirement is a name and versions: "scikit-learn==1.9.*".'
        )
    if REFUSED in output or _NO_PROGRAM in output:
        taken = _TAKEN.findall(output)
        return source_only(taken[-1] if taken else "A package")
    fixed = [name for name in base if f"(constraint) {name}" in output]
    if "conflicting dependencies" in output:
        what = _plain(output[output.find("The conflict is caused by") :].split("To fix this")[0]) or _plain(said)
        if fixed:
            return _base_conflict(fixed[0], base, what)
        return CallerError("conflict", f"The requirements cannot be met together. {what}", remedy="Loosen one of them.")
    missing = _MISSING.search(said)
    if missing is None:
        return LocalError(
            "pip_failed", f"pip could not resolve requires=: {_plain(said) or _plain(output[-SAID_MAX:])}"
        )
    name, asked = normal(missing[1]), f"{missing[1]}{missing[2]}".strip()
    if name in base:
        return _base_conflict(name, base, f"It asks for {asked}.")
    if any(mark in output for mark in _NETWORK):
        return LocalError(
            "no_network",
            f"No index of packages could be reached for {asked}.",
            remedy="Check the connection, or name a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER.",
        )
    versions = _VERSIONS.search(said)
    if versions is not None and versions[1] != "none":
        shown = ", ".join(versions[1].split(", ")[-8:])
        return CallerError("not_found", f"There is no {asked}: there are wheels of {shown}.", remedy="Ask for one.")
    skipped = [line for line in log.splitlines() if _is_about(line, name)]
    if any("are compatible" in line for line in skipped):
        return CallerError(
            "other_platform",
            f"{asked} has wheels, but none for the Linux and the Python of the workers.",
            remedy=_ON_YOUR_SIDE,
        )
    if any("requires a different Python" in line for line in skipped):
        return CallerError(
            "other_platform", f"{asked} is for another Python than the workers have.", remedy=_ON_YOUR_SIDE
        )
    if any("No sources permitted" in line for line in skipped):
        return source_only(asked)
    return CallerError(
        "not_found", f"No package {asked} was found.", remedy="Check its name: it may differ from what is imported."
    )


def source_only(asked: str) -> CallerError:
    return CallerError(
        "source_only",
        f"{asked} is only there as source, which would have to be built; only wheels travel.",
        remedy=_ON_YOUR_SIDE,
    )


def _base_conflict(name: str, base: Mapping[str, str], why: str) -> CallerError:
    return CallerError(
        "base_conflict",
        f"Workers have {name} {base[name]}, and requires= does not go with it. {why}",
        remedy=f"Ask for versions that take {name} {base[name]}: the base set is the same for all units.",
    )


def _is_about(line: str, name: str) -> bool:
    """Whether a line of the log says why a file of this distribution was passed over."""
    if "Skipping link" not in line and "Link requires" not in line:
        return False
    files = re.findall(r"([A-Za-z0-9._+-]+\.(?:whl|tar\.gz|zip|tar\.bz2|tgz))", line)
    return any(normal(file).startswith(f"{name}-") for file in files)


def _plain(text: str) -> str:
    """In one line, without what only pip says and without our local part of versions."""
    words = " ".join(text.replace("ERROR:", "").replace(f"+{LOCAL}", "").split())
    return words[:SAID_MAX]
