"""How the benchmark of the operators counts, judges and reports, and what the README shows; no time is asserted."""

import importlib
import math
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """Import a module of `bench/` as its programs do."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module


def row(mode: str, **ratios: float) -> dict[str, Any]:
    peers = [{"name": name, "ratio": ratio, "gate": 2.0} for name, ratio in ratios.items()]
    facts = {"op": "bias_act", "case": "1x2x3x3", "headline": True, "allocator": "equal allocator"}
    return facts | {"mode": mode, "peers": peers}


@pytest.mark.parametrize("n", [6, 7, 9, 11, 20])
def test_the_interval_encloses_the_median_with_95_percent(load, n: int) -> None:
    median, low, high = load("paired").median_and_interval([float(i) for i in reversed(range(n))])
    assert median == statistics.median(range(n))
    assert low + high == n - 1

    def outside(dropped: int) -> float:  # how often more than n - dropped - 1 of n values lie on one side
        return 2 * sum(math.comb(n, k) for k in range(dropped + 1)) / 2**n

    assert outside(int(low)) <= 0.05 < outside(int(low) + 1)


def test_few_values_give_their_extremes(load) -> None:
    assert load("paired").median_and_interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


def test_gates_are_judged_where_they_count(load) -> None:
    judged = load("ops").judged
    peers = judged(row("forward", slow=2.0, fast=1.9), True)["peers"]
    assert [peer["met"] for peer in peers] == [True, False]
    peers = judged(row("forward", slow=2.0), False)["peers"]
    assert (peers[0]["met"], peers[0]["gate"]) == (None, None)


def test_means_are_geometric_and_pair_the_rounds(load) -> None:
    cases = [{"pygan": [1.0, 2.0, 5.0], "formula": [2.0, 2.0]}, {"pygan": [4.0, 8.0], "formula": [8.0, 32.0]}]
    means = load("measure_op").mean_rounds(cases)
    assert means == {"pygan": pytest.approx([2.0, 4.0]), "formula": pytest.approx([4.0, 8.0])}


def test_the_readme_receives_the_headlines(load) -> None:
    readme: ModuleType = load("readme")
    training = row("forward + backward", formula=3.04, **{"torch.compile": 1.5})
    hidden = row("forward", formula=9.0) | {"allocator": "as shipped"}
    result = {"machine": {"processor": "P"}, "versions": {"torch": "2.14"}, "threads": 1}
    result["rows"] = [hidden, row("forward", formula=6.0), training]
    text = "before\n<!-- bench:ops -->\nold\n<!-- /bench:ops -->\nafter\n"
    table = readme.of_operators(result)
    once = readme.with_table(text, "ops", table)
    assert "| `bias_act` | 1x2x3x3 | 6.0x | 3.0x |  | 1.5x |" in once
    assert "old" not in once and once.startswith("before\n") and once.endswith("\nafter\n")
    assert readme.with_table(once, "ops", table) == once and readme.with_table(once, "study", "no place") == once


def test_the_readme_receives_the_verdicts(load) -> None:
    control = {"effect": None, "ci95": None}
    claims = [
        {"statement": "A helps.", "effect": 38.324, "ci95": [23.7, 120.9], "control": control, "verdict": "supported"},
        {"statement": "B helps.", "effect": -0.0567, "ci95": None, "control": None, "verdict": "undecided"},
    ]
    for claim, minimum in zip(claims, (10, 0.05), strict=True):
        claim["minimum_effect"] = minimum
        claim["minimum_detectable_effect"] = 49.5 if minimum == 10 else None
        claim["other_judges"] = {"fd_b": {"effect": 3649.2, "ci95": [3105.1, 4194.0]}} if minimum == 10 else {}
    result = {"command": "make reproduce", "machine": "2 cores", "seconds": 3300, "study": {"claims": claims}}
    lines = load("readme").of_study(result).splitlines()
    assert lines[0] == "`make reproduce` on 2 cores: 55.0 minutes after set-up."
    assert lines[4:6] == [
        "| A helps. | 38 (24 to 121) |  | supported | 50 | 3649 (3105 to 4194) |",
        "| B helps. | -0.057 |  | undecided |  |  |",
    ]


def test_the_readme_shows_the_measured_numbers(load) -> None:
    readme, text = load("readme"), (ROOT / "README.md").read_text()
    for name, table in readme.tables().items():
        assert table in text and readme.with_table(text, name, table) == text
