"""Wheels are strangers' archives: what of them is placed, and what each check keeps out."""

from __future__ import annotations

import contextlib
import io
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import wheels as made
from tallymesh import unpacking, wheels
from tallymesh.errors import RemoteError
from tallymesh.ids import BlobId
from tallymesh.units import Input
from tallymesh.unpacking import Given
from tallymesh.wheels import Wheel


def unpack(folder: Path, *data: bytes, names: tuple[str, ...] = ("plot",)) -> list[str]:
    """Place wheels of these bytes into folder/out; the files that are there afterwards."""
    given = []
    for name, each in zip(names, data, strict=True):
        path = folder / made.file_name(name, "1.0")
        path.write_bytes(each)
        given.append(Given(made.wheel(name, "1.0", each), path))
    out = folder / "out"
    out.mkdir(exist_ok=True)
    unpacking.unpack(given, out)
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def refused(folder: Path, *data: bytes, names: tuple[str, ...] = ("plot",)) -> str:
    with pytest.raises(RemoteError) as caught:
        unpack(folder, *data, names=names)
    assert caught.value.code == "bad_wheel"
    return caught.value.sentence


def entry(path: str, mode: int = 0o644 | stat.S_IFREG) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(path)
    found.create_system = 3
    found.external_attr = mode << 16
    return found


def test_only_modules_and_their_data_are_placed(tmp_path: Path) -> None:
    data = made.build(
        "plot",
        "1.0",
        {
            "plot/__init__.py": made.MODULE,
            "plot/data.bin": b"\0" * 10,
            "plot-1.0.data/purelib/more.py": b"",
            "plot-1.0.data/scripts/run": b"#!/bin/sh\n",
            "plot-1.0.data/headers/plot.h": b"",
            "plot-1.0.data/data/etc/profile": b"",
            "evil.pth": b"import os\n",
            "plot-1.0.data/platlib/other.pth": b"import os\n",
        },
        members=[entry("plot/data.bin", 0o4755 | stat.S_IFREG)],
    )
    info = [f"plot-1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL")]
    assert unpack(tmp_path, data) == sorted(["more.py", "plot/__init__.py", "plot/data.bin", *info])
    assert (tmp_path / "out/plot/__init__.py").read_bytes() == made.MODULE
    assert not (tmp_path / "out/plot/data.bin").stat().st_mode & 0o7111, "no archive sets rights"


@pytest.mark.parametrize(
    "path", ["../escaped.py", "plot/../../escaped.py", "/tmp/escaped.py", "plot\\..\\escaped.py", "./a.py", "a//b.py"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    assert "not a path below a folder" in refused(tmp_path, made.build("plot", "1.0", {path: b""}))
    assert not list(tmp_path.rglob("escaped.py"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_link_or_a_device_is_refused(tmp_path: Path, kind: int) -> None:
    data = made.build("plot", "1.0", {"plot.py": b"/etc/passwd"}, members=[entry("plot.py", 0o777 | kind)])
    assert "is a link or a device" in refused(tmp_path, data)


def test_a_file_that_another_hash_is_recorded_for_is_refused(tmp_path: Path) -> None:
    data = made.build("plot", "1.0", {"plot.py": b"x = 1\n"}, record={"plot.py": made.hashed(b"x = 2\n")})
    assert "does not have the hash" in refused(tmp_path, data)


def test_a_file_that_no_record_names_is_refused(tmp_path: Path) -> None:
    assert "is not in its RECORD" in refused(tmp_path, made.build("plot", "1.0", {"a.py": b""}, record={"a.py": None}))


def test_a_record_without_a_hash_is_refused(tmp_path: Path) -> None:
    assert "has no SHA-256" in refused(tmp_path, made.build("plot", "1.0", {"a.py": b""}, record={"a.py": ""}))
    assert "has no SHA-256" in refused(tmp_path, made.build("plot", "1.0", {"a.py": b""}, record={"a.py": "md5=aa"}))


def test_a_file_that_is_recorded_and_not_there_is_refused(tmp_path: Path) -> None:
    data = made.build("plot", "1.0", {}, record={"gone.py": made.hashed(b"")})
    assert "and not in the wheel" in refused(tmp_path, data)


@pytest.mark.parametrize(
    "path",
    [
        "torch/__init__.py", "numpy.py", "tallymesh/program.py", "msgspec/_core.abi3.so", "os.py",
        "plot-1.0.data/purelib/torch.py", "json/__init__.py", "safetensors.cpython-311-x86_64-linux-gnu.so",
    ],
)  # fmt: skip
def test_a_module_of_the_base_set_is_refused(tmp_path: Path, path: str) -> None:
    assert "would hide the module" in refused(tmp_path, made.build("plot", "1.0", {path: b""}))


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_UNPACKED_BYTES", 3 << 20)
    bomb = made.build("plot", "1.0", {"zeros.bin": bytes(8 << 20)})
    assert len(bomb) < 1 << 16
    assert "unpacks to more than" in refused(tmp_path, bomb)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file()) <= 4 << 20
    two = [made.build(name, "1.0", {f"{name}.bin": bytes(2 << 20)}) for name in ("one", "two")]
    assert "unpacks to more than" in refused(tmp_path, *two, names=("one", "two"))


def test_a_bomb_of_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MAX_FILES", 20)
    many = made.build("plot", "1.0", {f"plot/m{n}.py": b"" for n in range(30)})
    assert "at most 20 files" in refused(tmp_path, many)
    two = [made.build(name, "1.0", {f"{name}/m{n}.py": b"" for n in range(12)}) for name in ("one", "two")]
    assert "at most 20 files" in refused(tmp_path, *two, names=("one", "two"))


def test_two_files_under_one_name_are_refused(tmp_path: Path) -> None:
    data = made.build("plot", "1.0", {"plot.py": b"good"})
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("plot.py", b"good")
    assert "two files in it have one name" in refused(tmp_path, out.getvalue())


def test_a_wheel_that_changes_another_is_refused_and_an_equal_file_is_not(tmp_path: Path) -> None:
    same = [made.build(name, "1.0", {"space/__init__.py": b"", f"space/{name}.py": b""}) for name in ("one", "two")]
    assert "space/two.py" in unpack(tmp_path, *same, names=("one", "two"))
    other = made.build("three", "1.0", {"space/__init__.py": b"x = 1\n"})
    (tmp_path / "again").mkdir()
    sentence = refused(tmp_path / "again", same[0], other, names=("one", "three"))
    assert "another wheel of the set holds another 'space/__init__.py'" in sentence


@pytest.mark.parametrize("paths", [("plot", "plot/a.py"), ("plot/a.py", "plot")])
def test_a_file_that_is_a_folder_too_is_the_wheels_fault(tmp_path: Path, paths: tuple[str, str]) -> None:
    assert "is a file and a folder" in refused(tmp_path, made.build("plot", "1.0", dict.fromkeys(paths, b"")))


def test_a_wheel_under_anothers_name_is_refused(tmp_path: Path) -> None:
    assert "it holds other-1.0.dist-info" in refused(tmp_path, made.build("other", "1.0", {}))
    two = made.build("plot", "1.0", {"more-1.0.dist-info/METADATA": b""})
    assert "exactly one .dist-info" in refused(tmp_path, two)


def test_other_ways_to_compress_are_refused(tmp_path: Path) -> None:
    data = made.build("plot", "1.0", {"plot.py": b""})
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member), zipfile.ZIP_LZMA)
    assert "compressed in a way" in refused(tmp_path, out.getvalue())


GOOD = made.build("plot", "1.0", {"plot/__init__.py": made.MODULE})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.integers(0, len(GOOD)))
def test_changed_or_cut_bytes_are_refused_or_placed_within_the_folder(at: int, by: int, cut: int) -> None:
    changed = bytearray(GOOD)
    changed[at] ^= by
    for data in (bytes(changed), GOOD[:cut], GOOD[cut:] + GOOD[:cut]):
        with contextlib.suppress(RemoteError):  # and nothing else
            unpacking.unpack([Given(made.wheel("plot", "1.0", data), io.BytesIO(data))], None)


@pytest.mark.slow
def test_the_process_that_unpacks_says_whose_fault_it_was(tmp_path: Path) -> None:
    def run(data: bytes, folder: Path) -> str:
        path = tmp_path / "wheel"
        path.write_bytes(data)
        with path.open("rb") as file:
            request = unpacking.Request("plot-1.0-py3-none-any.whl", bytes(32), len(data), file.fileno())
            command = [sys.executable, "-P", "-m", "tallymesh.unpacking", str(folder)]
            done = subprocess.run(
                command, input=msgspec.json.encode([request]), capture_output=True, check=False,
                pass_fds=[file.fileno()], timeout=120,
            )  # fmt: skip
        assert bool(done.returncode) == bool(done.stdout), done.stderr
        return done.stdout.decode()

    (tmp_path / "out").mkdir()
    assert run(GOOD, tmp_path / "out") == ""
    assert (tmp_path / "out/plot/__init__.py").exists()
    assert run(b"PK", tmp_path / "out").startswith("bad_wheel: plot-1.0-py3-none-any.whl cannot be used")
    assert run(GOOD, tmp_path / "out").startswith("disk: ")


# -- names


def some(count: int = 2) -> list[Wheel]:
    return [Wheel(f"p{n}-1.0-py3-none-any.whl", BlobId(bytes([n]) * 32), 10 + n) for n in range(count)]


def test_wheels_are_inputs_and_inputs_are_wheels() -> None:
    found = wheels.inputs(some())
    assert [each.name for each in found] == [
        "wheel/00/10/p0-1.0-py3-none-any.whl",
        "wheel/01/11/p1-1.0-py3-none-any.whl",
    ]
    assert list(wheels.among([Input("item", bytes(32)), *found])) == some()
    assert wheels.among([Input("item", bytes(32))]) == ()
    assert (some()[0].name, some()[0].version) == ("p0", "1.0")


def test_a_set_is_named_by_its_wheels_and_their_order() -> None:
    sets = [some(), some()[::-1], some(1), [some()[0], some()[1]._replace(blob=BlobId(bytes(32)))]]
    assert len({wheels.set_id(each) for each in sets}) == len(sets)
    assert wheels.set_id(some()) == wheels.set_id(some())


@pytest.mark.parametrize(
    "names",
    [
        ["wheel/01/10/p-1.0-py3-none-any.whl"],
        ["wheel/00/0/p-1.0-py3-none-any.whl"],
        ["wheel/00/10/../p-1.0-py3-none-any.whl"],
        ["wheel/00/10/p.tar.gz"],
        ["wheel/00/10/p-1.0.whl"],
        ["wheel/00/9999999999/p-1.0-py3-none-any.whl"],
        ["wheel/00/10/P_p-1.0-py3-none-any.whl", "wheel/01/10/p.p-2.0-py3-none-any.whl"],
        [f"wheel/00/{wheels.MAX_WHEEL_BYTES + 1}/p-1.0-py3-none-any.whl"],
        [f"wheel/{n:02d}/{wheels.MAX_WHEEL_BYTES}/p{n}-1.0-py3-none-any.whl" for n in range(3)],
        [f"wheel/{n:02d}/1/p{n}-1.0-py3-none-any.whl" for n in range(wheels.MAX_WHEELS + 1)],
    ],
)
def test_what_is_no_set_of_wheels_is_refused(names: list[str]) -> None:
    with pytest.raises(RemoteError) as caught:
        wheels.among([Input(name, bytes(32)) for name in names])
    assert caught.value.code == "bad_wheels"


def test_the_aggregate_of_a_round_has_the_packages_too() -> None:
    from tallymesh import plan
    from tallymesh.ids import ZERO32
    from tallymesh.units import JobSpec, Stage

    stages = (Stage("client", "tallymesh:client", b"{}", 1), Stage("aggregate", "tallymesh:aggregate", b"{}", 1))
    more: dict[str, Any] = {"inputs": (bytes([1]) * 32,), "rounds": 1}
    shared = (*wheels.inputs(some()), Input("other", bytes(32)))
    spec = JobSpec("federated", ZERO32, ZERO32, 0, stages, shared=shared, **more)
    update = (Input("update/01", bytes(32)),)
    unit = plan.build_unit(spec, plan.Node(1, 0, 0), BlobId(ZERO32), update)
    assert [item.name for item in unit.inputs] == ["state", "update/01", *(each.name for each in wheels.inputs(some()))]
    assert plan.belongs(spec, unit)
    assert not plan.belongs(
        spec, plan.build_unit(msgspec.structs.replace(spec, shared=()), plan.Node(1, 0, 0), BlobId(ZERO32), update)
    )
