"""A job in a TOML file: `tallymesh run job.toml`. The same as calling `map` or `train`, with names instead of objects.

``map = "area.py:area"`` or ``train = "train.py:model"``; every other key is an option of that function, objects are
named as ``file.py:name`` or ``module:name``. Files are found beside the TOML file.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from tallymesh import urls
from tallymesh.client.job import Job
from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError, TallymeshError

MAX_FILE_BYTES: Final = 8 * 1024 * 1024  # inputs may be written out in it
# Options of train that name something in a program.
OBJECTS: Final = ("loss", "data", "test", "prepare", "trainer", "aggregator")


def submit(path: Path) -> Job:
    """Submit the job in the file. CallerError that names the file and what is wrong with it."""
    table = _read(path)
    folder = path.absolute().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))  # as if the file were a script that lies there
    from tallymesh.client import submit as functions

    kinds = [kind for kind in ("map", "train") if kind in table]
    if len(kinds) != 1:
        raise _wrong(path, 'it needs exactly one of map = "file.py:function" and train = "file.py:model"')
    (kind,) = kinds
    first = _find(path, folder, table.pop(kind))
    function = getattr(functions, kind)
    arguments = table.pop("arguments", {}) if kind == "map" else {}
    known = {name for name, each in inspect.signature(function).parameters.items() if each.kind is not each.VAR_KEYWORD}
    unknown = sorted(set(table) - known)
    if unknown:
        raise _wrong(path, f"there is no option {unknown[0]!r}; known are {', '.join(sorted(known))}")
    if "require" in table:
        from tallymesh.api import Require

        table["require"] = msgspec.convert(table["require"], Require)
    for name in OBJECTS if kind == "train" else ():
        if name in table:
            table[name] = _find(path, folder, table[name])
    if kind == "map":
        table["inputs"] = _inputs(path, folder, table.get("inputs"))
    try:
        job: Job = function(first, **table, **arguments)
    except TypeError as error:
        raise _wrong(path, str(error)) from None
    return job


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tallymesh run", description="Run the job that a TOML file describes.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON value and nothing else")
    parser.add_argument("--detach", action="store_true", help="submit, print the id, do not wait")
    given = parser.parse_args(arguments)
    try:
        job = submit(given.file)
        if given.detach:
            print(json.dumps({"id": job.id}) if given.json else job.id)
            return 0
        job.wait(progress=not given.json)
        _show(job, given.json)
    except TallymeshError as error:
        if given.json:
            print(json.dumps({"error": {"code": error.code, "sentence": error.sentence, "remedy": error.remedy}}))
        else:
            print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _show(job: Job, as_json: bool) -> None:
    if as_json:
        made: dict[str, Any] = {"id": job.id, "status": job.status, "cost_wei": str(job.cost_wei)}
        if job.view.kind == "map":
            made["outputs"] = job.results()
        else:
            made |= {"model_sha": job.result.model_sha, "metrics": job.result.metrics}
        print(msgspec.json.encode(made, enc_hook=_plain).decode())
    elif job.view.kind == "map":
        for output in job.results():
            print(output)
    else:
        print(job.result.card)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy and torch
        return value.tolist()
    raise NotImplementedError(type(value))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise _wrong(path, f"it is over {MAX_FILE_BYTES} bytes; put the inputs into a JSON file")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise _wrong(path, f"it cannot be read: {error.strerror}") from None
    except UNREADABLE as error:
        raise _wrong(path, f"it is not TOML: {error}") from None


def _find(path: Path, folder: Path, name: Any) -> Any:
    """The object that ``file.py:name`` or ``module:name`` means; a URL of data is itself."""
    if urls.is_url(name):
        return name
    if not isinstance(name, str) or name.count(":") != 1:
        raise _wrong(path, f"{name!r} is not file.py:name or module:name")
    where, qualname = name.split(":")
    module_name = where.removesuffix(".py").replace("/", ".") if where.endswith(".py") else where
    if where.endswith(".py") and not (folder / where).is_file():
        raise _wrong(path, f"there is no file {folder / where}")
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise _wrong(path, f"{name!r} cannot be found: {error}") from None
    return found


def _inputs(path: Path, folder: Path, given: Any) -> Any:
    if isinstance(given, list) or urls.is_url(given):
        return given
    if not isinstance(given, str):
        raise _wrong(path, "it needs inputs: a list, or the name of a JSON file that holds one")
    try:
        items = msgspec.json.decode((folder / given).read_bytes())
    except (OSError, *UNREADABLE) as error:
        raise _wrong(path, f"the inputs {given} cannot be read: {error}") from None
    if not isinstance(items, list):
        raise _wrong(path, f"{given} holds no list")
    return items


def _wrong(path: Path, sentence: str) -> CallerError:
    return CallerError("bad_job_file", f"{path}: {sentence}.", remedy="See 'tallymesh run --help'.")


if __name__ == "__main__":
    sys.exit(main())
