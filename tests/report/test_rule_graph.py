"""The drawing of the rules: who stands below whom, and edges that say nothing new."""

import re
from xml.etree import ElementTree

from pygan.report.rule_graph import _layers, _places, _without_detours, rule_graph

EDGES = [("data", "train"), ("train", "probe"), ("probe", "train"), ("train", "select"), ("data", "select")]


def test_a_rule_stands_below_what_it_takes_from() -> None:
    layers = _layers(["data", "train", "probe", "select"], EDGES)
    assert layers[0] == ["data"] and layers[1] == ["train"] and sorted(layers[2]) == ["probe", "select"]
    places = _places(layers)
    assert places["data"][1] < places["train"][1] < places["probe"][1]
    assert places["probe"][0] != places["select"][0]


def test_an_edge_beside_a_longer_way_is_left_out() -> None:
    assert ("data", "select") not in _without_detours(EDGES)
    assert set(_without_detours(EDGES)) == set(EDGES) - {("data", "select")}


def test_boxes_have_jobs_and_seconds() -> None:
    graph = {"jobs": {"data": 1, "train": 12, "select": 2}, "edges": [*EDGES, ["train", "train"]]}
    plot = rule_graph(graph, {"train": (600.0, 12)})
    svg = ElementTree.fromstring(plot.svg)
    assert len(svg.findall("rect")) == 3 and len(svg.findall("path")) == 2 * 2  # two curves with their arrowheads
    assert "12 jobs, 10 min 00 s" in plot.svg and "1 job<" in plot.svg
    assert "data before train" in plot.alt
    left, top, width, height = (float(x) for x in re.search(r'viewBox="([^"]+)"', plot.svg)[1].split())
    for box in svg.findall("rect"):
        x, y, w, h = (float(box.get(key)) for key in ("x", "y", "width", "height"))
        assert left <= x and x + w <= left + width and top <= y and y + h <= top + height
