"""A panel of the report: a small SVG that stands in the page itself and takes its ink from the page's style sheet.

Light and dark pages share one drawing. Nothing here changes matplotlib's global state for others.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = {"ink": "#0a0b0c", "faint": "#0d0e0f", "paper": "#1a1b1c"}
"""Stand-ins that no run has as its color: `_clean` turns them into the page's variables `--plot-ink` and so on."""
MARGINS = (0.66, 0.12, 0.44, 0.44)
"""Inches left, right, above and below the axes. Fixed ones take half the time of a layout that measures the text."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One panel as SVG markup, for a light and a dark page alike."""

    svg: str
    alt: str
    """What the panel shows, in words."""


def plot(
    draw: Callable[[Axes, Mapping[str, str]], None],
    alt: str,
    inches: tuple[float, float],
    margins: tuple[float, float, float, float] = MARGINS,
) -> Plot:
    """Return one panel.

    Args:
        draw: told the axes and the colors of `INK`, which follow the page.
        alt: what the panel shows, in words.
        inches: width and height.
        margins: inches left, right, above and below the axes.
    """
    return Plot(svg=_svg(draw, inches, margins), alt=alt)


def beside(names: Iterable[str], below: float = MARGINS[3]) -> tuple[float, float, float, float]:
    """Return the margins that leave room for names of rows to the left."""
    longest = max((len(name) for name in names), default=0)
    return 0.2 + 0.072 * longest, 0.12, 0.42, below


def _svg(
    draw: Callable[[Axes, Mapping[str, str]], None],
    inches: tuple[float, float],
    margins: tuple[float, float, float, float],
) -> str:
    style = {
        "font.size": 8,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.edgecolor": INK["ink"],
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "grid.color": INK["faint"],
        "grid.linewidth": 0.6,
        "text.color": INK["ink"],
        "axes.labelcolor": INK["ink"],
        "axes.titlecolor": INK["ink"],
        "xtick.color": INK["ink"],
        "ytick.color": INK["ink"],
        "legend.frameon": False,
        "legend.fontsize": 7.5,
        "legend.handlelength": 1.2,
        "svg.fonttype": "none",
        "svg.hashsalt": "pygan",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=inches)
        (width, height), (left, right, above, below) = inches, margins
        box = (left / width, below / height, 1 - (left + right) / width, 1 - (above + below) / height)
        axes = figure.add_axes(box)
        axes.set_axisbelow(True)
        draw(axes, INK)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _clean(buffer.getvalue())


def _clean(svg: str) -> str:
    """Make a stand-alone SVG fit to stand inside a page.

    What would reach beyond the drawing goes (its style sheet, its size, names of its parts), the ids it refers to
    become its own, and ink becomes a variable of the page.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*pt" height="[^"]*pt"|(<svg[^>]*?) height="[^"]*pt"', r"\1\2", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"font: ([^;\"]*?px)[^;\"]*", r"font: \1 sans-serif", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    for name, color in INK.items():
        svg = svg.replace(color, f"var(--plot-{name})")
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    own = hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{own}-", svg)
    return re.sub(r"\n\s*", "\n", svg)
