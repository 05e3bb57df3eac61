"""Whose fault it is: the four kinds of error, each with a code, a sentence and what to do about it.

Backends' own exceptions (sockets, SQL, JSON-RPC, libp2p) are mapped to these at the edge where they happen.
"""

from __future__ import annotations


class TallymeshError(Exception):
    """Root of every error that this project raises on purpose.

    ``code`` is a stable lower-case word for programs (`no_node`, `budget_too_small`), ``sentence`` is for people,
    ``remedy`` says what to do and may be empty where nothing can be done.
    """

    def __init__(self, code: str, sentence: str, *, remedy: str = "") -> None:
        self.code = code
        self.sentence = sentence
        self.remedy = remedy
        super().__init__(code, sentence)

    def __str__(self) -> str:
        # After a traceback the remedy begins a line of its own: it would be lost behind the exception's last words.
        between = "\n" if "\n" in self.sentence.rstrip() else " "
        return f"{self.sentence.rstrip()}{between}{self.remedy}".strip() if self.remedy else self.sentence


class CallerError(TallymeshError):
    """What we were asked to do is wrong: an argument, a program that cannot be shipped, a budget that is too small."""


class LocalError(TallymeshError):
    """This machine is at fault: a full disk, a locked database, no sandbox."""


class RemoteError(TallymeshError):
    """Another peer is at fault, or what it sent is. ``peer`` names it (libp2p peer id, or "" before it is known)."""

    def __init__(self, code: str, sentence: str, *, peer: str = "", remedy: str = "") -> None:
        super().__init__(code, sentence, remedy=remedy)
        self.peer = peer

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} (peer {self.peer})" if self.peer else text


class ChainError(TallymeshError):
    """The chain refused (``reverted`` is True: asking again will not help) or cannot be reached."""

    def __init__(self, code: str, sentence: str, *, reverted: bool, remedy: str = "") -> None:
        super().__init__(code, sentence, remedy=remedy)
        self.reverted = reverted
