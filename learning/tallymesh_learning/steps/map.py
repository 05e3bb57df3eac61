"""A map unit: the user's function on one item. Nothing here needs torch."""

from __future__ import annotations

import base64
import binascii
import json
import reprlib
from typing import Any, Final

from tallymesh import program, values
from tallymesh.errors import RemoteError
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import Result, UnitFailure, Work

SHOWN_MAX: Final = 200  # characters of an item in the sentence that says what went wrong with it


def run(work: Work) -> Result:
    """Inputs: ``item``, maybe ``kwargs`` (a value each). Config: ``{"kwargs": base64}``. Output: the returned value."""
    with work.timed("load"):
        try:
            item = values.decode(work.input("item"))
            kwargs = _kwargs(work)
        except (RemoteError, ValueError) as error:
            raise UnitFailure("inputs", f"The item cannot be read: {error}") from None
    work.about = f"The item was {shown(item)}."  # before the function may change it
    with work.timed("import"):
        function = program.resolve(work.unit.entry)
    with work.timed("compute"):
        numeric.reseed(work.unit.seed, "step", 0)
        value = function(item, **kwargs)
    with work.timed("save"):
        return Result(values.encode(value, what="returned value"), {})


class _Short(reprlib.Repr):
    """Items may have gigabytes: no more of one is made into text than is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 60, 60

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value) if len(value) <= 20 else f"{value[:20]!r}… ({len(value)} bytes)"

    def repr_ndarray(self, value: Any, level: int) -> str:
        return f"an array of {value.dtype} of shape {tuple(value.shape)}"

    def repr_Tensor(self, value: Any, level: int) -> str:
        return f"a tensor of {value.dtype} of shape {tuple(value.shape)}"


def shown(item: Any) -> str:
    """An item in at most SHOWN_MAX characters."""
    text = _Short().repr(item)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


def _kwargs(work: Work) -> dict[str, Any]:
    if work.has("kwargs"):
        found = values.decode(work.input("kwargs"))
    else:
        try:
            text = json.loads(work.unit.config).get("kwargs", "")
            found = values.decode(base64.b64decode(text, validate=True)) if text else {}
        except (json.JSONDecodeError, binascii.Error, AttributeError, TypeError) as error:
            raise ValueError(f"not the config of a map: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("keyword arguments are a dict")
    return found
