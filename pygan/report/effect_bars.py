"""An effect with its interval as a small bar, all on one scale: multiples of each claim's minimum effect."""

from collections.abc import Sequence

from pygan.report.evidence import Verdict

REACH = (2.0, 8.0)
"""Least and largest end of the scale, in minimum effects; an interval that goes farther ends in an arrow."""
SIZE = (320, 42)
MARGIN = 8
LINE = 14
"""Height of the bar's line in the drawing."""


def effect_bars(verdicts: Sequence[Verdict]) -> list[str]:
    """Return one SVG per verdict; empty for a claim without an effect."""
    ends = [abs(x) for v in verdicts for x in _in_minimum_effects(v)]
    reach = min(max([1.15 * x for x in ends] + [REACH[0]]), REACH[1])
    return [_bar(v, reach) for v in verdicts]


def _in_minimum_effects(v: Verdict) -> list[float]:
    """Return the mean and the ends of its interval; empty where there is no effect."""
    if v.effect.mean is None:
        return []
    return [x / v.claim.minimum_effect for x in (v.effect.mean, *(v.effect.ci95 or ()))]


def _bar(v: Verdict, reach: float) -> str:
    values = _in_minimum_effects(v)
    if not values:
        return ""
    width, height = SIZE

    def x(value: float) -> float:
        inside = max(-reach, min(reach, value))
        return width / 2 + inside / reach * (width / 2 - MARGIN)

    color = f"var(--{v.verdict.replace(' ', '-')})"
    parts = [
        _line(MARGIN, LINE, width - MARGIN, LINE, "var(--line)", 1),
        _line(x(0), LINE - 10, x(0), LINE + 10, "var(--plot-ink)", 1.2),
        _line(x(1), LINE - 10, x(1), LINE + 10, "var(--plot-ink)", 1, dashed=True),
        _text(x(0), "0"),
        _text(x(1), "1" if reach > 4 else "minimum effect"),
        _text(MARGIN, "worse", "start"),
        _text(width - MARGIN, "better", "end") if reach > 2.5 else "",
    ]
    if len(values) == 3:
        low, high = values[1:]
        parts.append(_line(x(low), LINE, x(high), LINE, color, 7, opacity=0.38))
        parts += [_arrow(x(end), color, 1 if end > 0 else -1) for end in (low, high) if abs(end) > reach]
    parts.append(f'<circle cx="{x(values[0]):.1f}" cy="{LINE}" r="5" fill="{color}"/>')
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{_words(values)}">{"".join(parts)}</svg>'


def _words(values: Sequence[float]) -> str:
    interval = f", 95 % interval {values[1]:.2f} to {values[2]:.2f}" if len(values) == 3 else ""
    return f"improvement of {values[0]:.2f} minimum effects{interval}"


def _line(
    x0: float, y0: float, x1: float, y1: float, color: str, width: float, *, dashed: bool = False, opacity: float = 1
) -> str:
    dashes = ' stroke-dasharray="3 2.5"' if dashed else ""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{color}" stroke-width="{width}" '
        f'stroke-opacity="{opacity}"{dashes}/>'
    )


def _arrow(x: float, color: str, direction: int) -> str:
    tip = x + 7 * direction
    return f'<path d="M{x:.1f} {LINE - 6}L{tip:.1f} {LINE}L{x:.1f} {LINE + 6}Z" fill="{color}" fill-opacity="0.6"/>'


def _text(x: float, text: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{SIZE[1] - 3}" text-anchor="{anchor}" font-size="10.5" fill="var(--soft)">{text}</text>'
    )
