"""The report of a study that is still running: whatever has finished is shown, with how many seeds there are of it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pygan.report.collect import collect, read_json
from pygan.report.page import render
from pygan.report.summary import summary

_PLACES = {
    "manifest": "data/*/manifest.json",
    "contact_sheet": "data/*/contact_sheet.png",
    "run_json": "train/*/seed*/run.json",
    "metrics": "evaluate/*/seed*/metrics.json",
    "neighbors": "evaluate/*/seed*/neighbors.png",
    "selected": "select/*/seed*/selected.json",
    "probe": "probe/*/seed*/probe.json",
    "prune": "masks/*/seed*/round*/prune.json",
    "anchors": "anchors/**/metrics.json",
    "theory": "theory/theory.json",
    "rule_graph": "rule_graph.json",
    "diffusion": "diffusion/**/diffusion.json",
}


def write_report(config: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]], out: Path) -> None:
    """Write `index.html` and `summary.json`, each one whole or not at all.

    Raises:
        FileNotFoundError: an input is missing.
        ValueError: an input is malformed, or two protocols of a metric would share a table.
    """
    study = collect(config, inputs)
    verdicts = study.verdicts()
    text = json.dumps(summary(study, verdicts), indent=1, ensure_ascii=False, allow_nan=False)
    _write(out / "summary.json", text)
    _write(out / "index.html", render(study, verdicts))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_so_far(results: Path) -> Path:
    """Render what lies in the folder of a study that the workflow started; return the page.

    Results of runs that the study no longer has are left out.

    Raises:
        FileNotFoundError: the workflow never started here.
    """
    if not (results / "config.json").is_file():
        raise FileNotFoundError(
            f"{results}: no study in this folder; expected the folder into which Snakemake writes a study's results, "
            "with config.json"
        )
    config = read_json(results / "config.json")
    page = results / "report" / "so_far" / "index.html"
    write_report(config, finished_files(results, config["runs"]), page.parent)
    return page


def finished_files(results: Path, runs: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the files that finished jobs left, by the names of the report's inputs."""
    found = {name: sorted(results.glob(pattern)) for name, pattern in _PLACES.items()}
    for name in ("run_json", "metrics", "neighbors", "selected", "probe", "prune"):
        found[name] = [path for path in found[name] if _run_of(path, results) in runs]
    trained = [path.parent for path in found["run_json"]]
    found["stats"] = [folder / "stats.jsonl" for folder in trained if (folder / "stats.jsonl").is_file()]
    found["samples"] = [
        path for folder in trained if "@" not in folder.parent.name for path in sorted(folder.glob("snapshots/*.png"))
    ]
    found["benchmarks"] = [results / "benchmarks"]
    return found


def _run_of(path: Path, results: Path) -> str:
    return path.relative_to(results).parts[1].partition("@")[0]
