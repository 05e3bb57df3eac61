"""`requires=` on the payer's side, with pip and a folder of wheels in place of an index: no network is used."""

from __future__ import annotations

import io
import platform
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from fakes import wheels as made
from tallymesh import unpacking, wheels
from tallymesh.client import pip_alone, refusals, resolved, resolving
from tallymesh.errors import CallerError, LocalError, RemoteError, TallymeshError
from tallymesh.ids import blob_id
from tallymesh.wheels import Packages

BASE = {
    "python": f"{sys.version_info.major}.{sys.version_info.minor}",
    "machine": platform.machine(),
    "numpy": "2.4.6",
    "torch": "2.13.0+cpu",
}
GOOD = made.build("plot", "1.2", {"plot/__init__.py": made.MODULE}, requires=["numpy>=2", "torch==2.13.0", "ink"])


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that pip sees, and a cache of the test's own."""
    folder = made.index(
        tmp_path / "index",
        ("plot", "1.2", GOOD),
        ("ink", "0.1", made.build("ink", "0.1", {"ink.py": b"", "_more/__init__.py": b""})),
        ("old", "1.0", made.build("old", "1.0", {}, requires=["numpy<2"])),
        ("mac", "1.0", made.build("mac", "1.0", {}), "cp311-cp311-macosx_11_0_arm64"),
        ("numpy", "1.26.0", made.build("numpy", "1.26.0", {})),
        ("numpy", "2.4.6", made.build("numpy", "2.4.6", {"numpy/__init__.py": b""})),
    )
    (folder / "source-1.0.tar.gz").write_bytes(b"not even an archive: nothing may open it")
    made.offer(folder, monkeypatch)
    return folder


def resolve(*requires: str) -> tuple[Packages, list[str]]:
    said: list[str] = []
    return resolving.resolve(requires, BASE, said.append), said


@pytest.mark.slow
def test_nothing_is_built_though_a_package_names_an_address_of_source(index: Path, tmp_path: Path) -> None:
    """pip would, whatever `--only-binary` says, and run what it says: the payer's machine would be its author's."""
    mark, setup = tmp_path / "ran", b"open(%r, 'w')\n"
    source = tmp_path / "evil-1.0.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for name, data in (("setup.py", setup % str(mark)), ("PKG-INFO", b"Name: evil\nVersion: 1.0\n")):
            member = tarfile.TarInfo(f"evil-1.0/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    made.index(index, ("trap", "1.0", made.build("trap", "1.0", {}, requires=[f"evil @ {source.as_uri()}"])))
    error = fails("trap")
    assert error.code == "source_only"
    assert f"{source} is only there as source" in error.sentence
    assert not mark.exists()


ELSEWHERE = "ink @ https://elsewhere.example/ink-9.9-py3-none-any.whl"


@pytest.mark.parametrize(
    ("needs", "wanted", "refused"),
    [
        ([ELSEWHERE], "pen", True),
        (["Ink[more]@file:///home/me/ink-9.9-py3-none-any.whl ; python_version > '3'"], "pen", True),
        ([f"{ELSEWHERE} ; extra == 'more'", "ink"], "pen", False),  # nobody asked for that extra
        ([f"{ELSEWHERE} ; extra == 'more'", "ink"], "pen[more]", True),
        ([f"{ELSEWHERE} ; extra == 'more'", "pen[more]"], "pen", True),  # nor that nobody does
        ([f"{ELSEWHERE} ; extra == 'more' or python_version > '3'"], "pen", True),
        ([f"{ELSEWHERE};extra=='more'"], "pen", True),  # all of it is the address
        ([f"six\rRequires-Dist: {ELSEWHERE}"], "pen", True),  # a line ends so, too
        (["other @ https://elsewhere.example/other.whl ; sys_platform == 'win32'", "ink>=1"], "pen", False),
    ],
)
def test_a_package_that_says_where_another_is_to_be_fetched_does_not_travel(
    needs: list[str], wanted: str, refused: bool, tmp_path: Path
) -> None:
    found = {
        made.file_name("pen", "1.0"): made.build("pen", "1.0", {}, requires=needs),
        made.file_name("ink", "9.9"): made.build("ink", "9.9", {"ink.py": b""}),
    }
    asked = resolving.parse([wanted])
    if not refused:
        resolving._checked(found, tmp_path, asked)
        return
    with pytest.raises(CallerError, match=r"says itself where its [Ii]nk is to be fetched") as caught:
        resolving._checked(found, tmp_path, asked)
    assert caught.value.code == "bad_package"


def test_what_a_package_says_of_itself_is_read_to_its_end_or_the_package_does_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = made.build("pen", "1.0", {}, requires=["six"] * 100 + [ELSEWHERE])
    monkeypatch.setattr(unpacking, "MAX_METADATA_BYTES", 500)
    with pytest.raises(CallerError, match="has over 500 bytes"):
        resolving._checked({made.file_name("pen", "1.0"): long}, tmp_path, [])
    silent = io.BytesIO()
    with zipfile.ZipFile(silent, "w") as archive:
        archive.writestr("pen-1.0.dist-info/WHEEL", "")
    with pytest.raises(RemoteError, match="no METADATA"):
        unpacking.needs(silent.getvalue())


def test_pip_may_ask_for_a_password_and_start_nothing_else() -> None:
    for event, first in (
        ("subprocess.Popen", ["git", "clone"]),
        ("os.system", "true"),
        ("os.exec", "x"),
        ("os.fork", ""),
    ):
        with pytest.raises(PermissionError, match=pip_alone.REFUSED):
            pip_alone.refuse(event, (None, first, None, None))
    pip_alone.refuse("subprocess.Popen", (None, ["/usr/bin/keyring", "get", "index", "me"], None, None))
    pip_alone.refuse("open", ("file", "r", 0))


@pytest.mark.slow
def test_wheels_of_packages_and_what_they_need_but_none_of_the_base_set_are_the_same_each_time(index: Path) -> None:
    found, said = resolve("plot==1.*", "ink", "numpy>=2")
    assert [(wheel.name, wheel.version) for wheel in found.wheels] == [("ink", "0.1"), ("plot", "1.2")]
    assert found.wheels[1] == made.wheel("plot", "1.2", GOOD)
    assert found.blobs[blob_id(GOOD)] == GOOD
    assert found.modules == {"plot", "ink", "_more"}
    assert said[0] == "resolving plot==1.*, ink, numpy>=2"
    assert said[-1].startswith("2 packages travel with the job, ")

    # The same texts, the same bytes, whatever the index has by now.
    (index / made.file_name("plot", "1.2")).unlink()
    again, said = resolve("plot==1.*", "ink", "numpy>=2")
    assert again == found
    assert len(said) == 1
    # What the cache lost or the disk changed is not believed.
    (resolved.folder() / "wheels" / blob_id(GOOD).hex()).write_bytes(b"other")
    assert resolved.load(resolved.key(["plot==1.*", "ink", "numpy>=2"], BASE)) is None
    (index / made.file_name("plot", "1.2")).write_bytes(GOOD)
    pinned = [resolving.pinned(wheel, found.blobs[wheel.blob]) for wheel in found.wheels]
    assert resolve(*pinned)[0] == found
    # … and a pinned list either the same files or an error.
    other = made.build("plot", "1.2", {"plot/__init__.py": b"VALUE = 43\n"}, requires=["ink"])
    changed = {wheel.file: other if wheel.name == "plot" else found.blobs[wheel.blob] for wheel in found.wheels}
    resolved.store(resolved.key([line.split(" --hash")[0] for line in pinned], BASE), changed)  # as pip would find it
    error = fails(*pinned)
    assert error.code == "wrong_hash"
    assert "plot==1.2" in error.sentence


def fails(*requires: str) -> TallymeshError:
    with pytest.raises(TallymeshError) as caught:
        resolve(*requires)
    assert "+workers" not in str(caught.value)
    return caught.value


@pytest.mark.slow
def test_what_only_pip_can_know_is_read_from_what_it_says() -> None:
    """Each of these starts pip; how its words are read in other cases is the next test's."""
    for requires, code, says in (
        ("source", "source_only", "only wheels travel"),
        ("mac", "other_platform", "none for the Linux and the Python of the workers"),
        ("old; python_version>'3'", "base_conflict", "Workers have numpy 2.4.6, and requires= does not go with it."),
    ):
        error = fails(requires)
        assert (error.code, says in error.sentence) == (code, True), error.sentence


def test_what_workers_would_refuse_is_not_sent(tmp_path: Path) -> None:
    for file, files in ((made.file_name("hides", "1.0"), {"torch/__init__.py": b""}), ("hides-1.0.whl", {})):
        with pytest.raises(CallerError) as caught:
            resolving._checked({file: made.build("hides", "1.0", files)}, tmp_path, [])
        assert caught.value.code == "bad_package"


NONE = "ERROR: Could not find a version that satisfies the requirement {0} (from versions: {1})\n"
NONE += "ERROR: No matching distribution found for {0}\n"
CONFLICT = """
ERROR: Cannot install {0} because these package versions have conflicting dependencies.

The conflict is caused by:
    {0} depends on {1}
    The user requested {2}

To fix this you could try to:
1. loosen the range of package versions you've specified
"""


@pytest.mark.parametrize(
    ("output", "code", "says"),
    [
        (NONE.format("nowhere==1", "none"), "not_found", "No package nowhere==1 was found"),
        (NONE.format("plot==9.*", "1.0, 1.2"), "not_found", "There is no plot==9.*: there are wheels of 1.0, 1.2."),
        (NONE.format("numpy==1.26", "1.26.0"), "base_conflict", "Workers have numpy 2.4.6"),
        (CONFLICT.format("torch==2.0", "x", "(constraint) torch==2.13.0+cpu"), "base_conflict", "torch 2.13.0+cpu"),
        (CONFLICT.format("clash 1.0", "ink>=0.2", "ink==0.1"), "conflict", "clash 1.0 depends on ink>=0.2"),
        ("ERROR: Invalid requirement: 'plot=1'\n", "bad_requirement", "Invalid requirement: 'plot=1'"),
        ("ERROR: the disk melted\n", "pip_failed", "the disk melted"),
        ("WARNING: Retrying (Retry(total=0)) …\n" + NONE.format("plot==1", "none"), "no_network", "plot==1"),
    ],
)  # fmt: skip
def test_each_way_to_fail_has_its_code_and_says_what_is_wrong(output: str, code: str, says: str) -> None:
    error = refusals.explain(output, "", BASE)
    assert (error.code, says in error.sentence) == (code, True), error.sentence
    assert "+workers" not in str(error)
    assert isinstance(error, LocalError) == (code in ("pip_failed", "no_network"))


def test_a_package_for_another_python_says_so() -> None:
    log = "2026 Link requires a different Python (3.11.1 not in: '>=3.99'): file:///x/plot-1.0-py3-none-any.whl"
    assert refusals.explain(NONE.format("plot", "none"), log, BASE).code == "other_platform"
    assert refusals.explain(NONE.format("pl", "none"), log, BASE).code == "not_found", "a line about another one"


@pytest.mark.parametrize(
    "text",
    [
        "", "-e .", "--index-url=http://x", "./plot", "plot @ file:///plot.whl", "git+https://x/y", "plot; x@y", "a b",
        "plot==1\n--pre", "x" * 600, "plot --hash=sha256:00",
    ],
)  # fmt: skip
def test_what_is_no_requirement_never_reaches_pip(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "_download", None)
    with pytest.raises(CallerError) as caught:
        resolve(text)
    assert caught.value.code == "bad_requirement"
    with pytest.raises(CallerError):
        resolving.parse("plot")  # a text is not a list of letters


def test_it_is_resolved_where_workers_python_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for changed in ({"python": "3.99"}, {"machine": "riscv"}):
        with pytest.raises(CallerError) as caught:
            resolving.resolve(["plot"], BASE | changed)
        assert caught.value.code == "other_platform"
    monkeypatch.setattr(resolving.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalError, match="needs pip"):
        resolving.resolve(["plot"], BASE)


def test_a_set_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "MAX_SET_BYTES", 1000)
    small, large = made.build("ink", "0.1", {}), made.build("plot", "1.2", {"plot.py": b"#" * 500})
    resolved.store(
        resolved.key(["plot"], BASE), {made.file_name("ink", "0.1"): small, made.file_name("plot", "1.2"): large}
    )
    error = fails("plot")
    assert error.code == "packages_too_large"


def test_one_package_is_told_as_one() -> None:
    resolved.store(resolved.key(["plot"], BASE), {made.file_name("plot", "1.2"): GOOD})
    assert resolve("plot")[1] == ["1 package travels with the job, 0.0 MiB"]


def test_the_cache_keeps_the_newest_sets_and_their_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolved, "SETS_KEPT", 2)
    for number in range(4):
        resolved.store(f"set{number}", {"both": b"both", f"file{number}": bytes([number])})
    kept = [resolved.load(f"set{number}") is not None for number in range(4)]
    assert kept.count(True) == 2
    assert len(list((resolved.folder() / "wheels").iterdir())) == 3
    assert resolved.key(["a"], BASE) != resolved.key(["b"], BASE) != resolved.key(["b"], {**BASE, "numpy": "1"})
    before = resolved.key(["a"], BASE)
    monkeypatch.setenv("PIP_FIND_LINKS", "/elsewhere")
    assert resolved.key(["a"], BASE) != before
