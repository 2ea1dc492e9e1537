"""Verdicts on synthetic metrics; expected intervals come from scipy's own paired t test."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pygan.report.evidence import Claim, judge, mean_interval, minimum_detectable_effect


def claim(**changes: Any) -> Claim:
    fields = {"id": "x", "method": "diffaug", "statement": "It helps.", "arm": "arm", "against": "base", "metric": "fd"}
    return Claim(**(fields | {"direction": "lower", "minimum_effect": 10.0} | changes))


BASE = {0: 233.0, 1: 249.0, 2: 258.0}


def shifted(*improvements: float) -> dict[int, float]:
    """Values of an arm that is lower than BASE by these amounts."""
    return {seed: BASE[seed] - improvement for seed, improvement in enumerate(improvements)}


def test_interval_is_that_of_the_paired_t_test() -> None:
    arm = shifted(50, 38, 46)
    verdict = judge(claim(), arm, BASE)
    expected = stats.ttest_rel(list(BASE.values()), list(arm.values())).confidence_interval(0.95)
    assert verdict.effect.ci95 == pytest.approx((expected.low, expected.high))
    assert verdict.effect.mean == pytest.approx((50 + 38 + 46) / 3)
    assert verdict.difference == pytest.approx(-(50 + 38 + 46) / 3)
    assert verdict.verdict == "supported"
    assert verdict.effect.seeds == (0, 1, 2)


def test_a_higher_direction_flips_the_effect_but_not_the_difference() -> None:
    verdict = judge(claim(direction="higher"), shifted(50, 38, 46), BASE)
    assert verdict.effect.mean == pytest.approx(-(50 + 38 + 46) / 3)
    assert verdict.difference == pytest.approx(-(50 + 38 + 46) / 3)
    assert verdict.verdict == "not supported"


def test_not_supported_excludes_the_minimum_effect() -> None:
    verdict = judge(claim(), shifted(1, -1, 0.5), BASE)
    assert verdict.effect.ci95[0] < 0 < verdict.effect.ci95[1] < 10
    assert verdict.verdict == "not supported"


def test_undecided_tells_the_minimum_detectable_effect() -> None:
    improvements = (30, -10, 12)
    verdict = judge(claim(), shifted(*improvements), BASE)
    error = stats.sem(improvements)
    assert verdict.verdict == "undecided"
    assert verdict.effect.standard_error == pytest.approx(error)
    assert verdict.minimum_detectable_effect == minimum_detectable_effect(error, 3)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_minimum_detectable_effect_is_found_four_times_of_five(n: int) -> None:
    """Draw studies with that true effect, in units of the standard error of their true deviation, and test them."""
    draw = np.random.default_rng(n)
    error = 1 / math.sqrt(n)
    improvements = minimum_detectable_effect(error, n) + draw.standard_normal((200_000, n))
    found = stats.ttest_1samp(improvements, 0, axis=1)
    share = np.mean((found.pvalue < 0.05) & (found.statistic > 0))
    assert share == pytest.approx(0.8, abs=5 * math.sqrt(0.8 * 0.2 / len(improvements)))


def test_supported_is_tested_first() -> None:
    verdict = judge(claim(), shifted(4, 5, 4.5), BASE)
    assert verdict.effect.ci95[0] > 0 and verdict.effect.ci95[1] < 10
    assert verdict.verdict == "supported"


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (shifted(10, 1, 4), "supported"),  # the arm is better than the control, too
        (shifted(52, 33, 48), "undecided"),  # the control explains it
        ({}, "undecided"),  # the control was not measured
        ({0: 240.0}, "undecided"),  # a single seed has no interval
    ],
)
def test_a_control_must_be_beaten_too(control: dict[int, float], expected: str) -> None:
    verdict = judge(claim(control="shuffled"), shifted(50, 38, 46), BASE, control)
    assert verdict.effect.shows_improvement
    assert verdict.verdict == expected
    if expected == "undecided":
        assert "shuffled" in verdict.reason
        # What is left open is the comparison with the control, so its resolution counts
        differences = [control[seed] - arm for seed, arm in shifted(50, 38, 46).items() if seed in control]
        blur = stats.sem(differences) if len(differences) > 1 else None
        expected_mde = None if blur is None else minimum_detectable_effect(blur, len(differences))
        assert verdict.minimum_detectable_effect == (None if blur is None else pytest.approx(expected_mde))


def test_equal_time_is_told_and_decides_nothing() -> None:
    arm, longer = shifted(50, 38, 46), shifted(55, 41, 48)
    verdict = judge(claim(equal_time="longer"), arm, BASE, None, longer)
    expected = stats.ttest_rel(list(longer.values()), list(arm.values())).confidence_interval(0.95)
    assert verdict.equal_time.ci95 == pytest.approx((expected.low, expected.high))
    assert verdict.equal_time.mean == pytest.approx(-(5 + 3 + 2) / 3)
    assert verdict.verdict == "supported"
    assert judge(claim(), arm, BASE).equal_time is None


def test_a_beaten_control_does_not_rescue_a_small_effect() -> None:
    verdict = judge(claim(control="shuffled"), shifted(1, -1, 0.5), BASE, shifted(-80, -81, -82))
    assert verdict.control.shows_improvement
    assert verdict.verdict == "not supported"


def test_only_common_seeds_count() -> None:
    arm = {1: 200.0, 2: 210.0, 7: 1.0}
    verdict = judge(claim(), arm, BASE)
    assert verdict.effect.seeds == (1, 2)
    assert verdict.effect.mean == pytest.approx((49 + 48) / 2)


@pytest.mark.parametrize(("arm", "count"), [({}, 0), ({5: 1.0}, 0), ({2: 1.0}, 1)])
def test_fewer_than_two_paired_seeds_are_undecided(arm: dict[int, float], count: int) -> None:
    verdict = judge(claim(), arm, BASE)
    assert verdict.verdict == "undecided"
    assert str(count) in verdict.reason
    assert verdict.effect.ci95 is None and verdict.minimum_detectable_effect is None
    assert (verdict.effect.mean is None) == (count == 0)


@pytest.mark.parametrize(("improvement", "expected"), [(12.0, "supported"), (0.0, "not supported")])
def test_zero_variance(improvement: float, expected: str) -> None:
    verdict = judge(claim(), shifted(improvement, improvement, improvement), BASE)
    assert verdict.effect.ci95 == (improvement, improvement)
    assert verdict.minimum_detectable_effect == 0
    assert verdict.verdict == expected


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"claims\.x: fd of run base, seed 1 is nan"):
        judge(claim(), BASE, {**BASE, 1: math.nan})


@pytest.mark.parametrize("wrong", [{"direction": "down"}, {"minimum_effect": 0}, {"minimum_effect": -1.0}])
def test_a_claim_names_its_wrong_key(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"claims\.x\.{next(iter(wrong))}"):
        claim(**wrong)


def test_mean_interval() -> None:
    values = [3.0, 4.0, 8.0]
    mean, interval = mean_interval(values)
    expected = stats.t.interval(0.95, 2, loc=5.0, scale=stats.sem(values))
    assert mean == 5.0
    assert interval == pytest.approx(expected)
    assert mean_interval([3.0]) == (3.0, None)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])
