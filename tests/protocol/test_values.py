"""Canonical values: one byte form for one value, and arbitrary bytes give a value or RemoteError."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import math
from typing import Any

import msgpack
import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymesh import program, values
from tallymesh.errors import CallerError, RemoteError

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.text(),
    st.binary(max_size=40),
)
nested = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
_encoder = msgspec.msgpack.Encoder(order="deterministic")


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def array_bytes(code: int, dtype: str, shape: tuple[int, ...], body: bytes) -> bytes:
    return _encoder.encode(msgspec.msgpack.Ext(code, _encoder.encode((dtype, shape, body))))


@pytest.mark.slow
@given(nested)
def test_what_was_encoded_comes_back(value: Any) -> None:
    data = values.encode(value)
    assert same(values.decode(data), value)
    assert values.encode(values.decode(data)) == data


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_remote_error(data: bytes) -> None:
    try:
        value = values.decode(data, peer="p1")
    except RemoteError as error:
        peer = error.peer
    else:
        peer = "p1" if values.encode(value) == data else "another value"
    assert peer == "p1"


@pytest.mark.slow
@given(nested, st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_gives_another_value_or_a_remote_error(value: Any, place: int, byte: int) -> None:
    data = bytearray(values.encode(value))
    data[place % len(data)] = byte
    try:
        found = values.decode(bytes(data))
    except RemoteError:
        return
    assert values.encode(found) == bytes(data)


@given(
    st.sampled_from([values.ARRAY, values.TENSOR, values.SCALAR, 7]),
    st.sampled_from([*values.DTYPES, "object", "void"]),
    st.lists(st.integers(-1, 1 << 62), max_size=4),
    st.binary(max_size=32),
)
def test_a_forged_array_is_refused_or_whole(code: int, dtype: str, shape: list[int], body: bytes) -> None:
    try:
        found = values.decode(array_bytes(code, dtype, tuple(shape), body))
    except RemoteError:
        return
    assert found.nbytes == len(body)


@pytest.mark.parametrize("dtype", [name for name in values.DTYPES if name != "bfloat16"])
def test_arrays_of_every_dtype_come_back_writable(dtype: str) -> None:
    array = numpy.arange(6).reshape(2, 3).astype(dtype)
    back = values.decode(values.encode(array))
    assert back.dtype == array.dtype
    assert numpy.array_equal(back, array)
    back[0, 0] = 1
    scalar = array[1, 1]
    assert type(values.decode(values.encode(scalar))) is type(scalar)


def test_equal_arrays_have_equal_bytes_however_they_lie_in_memory() -> None:
    array = numpy.arange(12, dtype="<f4").reshape(3, 4)
    wanted = values.encode(array)
    assert values.encode(numpy.asfortranarray(array)) == wanted
    assert values.encode(array.astype(">f4")) == wanted
    assert values.encode(array.repeat(2, axis=0)[::2]) == wanted


def test_tensors_come_back_as_tensors() -> None:
    import torch

    for tensor in (
        torch.arange(6.0).reshape(2, 3).t(),
        torch.tensor(3),
        torch.zeros(0, 2),
        torch.ones(2, dtype=torch.bfloat16),
        torch.tensor([1 + 2j]).conj(),
        torch.ones(2, requires_grad=True),
    ):
        back = values.decode(values.encode({"t": [tensor]}))["t"][0]
        assert back.dtype == tensor.dtype
        assert torch.equal(back, tensor.detach())


def test_dicts_are_sorted_and_tuples_become_lists() -> None:
    assert values.encode({"b": 1, "a": (1, 2)}) == values.encode({"a": [1, 2], "b": 1})


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({1, 2}, "value"),
        ({"a": [object()]}, "value['a'][0]"),
        ({1: 2}, "value"),
        (1 << 64, "value"),
        ("\ud800", "value"),
        (numpy.array([object()]), "value"),
        (numpy.array(["text"]), "value"),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(CallerError) as caught:
        values.encode(value)
    assert caught.value.code == "not_a_value"
    assert f"The {named} " in str(caught.value)


def test_too_deep_nesting_is_refused_both_ways() -> None:
    value: Any = 0
    for _ in range(values.MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(CallerError):
        values.encode(value)
    for depth in (values.MAX_DEPTH + 1, 100_000):
        with pytest.raises(RemoteError):
            values.decode(b"\x91" * depth + b"\x00")


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\xa1b\x01\xa1a\x01",  # keys not sorted
        b"\xcd\x00\x01",  # a number in more bytes than it needs
        b"\x81\x01\x01",  # a key that is not text
        array_bytes(values.ARRAY, "float32", (2,), bytes(4)),
        array_bytes(values.ARRAY, "bool", (1,), b"\x02"),
        array_bytes(values.ARRAY, "bfloat16", (1,), bytes(2)),
        array_bytes(values.SCALAR, "float32", (1,), bytes(4)),
        array_bytes(values.ARRAY, "float32", (0, 1 << 61, 1 << 61), b""),
        b"\xd7\xff" + bytes(8),  # msgpack's timestamp
    ],
    ids=["unsorted", "long", "key", "short", "bool", "bfloat16", "scalar", "empty", "timestamp"],
)
def test_other_bytes_for_a_value_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        values.decode(data)


@pytest.mark.slow
def test_more_elements_than_allowed_are_refused_before_they_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"\xdd" + (values.MAX_ITEMS + 1).to_bytes(4, "big") + b"\x80" * (values.MAX_ITEMS + 1)
    monkeypatch.setattr(values, "_decoder", None)  # would be called if the elements were not counted first
    with pytest.raises(RemoteError, match="more than"):
        values.decode(bomb)


@pytest.mark.slow
@given(nested)
def test_counting_agrees_with_decoding(value: Any) -> None:
    data = values.encode(value)
    values._count(data)

    def count(item: Any) -> int:
        if isinstance(item, list):
            return 1 + sum(map(count, item))
        return 1 + sum(1 + count(inner) for inner in item.values()) if isinstance(item, dict) else 1

    limit = values.MAX_ITEMS
    try:
        values.MAX_ITEMS = count(value)  # type: ignore[misc]
        values._count(data)
        values.MAX_ITEMS -= 1  # type: ignore[misc]
        with pytest.raises(ValueError, match="more than"):
            values._count(data)
    finally:
        values.MAX_ITEMS = limit  # type: ignore[misc]


def test_only_what_comes_back_with_the_same_types_counts_as_data() -> None:
    assert values.is_data({"a": [1, 2.5, None, True, "x", b"y", numpy.arange(3), numpy.float32(1)]})
    for other in ((1, 2), {1: 2}, {1}, object(), len, 1 << 70):
        assert not values.is_data(other)


def test_golden_bytes() -> None:
    """Content ids of inputs and programs rest on these: a change of them is a change of the protocol."""
    value = {"b": [None, True, -3, 1.5, "hä"], "a": b"\x00", "n": numpy.arange(2, dtype="<i2"), "s": numpy.float32(1)}
    wanted = (
        "84a161c40100a16295c0c3fdcb3ff8000000000000a368c3a4a16ec70f0193a5696e743136"
        "9102c40400000100a173d80393a7666c6f6174333290c4040000803f"
    )
    assert values.encode(value).hex() == wanted
    array = msgpack.ExtType(1, msgpack.packb(["int16", [2], b"\x00\x00\x01\x00"]))
    scalar = msgpack.ExtType(3, msgpack.packb(["float32", [], b"\x00\x00\x80\x3f"]))
    second = {"a": b"\x00", "b": [None, True, -3, 1.5, "hä"], "n": array, "s": scalar}
    assert msgpack.packb(second).hex() == wanted  # a second implementation
    assert (
        program.pack({"b.py": b"x = 1\n", "a/c.py": b""}).hex()
        == "9292a6612f632e7079c40092a4622e7079c406" + b"x = 1\n".hex()
    )


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int = 1


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        (collections.Counter("aab"), "dict(value)"),
        (collections.OrderedDict(b=1), "dict(value)"),
        ({3, 1}, "sorted(value)"),
        (frozenset("ab"), "sorted(value)"),
        (1 + 2j, "value.real"),
        (Point(), "dataclasses.asdict(value)"),
        (datetime.date(2026, 1, 2), "value.isoformat()"),
        (Colour.RED, "value.name"),
        (range(3), "list(value)"),
        (Pair(1, 2), "list(value)"),
        (object(), ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_travel_is_refused_with_what_to_write(value: Any, instead: str) -> None:
    with pytest.raises(CallerError) as caught:
        values.encode([value])
    used = caught.value.remedy.partition("Values are JSON, bytes, numpy arrays")
    assert used[1], "what can travel is said in any case"
    assert instead in used[0]
    assert bool(used[0]) == bool(instead)
