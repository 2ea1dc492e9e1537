"""Class-wise results: tables in the order of the tail, and which classes left the others, and when."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_up_study import RUNS, SEEDS, study_config, write_study

from pipeline.report import main
from pygan.report.classes import class_sections, class_tables, departures_of
from pygan.report.collect import collect
from pygan.report.figures import run_colors
from pygan.report.study import Study
from pygan.report.text import NONE

NAMES = ("snow", "coast", "desert")
COUNTS = (10, 300, 40)
"""By falling number: coast, desert, snow."""
DIVERSITY = {"coast": 0.9, "desert": 0.6, "snow": 0.3}


def add_classes(files: dict[str, list[Path]], runs: tuple[str, ...] = ("base", "diffaug")) -> None:
    """Give runs class-wise measurements, and one of them the singular values of three classes."""
    for path in files["manifest"]:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"class_names": NAMES}))
    for path in [*files["metrics"], *files["anchors"]]:
        record = json.loads(path.read_text())
        if (record["run"] in runs and record["subject"] == "run") or record["subject"] == "real":
            record["metrics"] |= measured(record["seed"] or 0)
            path.write_text(json.dumps(record))
    for path in files["run_json"]:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"class_counts": COUNTS}))
    for path in files["stats"]:
        if path.parent.parent.name == runs[0]:
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            for i, line in enumerate(lines):
                values = {0: 0.5 + 0.1 * i, 1: 0.5, 2: 0.5 + 0.02 * i}
                line |= {f"GroupSpectral/gain/{c}": value for c, value in values.items()}
                line |= {f"GroupSpectral/bias/{c}": 0.5 for c in values}
            path.write_text("\n".join(map(json.dumps, lines)) + "\n")


def measured(seed: int) -> dict[str, Any]:
    """Diversity and kernel distance; the groups are one class each."""
    found = {}
    for measure, sign in (("diversity", 1), ("kid", -1)):
        network = "_mobilenet_v2" if measure == "kid" else ""
        values = {name: sign * value + seed / 100 for name, value in DIVERSITY.items()}
        for group, names in (("intra", DIVERSITY), ("head", ["coast"]), ("middle", ["desert"]), ("tail", ["snow"])):
            classes = {
                name: {"value": values[name], "interval": None, "train": COUNTS[NAMES.index(name)], "real": 70}
                for name in names
            }
            mean = sum(entry["value"] for entry in classes.values()) / len(classes)
            entry = {"value": mean, "interval": None, "protocol": f"{measure} {group}", "classes": classes}
            found[f"{measure}_{group}{network}"] = entry
    return found


@pytest.fixture
def study(tmp_path: Path) -> Study:
    files = write_study(tmp_path)
    add_classes(files)
    return collect(study_config(), files)


def rows_of(table: Any) -> dict[str, list[str]]:
    return {cells[0].text: [cell.text for cell in cells[1:]] for cells in table.rows}


def test_a_table_for_every_measure_with_groups_and_classes(study):
    (diversity, bars), (kid, _) = class_tables(study, run_colors(list(RUNS)))
    assert [plot.alt for plot in bars] == [
        f"{run}: one bar for each of coast, desert, snow" for run in ("base", "diffaug")
    ]
    assert [plot.svg.count(">base<") for plot in bars] == [1, 1]  # a title, and the name of the ticks
    assert diversity.title.startswith("Diversity within classes ↑") and kid.title.startswith("KID (mobilenet_v2)")
    assert diversity.headers == (
        "class",
        "training pictures",
        "real test pictures",
        "base",
        "diffaug",
        "real training pictures",
    )
    rows = rows_of(diversity)
    assert list(rows) == ["all classes", "head", "middle", "tail", "coast", "desert", "snow"]
    assert rows["coast"] == ["300", "70", "0.910", "0.910", "0.900"]  # mean of seeds 0, 1, 2; the anchor has one
    assert rows["tail"] == [NONE, NONE, "0.310", "0.310", "0.300"]
    assert rows["all classes"][2] == "0.610"
    assert diversity.rows[4][3].each == "0.900, 0.910, 0.920"


def test_overall_tables_leave_class_wise_numbers_out(study):
    assert study.metric_names() == ["fd_mobilenet_v2", "kid_mobilenet_v2", "precision", "recall"]
    assert study.values("base", "diversity_tail") == {0: 0.3, 1: 0.31, 2: 0.32}


def test_a_class_has_left_from_where_it_stays_above_the_others():
    values = {
        0: {1: 1.0, 2: 2.0, 3: 1.0, 4: 2.0, 5: 3.0},  # back at 3: left at 4
        1: {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0},
        2: {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.6},
        3: {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0},
        4: {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0},
    }
    assert departures_of(values) == {0: 4, 2: 5}
    assert departures_of({}) == {}
    assert departures_of({0: {1: 1.0}}) == {}


def test_the_run_that_reported_singular_values_has_a_section(study):
    (section,) = class_sections(study, run_colors(list(RUNS)))
    assert section.run == "base" and len(section.plots) == 2
    # the median is desert's: snow is above 1.5 times it where 0.5 + 0.1 i > 0.75 + 0.03 i, from i = 4 on
    nimg = study.stats["base", SEEDS[0]][4]["nimg"]
    assert section.note == f"gains that left those of the others: snow after {nimg:,.0f} images"
    assert "coast, desert, snow" in section.plots[0].alt


@pytest.mark.parametrize("classes", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_page_has_the_section_only_where_there_are_classes(tmp_path, classes):
    files = write_study(tmp_path / "study")
    if classes:
        add_classes(files)
    of_base = {"run_json": files["run_json"][:1], "stats": files["stats"][:1], "metrics": files["metrics"][:1]}
    config = study_config(claims=[], seeds=[0], runs={"base": RUNS["base"]})
    main({"stage": "report", "config": config}, inputs=of_base | {"manifest": files["manifest"]}, out=tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert ('id="classes"' in html) == ("Which classes collapse first" in html) == classes


def test_a_study_of_one_tick_and_no_names(tmp_path):
    files = write_study(tmp_path)
    add_classes(files)
    for path in files["stats"]:
        path.write_text(path.read_text().splitlines()[0] + "\n")
    for path in files["manifest"]:
        path.write_text(json.dumps({"splits": {}}))
    (section,) = class_sections(collect(study_config(), files), run_colors(list(RUNS)))
    assert "class 0" in section.plots[0].alt and section.note == "no class's gains left those of the others"
    assert section.plots[0].svg.startswith("<svg")
