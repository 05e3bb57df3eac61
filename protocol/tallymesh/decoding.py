"""What decoders raise over bytes that are not what they expect. It knows no format and no peer."""

from __future__ import annotations

from typing import Final

import msgspec

# msgspec says DecodeError for most of it, and lets through what Python raises below it: UnicodeDecodeError (a
# ValueError, as are the errors of json and tomllib) for text that is not UTF-8, RecursionError for nesting, in fields
# that nobody asked for, too, and OverflowError for numbers.
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)
