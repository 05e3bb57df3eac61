"""What an offer says of the GPUs that its node sells: one line of text, for all of them are of one numeric class.

``2*NVIDIA H200:143771:570.86.15:48.1:52.3``: how many, name, memory in MiB, driver, and what the node measured at its
start: 1e12 float32 operations a second in a matrix product, GiB a second from the machine's memory to the card's. This
module knows no driver; what others write is read as it is, or not at all.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

MAX_BYTES: Final = 50  # an offer with everything else stays under its 512 bytes
MAX_COUNT: Final = 64
MAX_DRIVER: Final = 16  # bytes: "570.86.15"; the numbers take 32 at most, so that something of the name has room
_TEXT: Final = re.compile(r"(\d{1,2})\*([^:;*]+):(\d{1,9}):([^:;*]+):(\d{1,6}\.\d):(\d{1,6}\.\d)", re.ASCII)


class Cards(msgspec.Struct, frozen=True):
    """Those of one node, all alike."""

    count: int
    name: str
    memory_mib: int
    driver: str
    tflops: float
    to_gib_s: float


def show(cards: Cards) -> str:
    """As an offer has it. A name that does not fit is cut."""
    numbers = f"{cards.memory_mib}:{_cut(cards.driver, MAX_DRIVER)}:{cards.tflops:.1f}:{cards.to_gib_s:.1f}"
    room = MAX_BYTES - len(f"{cards.count}*:{numbers}".encode())
    return f"{cards.count}*{_cut(cards.name, room)}:{numbers}"


def _cut(text: str, room: int) -> str:
    """As much as `room` bytes hold, without what parts the fields and what nobody can read."""
    said = "".join(letter if letter.isprintable() and letter not in ":;*" else " " for letter in text)
    return said.encode()[:room].decode(errors="ignore") or "?"


def read(text: str) -> Cards | None:
    """None where the text is not in this form: then nothing is sold. What it names can be shown to people."""
    found = _TEXT.fullmatch(text) if len(text.encode()) <= MAX_BYTES and text.isprintable() else None
    if found is None or not 1 <= int(found[1]) <= MAX_COUNT:
        return None
    return Cards(int(found[1]), found[2], int(found[3]), found[4], float(found[5]), float(found[6]))


def count(text: str) -> int:
    """How many an offer sells."""
    cards = read(text)
    return cards.count if cards is not None else 0
