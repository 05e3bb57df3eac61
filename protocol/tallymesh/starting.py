"""Importing much at once, when a long-lived process starts.

Python's garbage collector runs whenever enough objects were made, and importing makes hundreds of thousands that stay:
it walks over all of them again and again and finds next to nothing. That was a quarter of what a node's start cost
(docs/measurements.md). This module knows nothing of what is imported.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within it nothing is collected; what was made by its end is never looked at again (`gc.freeze`). Not for code
    that makes garbage: cycles made within stay for good. Collection is on afterwards if it was before."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
