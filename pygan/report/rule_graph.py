"""The graph of a study's rules as SVG: which stage feeds which, with the number of jobs and their seconds.

Layers run downwards so that the drawing fits a phone: a rule stands below all that it takes files from, and within its
layer near the middle of them (the barycenter rule of Sugiyama, Tagawa and Toda, "Methods for visual understanding of
hierarchical system structures", IEEE Transactions on Systems, Man and Cybernetics, 1981).
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from pygan.report.plots import Plot
from pygan.report.text import duration

BOX = (112, 40)
"""Width and height of a rule, in units of the drawing."""
GAPS = (14, 34)
"""Between the boxes of a layer, and between layers."""


def rule_graph(graph: Mapping[str, Any], stage_seconds: Mapping[str, tuple[float, int]]) -> Plot:
    """Draw the rules of a study.

    Args:
        graph: `jobs`, rule -> number of its jobs, rules by their first possible moment, and `edges`, pairs (rule, rule
            that takes its files).
        stage_seconds: rule -> seconds summed over its jobs, number of jobs; rules without are drawn without.
    """
    jobs = dict(graph["jobs"])
    edges = [(a, b) for a, b in graph["edges"] if a in jobs and b in jobs and a != b]
    edges = _without_detours(edges)
    layers = _layers(list(jobs), edges)
    places = _places(layers)
    width = max(x for x, _ in places.values()) + BOX[0] / 2 + 1
    height = len(layers) * (BOX[1] + GAPS[1]) - GAPS[1] + 2
    drawn = [(a, b) for a, b in edges if (b, a) not in edges or places[a][1] < places[b][1]]
    parts = [_edge(places[a], places[b], both_ways=(b, a) in edges) for a, b in drawn]
    parts += [_box(rule, jobs[rule], places[rule], stage_seconds.get(rule)) for rule in jobs]
    box = f'viewBox="-1 -1 {width + 2:.0f} {height + 2:.0f}" style="max-width: {1.4 * width:.0f}px"'
    alt = "rules: " + "; ".join(f"{a} before {b}" for a, b in edges)
    return Plot(svg=f"<svg {box}>{''.join(parts)}</svg>", alt=alt)


def _without_detours(edges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out an edge where a longer way leads to the same rule."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        if start == goal:
            return True
        seen.add(start)
        return any(reaches(rule, goal, seen) for rule in sorted(after.get(start, ())) if rule not in seen)

    return [(a, b) for a, b in edges if not any(reaches(c, b, {a}) for c in sorted(after[a]) if c != b)]


def _layers(rules: list[str], edges: list[tuple[str, str]]) -> list[list[str]]:
    """Place every rule below all it takes files from; a cycle (train, probe, train) is cut before its first rule."""
    place = {rule: number for number, rule in enumerate(rules)}
    before = {rule: [a for a, b in edges if b == rule and place[a] < place[b]] for rule in rules}
    depth: dict[str, int] = {}
    for rule in rules:
        depth[rule] = 1 + max((depth[a] for a in before[rule]), default=-1)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for rule in rules:
        layers[depth[rule]].append(rule)
    for number, layer in enumerate(layers[1:], start=1):
        above = {rule: place for place, rule in enumerate(layers[number - 1])}

        def middle(rule: str, above: Mapping[str, int] = above) -> float:
            own = [above[a] for a in before[rule] if a in above]
            return sum(own) / len(own) if own else 0.0

        layer.sort(key=middle)
    return layers


def _places(layers: list[list[str]]) -> dict[str, tuple[float, float]]:
    """Return the middle of the upper side of every box."""
    widest = max(len(layer) for layer in layers)
    total = widest * (BOX[0] + GAPS[0]) - GAPS[0]
    places = {}
    for number, layer in enumerate(layers):
        own = len(layer) * (BOX[0] + GAPS[0]) - GAPS[0]
        for place, rule in enumerate(layer):
            x = (total - own) / 2 + place * (BOX[0] + GAPS[0]) + BOX[0] / 2
            places[rule] = (x, number * (BOX[1] + GAPS[1]))
    return places


def _edge(start: tuple[float, float], end: tuple[float, float], *, both_ways: bool) -> str:
    """A curve from the lower side of one box to the upper side of another, with an arrowhead where files arrive."""
    (x0, y0), (x1, y1) = start, end
    y0 += BOX[1]
    bend = GAPS[1] * 0.6
    path = f"M{x0:.1f} {y0:.1f}C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    line = f'<path d="{path}" fill="none" stroke="var(--plot-ink)" stroke-opacity="0.45" stroke-width="1.2"/>'
    return line + _arrowhead(x1, y1, -1) + (_arrowhead(x0, y0, 1) if both_ways else "")


def _arrowhead(x: float, y: float, direction: int) -> str:
    """A small triangle whose tip is at (x, y); -1 points down, 1 up."""
    base = y + 5 * direction
    return f'<path d="M{x:.1f} {y:.1f}L{x - 3:.1f} {base:.1f}L{x + 3:.1f} {base:.1f}Z" fill="var(--plot-ink)"/>'


def _box(rule: str, jobs: int, place: tuple[float, float], seconds: tuple[float, int] | None) -> str:
    x, y = place
    note = f"{jobs} job{'s' if jobs != 1 else ''}" + (f", {duration(seconds[0])}" if seconds else "")
    return (
        f'<rect x="{x - BOX[0] / 2:.1f}" y="{y:.1f}" width="{BOX[0]}" height="{BOX[1]}" rx="7" fill="var(--ground)" '
        'stroke="var(--line)"/>'
        f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle" font-size="11.5" font-weight="600" '
        f'fill="var(--ink)">{escape(rule)}</text>'
        f'<text x="{x:.1f}" y="{y + 31:.1f}" text-anchor="middle" font-size="9" '
        f'fill="var(--soft)">{escape(note)}</text>'
    )
