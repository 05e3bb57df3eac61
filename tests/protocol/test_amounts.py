"""Amounts as people read them: few digits, the direction of the rounding on the safe side, and text that parses."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from tallymesh import amounts
from tallymesh.errors import CallerError


@pytest.mark.parametrize(
    ("wei", "down", "up"),
    [
        (0, "0 MESH", "0 MESH"),
        (1, "<0.000000001 MESH", "0.000000001 MESH"),
        (1_234_567_890, "0.00000000123 MESH", "0.00000000124 MESH"),
        (5_555_555_555_555, "0.00000555 MESH", "0.00000556 MESH"),
        (12_300_000_000_000_000, "0.0123 MESH", "0.0123 MESH"),
        (1_234_567_890_123_456_789, "1.234567 MESH", "1.234568 MESH"),
        (10**22 - 1, "9999.999999 MESH", "10000 MESH"),
        (5 * 10**18, "5 MESH", "5 MESH"),
    ],
)
def test_an_amount_has_as_many_digits_as_a_person_reads(wei: int, down: str, up: str) -> None:
    assert (amounts.show(wei), amounts.show_up(wei)) == (down, up)


def test_what_one_has_is_rounded_down_what_one_needs_up_and_by_little() -> None:
    numbers = random.Random(7)
    for _ in range(2_000):
        wei = numbers.randrange(10 ** numbers.randint(10, 28))
        if wei < amounts.DUST_WEI:
            continue
        below, above = amounts.parse(amounts.show(wei)), amounts.parse(amounts.show_up(wei))
        assert below <= wei <= above
        assert Fraction(above - below, wei) <= Fraction(1, 100)
        assert above - below <= 10**12
        assert len(amounts.show(wei, symbol=False).partition(".")[2]) <= 11


def test_less_than_nothing_keeps_its_sign() -> None:
    assert amounts.show(-5 * 10**17) == "-0.5 MESH"
    assert amounts.show(-1) == "-<0.000000001 MESH"
    assert amounts.show(-(10**16), symbol=False) == "-0.01"


def test_a_price_that_was_said_is_shown_as_it_was_said() -> None:
    for said in ("0.02", "0.05", "0.036", "20", "1.25", "0.0001"):
        assert amounts.show_per_core_hour(amounts.parse(said) // 3600) == f"{said} MESH"
    assert amounts.show_per_core_hour(0) == "0 MESH"
    assert amounts.show_per_core_hour(1).startswith("<"), "a price that is not nothing does not look like nothing"


@pytest.mark.parametrize("text", ["", "1e3", "-1", "+1", "1.", ".5", "1,5", "1" * 13, "0." + "1" * 19, "1.25 ETH", "٣"])
def test_what_is_not_an_amount_is_refused(text: str) -> None:
    with pytest.raises(CallerError) as caught:
        amounts.parse(text)
    assert caught.value.code == "bad_amount"
    assert caught.value.remedy


def test_whole_tokens_are_text() -> None:
    assert amounts.parse("1.25") == amounts.parse("1.25 MESH") == 125 * 10**16
    with pytest.raises(CallerError, match="float"):
        amounts.parse(1.25)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "sentence", "remedy"),
    [
        (1, "An amount is text, not int.", 'Write "1".'),
        (0.5, "An amount is text, not float: a float cannot hold wei.", 'Write "0.5".'),
        (1e-9, "An amount is text, not float: a float cannot hold wei.", 'Write "1.25".'),
        (None, "An amount is text, not NoneType.", 'Write "1.25".'),
    ],
)
def test_a_number_in_place_of_text_is_refused_with_what_was_meant(given: object, sentence: str, remedy: str) -> None:
    with pytest.raises(CallerError) as refused:
        amounts.parse(given)  # type: ignore[arg-type]
    assert (refused.value.sentence, refused.value.remedy) == (sentence, remedy)
