"""Units and jobs as data: what is run, named by content.

A unit is a pure function call: anyone who has the bytes can run it again and must get the same output. A job is a
template (JobSpec) from which every unit follows (plan.py). This module does not know who runs anything.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from tallymesh.decoding import UNREADABLE
from tallymesh.errors import RemoteError
from tallymesh.ids import ZERO32, BlobId, UnitId, blob_id

MAX_UNIT_BYTES = 256 * 1024  # 3,000 named inputs; an aggregation over more participants is a tree
MAX_SPEC_BYTES = 8 * 1024 * 1024  # 240,000 map items
MAX_CONFIG_BYTES = 64 * 1024
MAX_METRICS_BYTES = 64 * 1024  # that a unit returned, in a receipt; live ones are bounded elsewhere

KINDS = ("map", "sequential", "federated")


class Input(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One input blob under the name by which the entry point asks for it."""

    name: str
    blob: bytes


class Unit(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A pure function call. `entry` is ``module:qualname`` in the program's archive, or ``tallymesh:STEP`` for a step
    of the runtime (``tallymesh:client``, ``tallymesh:aggregate``, …); `config` is canonical JSON."""

    program: bytes
    entry: str
    inputs: tuple[Input, ...]
    config: bytes
    seed: int
    profile: bytes

    def input(self, name: str) -> BlobId:
        for item in self.inputs:
            if item.name == name:
                return BlobId(item.blob)
        raise KeyError(name)

    @property
    def start(self) -> BlobId:
        """What a leaf calls `start`: the checkpoint that the unit takes, or the item; zero where it takes neither."""
        return next((BlobId(item.blob) for item in self.inputs if item.name in ("state", "item")), BlobId(ZERO32))


class Stage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One kind of unit within a job. Units of a stage have the same declared work, hence the same price in a lease."""

    name: str  # "map", "segment", "client", "aggregate"
    entry: str
    config: bytes
    work_ms: int  # declared work of one unit, reference-milliseconds


class JobSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The template of a job; its content id is `Order.template`. See plan.py for how units follow from it."""

    kind: str  # one of KINDS
    program: bytes  # content id of the source archive
    profile: bytes  # hash of the numeric profile
    seed: int
    stages: tuple[Stage, ...]
    inputs: tuple[bytes, ...]  # map: one blob an item, in order; federated: the shards, sorted by id; sequential: one
    shared: tuple[Input, ...] = ()  # given to every unit of stage 0
    initial: bytes = ZERO32  # checkpoint 0
    rounds: int = 0  # federated rounds, or segments
    per_round: int = 0  # participants drawn per round, 0 for all
    test: bytes = ZERO32  # held-out data for evaluation on the payer's node, zero for none
    name: str = ""


_encoder = msgspec.msgpack.Encoder()
_unit_decoder = msgspec.msgpack.Decoder(Unit)
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)
_metrics_decoder = msgspec.json.Decoder(dict[str, bool | int | float])

T = TypeVar("T", Unit, JobSpec)


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, no NaN: one text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def encode(value: Unit | JobSpec) -> bytes:
    return _encoder.encode(value)


def unit_id(unit: Unit) -> UnitId:
    """BLAKE3 of the canonical bytes."""
    return UnitId(blob_id(encode(unit)))


def decode_unit(data: bytes, *, peer: str = "") -> Unit:
    """The unit in `data`, or RemoteError."""
    unit = _decode(data, _unit_decoder, MAX_UNIT_BYTES, "unit", peer)
    names = [item.name for item in unit.inputs]
    if len(set(names)) != len(names):
        raise RemoteError("bad_unit", "Two inputs of a unit have one name.", peer=peer)
    hashes = [unit.program, unit.profile, *(item.blob for item in unit.inputs)]
    _check_common(hashes, unit.seed, [unit.config], "unit", peer)
    return unit


def decode_metrics(data: bytes, *, peer: str = "") -> dict[str, bool | int | float]:
    """What a unit returned beside its output, in canonical JSON: numbers under names, or RemoteError. Whoever takes
    them in shows them, writes them down and reads them again: half a surrogate pair or a deep nest would break that
    later, where nobody looks for a stranger's bytes."""
    if len(data) > MAX_METRICS_BYTES:
        raise RemoteError("bad_metrics", f"Metrics of {len(data)} bytes are over {MAX_METRICS_BYTES}.", peer=peer)
    try:
        found = _metrics_decoder.decode(data)
        canonical = canonical_json(found)
    except UNREADABLE as error:
        raise RemoteError("bad_metrics", f"Not numbers under names: {error}", peer=peer) from None
    if canonical != data:
        raise RemoteError("bad_metrics", "The metrics are not canonical JSON.", peer=peer)
    return found


def decode_spec(data: bytes, *, peer: str = "") -> JobSpec:
    """The job template in `data`, or RemoteError."""
    spec = _decode(data, _spec_decoder, MAX_SPEC_BYTES, "job template", peer)
    hashes = [spec.program, spec.profile, spec.initial, spec.test, *spec.inputs, *(item.blob for item in spec.shared)]
    _check_common(hashes, spec.seed, [stage.config for stage in spec.stages], "job template", peer)
    wanted = {"map": 1, "sequential": 1, "federated": 2}.get(spec.kind)
    if wanted is None or len(spec.stages) != wanted:
        raise RemoteError(
            "bad_spec", f"A job of kind {spec.kind!r} with {len(spec.stages)} stages is unknown.", peer=peer
        )
    if not spec.inputs or spec.rounds < 0 or not 0 <= spec.per_round <= len(spec.inputs):
        raise RemoteError("bad_spec", "A job needs inputs, and cannot draw more participants than it has.", peer=peer)
    if spec.kind == "federated" and (list(spec.inputs) != sorted(set(spec.inputs)) or not spec.rounds):
        raise RemoteError("bad_spec", "Shards are named once, sorted by id, and rounds are at least 1.", peer=peer)
    if spec.kind == "sequential" and (len(spec.inputs) != 1 or not spec.rounds):
        raise RemoteError("bad_spec", "Sequential training has one data set and at least one segment.", peer=peer)
    if any(stage.work_ms <= 0 for stage in spec.stages):
        raise RemoteError("bad_spec", "Declared work is positive.", peer=peer)
    return spec


def _decode(data: bytes, decoder: msgspec.msgpack.Decoder[T], limit: int, what: str, peer: str) -> T:
    if len(data) > limit:
        raise RemoteError("too_large", f"A {what} of {len(data)} bytes is over the limit of {limit}.", peer=peer)
    try:
        value = decoder.decode(data)
        canonical = _encoder.encode(value)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeError, RecursionError, OverflowError) as error:
        raise RemoteError("bad_message", f"Not a {what}: {error}", peer=peer) from None
    if canonical != data:
        raise RemoteError("bad_message", f"The {what} is not in canonical form.", peer=peer)
    return value


def _check_common(hashes: list[bytes], seed: int, configs: list[bytes], what: str, peer: str) -> None:
    if any(len(value) != 32 for value in hashes):
        raise RemoteError("bad_message", f"A content id in the {what} does not have 32 bytes.", peer=peer)
    if not 0 <= seed < 1 << 64:
        raise RemoteError("bad_message", f"The seed of the {what} is not a 64-bit number.", peer=peer)
    if any(len(config) > MAX_CONFIG_BYTES for config in configs):
        raise RemoteError("too_large", f"A config in the {what} is over {MAX_CONFIG_BYTES} bytes.", peer=peer)
