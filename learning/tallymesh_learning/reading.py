"""A submitter's data set, read once in a child process, dealt out, and written as shards named by content.

Reading may be slow, may print, may use any library: it is the submitter's own code on the submitter's own machine. It
happens in a fork, so that torch's threads and generators in the caller's interpreter stay as they are.
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tallymesh import urls
from tallymesh.errors import CallerError, TallymeshError
from tallymesh.ids import BlobId, blob_id
from tallymesh_learning import partition

LABELS: Final = ("1", "key.label", "key.labels", "key.y", "key.target")  # columns that may hold the class
# Where frames are that no reader wrote: the standard library, installed packages, and this one.
_NOT_THEIRS: Final = (
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    str(Path(__file__).parent) + os.sep,
    "<frozen",
)
_WHOLE: Final = "Whole arrays are passed as a tuple, each with the same number of examples: (x, y)."
_FEW: Final = 4  # items: so few are rather arrays that were meant as columns
_REMEDY: Final = "Pass a Dataset with __len__ and __getitem__, or list(data)."


class Shards(NamedTuple):
    """Blobs by id, the participants' shards (sorted by id) with their numbers of examples, and the held-out shard."""

    blobs: dict[BlobId, bytes]
    shards: tuple[tuple[BlobId, int], ...]
    test: BlobId | None


def read(data: Any, test: Any, *, clients: int, method: partition.Method, seed: int) -> Shards:
    """Read both data sets. CallerError where one cannot be read, with what was raised."""
    check(data, "data", many=method.name == "natural")
    if test is not None:
        check(test, "test", many=False)
    with tempfile.TemporaryDirectory(prefix="tallymesh-data-") as name:
        folder = Path(name)
        _in_child(folder, lambda: _write(folder, data, test, clients, method, seed))
        index = json.loads((folder / "index").read_bytes())
        blobs = {BlobId(bytes.fromhex(path.stem)): path.read_bytes() for path in folder.glob("*.blob")}
    shards = tuple(sorted((BlobId(bytes.fromhex(blob)), count) for blob, count in index["shards"]))
    if len({blob for blob, _ in shards}) != len(shards):
        raise CallerError(
            "equal_shards",
            "Two participants would hold exactly the same examples.",
            remedy="Use fewer clients, or remove duplicates from the data.",
        )
    return Shards(blobs, shards, BlobId(bytes.fromhex(index["test"])) if index["test"] else None)


def check(data: Any, what: str, *, many: bool) -> None:
    """Refuse what is not map-style: it has no length, or its items cannot be asked for by number."""
    if many:
        if not isinstance(data, (list, tuple)) or not data:
            raise CallerError(
                "not_map_style", 'partition="natural" takes a list of data sets, one a participant.', remedy=_REMEDY
            )
        for each in data:
            check(each, what, many=False)
        return
    if urls.is_url(data):
        return  # read in the child
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, (str, bytes, dict)):
        remedy = f"Pass {what}=loader.dataset." if hasattr(data, "dataset") else _REMEDY
        if isinstance(data, dict):
            remedy = f"Pass {what}=(x, y), a tuple of whole arrays, or a list of dicts, one an example."
        kind = type(data).__qualname__
        raise CallerError(
            "not_map_style", f"{what}= is a {kind}, which has no items with a number and a length.", remedy=remedy
        )
    try:
        length = len(data)
    except (TypeError, NotImplementedError):
        raise CallerError("not_map_style", f"{what}= has no length.", remedy=_REMEDY) from None
    if not length:
        raise CallerError("no_data", f"{what}= holds no examples.")


def _in_child(folder: Path, work: Callable[[], None]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except TallymeshError as error:
            told = {"code": error.code, "sentence": error.sentence, "remedy": error.remedy}
            (folder / "error").write_text(json.dumps(told))
        except BaseException as error:
            told = {"code": "bad_data", "sentence": _what_failed(error), "remedy": ""}
            (folder / "error").write_text(json.dumps(told))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status:
        path = folder / "error"
        if not path.exists():
            code = os.waitstatus_to_exitcode(status)
            raise CallerError("bad_data", f"The process that read the data ended with status {code}.")
        told = json.loads(path.read_text())
        raise CallerError(told["code"], told["sentence"], remedy=told["remedy"])


def _what_failed(error: BaseException) -> str:
    """Which item, the reader's own line (not that of a library below it), what was raised, and the way there."""
    item = getattr(error, "__notes__", ["the data"])[0]
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)]
    if not own:
        return f"Reading {item} failed: {error!r}"
    below = frames[frames.index(own[0]) :]
    way = "".join(["Traceback (most recent call last):\n", *traceback.format_list(below)]).rstrip()
    return f"Reading {item} failed: {own[-1].filename}:{own[-1].lineno}: {error!r}\n{way}"


# In the child


def _write(folder: Path, data: Any, test: Any, clients: int, method: partition.Method, seed: int) -> None:
    import torch

    from tallymesh_learning import data as shards
    from tallymesh_learning.runtime import numeric

    torch.set_num_threads(1)  # the caller's threads do not exist in a fork, and waiting for them would never end
    torch.set_grad_enabled(False)
    numeric.reseed(seed, "data")

    def put(shard: shards.Shard) -> tuple[str, int]:
        blob = shards.encode(shard)
        name = blob_id(blob).hex()
        (folder / f"{name}.blob").write_bytes(blob)
        return name, shard.examples

    if method.name == "natural":
        parts = [shards.Shard(_checked(each, f"data[{index}]")) for index, each in enumerate(data)]
    else:
        whole = shards.Shard(_checked(data, "data"))
        hands = partition.deal(method, whole.examples, labels(whole.columns), clients, seed)
        parts = [whole.select(rows) for rows in hands] if clients > 1 else [whole]
    index = {"shards": [put(part) for part in parts], "test": ""}
    if test is not None:
        index["test"] = put(shards.Shard(_checked(test, "test")))[0]
    (folder / "index").write_text(json.dumps(index))


def labels(found: Mapping[str, Any]) -> list[Any] | None:
    """The class of each example, where a column holds one whole number or text an example."""
    for name in LABELS:
        column = found.get(name)
        if isinstance(column, list):
            return column
        if column is not None and column.dim() == 1 and not column.is_floating_point():
            values: list[Any] = column.tolist()
            return values
    return None


def columns(data: Any, what: str) -> dict[str, Any]:
    """The items of a data set as columns. CallerError naming the item that does not fit the first one."""
    import torch

    if type(data) is torch.utils.data.TensorDataset:
        return {str(position): tensor.detach().clone() for position, tensor in enumerate(data.tensors)}
    arrays = isinstance(data, tuple) and all(hasattr(part, "shape") and part.shape for part in data)
    if arrays and len({len(part) for part in data}) > 1:
        lengths = ", ".join(str(len(part)) for part in data)
        raise CallerError("ragged_data", f"{what}= is a tuple of arrays of {lengths} examples.", remedy=_WHOLE)
    if arrays:  # (inputs, labels), each a whole array
        return {str(position): torch.as_tensor(part).detach().clone() for position, part in enumerate(data)}
    if urls.is_url(data):
        from tallymesh_learning import remote

        data = remote.data(data)
        if isinstance(data, dict):  # columns already
            return data
    found: dict[str, list[Any]] = {}
    for index in range(len(data)):
        parts = _item(data, index, what)
        if index == 0:
            found = {name: [] for name in parts}
        if parts.keys() != found.keys():
            raise CallerError("ragged_data", f"{what}[{index}] does not have the parts of {what}[0].")
        for name, part in parts.items():
            found[name].append(part)
    return {name: _column(name, parts, what) for name, parts in found.items()}


def _item(data: Any, index: int, what: str) -> dict[str, Any]:
    try:
        return _parts(data[index], f"{what}[{index}]")
    except Exception as error:
        error.add_note(f"{what}[{index}]")  # among thousands, the number says which one to look at
        raise


def _parts(item: Any, where: str) -> dict[str, Any]:
    if isinstance(item, Mapping):
        if not item or not all(type(key) is str for key in item):
            raise CallerError("bad_item", f"{where} is a dict whose keys are not all text.")
        return {f"key.{name}": _part(part, where) for name, part in item.items()}
    if isinstance(item, (tuple, list)) and item:
        return {str(position): _part(part, where) for position, part in enumerate(item)}
    return {"item": _part(item, where)}


def _part(part: Any, where: str) -> Any:
    import numpy
    import torch

    if isinstance(part, torch.Tensor):
        return part.detach()
    if isinstance(part, numpy.ndarray):
        return torch.from_numpy(numpy.ascontiguousarray(part))
    if isinstance(part, str):
        return str(part)  # numpy's is one, too
    if isinstance(part, (bool, int, float, numpy.generic)):
        # As a DataLoader collates them: whole numbers to int64, others to float64.
        return torch.tensor(part, dtype=torch.float64) if type(part) is float else torch.as_tensor(part)
    raise CallerError(
        "bad_item",
        f"{where} holds a {type(part).__module__}.{type(part).__qualname__}.",
        remedy=("Make an array of it: numpy.array(…). " if isinstance(part, (list, tuple)) else "")
        + "Items are tensors, numpy arrays, numbers or text, alone, in a tuple or in a dict.",
    )


def _column(name: str, parts: list[Any], what: str) -> Any:
    import torch

    first = parts[0]
    for index, part in enumerate(parts):
        if type(part) is not type(first) or (
            not isinstance(first, str) and (part.shape != first.shape or part.dtype != first.dtype)
        ):
            raise CallerError(
                "ragged_data",
                f"Part {name} of {what}[{index}] has another shape or type than that of {what}[0].",
                remedy=_WHOLE if type(parts) is list and len(parts) <= _FEW else "Pad or crop the items to one shape.",
            )
    return parts if isinstance(first, str) else torch.stack(parts)


def _checked(data: Any, what: str) -> dict[str, Any]:
    """Its columns; CallerError where their kind of number has no place in a shard."""
    from tallymesh_learning import tensors

    found = columns(data, what)
    for name, column in found.items():
        if not isinstance(column, list) and not tensors.can_hold(column):
            raise CallerError(
                "bad_item",
                f"Part {name} of {what} is a {column.dtype} tensor, which cannot travel.",
                remedy="Convert it where it is read: .to(torch.int32), .to(torch.float32), torch.view_as_real(…).",
            )
    return found
