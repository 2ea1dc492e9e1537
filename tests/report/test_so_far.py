"""The report of a study that is still running."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_study import study_config, write_study
from typer.testing import CliRunner

from pygan.cli import app
from pygan.report.collect import collect
from pygan.report.so_far import finished_files, write_so_far


def test_whatever_has_finished_is_found(tmp_path: Path) -> None:
    files = write_study(tmp_path)
    found = finished_files(tmp_path / "results", study_config()["runs"])
    everything = {name: sorted(paths) for name, paths in files.items() if name != "contact_sheet"}
    assert {name: sorted(found[name]) for name in everything} == everything


def test_a_study_half_done_has_a_page_with_the_seeds_of_each_row(tmp_path: Path) -> None:
    write_study(tmp_path)
    results = tmp_path / "results"
    (results / "config.json").write_text(json.dumps(study_config()))
    shutil.rmtree(results / "evaluate/aided")
    for gone in ("evaluate/ticket/seed2", "train/ticket/seed2", "train/aided/seed0", "masks", "anchors/untrained"):
        shutil.rmtree(results / gone)
    shutil.copytree(results / "train/base", results / "train/dropped")  # a run that the study has no longer
    shutil.copytree(results / "evaluate/base", results / "evaluate/dropped")
    page = write_so_far(results)
    found = json.loads((page.parent / "summary.json").read_text())
    assert {run["run"]: len(run["seeds"]) for run in found["runs"]} == {"base": 3, "diffaug": 3, "ticket": 2}
    verdicts = {claim["id"]: (claim["verdict"], claim["n_seeds"]) for claim in found["claims"]}
    assert verdicts["diffaug"] == ("supported", 3) and verdicts["vision-aided"] == ("undecided", 0)
    assert verdicts["ticket"][1] == 2
    assert "diffaug" in page.read_text()
    assert page == results / "report/so_far/index.html"  # not the file that the workflow declares


def test_the_verb(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 66 and "config.json" in result.output
    write_study(tmp_path)
    (tmp_path / "results/config.json").write_text(
        json.dumps(study_config() | {"seeds": [0]} | {"runs": {}, "claims": []})
    )
    result = CliRunner().invoke(app, ["report", str(tmp_path / "results")])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("nothing", [True, False])
def test_nothing_finished_is_no_mistake(tmp_path: Path, nothing: bool) -> None:
    study = collect(study_config(), finished_files(tmp_path, {} if nothing else study_config()["runs"]))
    assert not study.evaluations


def test_the_program_without_its_script() -> None:
    """`python -m pygan` is how a running study has its report rendered."""
    found = subprocess.run([sys.executable, "-m", "pygan", "report", "--help"], capture_output=True, text=True)
    assert found.returncode == 0 and "Usage: pygan report" in found.stdout
