"""Which claims of the paper the diffusion study supports, decided from its numbers.

The claims are those of "On the Generalization of Diffusion Model" (arXiv 2305.14712), as its abstract states them. The
rules stand here and in the sentence beside each verdict; means and 95 % intervals are over seeds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pygan.report.evidence import NOT_SUPPORTED, SUPPORTED, UNDECIDED, mean_interval
from pygan.report.text import number

Record = Mapping[str, Any]

TIED = 0.9
"""Share of copies from which samples count as tied to the training set."""
SLIGHT = 0.1
"""Mean squared distance from the optimum, as a share of the data's variance, up to which a difference is slight."""
SIMILAR = 0.1
"""Difference of two shares of copies, and of two typical distances to the nearest training picture as a share of that
of held-out pictures, up to which two models count as similar."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim of the paper with what the study says about it."""

    id: str
    claim: str
    verdict: str
    reason: str


def judged(records: Sequence[Record]) -> list[Judged]:
    """Return a verdict on every claim that the records bear on."""
    rules = (_information, _optimum, _slight_difference, _chain_networks, _chain_optimum)
    return [found for rule in rules if (found := rule(records)) is not None]


def of_subject(records: Sequence[Record], subject: str) -> list[Record]:
    """Return the records of "toy", "exact" or "run"."""
    return [record for record in records if record.get("subject") == subject]


def trained_runs(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the trained runs: name, data set, objective (None: a GAN) and the records of their `seeds`."""
    found: dict[str, dict[str, Any]] = {}
    for record in sorted(of_subject(records, "run"), key=lambda record: record["seed"]):
        fields = {key: record[key] for key in ("run", "dataset", "objective")}
        found.setdefault(record["run"], {**fields, "seeds": []})["seeds"].append(record)
    return list(found.values())


def sizes(records: Sequence[Record]) -> list[int]:
    """Return the numbers of training pictures of the exact denoisers."""
    return sorted({entry["n"] for record in of_subject(records, "exact") for entry in record["sizes"]})


def of_size(records: Sequence[Record], n: int) -> list[Record]:
    """Return the entries of exact denoisers of n pictures, one per seed."""
    return [entry for record in of_subject(records, "exact") for entry in record["sizes"] if entry["n"] == n]


def percent(share: float) -> str:
    return f"{number(100 * share, 0)} %"


def span(values: Sequence[float], show: Callable[[float], str] = number) -> str:
    """Return the mean of seeds and its interval in words."""
    mean, interval = mean_interval(values)
    return show(mean) if interval is None else f"{show(mean)} ({show(interval[0])} to {show(interval[1])})"


def _decided(outcomes: Iterable[bool]) -> str:
    """All cases, none of them, or some."""
    outcomes = list(outcomes)
    return SUPPORTED if all(outcomes) else UNDECIDED if any(outcomes) else NOT_SUPPORTED


def _above(values: Sequence[float], bound: float) -> bool:
    """Whether the interval over seeds, or the one value there is, lies above the bound."""
    mean, interval = mean_interval(values)
    return (interval[0] if interval else mean) > bound


# P1


def _information(records: Sequence[Record]) -> Judged | None:
    outcomes, parts = [], []
    for n in sizes(records):
        proxies = {
            name: [entry["information"][name]["proxy"] for entry in of_size(records, n)]
            for name in ("optimum", "gaussian")
        }
        differences = [a - b for a, b in zip(proxies["optimum"], proxies["gaussian"], strict=True)]
        outcomes.append(_above(differences, 0))
        parts.append(f"at n = {n:,} {span(proxies['optimum'])} nats against {span(proxies['gaussian'])}")
    if not outcomes:
        return None
    return Judged(
        id="P1",
        claim="Information between a generated picture and the training set tells copying from generalization.",
        verdict=_decided(outcomes),
        reason=f"The proxy tells the optimum, which copies, from a Gaussian of the same moments: {'; '.join(parts)}. "
        "It is a proxy: the information itself cannot be estimated in so many dimensions.",
    )


# P2


def _optimum(records: Sequence[Record]) -> Judged | None:
    cases = [
        (
            f"n = {n:,}",
            [
                [e["copying"][name]["copies"] for e in of_size(records, n)]
                for name in ("optimum", "held_out", "ancestral")
            ],
        )
        for n in sizes(records)
    ]
    toys = of_subject(records, "toy")
    if toys:
        columns = [[toy["systems"][name]["copies"] for toy in toys] for name in ("optimum", "held_out")]
        cases.append(("the ring", [*columns, []]))
    if not cases:
        return None
    outcomes = [
        mean_interval(optimum)[0] >= TIED and mean_interval(optimum)[0] > mean_interval(held_out)[0]
        for _, (optimum, held_out, _) in cases
    ]
    shares = "; ".join(
        f"{name}: {percent(mean_interval(optimum)[0])} (held out {percent(mean_interval(held_out)[0])})"
        for name, (optimum, held_out, _) in cases
    )
    fresh = [share for _, (_, _, ancestral) in cases for share in ancestral]
    noise = (
        f" Fresh noise on the way gives {percent(mean_interval(fresh)[0])}, so it is the last step to no noise that "
        "ties them, not the lack of randomness."
        if fresh and mean_interval(fresh)[0] >= TIED
        else ""
    )
    return Judged(
        id="P2",
        claim="Sampled without fresh noise, the empirical optimum gives pictures that are tied to the training set.",
        verdict=_decided(outcomes),
        reason=f"Copies among its samples, {shares}; the rule asks for {percent(TIED)}.{noise}",
    )


# P3


def trained_networks(
    records: Sequence[Record], objective: str
) -> Iterator[tuple[str, list[float], list[float], float]]:
    """Yield networks trained with an objective: name, copies among their samples and among held-out points, distance.

    The distance from the optimum is the largest mean square over sigma, averaged over seeds, as a share of the data's
    variance.
    """
    if toys := of_subject(records, "toy"):
        yield (
            "the ring",
            [toy["systems"][objective]["copies"] for toy in toys],
            [toy["systems"]["held_out"]["copies"] for toy in toys],
            _mean(max(p["from_optimum"] for p in toy["profiles"][objective]) / toy["variance"] for toy in toys),
        )
    for run in trained_runs(records):
        if run["objective"] == objective:
            yield (
                run["run"],
                [seed["snapshots"][-1]["copying"]["copies"] for seed in run["seeds"]],
                [seed["held_out"]["copies"] for seed in run["seeds"]],
                _mean(max(p["from_optimum"] for p in seed["profile"]) / seed["variance"] for seed in run["seeds"]),
            )


def _slight_difference(records: Sequence[Record]) -> Judged | None:
    networks = list(trained_networks(records, "denoising"))
    if not networks:
        return None
    outcomes, parts = [], []
    for name, copies, held_out, distance in networks:
        generalizes = mean_interval(copies)[0] <= mean_interval(held_out)[0] + SIMILAR
        outcomes.append(generalizes and distance <= SLIGHT)
        parts.append(
            f"{name}: at most {percent(distance)} of the variance away, copies {span(copies, percent)}, held out "
            f"{percent(mean_interval(held_out)[0])}"
        )
    return Judged(
        id="P3",
        claim="A trained network differs slightly from the empirical optimum, and that makes it generalize.",
        verdict=_decided(outcomes),
        reason=f"{'; '.join(parts)}. Slight means at most {percent(SLIGHT)} of the variance at any noise level, "
        f"generalizing that copies are at most {percent(SIMILAR)} more than among held-out points. That the difference "
        "is what makes it generalize is not tested.",
    )


# P4


def _chain_networks(records: Sequence[Record]) -> Judged | None:
    cases = list(_pairs_of_objectives(records))
    if not cases:
        return None
    found = {_together(_similar(copies), _similar(nearest)) for _, copies, nearest in cases}
    parts = "; ".join(
        f"{name}: {span(copies, percent)} and {span(nearest, percent)}" for name, copies, nearest in cases
    )
    return Judged(
        id="P4a",
        claim="Training with the objective of previous points gives a model similar to the usual one.",
        verdict=found.pop() if len(found) == 1 else UNDECIDED,
        reason="The one less the other, seed by seed, in copies and in the typical distance to the nearest training "
        f"picture (of that of held-out pictures), {parts}; similar means that both intervals lie within "
        f"{percent(SIMILAR)} of zero.",
    )


def _pairs_of_objectives(records: Sequence[Record]) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield networks that differ in the objective alone, with two differences by seed.

    Those are of the shares of copies, and of the typical distances to the nearest training picture as a share of that
    of held-out pictures. Runs are a pair where data set and numbers of pictures by seed are the same.
    """
    if toys := of_subject(records, "toy"):
        systems = [toy["systems"] for toy in toys]
        yield (
            "the ring",
            *_differences([(s["chain"], s["denoising"], s["held_out"]) for s in systems], "median_nearest"),
        )
    found: dict[str, dict[Any, Record]] = {"denoising": {}, "chain": {}}
    for run in trained_runs(records):
        if run["objective"] in found:
            found[run["objective"]][run["dataset"], tuple((seed["seed"], seed["n"]) for seed in run["seeds"])] = run
    for place, chain in found["chain"].items():
        if ordinary := found["denoising"].get(place):
            seeds = [
                (a["snapshots"][-1]["copying"], b["snapshots"][-1]["copying"], b["held_out"])
                for a, b in zip(chain["seeds"], ordinary["seeds"], strict=True)
            ]
            yield chain["run"], *_differences(seeds, "nearest")


def _differences(seeds: Iterable[tuple[Record, Record, Record]], distance: str) -> tuple[list[float], list[float]]:
    """Return, of (chain, ordinary, held out) by seed, the differences in copies and in the distance of that name."""
    seeds = list(seeds)
    return (
        [chain["copies"] - ordinary["copies"] for chain, ordinary, _ in seeds],
        [(chain[distance] - ordinary[distance]) / held_out[distance] for chain, ordinary, held_out in seeds],
    )


def _together(*verdicts: str) -> str:
    """Return the verdict on a claim that asks for several things."""
    if NOT_SUPPORTED in verdicts:
        return NOT_SUPPORTED
    return UNDECIDED if UNDECIDED in verdicts else SUPPORTED


def _similar(differences: Sequence[float]) -> str:
    mean, interval = mean_interval(differences)
    low, high = interval or (mean, mean)
    if interval and low >= -SIMILAR and high <= SIMILAR:
        return SUPPORTED
    return NOT_SUPPORTED if low > SIMILAR or high < -SIMILAR else UNDECIDED


def _chain_optimum(records: Sequence[Record]) -> Judged | None:
    toys = of_subject(records, "toy")
    if not toys:
        return None
    distance = {
        name: [toy["systems"][name]["median_nearest"] for toy in toys]
        for name in ("optimum_ddim", "chain_optimum", "held_out")
    }
    gains = [a - b for a, b in zip(distance["chain_optimum"], distance["optimum_ddim"], strict=True)]
    needed = mean_interval([h - o for h, o in zip(distance["held_out"], distance["optimum_ddim"], strict=True)])[0] / 2
    mean, interval = mean_interval(gains)
    low, high = interval or (mean, mean)
    return Judged(
        id="P4b",
        claim="The empirical optimum of the objective of previous points has no potential generalization problem.",
        verdict=SUPPORTED if low > needed else NOT_SUPPORTED if high < needed else UNDECIDED,
        reason="On the ring, with the same steps down to no noise, the median distance to the nearest training point "
        f"is {span(distance['chain_optimum'])} for this optimum, {span(distance['optimum_ddim'])} for the ordinary one "
        f"and {span(distance['held_out'])} for held-out points; the rule asks for half the way. That its information "
        "is finite stands as a formula; that its samples stay away is what is judged here.",
    )


def _mean(values: Iterable[float]) -> float:
    return mean_interval(list(values))[0]
