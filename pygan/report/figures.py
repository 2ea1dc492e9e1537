"""The plots of the report, each one panel, so that a narrow screen can stack them.

A run has the same color in every plot and table.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullFormatter

from pygan.report.evidence import mean_interval
from pygan.report.plots import MARGINS, Plot, beside, plot
from pygan.report.text import counted

RUN_COLORS = (
    *("#808894", "#3d85c6", "#d9822b", "#3a9d6e", "#a46fc4", "#c9504f"),
    *("#8d7b33", "#2b9fa6", "#d06fa3", "#6f8f3a", "#7079d8", "#b0764a"),
)
"""Readable on white and on near-black; the first run, usually the baseline, is gray."""
PART_COLORS = {"train": "#3d85c6", "validation": "#d9822b", "generated": "#808894"}
LOSS_COLORS = {"D": "#a46fc4", "G": "#3a9d6e"}
REFERENCE_REACH = 2.5
"""A reference farther from the runs than this many times their range is named at the margin instead of drawn."""
PANEL_INCHES = (4.0, 2.7)
CLASS_COLORS = LinearSegmentedColormap.from_list("classes", ("#3d85c6", "#a46fc4", "#c9504f"))
"""From the most frequent class to the rarest."""
CLASS_INCHES = (5.6, 3.0)

MANY_RUNS = 6
"""More runs than this are named beside the axes."""

Curves = Mapping[int, Sequence[tuple[float, float]]]
"""Seed -> points (nimg, value)."""


def run_colors(runs: Sequence[str]) -> dict[str, str]:
    """Return run -> color; from the thirteenth run on colors repeat."""
    return {run: RUN_COLORS[i % len(RUN_COLORS)] for i, run in enumerate(runs)}


def curves_of(stats: Mapping[int, Sequence[Mapping[str, float]]], key: str) -> dict[int, list[tuple[float, float]]]:
    """Return seed -> points (nimg, value) of one column of the statistics; seeds without the column are left out."""
    points = {
        seed: [(tick["nimg"], tick[key]) for tick in ticks if key in tick and not math.isnan(tick[key])]
        for seed, ticks in stats.items()
    }
    return {seed: curve for seed, curve in points.items() if curve}


def training_curves(
    title: str,
    lines: Mapping[str, Curves],
    colors: Mapping[str, str],
    ylabel: str,
    continued_at: int | None = None,
) -> Plot | None:
    """Draw one line per name, averaged over seeds, with each seed thin behind it.

    Args:
        title: of the panel.
        lines: name -> curves; names without points are left out.
        colors: name -> color.
        ylabel: quantity on the vertical axis.
        continued_at: nimg at which the run took over from another; None: it started from scratch.

    Returns:
        None where no line has a point.
    """
    drawn = {name: curves for name, curves in lines.items() if curves}
    if not drawn:
        return None

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        if continued_at is not None:
            axes.axvline(continued_at, color=theme["ink"], linewidth=0.8, linestyle=":", alpha=0.6)
        for name, curves in drawn.items():
            if len(curves) > 1:
                for points in curves.values():
                    axes.plot(*zip(*points, strict=True), color=colors[name], linewidth=0.6, alpha=0.4)
            points = _mean_curve(curves)
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), color=colors[name], linewidth=1.8, marker=marker, label=name)
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel(ylabel)
        axes.set_title(title, pad=19)
        axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.03), borderaxespad=0, columnspacing=1.2)

    seeds = max(len(curves) for curves in drawn.values())
    return plot(draw, f"{title}: {', '.join(drawn)} over images seen, mean of {counted(seeds, 'seed')}", PANEL_INCHES)


def class_curves(title: str, lines: Mapping[str, Curves], ylabel: str) -> Plot:
    """Draw one line per class, averaged over seeds, colored in the given order from frequent to rare.

    Args:
        title: of the panel.
        lines: class -> curves, by falling number of training pictures.
        ylabel: quantity on the vertical axis.
    """

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        for place, (name, curves) in enumerate(lines.items()):
            color = CLASS_COLORS(place / max(len(lines) - 1, 1))
            points = _mean_curve(curves)
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points, strict=True), color=color, linewidth=1.3, marker=marker, label=name)
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(bottom=0)
        axes.set_ylabel(ylabel)
        axes.set_title(title)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0, fontsize=6.5)

    return plot(draw, f"{title} of {', '.join(lines)} over images seen", CLASS_INCHES, (0.66, 1.75, 0.32, 0.44))


def values_by_run(
    title: str,
    values: Mapping[str, Mapping[int, float]],
    colors: Mapping[str, str],
    references: Mapping[str, float],
) -> Plot | None:
    """Draw every seed's value of a metric as a dot, with mean and 95 % interval, and references as dashed lines.

    Args:
        title: of the panel.
        values: run -> seed -> value; runs without values are left out.
        colors: run -> color.
        references: name -> mean value of an anchor.

    Returns:
        None where no run has a value.
    """
    drawn = {run: by_seed for run, by_seed in values.items() if by_seed}
    if not drawn:
        return None

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        for row, (run, by_seed) in enumerate(drawn.items()):
            seeds = sorted(by_seed)
            mean, interval = mean_interval([by_seed[seed] for seed in seeds])
            if interval:
                axes.plot(interval, [row, row], color=colors[run], linewidth=6, alpha=0.28, solid_capstyle="butt")
            axes.plot([by_seed[seed] for seed in seeds], [row] * len(seeds), "o", color=colors[run], markersize=4.5)
            axes.plot([mean, mean], [row - 0.26, row + 0.26], color=colors[run], linewidth=2)
        _draw_references(axes, theme, references)
        axes.set_yticks(range(len(drawn)), list(drawn))
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
        axes.set_title(title)

    height = 0.68 + 0.3 * max(len(drawn), 4)
    return plot(
        draw, f"{title}: every seed's value, mean and 95 % interval per run", (5.2, height), beside(drawn, 0.26)
    )


def metric_against_seconds(
    title: str, ylabel: str, points: Mapping[str, Sequence[tuple[float, float]]], colors: Mapping[str, str]
) -> Plot | None:
    """Draw a metric against training seconds: one dot per seed, a ring at the mean of each run.

    Args:
        title: of the panel.
        ylabel: name of the metric.
        points: run -> (seconds, value) per seed; runs without points are left out.
        colors: run -> color.

    Returns:
        None where no run has a point.
    """
    drawn = {run: at for run, at in points.items() if at}
    if not drawn:
        return None

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        for run, at in drawn.items():
            x, y = zip(*at, strict=True)
            center = (sum(x) / len(x), sum(y) / len(y))
            axes.plot(x, y, "o", color=colors[run], markersize=4, alpha=0.75, label=run)
            axes.plot(*center, "o", color=colors[run], markersize=10, markerfacecolor="none", markeredgewidth=1.4)
        axes.set_xlim(left=0)
        axes.margins(0.1)
        axes.set_xlabel("training seconds of one seed")
        axes.set_ylabel(ylabel)
        axes.set_title(title)
        _legend_of_runs(axes, drawn)

    return plot(draw, f"{title}: one dot per seed of {', '.join(drawn)}", (4.6, 3.0), _room_for_legend(drawn))


def lines_against_seconds(
    title: str, ylabel: str, lines: Mapping[str, Curves], colors: Mapping[str, str]
) -> Plot | None:
    """Draw one line per run and seed over training seconds; None where there are no points."""
    drawn = {run: curves for run, curves in lines.items() if curves}
    if not drawn:
        return None

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        for run, curves in drawn.items():
            for i, points in enumerate(curves.values()):
                label = run if i == 0 else None
                x, y = zip(*points, strict=True)
                axes.plot(x, y, "o-", color=colors[run], markersize=3, linewidth=1.1, alpha=0.85, label=label)
        axes.set_xlim(left=0)
        axes.set_xlabel("training seconds of one seed")
        axes.set_ylabel(ylabel)
        axes.set_title(title)
        _legend_of_runs(axes, drawn)

    return plot(draw, f"{title}: one line per seed of {', '.join(drawn)}", (4.6, 3.0), _room_for_legend(drawn))


def lines_over_images(title: str, ylabel: str, lines: Mapping[str, Curves], colors: Mapping[str, str]) -> Plot | None:
    """Draw one line per run over images seen, averaged over seeds, with each seed thin behind it.

    Args:
        title: of the panel.
        ylabel: name of the score.
        lines: run -> seed -> points (nimg, score); runs without points are left out.
        colors: run -> color.

    Returns:
        None where no run has a point.
    """
    drawn = {run: curves for run, curves in lines.items() if curves}
    if not drawn:
        return None

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        for run, curves in drawn.items():
            if len(curves) > 1:
                for points in curves.values():
                    axes.plot(*zip(*sorted(points), strict=True), color=colors[run], linewidth=0.6, alpha=0.45)
            points = _mean_curve(curves)
            axes.plot(*zip(*points, strict=True), "o-", color=colors[run], markersize=3.2, linewidth=1.8, label=run)
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel(ylabel)
        axes.set_title(title)
        axes.legend(loc="best")

    return plot(draw, f"{title}: {', '.join(drawn)} over images seen", PANEL_INCHES)


def dumbbells(
    title: str,
    values: Mapping[str, Mapping[str, float]],
    colors: Mapping[str, str],
    *,
    xlabel: str,
    names: Mapping[str, str],
) -> Plot | None:
    """Draw a row per run with one dot per part, joined by a line.

    Args:
        title: of the panel.
        values: run -> part -> value.
        colors: part -> color.
        xlabel: quantity on the horizontal axis.
        names: part -> its name in the legend.

    Returns:
        None where there is no run.
    """
    if not values:
        return None

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        for row, parts in enumerate(values.values()):
            ends = (min(parts.values()), max(parts.values()))
            axes.plot(ends, [row, row], color=theme["faint"], linewidth=3, solid_capstyle="round")
            for part, value in parts.items():
                label = names[part] if row == 0 else None
                axes.plot(value, row, "o", color=colors[part], markersize=6, label=label)
        axes.set_yticks(range(len(values)), list(values))
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(xlabel)
        axes.set_title(title, pad=19)
        axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(-0.02, 1.0), borderaxespad=0.2, columnspacing=1.2)

    return plot(draw, f"{title} of {', '.join(values)}", (4.8, 1.0 + 0.27 * max(len(values), 3)), beside(values))


def class_bars(
    title: str, values: Mapping[str, float], beside: Mapping[str, float], beside_name: str, limits: tuple[float, float]
) -> Plot:
    """Draw one bar per class, colored from frequent to rare, with a tick where another run has the class.

    Args:
        title: of the panel.
        values: class -> value, by falling number of training pictures.
        beside: class -> value of the other run; classes without a value have no tick.
        beside_name: name of the other run, for the legend; empty: no ticks.
        limits: of the vertical axis, the same for panels to be compared.
    """

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        places = range(len(values))
        shades = [CLASS_COLORS(place / max(len(values) - 1, 1)) for place in places]
        axes.bar(places, list(values.values()), color=shades, width=0.72)
        ticks = [(place, beside[name]) for place, name in enumerate(values) if name in beside]
        if beside_name and ticks:
            x, y = zip(*ticks, strict=True)
            axes.plot(x, y, "_", color=theme["ink"], markersize=13, markeredgewidth=1.6, label=beside_name)
            axes.legend(loc="upper left", bbox_to_anchor=(0, 1.0))
        axes.set_ylim(*limits)
        axes.set_xticks(
            places, [name if len(name) < 16 else f"{name[:14]}…" for name in values], rotation=38, ha="right"
        )
        axes.grid(visible=False, axis="x")
        axes.set_title(title)

    return plot(draw, f"{title}: one bar for each of {', '.join(values)}", PANEL_INCHES, (0.5, 0.1, 0.3, 0.95))


@dataclass(frozen=True, kw_only=True)
class Line:
    """One entry of a panel."""

    label: str
    """In the legend; empty: not in it."""
    points: Sequence[tuple[float, float]]
    color: str
    style: str = "-"
    """matplotlib's: "-" a line, "--" a dashed one, "o" dots."""


def quantities(
    title: str,
    xlabel: str,
    ylabel: str,
    lines: Sequence[Line],
    *,
    log_x: bool = True,
    log_y: bool = False,
    band: tuple[float, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Plot:
    """Draw lines and dots of one quantity against another.

    Args:
        title: of the panel.
        xlabel: quantity on the horizontal axis.
        ylabel: quantity on the vertical axis.
        lines: in the order of the legend.
        log_x: whether the horizontal axis is logarithmic.
        log_y: whether the vertical axis is logarithmic.
        band: horizontal range to shade; None: none.
        levels: name -> value to mark with a dotted horizontal line; None: none.
    """

    def draw(axes: Axes, theme: Mapping[str, str]) -> None:
        axes.set_xscale("log" if log_x else "linear")
        axes.set_yscale("log" if log_y else "linear")
        for axis, logarithmic in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
            if logarithmic:
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
        if band is not None:
            axes.axvspan(*band, color=theme["faint"], alpha=0.5, linewidth=0)
        for name, value in (levels or {}).items():
            axes.axhline(value, color=theme["ink"], linewidth=0.9, linestyle=":", alpha=0.8)
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 6.5}
            axes.annotate(name, (1, value), xytext=(-2, 2), ha="right", va="bottom", alpha=0.85, **place)
        for line in lines:
            size = {"markersize": 3.2, "linewidth": 1.4}
            axes.plot(*zip(*line.points, strict=True), line.style, color=line.color, label=line.label or None, **size)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.set_title(title)
        if any(line.label for line in lines):
            axes.legend(loc="best")

    names = ", ".join(line.label for line in lines if line.label)
    return plot(draw, f"{title}: {ylabel} against {xlabel}" + (f" for {names}" if names else ""), PANEL_INCHES)


def _legend_of_runs(axes: Axes, runs: Collection[str]) -> None:
    """Name the runs inside the axes, or beside them where there are many."""
    if len(runs) > MANY_RUNS:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0, fontsize=6.5)
    else:
        axes.legend(loc="best")


def _room_for_legend(runs: Collection[str]) -> tuple[float, float, float, float]:
    right = 0.35 + 0.06 * max(map(len, runs)) if len(runs) > MANY_RUNS else MARGINS[1]
    return MARGINS[0], right, *MARGINS[2:]


def _draw_references(axes: Axes, theme: Mapping[str, str], references: Mapping[str, float]) -> None:
    """Mark references as dashed lines; those far outside what is drawn are only named, so that runs stay apart."""
    low, high = axes.dataLim.intervalx
    margin = REFERENCE_REACH * max(high - low, 1e-3 * abs(high), 1e-12)
    near: list[tuple[float, list[str]]] = []
    for name, value in sorted(references.items(), key=lambda item: item[1]):
        if not low - margin <= value <= high + margin:
            place = "right" if value > high else "left"
            arrow = f"{name} {value:.3g} →" if place == "right" else f"← {name} {value:.3g}"
            axes.set_title(arrow, loc=place if place == "right" else "center", fontsize=7, fontweight="normal")
        elif near and value - near[-1][0] < 0.03 * (high - low + margin):
            near[-1][1].append(name)
        else:
            near.append((value, [name]))
    for value, names in near:
        axes.axvline(value, color=theme["ink"], linewidth=0.9, linestyle="--", alpha=0.65)
        axes.annotate(
            ", ".join(names),
            (value, 0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            rotation=90,
            ha="left",
            va="bottom",
            fontsize=6.5,
            alpha=0.85,
        )


def _mean_curve(curves: Curves) -> list[tuple[float, float]]:
    """Average over seeds at the nimg that all of them have; with none in common, the first seed alone."""
    by_seed = [dict(points) for points in curves.values()]
    common = sorted(set.intersection(*(set(points) for points in by_seed)))
    if not common:
        return sorted(by_seed[0].items())
    return [(nimg, sum(points[nimg] for points in by_seed) / len(by_seed)) for nimg in common]
