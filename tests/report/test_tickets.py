"""What a ticket prunes, as shares and as a curve."""

import json
from pathlib import Path

import pytest
from made_up_study import FD, RUNS, study_config, write_study

from pygan.report.collect import collect
from pygan.report.figures import run_colors
from pygan.report.study import Study
from pygan.report.tickets import share_sentence, share_table, sparsity_plots


@pytest.fixture
def study(tmp_path: Path) -> Study:
    files = write_study(tmp_path)
    shares = {
        "G_conv": {"parameters": 1000, "living": 800, "sparsity": 0.2},
        "G": {"parameters": 4000, "living": 3800, "sparsity": 0.05},
        "D_conv": {"parameters": 900, "living": 900, "sparsity": 0.0},
        "all": {"parameters": 5000, "living": 4800, "sparsity": 0.04},
    }
    overlap = {"intersection_over_union": 0.5, "expected_by_chance": 0.25}
    for path in files["prune"]:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"shares": shares, "overlap_with_like": overlap}))
    return collect(study_config(), files)


def test_shares_of_every_part(study: Study) -> None:
    table = share_table(study, run_colors(list(RUNS)))
    assert table.headers[1:5] == (
        "pruned of convolutions of G",
        "pruned of all of G",
        "pruned of convolutions of D",
        "pruned of all parameters",
    )
    (row,) = table.rows
    assert [cell.text for cell in row] == ["ticket", "20.0 %", "5.0 %", "0.0 %", "4.0 %", "50.0 %", "3 of 3"]
    assert row[1].each == "200 of 1,000" and row[5].each == "by chance 25.0 %"
    assert share_sentence(study) == (
        "ticket prunes 20.0 % of the convolutions of G, which is 5.0 % of the 4,000 parameters of G and 4.0 % of the "
        "5,000 of both networks."
    )


def test_the_curve_begins_at_the_dense_run(study: Study) -> None:
    (plot,) = sparsity_plots(study)
    assert plot.alt.startswith("Distance against pruned share") and ">lottery<" in plot.svg
    assert len(FD["ticket"]) == 3 and sparsity_plots(collect(study_config(), {})) == []


def test_rounds_without_shares_say_nothing(tmp_path: Path) -> None:
    study = collect(study_config(), write_study(tmp_path))
    assert share_sentence(study) == "" and share_table(study, run_colors(list(RUNS))).headers[1].startswith("overlap")
