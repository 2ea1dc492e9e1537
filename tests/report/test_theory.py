"""The theory in the report: sentences and tables say what the record holds, and a study may have nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import report, theory
from pygan.data.pictures import ArrayPicture
from pygan.data.store import write_store
from pygan.errors import DataError
from pygan.report import figures, plots
from pygan.report.theory import parts, theory_summary

SMALL = {
    "per_decade": 2,
    "gaussian": {"samples": [3, 10], "offsets": [0.0, 0.3], "trials": 200},
    "finite": {"atoms": 4, "samples": [10, 100], "trials": 5, "shown": [1.0]},
    "images": {"dataset": "two", "components": 2, "samples": [5, 50], "trials": 3},
}


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels are planned, but not drawn: that takes half a second each."""
    monkeypatch.setattr(plots, "_svg", lambda *arguments: "<svg></svg>")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`theory.json` of a small study with pictures of two brightnesses."""
    folder = tmp_path_factory.mktemp("theory")
    noise = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        img = (
            60 + 90 * (torch.arange(30) % 2)[:, None, None, None] + 40 * torch.rand(30, 3, 8, 8, generator=noise)
        ).byte()
        items = [(ArrayPicture(f"picture {i}", picture.numpy()), i % 2) for i, picture in enumerate(img)]
        write_store(folder / f"{split}.lmdb", items, resolution=8)
    (folder / "manifest.json").write_text(json.dumps({"class_names": ["dark", "light"]}))
    inputs = {name: [folder / f"{name}.lmdb"] for name in ("train", "test")} | {"manifest": [folder / "manifest.json"]}
    theory.main({"stage": "theory", "config": SMALL}, inputs=inputs, out=folder)
    return folder / "theory.json"


@pytest.fixture
def record(written: Path) -> dict[str, Any]:
    return json.loads(written.read_text())


def test_the_stage_computes_what_is_asked_for(written: Path, record: dict[str, Any], tmp_path: Path) -> None:
    assert record.keys() == {"weights", "seed", "gaussian", "finite", "images"}
    assert len(record["weights"]) == 11 == len(record["gaussian"]["fits"][0]["error"])
    theory.main({"stage": "theory", "config": SMALL | {"gaussian": None, "images": None}}, inputs={}, out=tmp_path)
    alone = json.loads((tmp_path / "theory.json").read_text())
    assert alone.keys() == {"weights", "seed", "finite"} and alone["finite"] == record["finite"]


def test_a_panel_is_drawn_with_all_it_may_have() -> None:
    points = [(0.1, 2.0), (1.0, 1.0), (10.0, 3.0)]
    lines = [figures.Line(label="a", points=points, color="#3d85c6", style=style) for style in ("-", "o")]
    plot = figures.quantities("A panel", "x", "y", lines, log_y=True, band=(0.5, 2.0), levels={"level": 1.5})
    assert plot.svg.startswith("<svg") and "#3d85c6" in plot.svg and "A panel" in plot.svg
    assert plot.alt == "A panel: y against x for a, a"


def test_every_part_has_its_panels_and_words(record: dict[str, Any], undrawn: None) -> None:
    gaussian, finite, images = parts(record)
    assert [len(part.plots) for part in (gaussian, finite, images)] == [2 + 3, 4, 4]
    assert "best weight against pictures n for dark, light" in images.plots[-1].alt
    (row,) = [row for row in gaussian.table.rows if [cell.text for cell in row[:2]] == ["10", "0.3"]]
    assert row[2].text == "1.111" and row[4].text == "0.04737" and row[6].text == "0.05556 to ∞"
    (row,) = [row for row in gaussian.table.rows if [cell.text for cell in row[:2]] == ["10", "0"]]
    assert row[2].text == "∞" and row[6].text == "∞ to ∞"
    errors = [
        abs(measured / exact - 1)
        for fit in record["gaussian"]["fits"]
        for exact, measured in zip(fit["error"], fit["error_measured"], strict=True)
    ]
    assert f"at most {100 * max(errors):.1f} %" in gaussian.sentences[1]
    assert len(images.table.rows) == 2 and images.table.rows[0][1].text == "15 / 15"


def test_a_study_of_theory_alone_has_a_page(written: Path, tmp_path: Path, undrawn: None) -> None:
    config = {"name": "theory", "seeds": [0], "runs": {}, "datasets": {"two": {"source": {"kind": "folder"}}}}
    report.main({"stage": "report", "config": config}, inputs={"theory": [written]}, out=tmp_path)
    html = (tmp_path / "index.html").read_text()
    ids = set(re.findall(r'id="(\w+)"', html))
    assert ids == {"what", "theory"} == set(re.findall(r'href="#(\w+)"', html))
    assert "Nothing was trained" in html and "paired seeds" not in html
    found = json.loads((tmp_path / "summary.json").read_text())["theory"]
    assert found == theory_summary(json.loads(written.read_text()))
    assert found["gaussian"]["fits"][0]["samples"] == 3
    assert found["finite"]["kl"]["largest_difference"] < 1e-4
    assert found["images"].keys() == {"dark", "light"}


def test_theory_joins_a_study_with_runs(
    config: dict[str, Any], study_files: dict[str, list[Path]], written: Path, tmp_path: Path, undrawn: None
) -> None:
    report.main({"stage": "report", "config": config}, inputs=study_files | {"theory": [written]}, out=tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert {"verdicts", "results", "theory", "protocol"} <= set(re.findall(r'id="(\w+)"', html))


def test_a_damaged_record_is_named(written: Path, tmp_path: Path) -> None:
    broken = tmp_path / "theory.json"
    broken.write_text("[]")
    config = {"name": "theory", "seeds": [0], "runs": {}}
    with pytest.raises(DataError, match=r"theory\.json: got a JSON list"):
        report.main({"stage": "report", "config": config}, inputs={"theory": [broken]}, out=tmp_path)
