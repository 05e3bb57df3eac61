"""How a model is trained: the options of local work and the config of the runtime's steps, as canonical JSON.

Everything that a unit's result depends on is here or in the unit itself. This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import CallerError
from tallymesh.units import canonical_json

MAX_BATCH: Final = 1 << 20
MAX_EPOCHS: Final = 10_000


class Local(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Local work of a client, or of one pass of sequential training. Steps are batches."""

    epochs: int = 1
    batch: int = 32
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0  # sgd alone
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear"] = "constant"  # of lr, over all steps, after the warm-up
    warmup: int = 0  # steps over which lr rises from nothing
    clip: float = 0.0  # norm to which gradients are clipped, 0 for never

    def lr_at(self, step: int, total: int) -> float:
        """The learning rate of step `step` of `total`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, total - self.warmup)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1.0 + math.cos(math.pi * done))
        return self.lr * (1.0 - done) if self.schedule == "linear" else self.lr


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Config of the runtime's training steps."""

    model: str  # module:qualname of a function or class without arguments
    loss: str = ""  # module:qualname of loss(net, batch) -> scalar tensor
    prepare: str = ""  # module:qualname of prepare(batch) -> batch, of the batches that are trained on; "" for none
    trainer: str = ""  # module:qualname of a subclass of ClientTrainer; "" for that itself
    local: Local = Local()
    seed: int = 0  # the job's: of the model's construction, and of data order and steps in sequential training
    steps: int = 0  # segment: steps of one segment. client: at most this many steps, 0 for no limit
    total: int = 0  # segment: steps of the whole training
    batch: int = 256  # evaluate, loss_check: examples at a time


class Aggregation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Config of the step that aggregates."""

    aggregator: str = ""  # module:qualname of a subclass of ServerAggregator; "" for that itself


def local(given: Mapping[str, Any] | None) -> Local:
    """Options as the submitter gave them. CallerError naming the one that is wrong."""
    if given is not None and not isinstance(given, Mapping):
        raise CallerError("bad_local", f"local= is a {type(given).__name__}, not a dict.", remedy='local={"epochs": 1}')
    try:
        found = msgspec.convert(dict(given or {}), Local)
    except msgspec.ValidationError as error:
        names = ", ".join(Local.__struct_fields__)
        known = "; optimizer: sgd, adam, adamw; schedule: constant, cosine, linear"
        raise CallerError("bad_local", f"local= is wrong: {error}.", remedy=f"It may have: {names}{known}.") from None
    for name, fine in (
        ("epochs", 1 <= found.epochs <= MAX_EPOCHS),
        ("batch", 1 <= found.batch <= MAX_BATCH),
        ("lr", math.isfinite(found.lr) and found.lr > 0),
        ("momentum", 0 <= found.momentum < 1),
        ("weight_decay", math.isfinite(found.weight_decay) and found.weight_decay >= 0),
        ("warmup", found.warmup >= 0),
        ("clip", math.isfinite(found.clip) and found.clip >= 0),
    ):
        if not fine:
            value = getattr(found, name)
            raise CallerError("bad_local", f"local={{{name!r}: {value}}} is out of range.", remedy=f"Change {name}.")
    if found.nesterov and not found.momentum:
        raise CallerError("bad_local", "nesterov needs momentum.", remedy="Set momentum=0.9, or leave nesterov out.")
    return found


def steps_per_epoch(examples: int, batch: int) -> int:
    """Batches of one pass: a last batch of one example joins the one before it (data.spans)."""
    full, rest = divmod(examples, batch)
    return max(1, full + (rest > 1 or (rest == 1 and (batch == 1 or full == 0))))


def encode(config: Config | Aggregation) -> bytes:
    """Canonical JSON."""
    return canonical_json(msgspec.to_builtins(config))


def decode(data: bytes) -> Config:
    """The config in `data`, or ValueError."""
    try:
        return msgspec.json.decode(data, type=Config)
    except UNREADABLE as error:
        raise ValueError(f"not a config of a training step: {error}") from None


def decode_aggregation(data: bytes) -> Aggregation:
    """The config in `data`, or ValueError."""
    try:
        return msgspec.json.decode(data, type=Aggregation)
    except UNREADABLE as error:
        raise ValueError(f"not a config of an aggregation: {error}") from None
