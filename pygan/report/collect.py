"""Reads the files that finished stages left behind into one `Study`.

Every JSON file says which run and seed it belongs to; files that cannot say so (PNG, JSON lines) are placed by the
`.../{run}/seed{seed}/...` part of their path. A file that is missing, malformed or incomplete is named in one
sentence; so are two measurements of one metric that followed different protocols.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pygan.report.evidence import Claim
from pygan.report.study import Evaluation, Job, Measured, Owned, Study

SHARED_PROTOCOL = ("network", "network_sha256", "resize", "n_real", "reference_split", "dtype")
"""Keys of a protocol that every row of one table has to share, besides the number of generated pictures."""

BESIDE = ("generated", "held_out", "copying", "alarm_below", "pairs")
"""Keys of a number that a reader wants beside it."""


def collect(config: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]]) -> Study:
    """Read the results of a study.

    Args:
        config: `name`, `seeds`, `runs` and, where the study has them, `datasets`, `claims` and the other sections of
            the config file.
        inputs: lists of files by name: run_json, stats, samples, metrics, anchors, probe, prune, selected,
            theory, diffusion, neighbors, contact_sheet, manifest, rule_graph, benchmarks (files, or folders searched
            for them). A name may be absent; a benchmark file and the rule graph may be missing.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is malformed, two files claim the same place, a claim names an unknown run, or two
            protocols of a metric would share a table.
    """
    for key in ("name", "seeds", "runs"):
        if key not in config:
            raise ValueError(f"report: the configuration has no key {key!r}")
    study = Study(
        name=str(config["name"]),
        seeds=tuple(int(seed) for seed in config["seeds"]),
        runs=dict(config["runs"]),
        config=dict(config),
        claims=tuple(_claim(entry, config["runs"]) for entry in config.get("claims") or ()),
    )
    study.evaluations = [_evaluation(path) for path in inputs.get("metrics", ())]
    study.anchors = [_evaluation(path) for path in inputs.get("anchors", ())]
    study.probes = [_owned(path) for path in inputs.get("probe", ())]
    study.prunings = [_owned(path) for path in inputs.get("prune", ())]
    study.selections = [_owned(path) for path in inputs.get("selected", ())]
    for path in inputs.get("run_json", ()):
        job = _job(path)
        if (job.name, job.seed) in study.jobs:
            raise ValueError(f"{path}: {job.name}, seed {job.seed} is already in {study.jobs[job.name, job.seed].path}")
        study.jobs[job.name, job.seed] = job
    study.stats = {_place(path): _read_stats(path) for path in inputs.get("stats", ())}
    for path in inputs.get("samples", ()):
        study.samples.setdefault(_place(path), {})[_nimg_of(path)] = _existing(path)
    study.neighbors = {_place(path): _existing(path) for path in inputs.get("neighbors", ())}
    study.contact_sheets = {path.parent.name: _existing(path) for path in inputs.get("contact_sheet", ())}
    study.manifests = {path.parent.name: read_json(path) for path in inputs.get("manifest", ())}
    study.theory = next((read_json(path) for path in inputs.get("theory", ())), None)
    study.rule_graph = next((read_json(path) for path in inputs.get("rule_graph", ()) if path.is_file()), None)
    study.diffusion = [_diffusion(path) for path in inputs.get("diffusion", ())]
    study.stage_seconds = _stage_seconds(inputs.get("benchmarks", ()))
    _check_unique(study.evaluations)
    _check_diffusion_claims(study)
    check_protocols(study)
    return study


def _diffusion(path: Path) -> dict[str, Any]:
    """Return a record of the section `diffusion`, with the paths of its panels in place of their names."""
    record = read_json(path)
    panels = {str(_existing(path.parent / name)): caption for name, caption in record.get("panels", {}).items()}
    return {**record, "panels": panels}


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raise `FileNotFoundError` or `ValueError` naming it."""
    try:
        value = json.loads(_existing(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: got a JSON {type(value).__name__}, expected an object")
    return value


def check_protocols(study: Study) -> None:
    """Raise `ValueError` where two protocols of one metric would share a table or a claim.

    All runs and anchors of a dataset must agree in the protocol line of each metric and in `SHARED_PROTOCOL`. Only
    the real pictures may differ in their number, because a split has as many as it has.
    """
    first: dict[tuple[str, str], Evaluation] = {}
    for evaluation in (*study.evaluations, *(anchor for anchor in study.anchors if anchor.subject != "real")):
        for metric in evaluation.metrics:
            other = first.setdefault((evaluation.dataset, metric), evaluation)
            _check_pair(other, evaluation, metric, real=False)
    for evaluation in (anchor for anchor in study.anchors if anchor.subject == "real"):
        for metric in evaluation.metrics:
            if (evaluation.dataset, metric) in first:
                _check_pair(first[evaluation.dataset, metric], evaluation, metric, real=True)
    for claim in study.claims:
        measured = [e for run in claim.subjects for e in study.of_run(run) if claim.metric in e.metrics]
        for evaluation in measured[1:]:
            _check_pair(measured[0], evaluation, claim.metric, real=False)


def _check_pair(a: Evaluation, b: Evaluation, metric: str, *, real: bool) -> None:
    def refuse(what: str, left: object, right: object) -> None:
        raise ValueError(
            f"{metric} was measured by two protocols that cannot share a table: "
            f"{what} is {left!r} in {a.path} and {right!r} in {b.path}"
        )

    left, right = a.record(metric), b.record(metric)
    own = {"n_real"} if left.get("reference_split") == "train" else set()  # every run has its own training pictures
    for key in SHARED_PROTOCOL if real else (*SHARED_PROTOCOL, "n_gen"):
        if key not in own and left.get(key) != right.get(key):
            refuse(key, left.get(key), right.get(key))
    if not real and a.metrics[metric].protocol != b.metrics[metric].protocol:
        refuse("the protocol line", a.metrics[metric].protocol, b.metrics[metric].protocol)


def _check_unique(evaluations: Iterable[Evaluation]) -> None:
    seen: dict[tuple[str | None, int | None], Path] = {}
    for evaluation in evaluations:
        place = (evaluation.run, evaluation.seed)
        if place in seen:
            raise ValueError(f"{evaluation.path}: {place[0]}, seed {place[1]} is already in {seen[place]}")
        seen[place] = evaluation.path


def _claim(entry: Mapping[str, Any], runs: Mapping[str, Any]) -> Claim:
    try:
        claim = Claim(**entry)
    except TypeError as error:
        raise ValueError(f"claims.{entry.get('id', '?')}: {error}") from error
    for key in ("arm", "against", "control", "equal_time") if claim.stage == "evaluate" else ():
        run = getattr(claim, key)
        if run is not None and run not in runs:
            raise ValueError(f"claims.{claim.id}.{key}: got {run!r}, expected one of {', '.join(runs)}")
    return claim


def _check_diffusion_claims(study: Study) -> None:
    """Raise `ValueError` where a claim names a subject or metric that the finished stage does not have."""
    if not study.diffusion:
        return
    numbers: dict[str, dict[str, None]] = {}
    for record in study.diffusion:
        for subject, found in record.get("numbers", {}).items():
            numbers.setdefault(subject, {}).update(dict.fromkeys(found))
    for claim in (claim for claim in study.claims if claim.stage == "diffusion"):
        for subject in claim.subjects:
            if claim.metric not in numbers.get(subject, {}):
                known = ", ".join(f"{name}: {'/'.join(metrics)}" for name, metrics in numbers.items())
                raise ValueError(f"claims.{claim.id}: no {claim.metric!r} of {subject!r}, expected one of {known}")


def _evaluation(path: Path) -> Evaluation:
    record = read_json(path)
    subject = _get(record, "subject", path)
    run = record.get("run")
    seed = record.get("seed")
    if subject == "run" and (run is None or seed is None):
        raise ValueError(f"{path}: the metrics of a run need the keys 'run' and 'seed'")
    metrics = {name: _measured(name, entry, path) for name, entry in _get(record, "metrics", path).items()}
    return Evaluation(
        path=path,
        subject=subject,
        run=run,
        dataset=_get(record, "dataset", path),
        n_images=record.get("n_images"),
        methods=tuple(record.get("methods") or ()),
        seed=seed,
        nimg=record.get("nimg"),
        metrics=metrics,
        protocol=_get(record, "protocol", path),
        device=(record.get("device") or {}).get("type"),
    )


def _measured(name: str, entry: Mapping[str, Any], path: Path) -> Measured:
    """Return one number of a `metrics.json`."""
    key = f"metrics.{name}."
    return Measured(
        value=_number(_get(entry, "value", path, key), path, f"{key}value"),
        interval=tuple(entry["interval"]) if entry.get("interval") else None,
        protocol=str(_get(entry, "protocol", path, key)),
        classes=entry.get("classes"),
        record=entry.get("record") or {},
        beside={name: entry[name] for name in BESIDE if name in entry},
    )


def _job(path: Path) -> Job:
    record = read_json(path)
    run, seed = str(_get(record, "run", path)), int(_get(record, "seed", path))
    folder = path.parent.parent.name
    return Job(
        path=path,
        name=folder if folder.startswith(f"{run}@") else run,
        seed=seed,
        nimg=int(_get(record, "nimg", path)),
        seconds=_number(_get(record, "seconds", path), path, "seconds"),
        record=record,
    )


def _owned(path: Path) -> Owned:
    record = read_json(path)
    if "run" in record and "seed" in record:
        return Owned(path=path, run=str(record["run"]), seed=int(record["seed"]), record=record)
    run, seed = _place(path)
    return Owned(path=path, run=run, seed=seed, record=record)


def _place(path: Path) -> tuple[str, int]:
    for folder in path.parents:
        if match := re.fullmatch(r"seed(\d+)", folder.name):
            return folder.parent.name, int(match[1])
    raise ValueError(f"{path}: expected a path with .../RUN/seedN/..., which says whose file it is")


def _nimg_of(path: Path) -> int:
    if not path.stem.isdigit():
        raise ValueError(f"{path}: expected a file named after its nimg, such as 000057600.png")
    return int(path.stem)


def _read_stats(path: Path) -> list[dict[str, float]]:
    ticks = []
    for number, line in enumerate(_existing(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            tick = json.loads(line)
            ticks.append({key: math.nan if value is None else float(value) for key, value in tick.items()})
            ticks[-1]["nimg"]
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: expected a JSON object of numbers with the key 'nimg'") from error
    return ticks


def _stage_seconds(paths: Iterable[Path]) -> dict[str, tuple[float, int]]:
    seconds: dict[str, tuple[float, int]] = {}
    tables = {table for path in paths for table in (path.rglob("*.tsv") if path.is_dir() else [path])}
    for path in sorted(tables):
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        try:
            total = sum(float(row["s"]) for row in rows)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a table with the column 's' (seconds)") from error
        parts = path.parts
        stage = parts[parts.index("benchmarks") + 1] if "benchmarks" in parts[:-2] else path.parent.name
        before, jobs = seconds.get(stage, (0.0, 0))
        seconds[stage] = (before + total, jobs + 1)
    return seconds


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: the report needs this file and it is not there")
    return path


def _get(record: Mapping[str, Any], key: str, path: Path, prefix: str = "") -> Any:
    if not isinstance(record, Mapping) or key not in record:
        raise ValueError(f"{path}: the key '{prefix}{key}' is missing")
    return record[key]


def _number(value: object, path: Path, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: {key} is {value!r}, expected a finite number")
    return float(value)
