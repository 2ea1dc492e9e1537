"""The stage on a made-up study: what stands in the page and in the summary."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_up_study import CLAIMS, FD, RUNS, SEEDS, study_config, write_study
from PIL import Image

from pipeline.report import main
from pygan.errors import DataError, MissingInput
from pygan.report.collect import collect
from pygan.report.page import _compact, render
from pygan.report.sentences import headlines
from pygan.report.summary import summary
from pygan.report.tables import settings_table


class Page(HTMLParser):
    """Tags with attributes, and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def attributes(self, tag: str, name: str) -> Iterator[str]:
        return (values[name] or "" for found, values in self.tags if found == tag and name in values)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, dict[str, Any], str]:
    """The page, the summary and the page's source of the made-up study, written once by the stage."""
    root = tmp_path_factory.mktemp("study")
    main({"stage": "report", "config": study_config()}, inputs=write_study(root), out=root)
    assert sorted(path.name for path in root.iterdir()) == ["index.html", "results", "summary.json"]
    html = (root / "index.html").read_text(encoding="utf-8")
    return Page(html), json.loads((root / "summary.json").read_text(encoding="utf-8")), html


def test_the_page_needs_nothing_beside_it(report: tuple[Page, dict[str, Any], str]) -> None:
    page, _, html = report
    pictures = list(page.attributes("img", "src"))
    assert len(pictures) > 10
    assert all(uri.startswith("data:image/png;base64,") for uri in pictures)
    assert sum(tag == "svg" for tag, _ in page.tags) > 15
    assert not any(tag in ("script", "link", "iframe") for tag, _ in page.tags)
    assert all(target.startswith("#") for tag in ("a", "use") for target in page.attributes(tag, "href"))
    assert "http" not in html and "@import" not in html
    assert html.count("url(") == html.count("url(#")
    assert page.open == []


def test_links_lead_somewhere(report: tuple[Page, dict[str, Any], str]) -> None:
    page, _, _ = report
    targets = {values["id"] for tag, values in page.tags if tag == "section"}
    assert {target.removeprefix("#") for target in page.attributes("a", "href")} == targets


def test_the_page_says_what_it_must(report: tuple[Page, dict[str, Any], str]) -> None:
    page, found, _ = report
    text = page.text
    for claim in CLAIMS:
        assert claim["statement"] in text
    for claim in found["claims"]:
        assert claim["verdict"] in text
        assert claim["sentence"] in text.replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "null result",
        "equal images are not equal time",
        "untrained generator of base",
        "PCA-Gaussian sampler",
        "real train against real test",
        "native (compiled extension)",
        "233, 249, 258",
        "minimum detectable",
        "inside this study only",
        "trained on ImageNet",
        "Precision favors",
        "chosen on the validation split",
        "ab" * 32,
        "z from seed 2",
        "efficientnet_lite0",
    ):
        assert expected.lower() in text.lower(), expected


def test_summary_has_the_agreed_keys(report: tuple[Page, dict[str, Any], str]) -> None:
    _, found, _ = report
    assert {"runs", "claims", "seconds", "versions"} <= found.keys()
    assert [run["run"] for run in found["runs"]] == list(RUNS)
    for run in found["runs"]:
        assert {"run", "dataset", "n_images", "methods", "seeds", "metrics"} <= run.keys()
        assert run["seeds"] == list(SEEDS) and run["n_images"] == 100
        fd = run["metrics"]["fd_mobilenet_v2"]
        assert fd["mean"] == pytest.approx(sum(FD[run["run"]]) / 3)
        assert fd["ci95"][0] < fd["mean"] < fd["ci95"][1]
        assert fd["protocol"].startswith("Fréchet")
    keys = {"id", "method", "statement", "effect", "ci95", "n_seeds", "control", "verdict"}
    verdicts = {claim["id"]: claim for claim in found["claims"]}
    assert all(keys <= claim.keys() for claim in found["claims"])
    assert {name: claim["verdict"] for name, claim in verdicts.items()} == {
        "diffaug": "supported",
        "vision-aided": "supported",
        "ticket": "undecided",
        "ticket-null": "not supported",
    }
    assert verdicts["vision-aided"]["control"]["run"] == "base"
    assert verdicts["diffaug"]["control"] is None and verdicts["diffaug"]["n_seeds"] == 3
    assert {anchor["subject"] for anchor in found["anchors"]} == {"untrained", "pca_gaussian", "real"}
    assert found["seconds"]["stages"]["train"] == pytest.approx(166.0)
    assert found["versions"]["torch"] == "2.0"


def test_one_seed_without_curves_or_samples(config: dict[str, Any], study_files: dict[str, list[Path]]) -> None:
    def first(paths: list[Path]) -> list[Path]:
        return [path for path in paths if "seed1" not in str(path) and "seed2" not in str(path)]

    files = {
        name: first(paths) for name, paths in study_files.items() if name not in ("stats", "samples", "benchmarks")
    }
    study = collect(config | {"seeds": [0]}, files)
    found = summary(study, study.verdicts())
    assert found["runs"][0]["metrics"]["recall"]["ci95"] is None
    assert {claim["verdict"] for claim in found["claims"]} == {"undecided"}
    assert "an interval needs at least 2" in Page(render(study, study.verdicts())).text


def test_a_study_without_results(config: dict[str, Any]) -> None:
    study = collect(config, {})
    text = Page(render(study, study.verdicts())).text
    assert "No metric was measured." in text and "base 0 of 3" in text


def test_a_run_no_better_than_the_untrained_generator_is_named(
    config: dict[str, Any], study_files: dict[str, list[Path]]
) -> None:
    path = next(path for path in study_files["metrics"] if "base/seed1" in str(path))
    record = json.loads(path.read_text())
    record["metrics"]["fd_mobilenet_v2"]["value"] = 453.0
    path.write_text(json.dumps(record))
    study = collect(config, study_files)
    assert "base (seed 1)" in headlines(study, study.verdicts())[-1].sentence


def test_text_is_escaped(config: dict[str, Any]) -> None:
    study = collect(config | {"name": "<b>bold</b>"}, {})
    assert "&lt;b&gt;bold" in render(study, [])


def test_errors_carry_exit_codes(config: dict[str, Any], study_files: dict[str, list[Path]], tmp_path: Path) -> None:
    study_files["metrics"][0].write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json"):
        main({"stage": "report", "config": config}, inputs=study_files, out=tmp_path)
    study_files["metrics"][0].unlink()
    with pytest.raises(MissingInput, match=r"metrics\.json"):
        main({"stage": "report", "config": config}, inputs=study_files, out=tmp_path)
    assert not (tmp_path / "index.html").exists() and not (tmp_path / "summary.json").exists()


def test_runs_stand_in_the_order_of_the_study(study_files: dict[str, list[Path]], tmp_path: Path) -> None:
    order = list(reversed(RUNS))
    config = json.loads(json.dumps(study_config() | {"order": order}, sort_keys=True))
    main({"stage": "report", "config": config}, inputs=study_files, out=tmp_path)
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["runs"]
    assert [run["run"] for run in found] == order


def test_the_report_never_imports_torch() -> None:
    code = "import sys, pipeline.report, pygan.report.page, pygan.report.summary; assert 'torch' not in sys.modules"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_pictures_lose_only_repeated_pixels(tmp_path: Path) -> None:
    small = Image.frombytes("RGB", (6, 4), bytes(range(72)))
    small.resize((24, 16), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    found = Image.open(io.BytesIO(_compact(tmp_path / "large.png")))
    assert found.size == small.size and found.tobytes() == small.tobytes()
    upper = Image.open(io.BytesIO(_compact(tmp_path / "large.png", upper_half=True)))
    assert upper.tobytes() == small.crop((0, 0, 6, 2)).tobytes()
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.png: not a picture"):
        _compact(tmp_path / "text.png")


def test_a_run_that_is_trained_but_not_measured_has_its_methods(
    config: dict[str, Any], study_files: dict[str, list[Path]]
) -> None:
    study = collect(config, study_files | {"metrics": []})
    assert study.methods("aided") == ("diffaug", "vision_aided", "r1")
    text = Page(render(study, study.verdicts())).text
    assert "Not finished: 0 of 12 runs and seeds are measured" in text and "no method added" not in text


def test_a_run_that_is_not_to_be_measured_is_not_missing(
    config: dict[str, Any], study_files: dict[str, list[Path]]
) -> None:
    runs = config["runs"] | {"unmeasured": config["runs"]["base"] | {"evaluate": False}}
    study = collect(config | {"runs": runs}, study_files)
    assert "unmeasured" not in study.evaluated and len(study.evaluated) == len(study.runs) - 1
    assert "Not finished" not in Page(render(study, study.verdicts())).text


def test_runs_are_told_by_what_differs_from_the_first(config: dict[str, Any]) -> None:
    table, shared = settings_table(collect(config, {}), dict.fromkeys(RUNS, ""))
    words = {row[0].text: row[2].text for row in table.rows}
    assert words["diffaug"] == "augment: diffaug, policy color translation cutout"
    assert "augment: none" in words["base"] and "ticket: lottery, found_in diffaug" in words["ticket"]
    assert ("loss", "hinge") in shared and not any(key == "augment" for key, _ in shared)
