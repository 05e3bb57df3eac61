"""What an offer says of GPUs: short enough for any, and what is not in this form sells nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tallymesh import cards

H200 = cards.Cards(2, "NVIDIA H200", 143_771, "570.86.15", 48.1, 52.3)


def test_an_offer_names_the_cards_their_memory_driver_and_what_was_measured() -> None:
    text = cards.show(H200)
    assert text == "2*NVIDIA H200:143771:570.86.15:48.1:52.3"
    assert cards.read(text) == H200
    assert cards.count(text) == 2


@given(st.text(max_size=80), st.text(max_size=80), st.integers(1, 64), st.sampled_from([0.0, 999_999.9]))
@example("\N{OHM SIGN}" * 9, "x" * 80, 64, 999_999.9)
def test_any_name_and_driver_fit_and_what_is_read_sells_as_many(
    name: str, driver: str, count: int, speed: float
) -> None:
    text = cards.show(cards.Cards(count, name, 999_999_999, driver, speed, speed))
    assert len(text.encode()) <= cards.MAX_BYTES
    assert cards.count(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVIDIA H200:143771:570.86.15",
        "0*NVIDIA H200:143771:570.86.15:48.1:52.3",
        "65*NVIDIA H200:143771:570.86.15:48.1:52.3",
        "2*NVIDIA H200:143771:570.86.15:48.1:inf",
        "2*NVIDIA H200:-1:570.86.15:48.1:52.3",
        "2*NVIDIA H200:143771:570.86.15:48.1:52.3;2*NVIDIA H200:143771:570.86.15:48.1:52.3",
        "2*" + "x" * 60 + ":143771:570.86.15:48.1:52.3",
        "2*\x1b[2JH200:143771:570.86.15:48.1:52.3",  # to be shown on a terminal
        "2*H200\N{RIGHT-TO-LEFT OVERRIDE}:143771:570.86.15:48.1:52.3",
        "\N{ARABIC-INDIC DIGIT TWO}*H200:143771:570.86.15:48.1:52.3",
    ],
)
def test_what_is_in_another_form_sells_nothing(text: str) -> None:
    assert cards.read(text) is None
    assert cards.count(text) == 0
