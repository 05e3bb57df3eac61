"""A map unit: the user's function on one item. Nothing here needs torch."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from tallymesh import program, values
from tallymesh.errors import RemoteError
from tallymesh_learning.runtime import numeric
from tallymesh_learning.runtime.work import Result, UnitFailure, Work


def run(work: Work) -> Result:
    """Inputs: ``item``, maybe ``kwargs`` (a value each). Config: ``{"kwargs": base64}``. Output: the returned value."""
    with work.timed("load"):
        try:
            item = values.decode(work.input("item"))
            kwargs = _kwargs(work)
        except (RemoteError, ValueError) as error:
            raise UnitFailure("inputs", f"The item cannot be read: {error}") from None
    with work.timed("import"):
        function = program.resolve(work.unit.entry)
    with work.timed("compute"):
        numeric.reseed(work.unit.seed, "step", 0)
        value = function(item, **kwargs)
    with work.timed("save"):
        return Result(values.encode(value, what="returned value"), {})


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
