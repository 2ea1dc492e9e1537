"""The verdict on a claim, computed from one value per seed and arm.

Arms are paired by seed: a seed decides the training subset, the initial weights and every draw, so the difference of
two arms within a seed varies less than either of them. The interval is the 95 % paired-t interval of the mean
difference (Student, "The probable error of a mean", Biometrika 1908).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import optimize, stats

from pygan.report.text import counted

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
UNDECIDED = "undecided"

LEVEL = 0.95
POWER = 0.80
MDE_DEFINITION = (
    "minimum detectable effect: the true effect that a two-sided paired t test at the 5 % level finds with 80 % power "
    "at the standard deviation and number of seeds seen here (noncentral t distribution, n - 1 degrees of freedom)"
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a study says about a method before the numbers are seen."""

    id: str
    method: str
    """Name of the method's file, as in the `KINDS` of its package."""
    statement: str
    arm: str
    """Run that uses the method; with `stage: diffusion`, a subject of that stage."""
    against: str
    """What it is compared with."""
    metric: str
    direction: Literal["lower", "higher"]
    """Which values of the metric are better."""
    minimum_effect: float
    """Smallest improvement worth having, in units of the metric; > 0."""
    control: str | None = None
    """Run that has everything of the arm but the idea itself; None: no control."""
    equal_time: str | None = None
    """Run without the method that trains as many seconds as the arm; None: none. It does not decide the verdict of a
    claim at equal images, it is told beside it."""
    stage: Literal["evaluate", "diffusion"] = "evaluate"
    """Whose numbers the claim is about: those of runs, or those of the study of diffusion models."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """All that the claim compares, the arm first."""
        return tuple(name for name in (self.arm, self.against, self.control, self.equal_time) if name is not None)

    def __post_init__(self) -> None:
        if self.direction not in ("lower", "higher"):
            raise ValueError(f"claims.{self.id}.direction: got {self.direction!r}, expected 'lower' or 'higher'")
        if not self.minimum_effect > 0 or math.isinf(self.minimum_effect):
            raise ValueError(f"claims.{self.id}.minimum_effect: got {self.minimum_effect!r}, expected a number above 0")


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Improvement of one run over another, paired by seed; positive means better."""

    seeds: tuple[int, ...]
    """The seeds both runs have."""
    mean: float | None
    """None: no common seed."""
    standard_error: float | None
    """Of the mean; None: fewer than two common seeds."""
    ci95: tuple[float, float] | None
    """None: fewer than two common seeds."""

    @property
    def shows_improvement(self) -> bool:
        """True where the interval lies wholly above 0."""
        return self.ci95 is not None and self.ci95[0] > 0

    @property
    def minimum_detectable_effect(self) -> float | None:
        """See `MDE_DEFINITION`; None: fewer than two common seeds."""
        return None if self.standard_error is None else minimum_detectable_effect(self.standard_error, len(self.seeds))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A judged claim; effects are in units of the metric and positive where they go the claimed way."""

    claim: Claim
    verdict: Literal["supported", "not supported", "undecided"]
    effect: Paired
    """Arm over the run it is compared with."""
    control: Paired | None
    """Arm over its control; None: the claim has no control."""
    equal_time: Paired | None
    """Arm over the run of equal time; None: the claim names none."""
    difference: float | None
    """Mean of arm minus the run it is compared with, sign as in the metric; None: no common seed."""
    reason: str
    """Which rule decided."""

    @property
    def minimum_detectable_effect(self) -> float | None:
        """Of the comparison that leaves the claim undecided: with the control where the effect itself is shown."""
        blurred = self.effect.shows_improvement and self.control is not None and not self.control.shows_improvement
        return (self.control if blurred else self.effect).minimum_detectable_effect


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return the mean of `values` and its 95 % t interval, None for a single value.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("mean_interval: got no values, expected at least one")
    mean = math.fsum(values) / len(values)
    error = _standard_error(values)
    if error is None:
        return mean, None
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * error
    return mean, (mean - half, mean + half)


def minimum_detectable_effect(standard_error: float, n: int) -> float:
    """Return the effect found with 80 % power by a two-sided 5 % paired t test on `n` seeds; see `MDE_DEFINITION`."""
    threshold = stats.t.ppf(0.5 + LEVEL / 2, n - 1)
    largest = 2 * (threshold + stats.t.ppf(POWER, n - 1))
    shift = optimize.brentq(lambda shift: stats.nct.sf(threshold, n - 1, shift) - POWER, 0, largest)
    return float(shift) * standard_error


def paired(better: Mapping[int, float], worse: Mapping[int, float], direction: str) -> Paired:
    """Return the improvement of `better` over `worse`, seed by seed.

    Args:
        better: seed -> value of the run expected to be better.
        worse: seed -> value of the other run.
        direction: "lower" or "higher", which values are better.
    """
    sign = 1.0 if direction == "higher" else -1.0
    seeds = tuple(sorted(set(better) & set(worse)))
    if not seeds:
        return Paired(seeds=(), mean=None, standard_error=None, ci95=None)
    improvements = [sign * (better[seed] - worse[seed]) for seed in seeds]
    mean, interval = mean_interval(improvements)
    return Paired(seeds=seeds, mean=mean, standard_error=_standard_error(improvements), ci95=interval)


def judge(
    claim: Claim,
    values_arm: Mapping[int, float],
    values_against: Mapping[int, float],
    values_control: Mapping[int, float] | None = None,
    values_equal_time: Mapping[int, float] | None = None,
) -> Verdict:
    """Judge `claim` on the seeds that its runs have in common.

    *Supported*: the interval of the improvement lies above 0, and so does that over the control where there is one.
    Else *not supported*: the interval lies below the claim's minimum effect. Else *undecided*.

    Args:
        claim: what is claimed.
        values_arm: seed -> value of the metric.
        values_against: seed -> value of the metric.
        values_control: seed -> value of the metric; None: nothing measured for the control, or no control.
        values_equal_time: the same for the run of equal time, which decides nothing.

    Raises:
        ValueError: a value is not finite.
    """
    for run, values in (
        (claim.arm, values_arm),
        (claim.against, values_against),
        (claim.control, values_control),
        (claim.equal_time, values_equal_time),
    ):
        for seed, value in (values or {}).items():
            if not math.isfinite(value):
                raise ValueError(f"claims.{claim.id}: {claim.metric} of run {run}, seed {seed} is {value}, not finite")
    effect = paired(values_arm, values_against, claim.direction)
    control = paired(values_arm, values_control or {}, claim.direction) if claim.control is not None else None
    equal_time = paired(values_arm, values_equal_time or {}, claim.direction) if claim.equal_time is not None else None
    verdict, reason = _decide(claim, effect, control)
    sign = 1.0 if claim.direction == "higher" else -1.0
    return Verdict(
        claim=claim,
        verdict=verdict,
        effect=effect,
        control=control,
        equal_time=equal_time,
        difference=None if effect.mean is None else sign * effect.mean,
        reason=reason,
    )


def _decide(claim: Claim, effect: Paired, control: Paired | None) -> tuple[str, str]:
    if effect.ci95 is None:
        return UNDECIDED, f"{counted(len(effect.seeds), 'paired seed')}, an interval needs at least 2"
    if effect.shows_improvement and (control is None or control.shows_improvement):
        over = claim.against if control is None else f"{claim.against} and the control {claim.control}"
        return SUPPORTED, f"the interval of the improvement over {over} excludes 0"
    if effect.ci95[1] < claim.minimum_effect:
        return NOT_SUPPORTED, "the interval excludes the minimum effect"
    if effect.shows_improvement:
        return UNDECIDED, f"better than {claim.against}, but not shown to be better than the control {claim.control}"
    return UNDECIDED, "the interval excludes neither 0 nor the minimum effect"


def _standard_error(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))
