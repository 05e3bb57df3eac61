"""Money as people see it and as programs hold it: wei inside, whole tokens as text outside, never a float."""

from __future__ import annotations

import re

from tallymesh.errors import CallerError

SYMBOL = "MESH"
DECIMALS = 18
WEI_PER_TOKEN: int = 10**DECIMALS
SHOWN_DECIMALS = 6  # of an amount that people read: a unit of a second costs about that much …
SHOWN_DIGITS = 3  # … and where it costs less, this many digits say how much
DUST_WEI = 10**9  # less is nothing to a reader, and sixteen zeros are hard to count
_AMOUNT = re.compile(r"(\d{1,12})(?:\.(\d{1,18}))?", re.ASCII)


def parse(text: str) -> int:
    """``"1.25"`` or ``"1.25 MESH"`` -> wei. Refuses floats, signs, exponents and more than 18 decimals."""
    if not isinstance(text, str):
        why = ": a float cannot hold wei" if isinstance(text, float) else ""
        said = str(text) if _AMOUNT.fullmatch(str(text)) else "1.25"  # 5 and 0.5 only lack the quotation marks
        raise CallerError(
            "bad_amount", f"An amount is text, not {type(text).__name__}{why}.", remedy=f'Write "{said}".'
        )
    match = _AMOUNT.fullmatch(text.removesuffix(SYMBOL).strip())
    if not match:
        raise CallerError("bad_amount", f"{text!r} is not an amount of {SYMBOL}.", remedy='Write it like "1.25".')
    whole, decimals = match.group(1), match.group(2) or ""
    return int(whole) * WEI_PER_TOKEN + int(decimals.ljust(DECIMALS, "0") or "0")


def show(wei: int, *, symbol: bool = True) -> str:
    """What an account has, or a thing cost, as people read it: ``1.25 MESH``, rounded down, without trailing zeros.

    Six decimals, and where these would leave fewer than three significant digits, three of those; less than a
    milliardth of a token is ``<0.000000001 MESH``. Programs take the wei.
    """
    magnitude = abs(wei)
    text = (
        "<" + _text(DUST_WEI) if 0 < magnitude < DUST_WEI else _text(magnitude // _step(magnitude) * _step(magnitude))
    )
    return _with_symbol(f"-{text}" if wei < 0 else text, symbol)


def show_up(wei: int, *, symbol: bool = True) -> str:
    """What is needed at least, in the same form, rounded up: whoever pays what is shown has paid enough."""
    assert wei >= 0
    step = _step(wei)
    return _with_symbol(_text(-(-wei // step) * step), symbol)


def show_per_core_hour(wei_per_second: int) -> str:
    """A price per reference-second as people compare it: ``0.02 MESH``, rounded to the nearest."""
    hourly = wei_per_second * 3600
    step = _step(hourly)
    return show((hourly + step // 2) // step * step if hourly >= DUST_WEI else hourly)


def _step(wei: int) -> int:
    """What such an amount is rounded to."""
    step: int = 10 ** min(DECIMALS - SHOWN_DECIMALS, len(str(wei)) - SHOWN_DIGITS) if wei >= DUST_WEI else DUST_WEI
    return step


def _text(wei: int) -> str:
    whole, rest = divmod(wei, WEI_PER_TOKEN)
    decimals = str(rest).rjust(DECIMALS, "0").rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)


def _with_symbol(text: str, symbol: bool) -> str:
    return f"{text} {SYMBOL}" if symbol else text
