"""Diffusion in the report: verdicts follow from the records, and every part has its panels and tables."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import report
from pygan.errors import MissingInput
from pygan.report import plots
from pygan.report.diffusion import diffusion_summary, parts
from pygan.report.diffusion_claims import judged
from pygan.report.text import NONE

PNG = b"\x89PNG panel"


def curve(height: float, **more: float) -> list[dict[str, float]]:
    """A profile with its peak in the middle."""
    return [
        {
            **{"sigma": sigma, "from_optimum": height * share, "gap": 0.1, "max_weight": 1 - share},
            **{"train_error": 0.15, "least_error": 0.1, "excess": 0.05, "membership": 0.6},
            **more,
        }
        for sigma, share in ((0.1, 0.1), (1.0, 1.0), (10.0, 0.2))
    ]


def copying(copies: float, nearest: float = 0.3) -> dict[str, float]:
    return {"copies": copies, "copies_moved": copies, "nearest": nearest, "calibrated": 1.2, "authentic": 1 - copies}


def toy(seed: int, **copies: float) -> dict[str, Any]:
    """A record in which networks are near the optimum, and their samples as far from the points as held-out ones."""
    away = {"optimum": 0.0, "optimum_ddim": 0.03, "chain_optimum": 0.031}
    shares = {"optimum": 1.0, "optimum_ddim": 0.5, "chain_optimum": 0.5, "denoising": 0.14, "chain": 0.13}
    shares = {**shares, "held_out": 0.12, **copies}
    systems = {
        name: {
            "copies": share + 0.001 * seed,
            "median_nearest": away.get(name, 0.06) + 0.0001 * seed,
            "energy_distance": 0.003,
            "radius_error": 0.04,
        }
        for name, share in shares.items()
    }
    curves = {"denoising": curve(0.001), "chain": curve(0.002)}
    fields = {"subject": "toy", "seed": seed, "points": 64, "variance": 0.5, "systems": systems}
    return {**fields, "profiles": curves, "reverse": curves, "panels": {}, "numbers": {"toy_chain": {"copies": {}}}}


def exact(folder: Path, seed: int) -> dict[str, Any]:
    entries = [
        {
            "n": n,
            "copying": {
                "optimum": copying(1.0, 0.0),
                "ancestral": copying(1.0, 0.0),
                "gaussian": copying(0.0),
                "held_out": copying(0.01 * seed),
            },
            "information": {
                "optimum": {"proxy": 9.0 + seed},
                "ancestral": {"proxy": 9.0},
                "gaussian": {"proxy": 0.1 * seed},
            },
            "two_model_test": {
                name: {"paired": 0.2, "unpaired": 0.4, "ratio": 0.5} for name in ("optimum", "gaussian")
            },
            "profiles": {"optimum": curve(0.0), "gaussian": curve(0.08)},
            "reverse": {"gaussian": curve(0.1)},
        }
        for n in (100, 500)
    ]
    return {
        "subject": "exact",
        "dataset": "land",
        "seed": seed,
        "sizes": entries,
        "panels": {str(panel(folder, f"exact{seed}.png")): "optimum, n = 100"},
    }


def run(folder: Path, name: str, objective: str | None, *copies: float, n: int = 100) -> list[dict[str, Any]]:
    """A record per seed with its share of copies after the last snapshot, half of them before."""
    denoiser = {"profile": curve(0.02), "reverse": curve(0.03), "variance": 0.25}
    denoiser |= {"two_model_test": {"paired": 0.1, "unpaired": 0.5, "ratio": 0.2}, "optimum": copying(1.0, 0.0)}
    return [
        {
            "subject": "run",
            "run": name,
            "dataset": "land",
            "objective": objective,
            "seed": seed,
            "n": n,
            "snapshots": [
                {"nimg": 1000, "copying": copying(share / 2)},
                {"nimg": 2000, "copying": copying(share)},
            ],
            "held_out": copying(0.01),
            "information": {"proxy": 1.0 + seed},
            "panels": {str(panel(folder, f"{name}{seed}.png")): name},
            **(denoiser if objective else {}),
        }
        for seed, share in enumerate(copies)
    ]


def panel(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(PNG)
    return folder / name


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        *(toy(seed) for seed in (0, 1, 2)),
        *(exact(tmp_path, seed) for seed in (0, 1, 2)),
        *run(tmp_path, "unet", "denoising", 0.07, 0.09, 0.08),
        *run(tmp_path, "unet_chain", "chain", 0.06, 0.10, 0.07),
        *run(tmp_path, "base", None, 0.0, 0.02, 0.01, n=50),
    ]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels are planned, but not drawn: that takes half a second each."""
    monkeypatch.setattr(plots, "_svg", lambda *arguments: "<svg></svg>")


def verdicts(records: list[dict[str, Any]]) -> dict[str, str]:
    return {found.id: found.verdict for found in judged(records)}


def changed(records: list[dict[str, Any]], subject: str, change: Any) -> list[dict[str, Any]]:
    records = copy.deepcopy(records)
    for record in records:
        if record["subject"] == subject:
            change(record)
    return records


def test_verdicts_follow_from_the_numbers(records: list[dict[str, Any]]) -> None:
    assert verdicts(records) == {
        "P1": "supported",
        "P2": "supported",
        "P3": "supported",
        "P4a": "supported",
        "P4b": "not supported",
    }
    reasons = {found.id: found.reason for found in judged(records)}
    assert "at n = 100 10.0 (7.52 to 12.5) nats against 0.100" in reasons["P1"]  # 9, 10, 11: 4.303 / sqrt(3) = 2.48
    assert "n = 500: 100 % (held out 1 %)" in reasons["P2"] and "Fresh noise on the way gives 100 %" in reasons["P2"]
    assert "unet: at most 8 % of the variance away, copies 8 %" in reasons["P3"]  # 0.02 / 0.25
    # -1, 1, -1 %: -0.33 +- 4.303 * 1.155 / sqrt(3) = 2.87
    assert "unet_chain: 0 % (-3 % to 3 %) and 0 % (0 % to 0 %)".replace("-", "\N{MINUS SIGN}") in reasons["P4a"]


def test_a_copying_network_is_no_support(records: list[dict[str, Any]]) -> None:
    def copies(record: dict[str, Any]) -> None:
        record["snapshots"][-1]["copying"]["copies"] = 0.9

    assert verdicts(changed(records, "run", copies))["P3"] == "undecided"  # the ring still generalizes
    runs = [record for record in records if record["subject"] == "run"]
    assert verdicts(changed(runs, "run", copies))["P3"] == "not supported"


def test_a_network_far_from_the_optimum_is_no_slight_difference(records: list[dict[str, Any]]) -> None:
    runs = [record for record in records if record["subject"] == "run"]

    def far(record: dict[str, Any]) -> None:
        record["profile"] = curve(0.03)  # 12 % of the variance

    assert verdicts(changed(runs[:3], "run", far)) == {"P3": "not supported"}


def test_objectives_that_differ_are_told(records: list[dict[str, Any]]) -> None:
    def more(record: dict[str, Any]) -> None:
        record["systems"]["chain"]["copies"] += 0.5

    toys = [record for record in records if record["subject"] == "toy"]
    assert verdicts(toys)["P4a"] == "supported"
    assert verdicts(changed(toys, "toy", more))["P4a"] == "not supported"
    assert verdicts(changed(records, "toy", more))["P4a"] == "undecided"  # the runs agree still
    assert verdicts(toys[:1])["P4a"] == "undecided"  # one seed has no interval

    def farther(record: dict[str, Any]) -> None:
        record["systems"]["chain"]["median_nearest"] += 0.012  # a fifth of the distance of held-out points

    assert verdicts(changed(toys, "toy", farther))["P4a"] == "not supported"


def test_an_optimum_that_stays_away_supports_the_claim(records: list[dict[str, Any]]) -> None:
    def away(record: dict[str, Any]) -> None:
        record["systems"]["chain_optimum"]["median_nearest"] = 0.06

    assert verdicts(changed(records, "toy", away))["P4b"] == "supported"


def test_an_optimum_that_does_not_copy_is_no_support(records: list[dict[str, Any]]) -> None:
    def fresh(record: dict[str, Any]) -> None:
        for entry in record["sizes"]:
            entry["copying"]["optimum"]["copies"] = 0.2

    assert verdicts(changed(records, "exact", fresh))["P2"] == "undecided"
    assert "Fresh noise" in next(found.reason for found in judged(records) if found.id == "P2")


def test_every_part_has_its_panels_and_words(records: list[dict[str, Any]], undrawn: None) -> None:
    claims, ring, denoisers, runs, table = parts(records)
    assert [len(part.plots) for part in (claims, ring, denoisers, runs, table)] == [0, 2, 4, 7, 0]
    assert [row[2].verdict for row in claims.tables[0].rows] == [*["supported"] * 4, "not supported"]
    assert [panel.caption for panel in runs.panels] == ["unet", "unet_chain", "base"]  # of their first seeds
    assert len(denoisers.panels) == 1 and denoisers.panels[0].png == PNG  # of the first seed
    assert "At n = 500 the Gaussian is farthest from the optimum at sigma = 1" in denoisers.sentences[2]
    assert "base (GAN, n = 50, 3 seeds): at most 1 % copies, after 2,000 images" in runs.sentences[3]
    assert "0.20 of what they make of different noises" in runs.sentences[1] and "0.20" not in runs.sentences[3]
    rows = {row[0].text: row for row in table.tables[0].rows if row[1].text in ("100", "50")}
    assert rows["unet (diffusion)"][2].text == "8" and rows["base (GAN)"][2].text == "1"
    assert rows["empirical optimum of the pictures of unet"][2].text == "100"
    assert rows["empirical optimum, Heun"][-1].text == "10.0" and rows["held-out pictures"][-1].text == NONE


def test_parts_stand_alone(records: list[dict[str, Any]], undrawn: None) -> None:
    def titles(*subjects: str) -> list[str]:
        return [part.title for part in parts([r for r in records if r["subject"] in subjects])][1:]

    assert titles("toy") == ["A ring in the plane"]
    assert titles("exact")[1:] == ["Copying across families"]
    gan = [part for part in parts(records[-3:]) if part.title == "Trained runs"]
    assert len(gan[0].plots) == 1 and verdicts(records[-3:]) == {}


def test_a_study_of_diffusion_alone_has_a_page(records: list[dict[str, Any]], tmp_path: Path, undrawn: None) -> None:
    paths = []
    for place, record in enumerate(records):
        folder = tmp_path / str(place)
        folder.mkdir()
        panels = {panel(folder, Path(path).name).name: caption for path, caption in record["panels"].items()}
        paths.append(folder / "diffusion.json")
        paths[-1].write_text(json.dumps({**record, "panels": panels}))
    config = {"name": "diffusion", "seeds": [0, 1, 2], "runs": {}, "datasets": {}}
    report.main({"stage": "report", "config": config}, inputs={"diffusion": paths}, out=tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert set(re.findall(r'id="(\w+)"', html)) == {"what", "diffusion"} == set(re.findall(r'href="#(\w+)"', html))
    assert "No run was trained" in html and "Nothing was trained" not in html
    assert html.count('class="badge') == 5 and html.count("data:image/png") == 4
    found = json.loads((tmp_path / "summary.json").read_text())["diffusion"]
    assert found == json.loads(json.dumps(diffusion_summary(records)))
    assert found["claims"][-1]["verdict"] == "not supported"
    assert found["copying"][0]["copies"]["values"] == [1.0, 1.0, 1.0]
    (tmp_path / "3" / "exact0.png").unlink()
    with pytest.raises(MissingInput, match=r"exact0\.png"):
        report.main({"stage": "report", "config": config}, inputs={"diffusion": paths}, out=tmp_path)
