"""What strangers send in the place of a message: garbage, what was good once and is cut, stretched or changed, and the
shapes that cost a decoder most. For hypothesis and for `scripts/fuzz` alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from hypothesis import strategies as st

# Nesting, lengths that promise gigabytes, text that is no text, half a surrogate pair, numbers without end, map keys
# that cannot be keys, timestamps out of range.
NASTY: tuple[bytes, ...] = (
    b"",
    b"\x00",
    b"\xff",
    b"\xc1",
    b"\x91" * 3000,
    b"\x81\xa1a" * 3000,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xa2\xed\xa0",
    b"\xa1\xff",
    b"\x81\x80\x01",
    b"\xd6\xff\xff\xff\xff\xff",
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xcf" + b"\xff" * 8,
    b"\xcb\x7f\xf8" + bytes(6),
    b"[" * 3000,
    b'{"a":' * 3000,
    b"x = " + b"[" * 3000,
    b'{"\\ud800": 1}',
    b'{"a": "\xff"}',
    b'{"a": 1e999, "b": NaN}',
    b"1" * 5000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
    b"null",
    b"[]",
    b"{}",
)


def cut(seeds: Sequence[bytes]) -> list[bytes]:
    """Every good message without its end, with something behind it, and twice."""
    found: list[bytes] = []
    for seed in seeds:
        found += [seed[: len(seed) // 2], seed[:-1], seed + b"\x00", seed + seed, seed[1:]]
    return found


class Chooser(Protocol):
    """Who decides what is changed."""

    def integer(self, low: int, high: int) -> int: ...

    def one_of(self, values: Sequence[bytes]) -> bytes: ...

    def some(self, size_max: int) -> bytes: ...


class Dice(Chooser):
    """By chance, from a seed. An input costs 10 us, where hypothesis takes a millisecond: so a decoder gets many."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)

    def one_of(self, values: Sequence[bytes]) -> bytes:
        return self._random.choice(values)

    def some(self, size_max: int) -> bytes:
        return self._random.randbytes(self._random.randint(0, size_max))


class Drawn(Chooser):
    """By hypothesis, which shows the smallest input that fails."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def one_of(self, values: Sequence[bytes]) -> bytes:
        return self._draw(st.sampled_from(list(values)))

    def some(self, size_max: int) -> bytes:
        return self._draw(st.binary(max_size=size_max))


def changed(choose: Chooser, seeds: Sequence[bytes]) -> bytes:
    """Mostly a good message with a few changes: blind bytes end in a decoder's first line."""
    if not seeds or choose.integer(0, 7) == 0:
        return choose.some(300)
    data = bytearray(choose.one_of(seeds))
    for _ in range(choose.integer(1, 4)):
        at = choose.integer(0, len(data))
        match choose.integer(0, 5):
            case 0:
                data[at : at + 1] = bytes([choose.integer(0, 255)])
            case 1:
                del data[at : at + choose.integer(1, 40)]
            case 2:
                data[at:at] = choose.one_of(NASTY)
            case 3:
                data[at : at + 5] = choose.one_of(NASTY)
            case 4:
                data[at:at] = data[at : at + choose.integer(1, 60)]
            case _:
                data[at:] = choose.some(40)
    return bytes(data)


@st.composite
def hostile(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    return changed(Drawn(draw), seeds)
