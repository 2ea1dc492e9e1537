"""Long tails: what each class's pictures are like, and which classes collapse first.

Class-wise numbers come from `metrics.json` (a metric with `classes`), the spectral norms of a class's gains and biases
from the columns `GroupSpectral/<side>/<class number>` of `stats.jsonl`, which a run has whose regularizers list
`group_spectral`, with weight 0 to look without touching.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from pygan.report.figures import Curves, class_bars, class_curves, curves_of
from pygan.report.plots import Plot
from pygan.report.study import Measured, Study
from pygan.report.tables import Cell, Table
from pygan.report.text import NONE, better, decimals_for, mean_of, metric_title, number

GROUPS = ("intra", "head", "middle", "tail")
SIDES = {"gain": "gain without its 1", "bias": "bias"}
DEPARTED = 1.5
"""A class has left the others where its spectral norm is this many times the median of the classes."""


@dataclass(frozen=True, kw_only=True)
class ClassSection:
    """The spectral norms of one run."""

    run: str
    color: str
    note: str
    plots: tuple[Plot, ...]


def class_tables(study: Study, colors: Mapping[str, str]) -> list[tuple[Table, list[Plot]]]:
    """Return a table per dataset and class-wise measure, a column for each run, with a panel of bars for each run."""
    tables = []
    for dataset in study.datasets():
        here = [e for e in study.evaluations if e.dataset == dataset]
        names = dict.fromkeys(name for e in here for name, m in e.metrics.items() if m.classes)
        for metric in (name for name in names if _group(name) == "intra"):
            groups = [e for e in (_of(metric, group) for group in GROUPS) if e in names]
            table = _class_table(study, dataset, metric, groups, colors)
            tables.append((table, _class_bars(study, dataset, metric)))
    return tables


def _class_bars(study: Study, dataset: str, metric: str) -> list[Plot]:
    """One panel per run with a bar for each class, and a tick where the first run has it."""
    means = {run: by_class for run in study.runs if (by_class := _class_means(study, run, dataset, metric))}
    if not means:
        return []
    first = next(iter(means))
    values = [value for by_class in means.values() for value in by_class.values()]
    limits = (min(0.0, 1.08 * min(values)), max(0.0, 1.08 * max(values)))
    return [
        class_bars(run, by_class, means[first], "" if run == first else first, limits)
        for run, by_class in means.items()
    ]


def _class_means(study: Study, run: str, dataset: str, metric: str) -> dict[str, float]:
    """Return class -> mean over seeds, by falling number of training pictures."""
    found = [e.metrics[metric].classes for e in study.of_run(run) if e.dataset == dataset and metric in e.metrics]
    names = dict.fromkeys(name for classes in found for name in classes)
    return {name: mean_of([classes[name]["value"] for classes in found if name in classes]) for name in names}


def _group(metric: str) -> str:
    return metric.split("_")[1] if "_" in metric else ""


def _of(metric: str, group: str) -> str:
    """Return the name of the same measure for another group: `kid_intra_net`, "tail" -> `kid_tail_net`."""
    measure, _, *network = metric.split("_")
    return "_".join((measure, group, *network))


def _class_table(study: Study, dataset: str, metric: str, groups: Sequence[str], colors: Mapping[str, str]) -> Table:
    measured = {
        run: group
        for run in study.runs
        if (group := [e for e in study.of_run(run) if e.dataset == dataset and metric in e.metrics])
    }
    real = [a for a in study.anchors if a.subject == "real" and a.dataset == dataset and metric in a.metrics]
    columns = measured | ({"real training pictures": real} if real else {})
    entries = [e.metrics[metric] for group in measured.values() for e in group]
    order = dict.fromkeys(name for m in entries for name in m.classes)
    decimals = decimals_for([entry["value"] for m in entries for entry in m.classes.values()])
    rows = [
        _row(
            "all classes" if _group(name) == "intra" else _group(name),
            (NONE, NONE),
            [[e.metrics[name].value for e in group if name in e.metrics] for group in columns.values()],
            decimals,
        )
        for name in groups
    ]
    rows += [
        _row(
            name,
            tuple(_pictures(entries, name, which) for which in ("train", "real")),
            [
                [m.classes[name]["value"] for e in group if name in (m := e.metrics[metric]).classes]
                for group in columns.values()
            ],
            decimals,
        )
        for name in order
    ]
    arrow = {"lower": " \N{DOWNWARDS ARROW}", "higher": " \N{UPWARDS ARROW}", None: ""}[better(metric)]
    measure, _, *network = metric.split("_")
    title = metric_title("_".join((measure, *network)))
    where = f"{dataset}: " if len(study.datasets()) > 1 else ""
    headers = ("class", "training pictures", "real test pictures", *columns)
    return Table(title=f"{where}{title} within classes{arrow}", headers=headers, rows=tuple(rows))


def _pictures(entries: Sequence[Measured], name: str, which: str) -> str:
    counts = sorted({int(m.classes[name][which]) for m in entries if name in m.classes})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _row(name: str, pictures: tuple[str, ...], values: Sequence[Sequence[float]], decimals: int) -> tuple[Cell, ...]:
    """Name, numbers of pictures, and for each column the mean over seeds with every seed's value."""
    return (
        Cell(text=name),
        *(Cell(text=text) for text in pictures),
        *(_cell(by_seed, decimals) for by_seed in values),
    )


def _cell(values: Sequence[float], decimals: int) -> Cell:
    if not values:
        return Cell(text=NONE)
    each = ", ".join(number(value, decimals) for value in values) if len(values) > 1 else ""
    return Cell(text=number(mean_of(values), decimals), each=each)


def class_sections(study: Study, colors: Mapping[str, str]) -> list[ClassSection]:
    """Return, for every run that reported them, the spectral norms of each class over images seen."""
    sections = []
    for run in study.runs:
        sides = {side: _class_curves(study, run, side) for side in SIDES}
        if not any(sides.values()):
            continue
        counts, names = _counts(study, run), _names(study, run)
        plots = tuple(
            class_curves(
                title=f"largest singular value, {what}",
                lines={names.get(c, f"class {c}"): curves[c] for c in _by_frequency(curves, counts)},
                ylabel="mean over layers",
            )
            for side, what in SIDES.items()
            if (curves := sides[side])
        )
        sections.append(ClassSection(run=run, color=colors[run], note=_note(study, run, counts, names), plots=plots))
    return sections


def _class_curves(study: Study, run: str, side: str) -> dict[int, Curves]:
    """Return class number -> seed -> points (nimg, value)."""
    stats = {seed: ticks for seed in study.seeds if (ticks := study.curves(run, seed))}
    prefix = f"GroupSpectral/{side}/"
    columns = dict.fromkeys(key for ticks in stats.values() for tick in ticks for key in tick if key.startswith(prefix))
    return {int(key.removeprefix(prefix)): curves for key in columns if (curves := curves_of(stats, key))}


def _counts(study: Study, run: str) -> Sequence[int]:
    """Return the training pictures of each class, summed over seeds; empty where no job says so."""
    counts = [job.record.get("class_counts") or [] for job in study.jobs.values() if job.name == run]
    return [sum(one) for one in zip(*counts, strict=False)] if counts else []


def _names(study: Study, run: str) -> dict[int, str]:
    dataset = (study.runs[run] or {}).get("dataset")
    return dict(enumerate(study.manifests.get(dataset, {}).get("class_names", ())))


def _by_frequency(classes: Mapping[int, object], counts: Sequence[int]) -> list[int]:
    return sorted(classes, key=lambda c: (-counts[c] if c < len(counts) else 0, c))


def _note(study: Study, run: str, counts: Sequence[int], names: Mapping[int, str]) -> str:
    """Say which classes left the others, in the order in which they did, averaged over seeds."""
    curves = _class_curves(study, run, "gain")
    departures: dict[int, list[float]] = {}
    for seed in study.seeds:
        for c, nimg in departures_of({c: dict(by[seed]) for c, by in curves.items() if seed in by}).items():
            departures.setdefault(c, []).append(nimg)
    if not departures:
        return "no class's gains left those of the others"
    seeds = max(len(by) for by in curves.values())
    order = sorted(departures, key=lambda c: (-len(departures[c]), mean_of(departures[c])))
    parts = [
        f"{names.get(c, f'class {c}')} after {mean_of(departures[c]):,.0f} images"
        + (f" in {len(departures[c])} of {seeds} seeds" if len(departures[c]) < seeds else "")
        for c in order
    ]
    return f"gains that left those of the others: {', '.join(parts)}"


def departures_of(values: Mapping[int, Mapping[float, float]]) -> dict[int, float]:
    """Return class -> image count from which on its value stayed above `DEPARTED` times the median of the classes.

    Args:
        values: class -> image count -> value.
    """
    common = sorted(set.intersection(*(set(points) for points in values.values()))) if values else []
    medians = {nimg: median(points[nimg] for points in values.values()) for nimg in common}
    departed = {}
    for c, points in values.items():
        for nimg in reversed(common):
            if points[nimg] <= DEPARTED * medians[nimg]:
                break
            departed[c] = nimg
    return departed
