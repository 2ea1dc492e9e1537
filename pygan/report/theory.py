"""The theory of Reg-DGM in the report: what `theory.json` holds as sentences, tables and panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pygan.report.figures import RUN_COLORS, Line, quantities
from pygan.report.plots import Plot
from pygan.report.tables import Cell, Table
from pygan.report.text import NONE, number

WEIGHT = "weight λ of the energy"
DIVERGENCE_NAMES = {"kl": "KL", "jsd": "2 JSD"}
SHOWN_SAMPLES = 10
"""The number of samples whose errors are drawn; the nearest there is."""
SHOWN_CLASSES = 4
"""The classes with most pictures, whose best weights are drawn; the table has all."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One study with its panels."""

    title: str
    sentences: tuple[str, ...]
    plots: tuple[Plot, ...]
    table: Table | None = None


def parts(record: Mapping[str, Any]) -> list[Part]:
    """Return the studies that `theory.json` holds."""
    weights = record["weights"]
    makers = {"gaussian": _gaussian, "finite": _finite, "images": _images}
    return [make(record[name], weights) for name, make in makers.items() if name in record]


def theory_summary(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of the studies without their curves, for programs."""
    found: dict[str, Any] = {}
    if "gaussian" in record:
        keys = ("samples", "offset", "optimum", "least", "interval", "best_measured")
        found["gaussian"] = {
            "largest_relative_difference": _largest_difference(record["gaussian"]),
            "fits": [{key: fit[key] for key in keys} for fit in record["gaussian"]["fits"]],
        }
    if "finite" in record:
        found["finite"] = {
            name: {
                "largest_difference": max(m["largest_difference"] for m in entry["minimizers"]),
                "best": {str(fit["samples"]): fit["best"] for fit in entry["fits"]},
            }
            for name, entry in record["finite"]["divergences"].items()
        }
    if "images" in record:
        keys = ("samples", "optimum", "population_best", "held_out_best", "population_gain", "held_out_gain")
        found["images"] = {
            entry["name"]: [{key: size[key] for key in keys} for size in entry["sizes"]]
            for entry in record["images"]["classes"]
        }
    return found


# Gaussian fitting


def _gaussian(study: Mapping[str, Any], weights: Sequence[float]) -> Part:
    sizes = list(dict.fromkeys(fit["samples"] for fit in study["fits"]))
    shown = min(sizes, key=lambda m: abs(m - SHOWN_SAMPLES))
    fits = [fit for fit in study["fits"] if fit["samples"] == shown]
    offsets = dict(zip(dict.fromkeys(fit["offset"] for fit in study["fits"]), RUN_COLORS[1:], strict=False))
    plots = [_error_panel(fit, weights, offsets[fit["offset"]]) for fit in fits]
    plots.append(
        quantities(
            f"Expected risk, m = {shown}",
            WEIGHT,
            "negative log-likelihood, nats",
            [
                line
                for fit in fits
                for line in _compared(f"prior off by {fit['offset']:g}", weights, fit, "risk", offsets[fit["offset"]])
            ],
        )
    )
    plots.append(
        quantities(
            "The best weight falls as 1/m",
            "samples m",
            "best weight",
            [
                line
                for offset, color in offsets.items()
                for line in _best_weights(
                    f"prior off by {offset:g}",
                    [fit for fit in study["fits"] if fit["offset"] == offset],
                    "best_measured",
                    color,
                )
            ],
            log_y=True,
        )
    )
    variance = zip(weights, study["fitted_variance"], strict=True)
    plots.append(
        quantities(
            "A fitted variance shrinks",
            WEIGHT,
            "fitted variance",
            [Line(label="", points=list(variance), color=RUN_COLORS[1])],
            levels={"of the samples": study["sigma"] ** 2},
        )
    )
    sentences = (
        f"The mean of N(μ*, {study['sigma']:g}²) is fitted to m samples and pulled towards a pretrained mean: "
        "(mean + λ prior) / (1 + λ). Lines are the formula, dots averages over "
        f"{study['trials']:,} training sets; shaded: weights that beat both the samples alone (λ = 0) and the prior "
        "alone.",
        f"Formula and measurement differ by at most {number(100 * _largest_difference(study), 1)} % over all panels "
        "and sizes.",
    )
    return Part(title="Gaussian fitting", sentences=sentences, plots=tuple(plots), table=_gaussian_table(study["fits"]))


def _error_panel(fit: Mapping[str, Any], weights: Sequence[float], color: str) -> Plot:
    low, high = fit["interval"]
    band = None if low is None else (max(low, weights[0]), weights[-1] if high is None else min(high, weights[-1]))
    levels = {"samples alone": fit["variance"], "prior alone": fit["bias"]}
    best = "" if fit["optimum"] is None else f", best λ {number(fit['optimum'])}"
    title = f"Prior off by {fit['offset']:g}{best}"
    lines = _compared("", weights, fit, "error", color)
    return quantities(title, WEIGHT, "mean squared error", lines, band=band, levels=levels)


def _compared(label: str, weights: Sequence[float], fit: Mapping[str, Any], key: str, color: str) -> list[Line]:
    """The formula as a line and every third measured value as a dot."""
    measured = list(zip(weights, fit[f"{key}_measured"], strict=True))[::3]
    return [
        Line(label=label, points=list(zip(weights, fit[key], strict=True)), color=color),
        Line(label="", points=measured, color=color, style="o"),
    ]


def _best_weights(label: str, fits: Sequence[Mapping[str, Any]], key: str, color: str) -> list[Line]:
    """The predicted best weights as a line and the measured ones as dots; none for a prior that is the truth."""
    predicted = [(fit["samples"], fit["optimum"]) for fit in fits if fit["optimum"] is not None]
    measured = [(fit["samples"], fit[key]) for fit in fits]
    lines = [Line(label=label, points=predicted, color=color)] if predicted else []
    return [*lines, Line(label="", points=measured, color=color, style="o")]


def _largest_difference(study: Mapping[str, Any]) -> float:
    """Return the largest relative difference of a measured error from the formula."""
    pairs = (pair for fit in study["fits"] for pair in zip(fit["error"], fit["error_measured"], strict=True))
    return max(abs(measured / formula - 1) for formula, measured in pairs)


def _gaussian_table(fits: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for fit in fits:
        numbers = [fit["samples"], fit["offset"], fit["optimum"], fit["best_measured"]]
        numbers += [fit["least"], min(fit["error_measured"])]
        texts = [*map(_short, numbers), " to ".join(map(_short, fit["interval"]))]
        rows.append(tuple(Cell(text=text) for text in texts))
    headers = ("samples m", "prior off by", "best λ", "measured", "least error", "measured", "beats both between")
    return Table(title="Gaussian fitting", headers=headers, rows=tuple(rows))


def _short(value: float | None) -> str:
    """Format with four significant digits at most; None is infinity."""
    return "∞" if value is None else f"{value:.4g}"


# Finite spaces


def _finite(study: Mapping[str, Any], weights: Sequence[float]) -> Part:
    plots, sentences = [], []
    order = sorted(range(len(study["f"])), key=lambda atom: study["f"][atom])
    lowest = study["f"][order[0]]
    for name, entry in study["divergences"].items():
        title = DIVERGENCE_NAMES[name]
        lines = []
        for minimizer, color in zip(entry["minimizers"], RUN_COLORS[1:], strict=False):
            ratios = {
                key: [(study["f"][atom] - lowest, minimizer[key][atom] / study["p"][atom]) for atom in order]
                for key in ("formula", "descent")
            }
            lines.append(Line(label=f"λ = {minimizer['weight']:g}", points=ratios["formula"], color=color))
            lines.append(Line(label="", points=ratios["descent"], color=color, style="o"))
        taken = f"{title}: what the energy takes away"
        plots.append(quantities(taken, "energy above the least", "p_g / p_d", lines, log_x=False, log_y=True))
        lines = [
            Line(
                label=f"n = {fit['samples']}",
                points=[(w, risk / fit["unregularized"]) for w, risk in zip(weights, fit["risk"], strict=True)],
                color=color,
            )
            for fit, color in zip(entry["fits"], RUN_COLORS[1:], strict=False)
        ]
        label = "risk / risk without energy"
        plots.append(quantities(f"{title}: fitted to n samples", WEIGHT, label, lines, log_y=True, levels={"": 1.0}))
        largest = max(minimizer["largest_difference"] for minimizer in entry["minimizers"])
        first, last = entry["fits"][0], entry["fits"][-1]
        sentences.append(
            f"{title}: formula and descent on the logits differ by at most {largest:.0e} in any probability; the best "
            f"weight falls from {number(first['best'])} at n = {first['samples']} to {number(last['best'])} at "
            f"n = {last['samples']}, and the risk with it from "
            f"{number(100 * min(first['risk']) / first['unregularized'], 0)} % to "
            f"{number(100 * min(last['risk']) / last['unregularized'], 0)} % of that without energy."
        )
    opening = (
        f"{len(study['p'])} atoms; the energy is the negative logarithm of a pretrained distribution. Lines are the "
        "closed forms, dots what descent finds. Then a smoothed histogram of n samples takes the place of p_d, over "
        f"{study['trials']} draws."
    )
    return Part(title="Finite spaces", sentences=(opening, *sentences), plots=tuple(plots))


# Real pictures


def _images(study: Mapping[str, Any], weights: Sequence[float]) -> Part:
    classes = study["classes"]
    drawn = sorted(classes, key=lambda entry: -entry["population"])[:SHOWN_CLASSES]
    largest = drawn[0]
    panels = (("population", "training places"), ("held_out", "held-out places"))
    plots = [
        quantities(
            f"{largest['name']}, {title}",
            WEIGHT,
            "nats per picture above λ = 0",
            [
                Line(
                    label=f"n = {size['samples']}",
                    points=[(w, nll - size[f"{key}_unregularized"]) for w, nll in zip(weights, size[key], strict=True)],
                    color=color,
                )
                for size, color in zip(largest["sizes"], RUN_COLORS[1:], strict=False)
            ],
            levels={"": 0.0},
        )
        for key, title in panels
    ]
    plots += [
        quantities(
            f"Best weight, {title}",
            "pictures n",
            "best weight",
            [
                line
                for entry, color in zip(drawn, RUN_COLORS[1:], strict=False)
                for line in _best_weights(entry["name"], entry["sizes"], f"{key}_best", color)
            ],
            log_y=True,
        )
        for key, title in panels
    ]
    return Part(
        title=f"Likelihoods of real pictures ({study['dataset']})",
        sentences=_image_sentences(study),
        plots=tuple(plots),
        table=_image_table(classes),
    )


def _image_sentences(study: Mapping[str, Any]) -> tuple[str, ...]:
    classes = study["classes"]
    sizes = [size for entry in classes for size in entry["sizes"]]
    ratio = median(size["population_best"] / size["optimum"] for size in sizes if size["optimum"])
    few, many = (pick(size["samples"] for size in sizes) for pick in (min, max))

    def gaining(n: int) -> int:
        return sum(size["held_out_gain"] > 0.01 for size in sizes if size["samples"] == n)

    def median_gain(n: int, key: str) -> str:
        return number(median(size[f"{key}_gain"] for size in sizes if size["samples"] == n), 3)

    return (
        f"{study['components']} principal components of each picture; a Gaussian with known covariance is fitted to n "
        "pictures of a class, drawn with replacement, and pulled towards the mean of the other classes. Lines in the "
        f"panels of best weights are λ* = spread / (n · squared distance), dots are measured over {study['trials']} "
        "draws.",
        f"In the places that the pictures come from, the measured best weight is {number(ratio, 2)} times the "
        f"predicted one (median over {len(sizes)} cases), and the gain over λ = 0 falls from "
        f"{median_gain(few, 'population')} nats per picture at n = {few} to {median_gain(many, 'population')} at "
        f"n = {many} (medians over {len(classes)} classes).",
        f"In held-out places it falls from {median_gain(few, 'held_out')} to {median_gain(many, 'held_out')}; "
        f"{gaining(few)} and {gaining(many)} of {len(classes)} classes gain more than 0.01 nats there. Where gains "
        "stay as n grows, the prior makes up for the difference between places, which no number of training pictures "
        "removes.",
    )


def _image_table(classes: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for entry in classes:
        first, last = entry["sizes"][0], entry["sizes"][-1]
        texts = [entry["name"], f"{entry['population']} / {entry['held_out']}"]
        texts += [number(entry["spread"], 1), number(entry["bias"], 2)]
        for size in (first, last):
            texts += [NONE if size["optimum"] is None else number(size["optimum"], 3)]
            texts += [number(size[f"{key}_gain"], 3) for key in ("population", "held_out")]
        rows.append(tuple(Cell(text=text) for text in texts))
    by_size = [
        header
        for size in (classes[0]["sizes"][0], classes[0]["sizes"][-1])
        for header in (f"λ*, n = {size['samples']}", "gain, nats", "held out")
    ]
    headers = ("class", "pictures / held out", "spread", "prior's squared distance", *by_size)
    return Table(title="Real pictures", headers=headers, rows=tuple(rows))
