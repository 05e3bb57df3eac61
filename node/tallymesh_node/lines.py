"""Journal lines that mean the same in every role that writes them."""

from __future__ import annotations

from tallymesh.exchange import Body


class EndLine(Body, frozen=True):
    """The last line of what a node follows by journal and chain: it is over, and nothing of it is done any more."""

    outcome: str  # one word: how it ended, or why it was never made
    at: int  # chain time
