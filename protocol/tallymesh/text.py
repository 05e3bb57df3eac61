"""Text that a stranger wrote, made fit for a terminal, a log and UTF-8. It does not know where the text came from."""

from __future__ import annotations

# Control characters could rewrite the terminal of whoever reads; the marks of direction could show other words than
# are there; some programs begin a new line at the separators.
_UNSAFE = (*range(32), *range(127, 160), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in _UNSAFE if chr(code) not in "\t\n"}
_ONE_LINE = {**_CONTROLS, ord("\t"): " ", ord("\n"): " "}


def plain(text: str) -> str:
    """No control characters but tabs and newlines, no half pairs."""
    return text.translate(_CONTROLS).encode("utf-8", "replace").decode()


def sentence(text: str, most: int) -> str:
    """The first `most` characters as one line: a second one could look as if somebody else had said it."""
    return text[:most].translate(_ONE_LINE).encode("utf-8", "replace").decode()
