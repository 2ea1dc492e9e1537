"""Memorization in the report: what is beside what, the alarm, and judges that took part in training."""

import json
from pathlib import Path
from typing import Any

import pytest

from pygan.report.collect import collect
from pygan.report.copies import copies_sentence, copies_tables, judge_cautions
from pygan.report.page import render
from pygan.report.study import Study
from pygan.report.tables import protocol_boxes
from pygan.report.text import metric_title

Files = dict[str, list[Path]]
COLORS = {run: "#000000" for run in ("base", "diffaug", "ticket", "aided")}
PIXELS = {"network": "pixels", "reference_split": "train", "n_real": 100, "n_gen": 1500}
JUDGE = {"network": "hed_vgg16 32px", "reference_split": "test", "n_real": 1583, "n_gen": 500}


@pytest.fixture
def study(config: dict[str, Any], study_files: Files) -> Study:
    """The made-up study; base's seed 2 copies, and a second judge took part in the training of `aided`."""
    for path in study_files["metrics"]:
        record = json.loads(path.read_text())
        copying = (record["run"], record["seed"]) == ("base", 2)
        share = 0.5 if copying else 0.1
        numbers = {
            "memorized_pictures": {"value": share - 0.1, "generated": share, "held_out": 0.1, "record": PIXELS},
            "training_kid_mobilenet_v2": {
                "value": -0.01 if copying else 0.2,
                "held_out": 0.0,
                "copying": copying,
                "record": PIXELS | {"network": "mobilenet_v2"},
            },
            "fd_hed_vgg16": {"value": 9.0, "record": JUDGE | {"judge_in_training": record["run"] == "aided"}},
        }
        record["metrics"] |= {name: {"protocol": f"line of {name}", **entry} for name, entry in numbers.items()}
        path.write_text(json.dumps(record))
    return collect(config, study_files)


def test_a_difference_stands_above_both_of_its_sides(study: Study) -> None:
    (table,) = copies_tables(study, COLORS)
    assert table.headers == ("run", "training pictures", "Memorized (pictures)", table.headers[3])
    base = next(row for row in table.rows if row[0].text == "base")
    # (0 + 0 + 0.4) / 3, (0.1 + 0.1 + 0.5) / 3
    assert (base[1].text, base[2].text) == ("100", "0.133")
    assert base[2].each == "generated 0.233, held out 0.100" and base[2].interval
    assert base[3].each == "held out 0.000"
    assert {row[0].text for row in table.rows} == {"base", "diffaug", "ticket", "aided"}  # no anchor was measured


def test_the_alarm_is_told_with_run_and_seed(study: Study) -> None:
    sentence = copies_sentence(study)
    assert sentence.startswith("Alarm of copying") and "in base (seed 2, KID to the training pictures" in sentence
    for evaluation in study.evaluations:
        evaluation.metrics["training_kid_mobilenet_v2"].beside["copying"] = False
    assert copies_sentence(study).startswith("No alarm of copying")


def test_a_judge_that_took_part_is_named_with_the_runs(study: Study) -> None:
    assert judge_cautions(study) == [
        "hed_vgg16 32px, which judges, also took part in the training of aided: its numbers favor them."
    ]


def test_every_judge_and_reference_has_a_box_of_its_own(study: Study) -> None:
    boxes = dict(protocol_boxes(study))
    assert list(boxes) == [
        "land, mobilenet_v2 against test",
        "land, pixels against train",
        "land, mobilenet_v2 against train",
        "land, hed_vgg16 32px against test",
    ]
    lines = dict(boxes["land, hed_vgg16 32px against test"])
    assert lines["n_gen"] == "500" and lines["fd_hed_vgg16"] == "line of fd_hed_vgg16"
    assert "n_real" not in dict(boxes["land, pixels against train"])


def test_the_page_shows_them_and_does_without_them(study: Study, config: dict[str, Any], study_files: Files) -> None:
    page = render(study, study.verdicts())
    assert "Memorized (pictures)" in page and "Alarm of copying" in page and "which judges, also took part" in page
    for evaluation in study.evaluations:
        for name in [name for name, measured in evaluation.metrics.items() if measured.record]:
            del evaluation.metrics[name]
    page = render(study, study.verdicts())
    assert "Memorized" not in page and "copying" not in page


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("fd_mobilenet_v2", "Fréchet distance (mobilenet_v2)"),
        ("training_fd_mobilenet_v2", "Fréchet distance to the training pictures (mobilenet_v2)"),
        ("is_mobilenet_v2", "Classifier score (mobilenet_v2)"),
        ("recall", "Recall"),
        ("recall_hed_vgg16", "Recall (hed_vgg16)"),
        ("memorized_moved", "Memorized (moved)"),
        ("kid_intra_mobilenet_v2", "KID (intra_mobilenet_v2)"),
    ],
)
def test_titles(metric: str, title: str) -> None:
    assert metric_title(metric) == title
