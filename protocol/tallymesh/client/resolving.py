"""``requires=``: from the texts of requirements to wheels that every worker can import, resolved on the payer's side.

pip does it, in a process of its own, from whatever index the user's pip is set up for: wheels for the workers' platform
alone, never a source that would have to be built, and so run (pip_alone.py). What workers have is given to pip as
fixed; it is not shipped again. The same texts give the same wheels again from the cache. This module knows no job and
no node.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tallymesh import unpacking, wheels
from tallymesh.client import refusals, resolved
from tallymesh.client.stubs import stub
from tallymesh.errors import CallerError, LocalError, RemoteError
from tallymesh.ids import BlobId, blob_id
from tallymesh.unpacking import Given
from tallymesh.wheels import Packages, Wheel

MAX_REQUIREMENTS: Final = 64  # as many as there may be wheels
MAX_TEXT: Final = 500  # characters of one
RESOLVE_S: Final = 1800.0  # wall seconds: half a gibibyte at 300 KiB/s; a resolution that takes longer goes astray
GLIBC: Final = range(5, 29)  # minor versions of glibc 2 that a worker's is not older than: torch's wheels need 2.28

# A name, maybe extras, versions, maybe a marker: no address, path or option. pip judges the rest.
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[A-Za-z0-9._,\s-]*\])?\s*"
    r"\(?(?:[<>=!~]=?=?[A-Za-z0-9._*+!,<>=~\s-]*)?\)?\s*(?:;[^@]*)?"
)
_HASH: Final = re.compile(r"\s--hash=sha256:([0-9a-f]{64})(?=\s|$)")
# What a package says that it needs (PEP 508): a name, maybe extras, and an address where it names one. Only what is
# needed for an extra and nothing else is told apart from what is always needed; an address ends at white space.
_NEED: Final = re.compile(r"\s*(?P<name>[A-Za-z0-9._-]+)\s*(?P<extras>\[[^\]]*\S[^\]]*\])?\s*(?P<address>@)?")
_FOR_EXTRA: Final = re.compile(r"""\s;\s*extra\s*==\s*(['"])[A-Za-z0-9._-]+\1\s*$""")
_EXAMPLE: Final = 'requires=["scikit-learn==1.9.*"]'

Say = Callable[[str], None]


class Requirement(NamedTuple):
    text: str
    name: str
    hashes: frozenset[str]  # SHA-256 in hex; any where empty


def resolve(requires: Sequence[str], base: Mapping[str, str], say: Say | None = None) -> Packages:
    """The wheels that `requires` come to beside the base set.

    `base` is what workers have: ``python`` (minor version), ``machine``, and the versions of the base set's packages by
    their names. `say` gets a line of progress at a time. CallerError: `bad_requirement`, `not_found`, `source_only`,
    `other_platform`, `base_conflict`, `conflict`, `wrong_hash`, `bad_package`, `packages_too_large`; LocalError:
    `no_pip`, `no_network`, `pip_failed`.
    """
    wanted = parse(requires)
    if not wanted:
        return wheels.NONE
    _check_here(base)
    say = say or _print
    key = resolved.key([each.text for each in wanted], base)
    kept = resolved.load(key)
    if kept is None:
        say(f"resolving {', '.join(each.text for each in wanted)}")
        with tempfile.TemporaryDirectory(prefix="tallymesh-requires-") as name:
            folder = Path(name)
            kept = _checked(_download(wanted, base, folder, say), folder, wanted)
        resolved.store(key, kept)
    found = tuple(Wheel(file, blob_id(data), len(data)) for file, data in sorted(kept.items(), key=_by_name))
    _check_hashes(wanted, kept)
    _check_set(found)
    count = "1 package travels" if len(found) == 1 else f"{len(found)} packages travel"
    say(f"{count} with the job, {sum(wheel.size for wheel in found) / 2**20:.1f} MiB")
    modules = frozenset(name for data in kept.values() for name in unpacking.modules(data))
    return Packages(found, {wheel.blob: kept[wheel.file] for wheel in found}, modules)


def pinned(wheel: Wheel, data: bytes) -> str:
    """The requirement that gives this very wheel again, or an error."""
    return f"{wheel.name}=={wheel.version} --hash=sha256:{hashlib.sha256(data).hexdigest()}"


def parse(requires: Sequence[str]) -> list[Requirement]:
    """CallerError `bad_requirement` naming the one that cannot be read."""
    if isinstance(requires, str) or not isinstance(requires, (list, tuple)) or len(requires) > MAX_REQUIREMENTS:
        raise CallerError(
            "bad_requirement", f"requires= is a list of at most {MAX_REQUIREMENTS} texts.", remedy=_EXAMPLE
        )
    found = []
    for given in requires:
        if not isinstance(given, str) or len(given) > MAX_TEXT or not given.isprintable():
            raise _unreadable(given)
        text = _HASH.sub("", given).strip()
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise _unreadable(given)
        found.append(Requirement(text, wheels.normal(match["name"]), frozenset(_HASH.findall(given))))
    return found


def _unreadable(given: object) -> CallerError:
    return CallerError(
        "bad_requirement",
        f"{str(given)[:100]!r} in requires= is not a requirement: a name and versions.",
        remedy=f"{_EXAMPLE}; addresses, paths and options of pip have no place in it.",
    )


def _check_here(base: Mapping[str, str]) -> None:
    """pip judges markers (``; sys_platform == …``) by the Python that it runs in."""
    here = (platform.system(), platform.machine(), f"{sys.version_info.major}.{sys.version_info.minor}")
    there = ("Linux", base.get("machine", ""), base.get("python", ""))
    if here != there:
        raise CallerError(
            "other_platform",
            f"requires= is resolved for {' '.join(there)}, which workers have, and this is {' '.join(here)}.",
            remedy=f"Run the program under Python {there[2]} on Linux ({there[1]}): a container or WSL2 will do.",
        )
    if importlib.util.find_spec("pip") is None:
        raise LocalError("no_pip", "requires= needs pip in this environment.", remedy=f"{sys.executable} -m ensurepip")


def _download(wanted: Sequence[Requirement], base: Mapping[str, str], folder: Path, say: Say) -> dict[str, bytes]:
    """File name -> bytes, of what pip takes for these requirements beside the base set."""
    there, links, log = folder / "wheels", folder / "base", folder / "log"
    for each in (there, links):
        each.mkdir()
    held = {name: version for name, version in base.items() if name not in ("python", "machine")}
    stubs = {}
    for name, version in held.items():
        stubs[name] = stub(links, name, version)
    constraints = folder / "constraints"
    constraints.write_text("".join(f"{name}=={stubs[name]}\n" for name in sorted(stubs)))
    machine, python = base["machine"], base["python"]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in reversed(GLIBC)] + [f"manylinux2014_{machine}"]
    command = [sys.executable, "-P", "-m", "tallymesh.client.pip_alone", "--log", str(log), "download"]
    command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    command += ["--progress-bar", "off", "--no-input"]
    command += [part for tag in tags for part in ("--platform", tag)]
    command += ["--find-links", str(links), "--constraint", str(constraints), "--dest", str(there)]
    command += ["--", *(each.text for each in wanted)]
    output, status = _run(command, say)
    if status:
        raise refusals.explain(output, log.read_text(errors="replace") if log.exists() else "", held)
    found = {path.name: path for path in there.iterdir()}
    built = [name for name in found if not name.endswith(".whl")]
    if built:
        raise refusals.source_only(built[0])
    ours = {path.name for path in links.iterdir()}
    return {name: path.read_bytes() for name, path in found.items() if name not in ours}


def _run(command: Sequence[str], say: Say) -> tuple[str, int]:
    """What pip said, and its status; its downloads are passed on as they begin."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    with subprocess.Popen(  # noqa: S603 - our own interpreter's pip, requirements that were parsed
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    ) as process:
        late = threading.Timer(RESOLVE_S, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if line.lstrip().startswith("Downloading "):
                    say(line.strip())
        except BaseException:
            process.kill()
            raise
        finally:
            late.cancel()
    if process.returncode < 0:
        raise LocalError(
            "pip_failed", f"pip was ended by signal {-process.returncode}, or took over {RESOLVE_S / 60:.0f} minutes."
        )
    return "".join(lines), process.returncode


def _checked(found: dict[str, bytes], folder: Path, wanted: Sequence[Requirement]) -> dict[str, bytes]:
    """What workers would refuse is not sent to them."""
    given = []
    for at, (file, data) in enumerate(sorted(found.items())):
        try:
            wheels.check_file(file)
        except ValueError as error:
            raise CallerError("bad_package", f"A package cannot travel: {error}.") from None
        place = folder / str(at)
        place.write_bytes(data)
        given.append(Given(Wheel(file, blob_id(data), len(data)), place))
    try:
        unpacking.unpack(given, None)
        needs = {each.wheel: unpacking.needs(found[each.wheel.file]) for each in given}
    except RemoteError as error:
        raise CallerError(
            "bad_package",
            f"A package cannot travel: {error.sentence}",
            remedy="Ask for another version, or for a package that does without it.",
        ) from None
    _check_addresses(needs, [each.text for each in wanted])
    return found


def _check_addresses(needs: Mapping[Wheel, Sequence[str]], wanted: Sequence[str]) -> None:
    """pip fetches what a package needs from wherever that package says; the payer named an index and no other place.
    A package that came anyhow is taken to come from there: which it was, pip does not tell."""
    names = {wheel.name for wheel in needs}
    asked = [_NEED.match(text) for text in (*wanted, *(text for texts in needs.values() for text in texts))]
    with_extras = {wheels.normal(each["name"]) for each in asked if each is not None and each["extras"]}
    for wheel, texts in needs.items():
        for text in texts:
            need = _NEED.match(text)
            if need is None or not need["address"] or wheels.normal(need["name"]) not in names:
                continue
            if _FOR_EXTRA.search(text) and wheel.name not in with_extras:
                continue  # nobody asked for that
            raise CallerError(
                "bad_package",
                f"{wheel.file} says itself where its {need['name']} is to be fetched, "
                "instead of from your index of packages.",
                remedy=f"Ask for another version of {wheel.name}, or do without it.",
            )


def _check_hashes(wanted: Sequence[Requirement], found: Mapping[str, bytes]) -> None:
    by_name = {Wheel(file, BlobId(b""), 0).name: data for file, data in found.items()}
    for each in wanted:
        data = by_name.get(each.name)
        if each.hashes and (data is None or hashlib.sha256(data).hexdigest() not in each.hashes):
            raise CallerError(
                "wrong_hash",
                f"{each.text} is no longer the file whose hash requires= names.",
                remedy="Find out why before you take the new one: the same version should be the same file.",
            )


def _check_set(found: tuple[Wheel, ...]) -> None:
    try:
        wheels.among(wheels.inputs(found))
    except RemoteError as error:
        most = f"{wheels.MAX_WHEELS} of {wheels.MAX_SET_BYTES >> 20} MiB together"
        raise CallerError(
            "packages_too_large",
            f"The packages cannot travel with a job. {error.sentence}",
            remedy=f"At most {most}; the largest is {max(found, key=lambda wheel: wheel.size).file}.",
        ) from None


def _by_name(row: tuple[str, bytes]) -> tuple[str, str]:
    return Wheel(row[0], BlobId(b""), 0).name, row[0]


def _print(line: str) -> None:
    print(f"requires: {line}", file=sys.stderr, flush=True)
