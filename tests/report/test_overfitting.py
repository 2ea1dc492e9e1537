"""Logits at the end of training: means, gap and share from statistics that are written here."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_up_study import RUNS, study_config, write_study

from pygan.report.collect import collect
from pygan.report.figures import run_colors
from pygan.report.overfitting import final_logits, overfitting_plot, overfitting_sentence, overfitting_table
from pygan.report.study import Study


def written(root: Path, logits: dict[str, tuple[float, float, float]]) -> Study:
    """A study whose runs end with these logits of training, held-out and generated pictures, plus the seed."""
    files = write_study(root)
    for path in files["stats"]:
        run, seed = path.parts[-3], int(path.parts[-2].removeprefix("seed"))
        ticks: list[dict[str, Any]] = [{"nimg": nimg, "seconds": 1.0} for nimg in range(10, 110, 10)]
        for tick in ticks:
            late = tick["nimg"] >= 80  # the last fifth of 10 to 100 begins at 82
            values = [value + seed for value in logits[run]] if late else [50.0, 50.0, 50.0]
            tick |= dict(zip(("logits/train", "logits/validation", "logits/generated"), values, strict=True))
        ticks[-1]["logits/validation"] = None  # a tick without a number does not count
        path.write_text("\n".join(map(json.dumps, ticks)))
    return collect(study_config(), files)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return written(
        tmp_path,
        {"base": (2.0, -1.0, -2.0), "diffaug": (1.0, 0.75, 0.0), "ticket": (0.2, 0.1, 0.0), "aided": (1.0, 1.0, 0.0)},
    )


def test_means_gap_and_share(study: Study) -> None:
    base = final_logits(study, "base")
    assert base is not None and base.seeds == 3
    assert (base.train, base.held_out, base.generated) == (3.0, 0.0, -1.0)  # seeds 0, 1, 2 add 1 on average
    assert base.gap == 3.0 and base.share == 0.75
    assert final_logits(study, "ticket").share is None  # 0.2 apart
    assert final_logits(study, "diffaug").share == 0.25 and final_logits(study, "aided").share == 0.0


def test_the_three_raw_means_are_printed(study: Study) -> None:
    rows = {
        row[0].text: [cell.text for cell in row[1:]] for row in overfitting_table(study, run_colors(list(RUNS))).rows
    }
    assert rows["base"] == ["3.00", "0.00", "\N{MINUS SIGN}1.00", "3.00", "75 %", "3 of 3"]
    assert rows["ticket"][-2:] == ["too near to say", "3 of 3"]
    sentence = overfitting_sentence(study)
    assert "D of base has moved held-out pictures 75 %" in sentence and "D of aided 0 %" in sentence
    assert ">held out<" in overfitting_plot(study).svg


def test_a_study_without_statistics() -> None:
    study = collect(study_config(), {})
    assert final_logits(study, "base") is None and overfitting_plot(study) is None
    assert overfitting_sentence(study) == "" and overfitting_table(study, {}).rows == ()
