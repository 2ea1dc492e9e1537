"""Plots: one seed, missing curves and far references draw without complaint, and nothing stays changed."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest

from pygan.report import figures, plots


def test_run_colors_repeat_after_the_last() -> None:
    runs = [f"run{i}" for i in range(len(figures.RUN_COLORS) + 1)]
    colors = figures.run_colors(runs)
    assert colors["run0"] == colors[runs[-1]] != colors["run1"]


def test_curves_leave_out_missing_columns_and_nan() -> None:
    stats = {0: [{"nimg": 1.0, "a": 2.0}, {"nimg": 2.0, "a": float("nan")}], 1: [{"nimg": 1.0}]}
    assert figures.curves_of(stats, "a") == {0: [(1.0, 2.0)]}


def test_the_mean_curve_uses_common_points() -> None:
    assert figures._mean_curve({0: [(1, 2.0), (2, 4.0)], 1: [(1, 4.0), (3, 9.0)]}) == [(1, 3.0)]
    assert figures._mean_curve({0: [(2, 4.0), (1, 2.0)], 1: [(3, 9.0)]}) == [(1, 2.0), (2, 4.0)]


def test_nothing_to_draw() -> None:
    assert figures.training_curves("t", {"train": {}}, figures.PART_COLORS, "y") is None
    assert figures.values_by_run("t", {"a": {}}, {"a": "#000000"}, {"real": 1.0}) is None
    assert figures.metric_against_seconds("t", "y", {"a": []}, {"a": "#000000"}) is None
    assert figures.lines_against_seconds("t", "y", {"a": {}}, {"a": "#000000"}) is None
    assert figures.lines_over_images("t", "y", {"a": {}}, {"a": "#000000"}) is None
    assert figures.dumbbells("t", {}, {}, xlabel="x", names={}) is None


@pytest.mark.parametrize("values", [{0: 1.0}, {0: 2.0, 1: 2.0}, {0: -1.0, 1: 3.0, 2: 4.0}])
def test_values_with_references_near_and_far(values: dict[int, float]) -> None:
    references = {"near": 2.0, "as near": 2.01, "above": 1e6, "below": -1e6}
    plot = figures.values_by_run("t", {"a": values}, {"a": "#808894"}, references)
    assert ElementTree.fromstring(plot.svg).tag == "svg"
    assert "above" in plot.svg and "below" in plot.svg


def test_a_drawing_keeps_to_itself_inside_a_page() -> None:
    """No style sheet, no size, no address, no color of ink, and ids that are its own and all in use."""
    first, second = (
        figures.values_by_run("t", {"a": {0: value, 1: 2.0}}, {"a": "#808894"}, {"real": 1.0}).svg
        for value in (1.0, 3.0)
    )
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        assert own == set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))
        assert not re.search(r"<style|http|xlink|<\?xml|DejaVu|width=\"[0-9.]+pt", svg)
        assert "var(--plot-ink)" in svg and not any(color in svg for color in plots.INK.values())


def test_style_does_not_leak() -> None:
    before = dict(matplotlib.rcParams)
    plot = figures.training_curves("t", {"train": {0: [(1, 2.0)]}}, figures.PART_COLORS, "y", continued_at=1)
    assert plot is not None and dict(matplotlib.rcParams) == before
