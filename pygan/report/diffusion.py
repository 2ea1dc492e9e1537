"""What generative models owe their training set, in the report: `diffusion.json` as sentences, tables and panels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pygan.report.diffusion_claims import (
    Record,
    judged,
    of_size,
    of_subject,
    sizes,
    trained_runs,
)
from pygan.report.evidence import mean_interval
from pygan.report.figures import RUN_COLORS, Line, quantities
from pygan.report.plots import Plot
from pygan.report.tables import Cell, Table
from pygan.report.text import NONE, count, counted, interval_text, number

SIGMA = "noise level sigma"
FROM_OPTIMUM = "mean square from the optimum"
SYSTEMS = {
    "optimum": "empirical optimum, Heun",
    "ancestral": "empirical optimum, fresh noise",
    "gaussian": "Gaussian denoiser",
    "held_out": "held-out pictures",
}
TOY_SYSTEMS = {
    "optimum": "empirical optimum, Heun",
    "optimum_ddim": "empirical optimum, DDIM",
    "chain_optimum": "optimum of previous points, DDIM",
    "denoising": "network, ordinary objective",
    "chain": "network, previous points",
    "held_out": "held-out points",
}
COPYING = {
    "copies": ("copies, %", 100, 0),
    "copies_moved": ("copies, moved, %", 100, 0),
    "nearest": ("distance to the nearest, rms", 1, 3),
    "calibrated": ("calibrated distance", 1, 2),
    "authentic": ("authentic, %", 100, 0),
    "energy_distance": ("energy distance to held-out", 1, 3),
}
"""Number of `copying` -> header, factor, decimals."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A grid of pictures with its caption."""

    png: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the section with its panels, tables and pictures."""

    title: str
    sentences: tuple[str, ...]
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    panels: tuple[Panel, ...] = ()
    """Samples above their nearest training pictures."""


@dataclass(frozen=True, kw_only=True)
class System:
    """What one row of the table of copying compares: one value per seed in each list."""

    label: str
    n: int | None
    copying: list[Mapping[str, float]]
    information: list[Mapping[str, float]] = field(default_factory=list)


def parts(records: Sequence[Record]) -> list[Part]:
    """Return the parts of the section, for records of the subjects "toy", "exact" and "run"."""
    toys, exact, runs = of_subject(records, "toy"), of_subject(records, "exact"), trained_runs(records)
    found = [make(those) for make, those in ((_toy, toys), (_exact, exact), (_runs, runs)) if those]
    systems = [*_exact_systems(records), *_run_systems(records)]
    if systems:
        found.append(_copying(systems))
    return [_claims(records), *found]


def diffusion_summary(records: Sequence[Record]) -> dict[str, Any]:
    """Return the verdicts and the copying of every system without curves, for programs."""
    return {
        "claims": [{"id": j.id, "claim": j.claim, "verdict": j.verdict, "reason": j.reason} for j in judged(records)],
        "toy": {
            name: {key: _plain([toy["systems"][name][key] for toy in toys]) for key in toys[0]["systems"][name]}
            for toys in [of_subject(records, "toy")]
            if toys
            for name in toys[0]["systems"]
        },
        "copying": [
            {
                "system": system.label,
                "n": system.n,
                **{key: _plain([c[key] for c in system.copying]) for key in COPYING if key in system.copying[0]},
                **({"information": _plain([i["proxy"] for i in system.information])} if system.information else {}),
            }
            for system in (*_exact_systems(records), *_run_systems(records))
        ],
    }


def _plain(values: Sequence[float]) -> dict[str, Any]:
    mean, interval = mean_interval(values)
    return {"mean": mean, "ci95": interval, "values": list(values)}


# Claims


def _claims(records: Sequence[Record]) -> Part:
    rows = tuple(
        (Cell(text=j.id), Cell(text=j.claim), Cell(text="", verdict=j.verdict), Cell(text=j.reason))
        for j in judged(records)
    )
    return Part(
        title="What the paper claims and what was found",
        sentences=(
            "Yi, Sun and Li (arXiv 2305.14712) define generalization by the information that a generated picture has "
            "about the training set. P1 is that definition, P2 to P4 are claims of its abstract. Verdicts follow from "
            "the numbers below by the rule in each line; undecided also means that some cases agree and others do not.",
        ),
        tables=(Table(title="Claims", headers=("", "claim", "verdict", "why"), rows=rows),),
    )


# Copying


def _exact_systems(records: Sequence[Record]) -> list[System]:
    return [
        System(
            label=label,
            n=n,
            copying=[entry["copying"][name] for entry in of_size(records, n)],
            information=[e["information"][name] for e in of_size(records, n) if name in e["information"]],
        )
        for n in sizes(records)
        for name, label in SYSTEMS.items()
    ]


def _run_systems(records: Sequence[Record]) -> list[System]:
    found = []
    for run in trained_runs(records):
        seeds = run["seeds"]
        n = max(seed["n"] for seed in seeds)
        last = [seed["snapshots"][-1] for seed in seeds]
        found.append(
            System(
                label=f"{run['run']} ({_family(run)})",
                n=n,
                copying=[snapshot["copying"] for snapshot in last],
                information=[seed["information"] for seed in seeds],
            )
        )
        found.append(System(label=f"held out from {run['run']}", n=n, copying=[seed["held_out"] for seed in seeds]))
        if all("optimum" in seed for seed in seeds):
            label = f"empirical optimum of the pictures of {run['run']}"
            found.append(System(label=label, n=n, copying=[seed["optimum"] for seed in seeds]))
    return found


def _family(run: Record) -> str:
    names = {None: "GAN", "denoising": "diffusion", "chain": "diffusion, previous points"}
    return names[run["objective"]]


def _copying(systems: Sequence[System]) -> Part:
    headers = ("system", "training pictures n", *(title for title, _, _ in COPYING.values()), "information, nats")
    rows = []
    for system in systems:
        cells = [Cell(text=system.label), Cell(text=count(system.n))]
        for key, (_, factor, decimals) in COPYING.items():
            cells.append(_measured([factor * c[key] for c in system.copying if key in c], decimals))
        cells.append(_measured([i["proxy"] for i in system.information], 1))
        rows.append(tuple(cells))
    return Part(
        title="Copying across families",
        sentences=(
            "Diffusion models and GANs by the same measures. A sample is a copy if its nearest training picture is "
            "less than a third as far as the second one; moved: after the flip, shift and brightness that bring it "
            "nearest. The calibrated distance is relative to the training pictures around a sample; authentic samples "
            "are farther from their nearest training picture than that one is from its own. Information: log-ratio "
            "of kernel densities, less that of held-out pictures. The distance to the nearest training picture "
            "measures copying, never quality: compare every row with held-out pictures. The energy distance to those, "
            "in pixels, tells pictures from noise: 0 is the law of real pictures, and copies come near it.",
        ),
        tables=(Table(title="Copying", headers=headers, rows=tuple(rows)),),
    )


def _measured(values: Sequence[float], decimals: int) -> Cell:
    if not values:
        return Cell(text=NONE)
    mean, interval = mean_interval(values)
    return Cell(text=number(mean, decimals), interval=interval_text(interval, decimals))


# Toy


def _toy(toys: Sequence[Record]) -> Part:
    colors = {"denoising": RUN_COLORS[1], "chain": RUN_COLORS[2]}
    keys = {
        "median_nearest": ("median distance to the nearest", 1, 4),
        "copies": ("ratio below 1/3, %", 100, 0),
        "energy_distance": ("energy distance to the ring", 1, 4),
        "radius_error": ("radius off by", 1, 3),
    }
    rows = [
        (
            Cell(text=label, color=colors.get(name, "")),
            *(
                _measured([factor * toy["systems"][name][key] for toy in toys], decimals)
                for key, (_, factor, decimals) in keys.items()
            ),
        )
        for name, label in TOY_SYSTEMS.items()
    ]
    lines = []
    for name, color in colors.items():
        forward = _curve([toy["profiles"][name] for toy in toys], "from_optimum")
        reverse = _curve([toy["reverse"][name] for toy in toys], "from_optimum")
        lines.append(Line(label=TOY_SYSTEMS[name], points=forward, color=color))
        lines.append(Line(label="", points=_between(reverse, forward), color=color, style="--"))
    excess = [
        Line(label=TOY_SYSTEMS[name], points=_curve([t["profiles"][name] for t in toys], "gap"), color=color)
        for name, color in colors.items()
    ]
    plots = (
        quantities("How far networks are from the optimum", SIGMA, FROM_OPTIMUM, lines, log_y=True),
        quantities("Held-out minus training error", SIGMA, "mean square", excess, levels={"": 0.0}),
    )
    found = {name: mean_interval([toy["systems"][name]["copies"] for toy in toys])[0] for name in TOY_SYSTEMS}
    return Part(
        title="A ring in the plane",
        sentences=(
            f"{toys[0]['points']} points of a ring, {counted(len(toys), 'seed')}; the law is known, so the numbers "
            "need no reference set. Solid lines: on noised training points; dashed: where the sampler goes.",
            f"Samples of the optimum lie on training points ({number(100 * found['optimum'], 0)} % have a ratio below "
            f"1/3); those of the networks do in {number(100 * found['denoising'], 0)} % (ordinary) and "
            f"{number(100 * found['chain'], 0)} % (previous points), held-out points by chance in "
            f"{number(100 * found['held_out'], 0)} %.",
        ),
        plots=plots,
        tables=(
            Table(
                title="A ring in the plane",
                headers=("system", *(title for title, _, _ in keys.values())),
                rows=tuple(rows),
            ),
        ),
    )


# Exact denoisers


def _exact(records: Sequence[Record]) -> Part:
    ns = sizes(records)
    colors = dict(zip(ns, RUN_COLORS[1:] * (1 + len(ns) // 7), strict=False))

    def curve(n: int, name: str, key: str) -> list[tuple[float, float]]:
        return _curve([entry["profiles"][name] for entry in of_size(records, n)], key)

    bells = []
    for n, color in colors.items():
        forward = curve(n, "gaussian", "from_optimum")
        reverse = _curve([entry["reverse"]["gaussian"] for entry in of_size(records, n)], "from_optimum")
        bells.append(Line(label=f"n = {n:,}", points=forward, color=color))
        bells.append(Line(label="", points=_between(reverse, forward), color=color, style="--"))
    largest = ns[-1]
    gaps = [
        Line(label=label, points=curve(largest, name, "gap"), color=color)
        for (name, label), color in zip(
            {"optimum": "empirical optimum", "gaussian": "Gaussian denoiser"}.items(), RUN_COLORS[1:], strict=False
        )
    ]
    weights = [
        Line(label=f"n = {n:,}", points=curve(n, "optimum", "max_weight"), color=color) for n, color in colors.items()
    ]
    shares = [
        Line(
            label=label,
            points=[(n, mean_interval([e["copying"][name]["copies"] for e in of_size(records, n)])[0]) for n in ns],
            color=color,
            style="-" if len(ns) > 1 else "o",
        )
        for (name, label), color in zip(SYSTEMS.items(), RUN_COLORS[1:], strict=False)
    ]
    plots = (
        quantities("A Gaussian denoiser from the optimum", SIGMA, FROM_OPTIMUM, bells),
        quantities("Weight of one picture in the optimum", SIGMA, "largest weight", weights),
        quantities(f"Held-out minus training error, n = {largest:,}", SIGMA, "mean square", gaps, levels={"": 0.0}),
        quantities("Memorization against n", "training pictures n", "share of copies", shares),
    )
    return Part(
        title=f"Exact denoisers of real pictures ({records[0]['dataset']})",
        sentences=(
            "The empirical optimum and the Gaussian denoiser of the same n pictures need no training, so their numbers "
            f"have no optimization in them; {counted(len(records), 'draw')} of pictures. Solid lines: on noised "
            "training pictures; dashed: where the Gaussian's sampler goes.",
            *(_exact_sentence(records, n) for n in ns),
        ),
        plots=plots,
        tables=(_two_model_table(records, ns),),
        panels=_panels(records[:1]),
    )


def _exact_sentence(records: Sequence[Record], n: int) -> str:
    bell = _curve([entry["profiles"]["gaussian"] for entry in of_size(records, n)], "from_optimum")
    peak, height = max(bell, key=lambda point: point[1])
    return (
        f"At n = {n:,} the Gaussian is farthest from the optimum at sigma = {number(peak)}, by a mean square of "
        f"{number(height, 3)}."
    )


def _two_model_table(records: Sequence[Record], ns: Sequence[int]) -> Table:
    rows = [
        (
            Cell(text=SYSTEMS[name]),
            Cell(text=count(n)),
            *(
                _measured([entry["two_model_test"][name][key] for entry in of_size(records, n)], 3)
                for key in ("paired", "unpaired", "ratio")
            ),
        )
        for n in ns
        for name in ("optimum", "gaussian")
    ]
    headers = (
        "two models of disjoint sets",
        "n (all others, if fewer)",
        "same noise, rms",
        "other noise, rms",
        "ratio",
    )
    return Table(title="Two-model test", headers=headers, rows=tuple(rows))


# Trained runs


def _runs(runs: Sequence[Record]) -> Part:
    colors = dict(zip([run["run"] for run in runs], RUN_COLORS[1:] * (1 + len(runs) // 7), strict=False))
    diffusion = [run for run in runs if run["objective"] is not None]
    plots = []
    if diffusion:
        bells, losses, gaps, excess, members = [], [], [], [], []
        for run in diffusion:
            color = colors[run["run"]]
            forward = _curve([seed["profile"] for seed in run["seeds"]], "from_optimum")
            reverse = _curve([seed["reverse"] for seed in run["seeds"]], "from_optimum")
            bells.append(Line(label=run["run"], points=forward, color=color))
            bells.append(Line(label="", points=_between(reverse, forward), color=color, style="--"))
            for lines, key in ((losses, "train_error"), (gaps, "gap"), (excess, "excess"), (members, "membership")):
                points = _curve([seed["profile"] for seed in run["seeds"]], key)
                lines.append(Line(label=run["run"], points=points, color=color))
            least = _curve([seed["profile"] for seed in run["seeds"]], "least_error")
            losses.append(Line(label="", points=least, color=color, style="--"))
        plots += [
            quantities("Networks from the optimum", SIGMA, FROM_OPTIMUM, bells),
            quantities("Training error and the least one", SIGMA, "mean square", losses),
            quantities("Held-out minus training error", SIGMA, "mean square", gaps, levels={"": 0.0}),
            quantities("A training picture has the smaller error", SIGMA, "probability", members, levels={"": 0.5}),
            quantities("Excess over the least loss", SIGMA, "mean square", excess, levels={"": 0.0}),
        ]
    lines = [Line(label=run["run"], points=_over_time(run), color=colors[run["run"]], style="o-") for run in runs]
    plots.append(quantities("Memorization over training", "images seen", "share of copies", lines, log_x=False))
    points = {run["run"]: (max(s["n"] for s in run["seeds"]), _over_time(run)[-1][1]) for run in runs}
    if len({n for n, _ in points.values()}) > 1:
        dots = [Line(label=run, points=[point], color=colors[run], style="o") for run, point in points.items()]
        plots.append(quantities("Memorization against n", "training pictures n", "share of copies", dots))
    return Part(
        title="Trained runs",
        sentences=(
            "Each run at all its snapshots, against the pictures that it was trained on; held-out pictures are of the "
            "validation split. The least error, L*(sigma), is that of the empirical optimum, dashed beside that of "
            "training. Distances from the optimum: solid on noised training pictures, dashed where the sampler goes.",
            *(_run_sentence(run) for run in runs),
        ),
        plots=tuple(plots),
        panels=_panels(run["seeds"][0] for run in runs),
    )


def _over_time(run: Record) -> list[tuple[float, float]]:
    """Return (nimg, mean share of copies) of the snapshots that all seeds have."""
    by_seed = [{s["nimg"]: s["copying"]["copies"] for s in seed["snapshots"]} for seed in run["seeds"]]
    common = sorted(set.intersection(*(set(found) for found in by_seed)))
    return [(nimg, mean_interval([found[nimg] for found in by_seed])[0]) for nimg in common]


def _run_sentence(run: Record) -> str:
    nimg, most = max(_over_time(run), key=lambda point: point[1])
    held_out = mean_interval([seed["held_out"]["copies"] for seed in run["seeds"]])[0]
    n, seeds = max(seed["n"] for seed in run["seeds"]), counted(len(run["seeds"]), "seed")
    sentence = (
        f"{run['run']} ({_family(run)}, n = {n:,}, {seeds}): at most {number(100 * most, 0)} % copies, after {nimg:,} "
        f"images; held-out pictures {number(100 * held_out, 0)} %."
    )
    ratios = [seed["two_model_test"]["ratio"] for seed in run["seeds"] if "two_model_test" in seed]
    if ratios:
        sentence += (
            " Models of two seeds, whose pictures were drawn independently, differ in what they make of the same noise "
            f"by {number(mean_interval(ratios)[0], 2)} of what they make of different noises."
        )
    return sentence


def _panels(records: Iterable[Record]) -> tuple[Panel, ...]:
    """Read the panels of records: those of the first seed."""
    return tuple(
        Panel(png=Path(path).read_bytes(), caption=caption)
        for record in records
        for path, caption in record["panels"].items()
    )


# Curves


def _curve(profiles: Iterable[Sequence[Mapping[str, float]]], key: str) -> list[tuple[float, float]]:
    """Return (sigma, mean over seeds), by rising sigma."""
    values: dict[float, list[float]] = {}
    for profile in profiles:
        for point in profile:
            values.setdefault(point["sigma"], []).append(point[key])
    return sorted((sigma, mean_interval(found)[0]) for sigma, found in values.items())


def _between(points: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points in the horizontal range of the others."""
    low, high = others[0][0], others[-1][0]
    return [point for point in points if low <= point[0] <= high]
