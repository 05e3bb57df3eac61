"""The node's side of the sandbox, piece by piece: logs, outputs, spool, giving up root."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymesh.errors import LocalError
from tallymesh_node.interfaces import Failure
from tallymesh_node.sandbox import drop, outputs
from tallymesh_node.sandbox.logs import MAX_EVENT, MAX_LINE, Logs, plain
from tallymesh_node.sandbox.spool import Spool

# logs


class Heard:
    def __init__(self, lines_max: int = 100) -> None:
        self.lines: list[str] = []
        self.metrics: list[tuple[str, float]] = []
        self.logs = Logs(lines_max, self.lines.append, lambda name, value: self.metrics.append((name, value)))


def test_lines_are_the_same_however_the_pipe_cuts_them() -> None:
    data = b"one\ntwo\n\nthree \xe2\x82\xac\nlast"
    chance = random.Random(1)
    for _ in range(50):
        heard = Heard()
        place = 0
        while place < len(data):
            size = chance.randint(1, 5)
            heard.logs.feed("console", data[place : place + size])
            place += size
        heard.logs.finish()
        assert heard.lines == ["one", "two", "", "three €", "last"]


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from(["events", "console"]))
def test_any_bytes_give_lines_and_metrics_and_nothing_else(chunks: list[bytes], pipe: str) -> None:
    heard = Heard()
    for chunk in chunks:
        heard.logs.feed(pipe, chunk)
    heard.logs.finish()
    for line in heard.lines:
        assert line.encode().isascii() or line
        assert not set(line) & {"\x1b", "\r", "\0"}


@pytest.mark.parametrize(
    "event",
    [
        b"[]", b"{}", b"null", b'["line"]', b'["line",5]', b'["metric",["m"]]', b'["metric",["m","1"]]',
        b'["metric",["m",true]]', b'["metric",["' + b"m" * 201 + b'",1]]', b'["metric",["m",1' + b"0" * 400 + b"]]",
        b'["metric",["a\\u001bb",1]]', b'["metric",["\\ud800",1]]', b'["done",{}]', b'["begin","now"]',
        b'["line","' + b"x" * MAX_EVENT + b'"]',
    ],
)  # fmt: skip
def test_events_that_are_not_as_agreed_are_counted_and_dropped(event: bytes) -> None:
    heard = Heard()
    heard.logs.feed("events", event + b"\n")
    assert heard.metrics == []
    assert heard.lines == []
    heard.logs.finish()
    assert heard.lines == ["… 1 more lines were not passed on"]


def test_the_moment_before_foreign_code_is_told_once() -> None:
    heard = Heard()
    heard.logs.feed("events", b'["begin",12.5]\n["begin",99.0]\n')
    assert heard.logs.begin_s == 12.5


def test_a_terminal_cannot_be_rewritten_by_a_log() -> None:
    assert plain("a\x1b[2Jb\x9bc\x07\td\ud800") == "a�[2Jb�c�\td?"
    heard = Heard()
    heard.logs.feed("console", b"50%\r100%\r\nnext\n")
    assert heard.lines == ["50%�100%", "next"]


def test_a_long_line_is_cut_and_what_follows_is_not_lost() -> None:
    heard = Heard()
    for _ in range(100):
        heard.logs.feed("console", b"x" * 10_000)
    heard.logs.feed("console", b"\nshort\n")
    assert heard.lines == ["x" * MAX_LINE + " …", "short"]


def test_past_its_lines_a_unit_is_flooding() -> None:
    heard = Heard(lines_max=3)
    heard.logs.feed("console", b"a\nb\n")
    assert not heard.logs.flooded
    heard.logs.feed("console", b"c\nd\n")
    assert heard.logs.flooded
    assert heard.lines == ["a", "b", "c"]


# outputs


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_pipe_in_place_of_an_output_does_not_hold_the_reader(tmp_path: Path, folder: int) -> None:
    os.mkfifo(tmp_path / "output")
    with pytest.raises(Failure, match="no file"):
        outputs.read(folder, 100)


def test_an_output_of_exactly_the_limit_is_read(tmp_path: Path, folder: int) -> None:
    (tmp_path / "output").write_bytes(b"x" * 100)
    assert outputs.read(folder, 100).output == b"x" * 100
    with pytest.raises(Failure) as caught:
        outputs.read(folder, 99)
    assert caught.value.code == "limits"


@given(st.binary(max_size=300))
def test_any_account_of_a_failure_gives_a_failure(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    place = tmp_path_factory.mktemp("failure")
    (place / "failure").write_bytes(data)
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        said = outputs.read_failure(descriptor)
    finally:
        os.close(descriptor)
    assert said is not None
    assert said.code in ("program", "limits", "form")


@pytest.mark.parametrize(
    ("sentence", "code"),
    [
        ("OSError: [Errno 28] No space left on device", "limits"),
        ("MemoryError: ", "limits"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", "limits"),
        ("ValueError: 28", "program"),
    ],
)
def test_running_into_a_limit_is_told_from_other_errors(tmp_path: Path, folder: int, sentence: str, code: str) -> None:
    (tmp_path / "failure").write_text(json.dumps({"code": "program", "sentence": sentence, "traceback": ""}))
    said = outputs.read_failure(folder)
    assert said is not None
    assert said.code == code


@pytest.mark.parametrize(
    ("said", "code"), [("inputs", "program"), ("sandbox", "program"), ("limits", "limits"), ("form", "form")]
)
def test_a_unit_cannot_blame_the_node_or_what_it_put_in_place(
    tmp_path: Path, folder: int, said: str, code: str
) -> None:
    """Else a program makes its payer pass over every worker. What a check says of a form is the check's to say."""
    (tmp_path / "failure").write_text(json.dumps({"code": said, "sentence": "No.", "traceback": ""}))
    failure = outputs.read_failure(folder)
    assert failure is not None
    assert failure.code == code


def test_what_a_failure_says_cannot_rewrite_a_terminal(tmp_path: Path, folder: int) -> None:
    (tmp_path / "failure").write_text(json.dumps({"code": "program", "sentence": "\x1b[2J", "traceback": "a\n\x07"}))
    said = outputs.read_failure(folder)
    assert said is not None
    assert (said.sentence, said.traceback) == ("�[2J", "a\n�")


# spool


async def test_inputs_are_links_where_that_is_possible_and_copies_where_not(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", foreign=False)
    spool.open_job("j")
    near = tmp_path / "near"
    near.write_bytes(b"near")
    near.chmod(0o400)
    far = Path("/dev/shm") / f"tallymesh-test-{os.getpid()}"  # another file system
    far.write_bytes(b"far")
    try:
        assert os.stat(far).st_dev != os.stat(near).st_dev
        await spool.add("j", "u", {"unit": b"unit"}, {"aa": near, "bb": far})
    finally:
        far.unlink()
    blobs = tmp_path / "spool/j/u/blobs"
    assert (blobs / "aa").samefile(near)
    assert (blobs / "bb").read_bytes() == b"far"
    assert (tmp_path / "spool/j/u/unit").read_bytes() == b"unit"
    spool.remove("j", "u")
    assert near.read_bytes() == b"near"
    spool.close()


async def test_for_another_user_inputs_become_readable_but_only_by_copy_if_they_are_somebodys(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", foreign=True)
    spool.open_job("j")
    blob, private = tmp_path / "blob", tmp_path / "private"
    blob.write_bytes(b"blob")
    blob.chmod(0o400)  # as the store keeps them
    private.write_bytes(b"private")
    private.chmod(0o600)
    await spool.add("j", "u", {}, {"aa": blob, "bb": private})
    blobs = tmp_path / "spool/j/u/blobs"
    assert (blobs / "aa").samefile(blob)
    assert not (blobs / "bb").samefile(private)
    assert private.stat().st_mode & 0o777 == 0o600
    for path in (blobs / "aa", blobs / "bb"):
        assert path.stat().st_mode & 0o777 == 0o444
    spool.close()


def test_what_a_killed_node_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "spool/j7/u9/blobs").mkdir(parents=True)
    spool = Spool(tmp_path / "spool", foreign=False)
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]
    with pytest.raises(LocalError):
        Spool(tmp_path / "spool", foreign=False)
    spool.close()
    Spool(tmp_path / "spool", foreign=False).close()


# giving up root


def test_paths_below_a_closed_folder_are_found() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python, other = Path(folder, "closed/deep/python"), Path(folder, "open")
        python.mkdir(parents=True)
        other.mkdir()
        wanted = [str(python), str(other)]
        assert drop.closed_directories(wanted) == {folder: sorted(wanted)}
        Path(folder).chmod(0o711)
        python.parents[1].chmod(0o700)
        assert drop.closed_directories(wanted) == {str(python.parents[1]): [str(python)]}
        python.parents[1].chmod(0o711)
        assert drop.closed_directories(wanted) == {}
