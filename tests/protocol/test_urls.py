"""Inputs by URL: what is read, in which order, and what is refused; through fsspec and real files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

import tallymesh
from fakes import area
from tallymesh import CallerError, urls, values
from tallymesh.ids import BlobId
from tallymesh.prepare import PreparedJob


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("file:///tmp/x", True), ("s3://b/*.txt", True), ("zip://a.txt::file:///x.zip", True), ("/tmp/x", False),
        ("C://x", False), ("not a url: http://x", False), (b"file:///x", False), (None, False), (["s3://b"], False),
    ],
)  # fmt: skip
def test_a_url_is_told_from_a_path_and_from_text(value: object, expected: bool) -> None:
    assert urls.is_url(value) is expected


def test_files_are_read_in_the_order_of_their_paths_and_unpacked(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.dat"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"packed"))
    assert urls.items(f"file://{tmp_path}/*.txt") == [b"a.txt", b"b.txt"]
    assert urls.items(f"file://{tmp_path}/*.txt*") == [b"a.txt", b"b.txt", b"packed"]
    assert urls.items(f"file://{tmp_path}/c.dat") == [b"c.dat"]


def test_the_order_is_ours_and_not_that_of_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    listed = fsspec.open_files
    monkeypatch.setattr(fsspec, "open_files", lambda *given, **options: list(listed(*given, **options))[::-1])
    assert urls.items(f"file://{tmp_path}/*") == [b"a", b"b"]


def test_json_is_values_and_lines_are_items(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[1, {"a": [2.5]}, "x"]')
    (tmp_path / "1.jsonl").write_text('{"n": 1}\n\n[2]\n')
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(b'"three"'))
    assert urls.items(f"file://{tmp_path}/list.json") == [1, {"a": [2.5]}, "x"]
    assert urls.items(f"file://{tmp_path}/*.jsonl*") == [{"n": 1}, [2], "three"]


def wrong_json(folder: Path) -> str:
    (folder / "x.jsonl").write_bytes(b'{"n": 1}\n{"n": 2\n')
    return f"file://{folder}/x.jsonl"


def no_list(folder: Path) -> str:
    (folder / "x.json").write_text('{"n": 1}')
    return f"file://{folder}/x.json"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (wrong_json, r"x\.jsonl:2 is not JSON"),
        (no_list, "holds no JSON list"),
        (lambda folder: f"file://{folder}/none.txt", "cannot be read: FileNotFoundError"),
        (lambda folder: f"file://{folder}/*.none", "names no file"),
        (lambda folder: "nowhere://x", "cannot be read: ValueError: Protocol not known: nowhere"),
    ],
    ids=["line", "list", "missing", "nothing", "protocol"],
)
def test_what_cannot_be_read_is_refused_with_the_place(make: Callable[[Path], str], says: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=says):
        urls.items(make(tmp_path))


def test_more_than_may_be_held_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"12345")
    monkeypatch.setattr(urls, "BYTES_MAX", 15)
    assert len(urls.read(f"file://{tmp_path}/*")) == 3
    monkeypatch.setattr(urls, "BYTES_MAX", 14)
    with pytest.raises(CallerError, match="is over 14 bytes"):
        urls.read(f"file://{tmp_path}/*")
    monkeypatch.setattr(urls, "FILES_MAX", 2)
    with pytest.raises(CallerError, match="names 3 files"):
        urls.read(f"file://{tmp_path}/*")


@pytest.mark.slow  # imports torch
def test_a_map_takes_a_url_and_refuses_a_text_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYMESH_BUILD", str(tmp_path / "package"))
    for name, text in (("b", "four"), ("a", "fifteen letters")):
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(SystemExit):
        tallymesh.map(area.length, f"file://{tmp_path}/*.txt")
    spec, blobs = PreparedJob.load(tmp_path / "package")
    assert [values.decode(blobs[BlobId(name)]) for name in spec.inputs] == [b"fifteen letters", b"four"]
    with pytest.raises(CallerError, match="would be its letters") as caught:
        tallymesh.map(area.length, str(tmp_path))
    assert "file:///" in caught.value.remedy
