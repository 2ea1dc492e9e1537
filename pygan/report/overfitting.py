"""Overfitting as the discriminator shows it: what it says to training, held-out and generated pictures.

A discriminator that generalizes gives held-out pictures the logits of training pictures; one that has memorized its
training pictures gives them those of generated ones. The share of the way is r_v of "Training Generative Adversarial
Networks with Limited Data" (Karras et al., NeurIPS 2020, arXiv:2006.06676, equation 1):
(train - held out) / (train - generated).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pygan.report.figures import PART_COLORS, dumbbells
from pygan.report.plots import Plot
from pygan.report.study import Study
from pygan.report.tables import Cell, Table
from pygan.report.text import mean_of, number

LAST_SHARE = 0.2
"""The part of training, at its end, over whose ticks logits are averaged."""
LEAST_DISTANCE = 0.5
"""Logits of training and generated pictures that are nearer than this say nothing about a share between them."""


@dataclass(frozen=True, kw_only=True)
class Logits:
    """Mean logits at the end of training, averaged over seeds."""

    train: float
    held_out: float
    generated: float
    seeds: int

    @property
    def gap(self) -> float:
        """Training minus held-out pictures."""
        return self.train - self.held_out

    @property
    def share(self) -> float | None:
        """The gap as a share of the distance between training and generated; None: they are too near each other."""
        distance = self.train - self.generated
        return self.gap / distance if distance >= LEAST_DISTANCE else None


def final_logits(study: Study, run: str) -> Logits | None:
    """Return the logits of `run` at the end of training; None where it reported none."""
    means = [means for seed in study.seeds if (means := _means(study.stats.get((run, seed), ()))) is not None]
    if not means:
        return None
    train, held_out, generated = (mean_of(values) for values in zip(*means, strict=True))
    return Logits(train=train, held_out=held_out, generated=generated, seeds=len(means))


def _means(ticks: Sequence[Mapping[str, float]]) -> tuple[float, ...] | None:
    keys = [f"logits/{part}" for part in PART_COLORS]
    complete = [tick for tick in ticks if all(tick.get(key, float("nan")) == tick.get(key) for key in keys)]
    if not complete:
        return None
    first, last = ticks[0]["nimg"], complete[-1]["nimg"]
    late = [tick for tick in complete if tick["nimg"] >= last - LAST_SHARE * (last - first)]
    return tuple(mean_of([tick[key] for tick in late]) for key in keys)


def overfitting_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return the three raw means, the gap and its share of the way, for every run that reported them."""
    rows = []
    for run in study.runs:
        found = final_logits(study, run)
        if found is None:
            continue
        share = "too near to say" if found.share is None else f"{number(100 * found.share, 0)} %"
        rows.append(
            (
                Cell(text=run, color=colors[run]),
                Cell(text=number(found.train, 2)),
                Cell(text=number(found.held_out, 2)),
                Cell(text=number(found.generated, 2)),
                Cell(text=number(found.gap, 2)),
                Cell(text=share),
                Cell(text=f"{found.seeds} of {len(study.seeds)}"),
            )
        )
    headers = (
        "run",
        "training pictures",
        "held-out pictures",
        "generated pictures",
        "gap: training \N{MINUS SIGN} held out",
        "share of the way to generated",
        "seeds",
    )
    return Table(title="What D says", headers=headers, rows=tuple(rows))


def overfitting_plot(study: Study) -> Plot | None:
    """Draw the three means of every run on one axis; None where no run reported them."""
    found = {run: logits for run in study.runs if (logits := final_logits(study, run)) is not None}
    return dumbbells(
        "Mean logit of D at the end of training",
        {run: {"train": x.train, "validation": x.held_out, "generated": x.generated} for run, x in found.items()},
        PART_COLORS,
        xlabel="mean logit",
        names={"train": "training", "validation": "held out", "generated": "generated"},
    )


def overfitting_sentence(study: Study) -> str:
    """Say where D memorized most and where least; empty where fewer than two runs can be told apart."""
    shares = {
        run: logits.share
        for run in study.runs
        if (logits := final_logits(study, run)) is not None and logits.share is not None
    }
    if len(shares) < 2:
        return ""
    most, least = max(shares, key=shares.__getitem__), min(shares, key=shares.__getitem__)
    return (
        f"At the end of training, D of {most} has moved held-out pictures {number(100 * shares[most], 0)} % of the way "
        f"from training to generated pictures, D of {least} {number(100 * shares[least], 0)} %: 0 % is a D that "
        "generalizes, 100 % one that has learned its training pictures by heart."
    )
