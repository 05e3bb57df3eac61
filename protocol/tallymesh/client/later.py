"""What the public surface names and this version cannot do yet: each says so, and what to do instead."""

from __future__ import annotations

from typing import Any, NoReturn

from tallymesh.errors import CallerError


def private(*args: Any, **kwargs: Any) -> NoReturn:
    """Data that peers hold. Not in this version."""
    raise CallerError(
        "not_yet",
        "Training on data that peers hold comes in a later version.",
        remedy="Pass a Dataset of your own to tallymesh.train(model, loss, data, …).",
    )


def deploy(*args: Any, **kwargs: Any) -> NoReturn:
    """A model as an endpoint. Not in this version."""
    raise CallerError(
        "not_yet",
        "Serving a model on the network comes in a later version.",
        remedy="Run it here: job.result.load() gives the module.",
    )
