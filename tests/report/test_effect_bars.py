"""The small bars: one scale for all, and arrows where an interval goes on."""

import re

import pytest

from pygan.report.effect_bars import MARGIN, SIZE, effect_bars
from pygan.report.evidence import Claim, judge


def verdict(*improvements: float, minimum: float = 10.0):
    claim = Claim(
        id="c", method="m", statement="s", arm="a", against="b", metric="fd", direction="lower", minimum_effect=minimum
    )
    return judge(claim, {i: -x for i, x in enumerate(improvements)}, dict.fromkeys(range(len(improvements)), 0.0))


def place(bar: str) -> float:
    return float(re.search(r'<circle cx="([\d.]+)"', bar)[1])


def test_equal_multiples_stand_at_equal_places() -> None:
    small, large, none = effect_bars([verdict(9, 10, 11), verdict(90, 100, 110, minimum=100.0), verdict(-1, 0, 1)])
    assert place(small) == pytest.approx(place(large), abs=0.1) and place(none) == SIZE[0] / 2 < place(small)
    assert "var(--supported)" in small and "var(--not-supported)" in none
    assert 'aria-label="improvement of 1.00 minimum effects, 95 % interval' in small


def test_what_goes_on_ends_in_an_arrow_inside() -> None:
    far, near = effect_bars([verdict(0, 400, 800), verdict(9, 10, 11)])
    assert far.count("<path") == 2 and "<path" not in near
    assert place(far) == SIZE[0] - MARGIN  # 40 minimum effects are beyond the scale


def test_a_claim_without_common_seeds_has_no_bar() -> None:
    assert effect_bars([verdict()]) == [""]
