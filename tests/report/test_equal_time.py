"""Two runs after the same seconds, from seconds and scores that are written here."""

import json
from pathlib import Path

import pytest
from made_up_study import CLAIMS, RUNS, study_config, write_study

from pygan.report.collect import collect
from pygan.report.equal_time import at_equal_time, equal_time_table, longer_table, scored_snapshots
from pygan.report.figures import run_colors
from pygan.report.study import Study

SCORES = {
    "base": {"100": 0.9, "200": 0.8, "300": 0.7},
    "diffaug": {"100": 0.6, "200": 0.5, "300": 0.4},
    "aided": {"300": 0.1},
    "ticket": {"300": 0.3},
}
RATE = {"base": 1.0, "diffaug": 0.5, "aided": 0.25, "ticket": 1.0}
"""Images a second."""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Path]]:
    """`base` takes 300 s, `diffaug` 600 s; `aided` goes on from `diffaug` at 200 images and takes 400 s more."""
    files = write_study(tmp_path)
    for path in files["selected"]:
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"scores": SCORES[record["run"]]}))
    for path in files["stats"]:
        run = path.parts[-3]
        start = 200 if run == "aided" else 0
        ticks = [{"nimg": n, "seconds": (n - start) / RATE[run]} for n in range(start + 50, 301, 50)]
        path.write_text("\n".join(map(json.dumps, ticks)))
    for path in files["run_json"]:
        record = json.loads(path.read_text())
        start = 200 if record["run"] == "aided" else 0
        path.write_text(json.dumps(record | {"seconds": (300 - start) / RATE[record["run"]], "nimg": 300}))
    return files


@pytest.fixture
def study(files: dict[str, list[Path]]) -> Study:
    runs = RUNS | {"aided": RUNS["aided"] | {"continues": {"run": "diffaug", "nimg": 200}}}
    return collect(study_config(runs=runs), files)


def test_each_is_taken_where_it_was_when_the_faster_one_ended(study: Study) -> None:
    found = at_equal_time(study, "diffaug", "base")
    assert found.budgets == {0: 300.0, 1: 300.0, 2: 300.0}
    assert found.nimg == {seed: (100, 300) for seed in (0, 1, 2)}  # at 300 s diffaug has seen 150 images
    assert found.scores[0] == (0.6, 0.7)
    assert found.improvement.mean == pytest.approx(0.1)


def test_a_run_that_continues_another_has_its_snapshots(study: Study) -> None:
    assert scored_snapshots(study, "aided", 0) == {100: 0.6, 200: 0.5, 300: 0.1}
    found = at_equal_time(study, "aided", "diffaug")  # 600 s: aided has seen 250 images, 400 s + 200 s
    assert found.nimg[0] == (200, 300) and found.scores[0] == (0.5, 0.4)


def test_the_search_for_a_ticket_counts(study: Study) -> None:
    found = at_equal_time(study, "ticket", "diffaug")  # the ticket needs the 600 s of diffaug before it starts
    assert found.budgets[0] == 600.0 and found.scores == {}
    rows = {
        row[0].text: [cell.text for cell in row[1:]] for row in equal_time_table(study, run_colors(list(RUNS))).rows
    }
    assert rows["ticket"][1] == "no scored snapshot of both that early" and rows["ticket"][-1] == "0"
    assert rows["diffaug"] == ["5 min 00 s", "100", "0.600", "0.700", "0.100", "3 of 3"]


def test_a_run_that_got_the_seconds_of_the_arm(files: dict[str, list[Path]]) -> None:
    claims = [CLAIMS[0] | {"equal_time": "ticket"}, CLAIMS[1]]
    study = collect(study_config(claims=claims), files)
    (row,) = longer_table(study, study.verdicts(), run_colors(list(RUNS))).rows
    assert [cell.text for cell in row[:2]] == [
        "diffaug",
        "0.67\N{MULTIPLICATION SIGN}",
    ]  # 600 s against 300 s and the search for 600 s
    # means of 183, 211, 212 and of 196, 202, 214
    assert [cell.text for cell in row[3:]] == ["202", "204", "2", "3 of 3"]
