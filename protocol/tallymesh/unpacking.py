"""From wheels to a folder that can be imported from: placing their files, and nothing else.

A wheel is a stranger's archive. No script of it runs, no ``.pth`` file takes effect, no link is made; each file must be
in the wheel's own RECORD with the hash that it has (PEP 427, PEP 376), below the folder, and no module of the base set
may be among them. Bytes and files are counted while they are written, because an archive's own figures can lie.

``python -m tallymesh.unpacking FOLDER`` reads a list of wheels on its standard input, for a process that gave up what
it may do before (a node's sandbox).
"""

from __future__ import annotations

import base64
import binascii
import csv
import email.parser
import hashlib
import io
import os
import resource
import stat
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Final, NamedTuple

import msgspec

from tallymesh import wheels as names
from tallymesh.errors import RemoteError
from tallymesh.ids import BlobId

MAX_UNPACKED_BYTES: Final = 2 * 1024 * 1024 * 1024  # of a set: four times what may travel
MAX_FILES: Final = 40_000  # of a set: scipy has 2,500
MAX_PATH: Final = 250  # bytes: file systems end at 255 a part
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024  # 40,000 lines of 400 characters
MAX_METADATA_BYTES: Final = 4 * 1024 * 1024  # with a long description 100 KB
PIECE: Final = 1024 * 1024
# Of the process that unpacks for a node: a list of 40,000 files takes 60 MB, two gibibytes 20 seconds.
MEMORY_BYTES: Final = 1024 * 1024 * 1024
CPU_S: Final = 300
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # PEP 427; others have bombs that are denser
_SIGNATURES: Final = ("RECORD.jws", "RECORD.p7s")  # of RECORD itself, hence not in it
_SITE: Final = ("purelib", "platlib")  # the parts of NAME.data that hold modules
_REFUSED: Final = (  # what the standard library raises at a zip file that is none
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    UnicodeError,
    NotImplementedError,
    RuntimeError,  # an encrypted member
    ValueError,
    KeyError,
    OverflowError,
    csv.Error,
)


class Given(NamedTuple):
    """A wheel and where its bytes are."""

    wheel: names.Wheel
    source: Path | IO[bytes]


class _Tally:
    """What a set has taken so far."""

    def __init__(self) -> None:
        self.bytes = 0
        self.files: dict[str, bytes] = {}  # path -> hash
        self.folders: set[str] = set()

    def add(self, count: int) -> None:
        self.bytes += count
        if self.bytes > MAX_UNPACKED_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes")

    def keep(self, path: str, digest: bytes) -> None:
        """ValueError where two files cannot both be: the disk would refuse it, and the machine be blamed."""
        above = [parent.as_posix() for parent in PurePosixPath(path).parents][:-1]
        if path in self.folders or any(folder in self.files for folder in above):
            raise ValueError(f"{path!r} is a file and a folder")
        self.files[path] = digest
        self.folders.update(above)


def unpack(given: Sequence[Given], folder: Path | None) -> None:
    """Place the modules of the wheels into `folder`, which must be empty; into none where it is only to be seen whether
    they would be taken. RemoteError `bad_wheel` where one is not what a set may hold; OSError where the disk fails."""
    tally = _Tally()
    for each in given:
        try:
            with zipfile.ZipFile(each.source) as archive:
                _unpack(archive, each.wheel, folder, tally)
        except _REFUSED as error:
            raise RemoteError("bad_wheel", f"{each.wheel.file} cannot be used: {error}.") from None


def modules(data: bytes) -> set[str]:
    """Names that can be imported from a wheel that `unpack` takes."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member for member in archive.infolist() if not member.filename.endswith("/")]
        info = _info_folder(members)
        placed = [_target(member.filename, info) for member in members]
    tops = [path.split("/")[0] for path in placed if "/" in path or path.endswith((".py", ".so"))]
    return {top.partition(".")[0] for top in tops if top != info and not top.endswith(".libs")}


def needs(data: bytes) -> list[str]:
    """What a wheel that `unpack` takes says that it needs, as whoever installs it reads it (PEP 566: a message's
    headers). RemoteError where it says nothing, or too much to be read."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = _info_folder([member for member in archive.infolist() if not member.filename.endswith("/")])
        try:
            with archive.open(f"{info}/METADATA") as source:
                text = source.read(MAX_METADATA_BYTES + 1)
        except KeyError:
            raise RemoteError("bad_wheel", f"There is no METADATA in {info}.") from None
    if len(text) > MAX_METADATA_BYTES:
        raise RemoteError("bad_wheel", f"What {info} says of itself has over {MAX_METADATA_BYTES} bytes.")
    found = email.parser.HeaderParser().parsestr(text.decode(errors="replace"))
    return [str(each) for each in found.get_all("Requires-Dist", [])]


def _unpack(archive: zipfile.ZipFile, wheel: names.Wheel, folder: Path | None, tally: _Tally) -> None:
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    if len(members) + len(tally.files) > MAX_FILES:
        raise ValueError(f"a set of wheels has at most {MAX_FILES} files")
    if len({member.filename for member in members}) != len(members):
        raise ValueError("two files in it have one name")
    for member in members:
        _check_member(member)
    info = _info_folder(members)
    record = _record(archive, f"{info}/RECORD")
    unsigned = {f"{info}/{name}" for name in ("RECORD", *_SIGNATURES)}
    for member in members:
        if member.filename in unsigned:
            continue
        expected = record.get(member.filename)
        if expected is None:
            raise ValueError(f"{member.filename!r} is not in its RECORD")
        _place(archive, member, expected, _target(member.filename, info), folder, tally)
    missing = set(record) - {member.filename for member in members} - unsigned
    if missing:
        raise ValueError(f"{min(missing)!r} is in its RECORD and not in the wheel")
    _place_rest(archive, info, wheel, folder, tally)


def _check_member(member: zipfile.ZipInfo) -> None:
    _check_path(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ValueError(f"{member.filename!r} is a link or a device")
    if member.compress_type not in _METHODS:
        raise ValueError(f"{member.filename!r} is compressed in a way that wheels do not have")


def _check_path(path: str) -> None:
    parts = path.split("/")
    bad = len(path.encode()) > MAX_PATH or "\\" in path or not path.isprintable() or {"", ".", ".."} & set(parts)
    if bad or path != PurePosixPath(path).as_posix():
        raise ValueError(f"{path[:MAX_PATH]!r} is not a path below a folder")


def _info_folder(members: Sequence[zipfile.ZipInfo]) -> str:
    found = {member.filename.split("/")[0] for member in members if "/" in member.filename}
    info = [name for name in found if name.endswith(".dist-info")]
    if len(info) != 1:
        raise ValueError("it does not have exactly one .dist-info folder")
    return info[0]


def _record(archive: zipfile.ZipFile, path: str) -> dict[str, bytes]:
    """Path -> SHA-256, of all files but those that cannot be in it."""
    with archive.open(path) as opened:
        data = opened.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError("its RECORD is too long")
    record: dict[str, bytes] = {}
    for row in csv.reader(io.StringIO(data.decode())):
        if not row:
            continue
        if len(row) != 3 or row[0] in record:
            raise ValueError("its RECORD cannot be read")
        kind, _, text = row[1].partition("=")
        if kind == "sha256":
            try:
                record[row[0]] = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except binascii.Error:
                raise ValueError(f"the hash of {row[0]!r} in its RECORD cannot be read") from None
        elif row[0] != path and not row[0].endswith(_SIGNATURES):
            raise ValueError(f"{row[0]!r} has no SHA-256 in its RECORD")
    return record


def _target(path: str, info: str) -> str:
    """Where a file of a wheel goes; "" for what is not placed: scripts, headers, ``.pth`` files."""
    first, _, rest = path.partition("/")
    if first.endswith(".data"):
        part, _, path = rest.partition("/")
        if part not in _SITE or not path:
            return ""
        first = path.split("/")[0]
    if "/" not in path and path.endswith(".pth"):
        return ""
    module = first.partition(".")[0]
    if first != info and (module in names.RESERVED or module in sys.stdlib_module_names):
        raise ValueError(f"{path!r} would hide the module {module} that every sandbox has")
    return path


def _place(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, expected: bytes, target: str, folder: Path | None, tally: _Tally
) -> None:
    """Read it whole and compare, writing it where it has a place."""
    first = target not in tally.files
    if target and not first and tally.files[target] != expected:
        raise ValueError(f"another wheel of the set holds another {target!r}")
    if target and first:
        tally.keep(target, expected)
    hashed = hashlib.sha256()
    with archive.open(member) as source, _writer(folder if first else None, target) as out:
        for piece in _pieces(source):
            tally.add(len(piece))
            hashed.update(piece)
            out.write(piece)
    if hashed.digest() != expected:
        raise ValueError(f"{member.filename!r} does not have the hash that its RECORD says")


def _place_rest(archive: zipfile.ZipFile, info: str, wheel: names.Wheel, folder: Path | None, tally: _Tally) -> None:
    """RECORD itself: packages look up their own files by it. And whether the wheel is the one that its name says."""
    name, _, version = info.removesuffix(".dist-info").rpartition("-")
    if names.normal(name) != wheel.name or version != wheel.version:
        raise ValueError(f"it holds {info}")
    with archive.open(f"{info}/RECORD") as source, _writer(folder, f"{info}/RECORD") as out:
        for piece in _pieces(source):
            tally.add(len(piece))
            out.write(piece)


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(PIECE):
        yield piece


def _writer(folder: Path | None, target: str) -> IO[bytes]:
    if folder is None or not target:
        return open(os.devnull, "wb")
    place = folder / target
    place.parent.mkdir(parents=True, exist_ok=True)
    # Exclusive: where a file system folds two names into one, the second is no way to write through the first.
    return os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb")


class Request(msgspec.Struct, frozen=True):
    """One wheel, for the process below. Its file is an open descriptor: no path need be entered, no right be had."""

    file: str
    blob: bytes
    size: int
    descriptor: int


def main(arguments: Sequence[str], stdin: IO[bytes], stdout: IO[str]) -> int:
    """Prints nothing where all is well, else ``code: sentence``."""
    wanted = msgspec.json.decode(stdin.read(), type=list[Request])
    os.umask(0o022)
    for kind, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard),) * 2)
    try:
        given = [
            Given(names.Wheel(each.file, BlobId(each.blob), each.size), os.fdopen(each.descriptor, "rb"))
            for each in wanted
        ]
        unpack(given, Path(arguments[0]))
    except RemoteError as error:
        stdout.write(f"bad_wheel: {error.sentence}")
    except MemoryError:
        stdout.write("bad_wheel: It takes too much memory to be read.")
    except OSError as error:
        stdout.write(f"disk: {error}")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer, sys.stdout))
