"""Money as people see it and as programs hold it: wei inside, whole tokens as text outside, never a float."""

from __future__ import annotations

import re

from tallymesh.errors import CallerError

SYMBOL = "MESH"
DECIMALS = 18
WEI_PER_TOKEN: int = 10**DECIMALS
_AMOUNT = re.compile(r"(\d{1,12})(?:\.(\d{1,18}))?")


def parse(text: str) -> int:
    """``"1.25"`` or ``"1.25 MESH"`` -> wei. Refuses floats, signs, exponents and more than 18 decimals."""
    if not isinstance(text, str):
        raise CallerError(
            "bad_amount",
            f"An amount is text, not {type(text).__name__}: a float cannot hold wei.",
            remedy='Write "1.25".',
        )
    match = _AMOUNT.fullmatch(text.removesuffix(SYMBOL).strip())
    if not match:
        raise CallerError("bad_amount", f"{text!r} is not an amount of {SYMBOL}.", remedy='Write it like "1.25".')
    whole, decimals = match.group(1), match.group(2) or ""
    return int(whole) * WEI_PER_TOKEN + int(decimals.ljust(DECIMALS, "0") or "0")


def show(wei: int, *, symbol: bool = True) -> str:
    """``1250000000000000000`` -> ``1.25 MESH``; exact, without trailing zeros."""
    sign = "-" if wei < 0 else ""
    whole, rest = divmod(abs(wei), WEI_PER_TOKEN)
    decimals = str(rest).rjust(DECIMALS, "0").rstrip("0")
    text = f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
    return f"{text} {SYMBOL}" if symbol else text


def show_per_core_hour(wei_per_second: int) -> str:
    """A price per reference-second as people compare it: ``0.02 MESH``, rounded to the nearest of 8 decimals."""
    step = 10 ** (DECIMALS - 8)
    return show((wei_per_second * 3600 + step // 2) // step * step)
