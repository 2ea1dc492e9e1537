"""Equal wall time: the two runs of a claim at the snapshots they had reached after the same seconds of training.

The budget of a seed is the smaller of the seconds that the two runs trained in all, with what they continue and the
search for a ticket. Each run is taken at its last snapshot within the budget that `select` scored; a run that
continues another has the other's snapshots before its own start. Scores are those of the validation split, lower is
better: other pictures and fewer of them than in the table at equal images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pygan.report.evidence import Paired, Verdict, paired
from pygan.report.study import Study
from pygan.report.tables import Cell, Table
from pygan.report.text import NONE, decimals_for, duration, interval_text, mean_of, metric_title, number, optional

SLACK = 1.05
"""By which factor a snapshot may be later than the budget: two jobs that do the same differ by as much."""


@dataclass(frozen=True, kw_only=True)
class EqualTime:
    """Two runs at equal seconds, over the seeds in which both have a scored snapshot by then."""

    arm: str
    against: str
    budgets: dict[int, float]
    """Seed -> seconds."""
    nimg: dict[int, tuple[int, int]]
    """Seed -> images seen by the arm and by the other run at their snapshots; the seeds that can be compared."""
    scores: dict[int, tuple[float, float]]
    """Seed -> validation scores of the two."""
    improvement: Paired
    """Positive where the arm is better."""


def scored_snapshots(study: Study, run: str, seed: int) -> dict[int, float]:
    """Return image count -> validation score of a run's snapshots, with those of what it continues before its start."""
    own = next((s.record.get("scores", {}) for s in study.selections if (s.run, s.seed) == (run, seed)), {})
    scores = {int(nimg): float(score) for nimg, score in own.items()}
    parent = (study.runs.get(run) or {}).get("continues")
    if not parent or parent["nimg"] == "best":
        return scores
    before = scored_snapshots(study, parent["run"], seed)
    return {nimg: score for nimg, score in before.items() if nimg <= parent["nimg"]} | scores


def at_equal_time(study: Study, arm: str, against: str) -> EqualTime:
    """Compare two runs, seed by seed, after as many seconds as the faster of the two trained in all."""
    seconds = [study.seconds_by_seed(run) for run in (arm, against)]
    budgets = {seed: min(by[seed] for by in seconds) for seed in sorted(seconds[0].keys() & seconds[1].keys())}
    nimg, scores = {}, {}
    for seed, budget in budgets.items():
        last = [_last_within(study, run, seed, budget) for run in (arm, against)]
        if None not in last:
            nimg[seed] = tuple(at for at, _ in last)
            scores[seed] = tuple(score for _, score in last)
    by_run = [{seed: pair[i] for seed, pair in scores.items()} for i in (0, 1)]
    improvement = paired(by_run[0], by_run[1], "lower")
    return EqualTime(arm=arm, against=against, budgets=budgets, nimg=nimg, scores=scores, improvement=improvement)


def _last_within(study: Study, run: str, seed: int, budget: float) -> tuple[int, float] | None:
    """Return image count and score of the last scored snapshot within about `budget` seconds; None: there is none."""
    within = [
        (nimg, score)
        for nimg, score in scored_snapshots(study, run, seed).items()
        if (seconds := study.seconds_at(run, seed, nimg)) is not None and seconds <= SLACK * budget
    ]
    return max(within, default=None)


def longer_table(study: Study, verdicts: Sequence[Verdict], colors: Mapping[str, str]) -> Table:
    """Return, for every claim that names one, the arm against the run without the method that got as many seconds."""
    rows = []
    for v in verdicts:
        claim, found = v.claim, v.equal_time
        if claim.equal_time is None or found is None:
            continue
        ratio = study.seconds_ratio(claim.arm, claim.equal_time)
        values = [list(study.values(run, claim.metric).values()) for run in (claim.arm, claim.equal_time)]
        decimals = decimals_for([value for each in values for value in each])
        rows.append(
            (
                Cell(text=claim.arm, color=colors.get(claim.arm, ""), each=f"against {claim.equal_time}"),
                Cell(text=NONE if ratio is None else f"{ratio:.2f}\N{MULTIPLICATION SIGN}"),
                Cell(text=metric_title(claim.metric)),
                *(Cell(text=number(mean_of(each), decimals) if each else NONE) for each in values),
                Cell(text=optional(found.mean, decimals), interval=interval_text(found.ci95, decimals)),
                Cell(text=f"{len(found.seeds)} of {len(study.seeds)}"),
            )
        )
    headers = ("arm", "seconds, arm by other", "measured by", "arm", "other", "improvement, 95 % interval", "seeds")
    return Table(title="As many seconds", headers=headers, rows=tuple(rows))


def equal_time_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return one row per pair of runs that a claim compares."""
    rows = []
    pairs = dict.fromkeys((claim.arm, claim.against) for claim in study.claims if claim.stage == "evaluate")
    for arm, against in pairs:
        found = at_equal_time(study, arm, against)
        if not found.budgets:
            continue
        rows.append(_row(found, colors))
    score = next((str(s.record["metric"]) for s in study.selections if s.record.get("metric")), "score")
    title = f"{metric_title(score)} on the validation split"
    headers = (
        "arm",
        "seconds for each",
        "images seen: arm, other",
        f"{title}: arm",
        "other",
        "improvement, 95 % interval",
        "seeds",
    )
    return Table(title="Equal wall time", headers=headers, rows=tuple(rows))


def _row(found: EqualTime, colors: Mapping[str, str]) -> tuple[Cell, ...]:
    arm = Cell(text=found.arm, color=colors[found.arm], each=f"against {found.against}")
    budget = Cell(text=duration(mean_of(list(found.budgets.values()))))
    if not found.scores:
        missing = Cell(text="no scored snapshot of both that early")
        return arm, budget, missing, Cell(text=NONE), Cell(text=NONE), Cell(text=NONE), Cell(text="0")
    means = [mean_of([pair[i] for pair in found.scores.values()]) for i in (0, 1)]
    seen = [", ".join(f"{n:,}" for n in dict.fromkeys(pair[i] for pair in found.nimg.values())) for i in (0, 1)]
    decimals = decimals_for(means)
    mean, interval = found.improvement.mean, found.improvement.ci95
    return (
        arm,
        budget,
        Cell(text=seen[0], each=f"against {seen[1]}"),
        *(Cell(text=number(value, decimals)) for value in means),
        Cell(text=number(mean, decimals), interval=interval_text(interval, decimals)),
        Cell(text=f"{len(found.scores)} of {len(found.budgets)}"),
    )
