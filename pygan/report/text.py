"""Numbers and names as readers see them."""

import math
import re
from collections.abc import Iterable, Sequence

METRIC_TITLES = {
    "fd": "Fréchet distance",
    "fid": "FID",
    "kid": "KID",
    "is": "Classifier score",
    "cmmd": "CMMD",
    "training_kid": "KID to the training pictures",
    "training_fd": "Fréchet distance to the training pictures",
}
LOWER_IS_BETTER = {"fd", "fid", "kid", "cmmd"}
HIGHER_IS_BETTER = {"precision", "recall", "density", "coverage", "diversity", "is"}
NONE = "\N{EN DASH}"
"""An empty cell."""


def keep_units(text: str) -> str:
    """Bind numbers to the percent sign or unit after them, so that no line breaks in between."""
    return re.sub(r"(?<=\d) (?=%|(?:s|min|px)\b)", "\N{NO-BREAK SPACE}", text)


def metric_title(metric: str) -> str:
    """Return a metric's name for readers: `fd_mobilenet_v2` -> "Fréchet distance (mobilenet_v2)"."""
    family = next((name for name in METRIC_TITLES if f"{metric}_".startswith(f"{name}_")), metric.partition("_")[0])
    title, network = METRIC_TITLES.get(family, family.capitalize()), metric[len(family) + 1 :]
    return f"{title} ({network})" if network else title


def better(metric: str) -> str | None:
    """Return "lower" or "higher", the better values of a metric; None where it is not known."""
    family = metric.partition("_")[0]
    return "lower" if family in LOWER_IS_BETTER else "higher" if family in HIGHER_IS_BETTER else None


def number(value: float, decimals: int | None = None) -> str:
    """Format with about three significant digits, or with `decimals` places; a real minus sign."""
    if decimals is None:
        decimals = decimals_for([value])
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "\N{MINUS SIGN}")


def decimals_for(values: Iterable[float]) -> int:
    """Return the decimal places that show the largest of `values` with three significant digits, at most four."""
    largest = max((abs(value) for value in values), default=0.0)
    return 3 if largest == 0 else min(4, max(0, 2 - math.floor(math.log10(largest))))


def optional(value: float | None, decimals: int) -> str:
    """Format like `number`; a dash for None."""
    return NONE if value is None else number(value, decimals)


def duration(seconds: float) -> str:
    """Format seconds as "8.4 s", "73 s" or "12 min 05 s"."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def count(n: int | None) -> str:
    """Format a number of pictures; None means all there are."""
    return "all" if n is None else f"{n:,}"


def counted(n: int, noun: str) -> str:
    """Format as "1 seed" or "3 seeds"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def interval_text(interval: Sequence[float] | None, decimals: int) -> str:
    """Format an interval as "1.2 to 3.4"; empty for None."""
    return "" if interval is None else f"{number(interval[0], decimals)} to {number(interval[1], decimals)}"


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of at least one value."""
    return math.fsum(values) / len(values)
