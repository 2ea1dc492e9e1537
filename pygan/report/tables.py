"""The tables of the page, as rows of text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pygan.report.evidence import Paired, Verdict, mean_interval
from pygan.report.study import Evaluation, Study, values_of
from pygan.report.text import (
    NONE,
    better,
    count,
    decimals_for,
    duration,
    interval_text,
    mean_of,
    metric_title,
    number,
    optional,
)

SPLITS = ("train", "validation", "test")
STAGES = (
    "prepare_data",
    "reference",
    "train",
    "probe",
    "prune_round",
    "select",
    "evaluate",
    "theory",
    "diffusion",
    "diffusion_run",
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str
    interval: str = ""
    """95 % interval, on a line of its own; empty: none."""
    each: str = ""
    """Every seed's value, small print; empty: none."""
    color: str = ""
    """Of the run the cell names; empty: names no run."""
    verdict: str = ""
    """Shown as a badge; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headers and rows; `rows[anchors_from:]` are anchors."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    anchors_from: int | None = None
    """None: no anchors."""


def main_tables(study: Study, colors: Mapping[str, str]) -> list[Table]:
    """Return one table per dataset: mean, interval and every seed of each metric, runs first, then anchors."""
    tables = []
    for dataset in study.datasets():
        groups = [(run, [e for e in study.of_run(run) if e.dataset == dataset]) for run in study.runs]
        groups = [(run, group) for run, group in groups if group]
        anchors = study.anchors_of(dataset)
        metrics = [m for m in study.metric_names() if any(m in e.metrics for _, group in groups for e in group)]
        decimals = {m: decimals_for(values_of([e for _, group in groups for e in group], m)) for m in metrics}
        rows = [
            (
                Cell(text=run, color=colors[run]),
                Cell(text=count(group[0].n_images)),
                Cell(text=f"{len(group)} of {len(study.seeds)}"),
                *(_metric_cell(group, metric, decimals[metric]) for metric in metrics),
            )
            for run, group in groups
        ]
        n_gen = groups[0][1][0].protocol.get("n_gen")
        rows += [
            (
                Cell(text=_anchor_name(group[0], n_gen)),
                Cell(text=NONE),
                Cell(text=str(len(group))),
                *(_metric_cell(group, metric, decimals[metric]) for metric in metrics),
            )
            for group in anchors
        ]
        tables.append(
            Table(
                title=dataset,
                headers=("run", "training pictures", "seeds", *(_metric_header(metric) for metric in metrics)),
                rows=tuple(rows),
                anchors_from=len(groups) if anchors else None,
            )
        )
    return tables


def anchor_label(subject: str) -> str:
    """Return the short name of an anchor for a plot."""
    short = {"untrained": "untrained G", "pca_gaussian": "PCA-Gaussian", "copycat": "copycat", "real": "real train"}
    return short.get(subject, subject)


def claims_table(study: Study, verdicts: Sequence[Verdict], colors: Mapping[str, str]) -> Table:
    """Return effect, interval, number of seeds, control, verdict and minimum detectable effect of every claim."""
    rows = []
    for v in verdicts:
        scale = [v.claim.minimum_effect, *(v.effect.ci95 or ()), v.effect.mean or 0.0]
        decimals = decimals_for(scale)
        control = v.control and _effect_cell(v.control, decimals)
        ratio = study.seconds_ratio(v.claim.arm, v.claim.against)
        rows.append(
            (
                Cell(text=v.claim.id, each=f"{v.claim.method}; {_metric_header(v.claim.metric)}"),
                Cell(text=v.verdict, verdict=v.verdict, each=v.reason),
                Cell(text=v.claim.arm, color=colors.get(v.claim.arm, ""), each=f"against {v.claim.against}"),
                _effect_cell(v.effect, decimals),
                Cell(text=str(len(v.effect.seeds))),
                Cell(text=f"over {v.claim.control}: {control.text}", interval=control.interval)
                if control
                else Cell(text="none"),
                Cell(text=f"{v.claim.minimum_effect:g}"),
                Cell(text=optional(v.minimum_detectable_effect, decimals)),
                Cell(text=NONE if ratio is None else f"{ratio:.1f}\N{MULTIPLICATION SIGN}"),
            )
        )
    headers = (
        "claim",
        "verdict",
        "arm",
        "improvement, 95 % interval",
        "seeds",
        "control",
        "minimum effect",
        "minimum detectable",
        "training time",
    )
    return Table(title="Claims", headers=headers, rows=tuple(rows))


def question_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return what every claim says and compares, as it was written before the runs."""
    rows = [
        (
            Cell(text=claim.id, each=claim.method),
            Cell(text=claim.statement),
            *(
                Cell(text=name or "none", color=colors.get(name or "", ""))
                for name in (claim.arm, claim.against, claim.control)
            ),
            Cell(text=_metric_header(claim.metric)),
            Cell(text=f"{claim.minimum_effect:g}"),
        )
        for claim in study.claims
    ]
    headers = ("claim", "statement", "arm", "against", "control", "measured by", "minimum effect")
    return Table(title="What was asked", headers=headers, rows=tuple(rows))


def time_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return images seen and training seconds per run, means over seeds."""
    rows = []
    for run in study.runs:
        jobs = sorted((job for job in study.jobs.values() if job.name == run), key=lambda job: job.seed)
        if not jobs:
            continue
        own = [job.seconds for job in jobs]
        total = [study.seconds_total(job) for job in jobs]
        search = [study.ticket_search_seconds(run, job.seed) for job in jobs]
        rows.append(
            (
                Cell(text=run, color=colors[run]),
                Cell(text=", ".join(dict.fromkeys(f"{job.nimg:,}" for job in jobs))),
                Cell(text=number(mean_of(own)), each=_each(own)),
                Cell(text=number(mean_of(total)), each=_each(total)),
                Cell(text=number(mean_of(search)) if any(search) else NONE),
                Cell(text=f"{mean_of([job.record.get('threads') or 1 for job in jobs]):.0f}"),
            )
        )
    headers = (
        "run",
        "images seen",
        "seconds of its own job",
        "seconds in all",
        "seconds to find its ticket",
        "threads",
    )
    return Table(title="Images and seconds", headers=headers, rows=tuple(rows))


def probe_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return the accuracy of every probed network, and the choice, per run and seed."""
    probes = sorted(study.probes, key=lambda probe: (list(study.runs).index(probe.run), probe.seed))
    networks = list(dict.fromkeys(name for probe in probes for name in probe.record.get("networks", {})))
    rows = []
    for probe in probes:
        cells = []
        for name in networks:
            entry = probe.record["networks"].get(name)
            if entry is None:
                cells.append(Cell(text=NONE))
                continue
            interval = entry.get("accuracy_ci")
            bce = "" if entry.get("bce") is None else f"cross-entropy {number(entry['bce'], 3)}"
            cells.append(
                Cell(
                    text=number(entry["accuracy"], 3),
                    interval=interval_text(interval, 3),
                    each=bce,
                )
            )
        rows.append(
            (
                Cell(text=probe.run, color=colors.get(probe.run, "")),
                Cell(text=str(probe.seed)),
                Cell(text=", ".join(probe.record.get("chosen", ())) or "none"),
                *cells,
            )
        )
    return Table(title="Probe", headers=("run", "seed", "chosen", *networks), rows=tuple(rows))


def selection_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return the snapshot chosen per run and seed, with the validation score of every candidate."""
    order = list(study.runs)
    selections = sorted(study.selections, key=lambda s: (order.index(s.run) if s.run in order else len(order), s.seed))
    candidates = sorted({int(nimg) for s in selections for nimg in s.record.get("scores", {})})
    rows = []
    for selection in selections:
        scores = {int(nimg): value for nimg, value in selection.record.get("scores", {}).items()}
        decimals = decimals_for(scores.values())
        rows.append(
            (
                Cell(text=selection.run, color=colors.get(selection.run, "")),
                Cell(text=str(selection.seed)),
                Cell(text=f"{int(selection.record['nimg']):,}"),
                *(Cell(text=optional(scores.get(nimg), decimals)) for nimg in candidates),
            )
        )
    headers = ("run", "seed", "chosen, images seen", *(f"at {nimg:,}" for nimg in candidates))
    return Table(title="Snapshots", headers=headers, rows=tuple(rows))


def stage_table(study: Study) -> Table:
    """Return the seconds of each stage, summed over its jobs."""
    rows = [
        (Cell(text=stage), Cell(text=str(jobs)), Cell(text=duration(seconds)))
        for stage, (seconds, jobs) in sorted(study.stage_seconds.items(), key=lambda item: _stage_rank(item[0]))
    ]
    total = sum(seconds for seconds, _ in study.stage_seconds.values())
    if rows:
        jobs = sum(jobs for _, jobs in study.stage_seconds.values())
        rows.append((Cell(text="all stages"), Cell(text=str(jobs)), Cell(text=duration(total))))
    return Table(title="Stages", headers=("stage", "jobs", "seconds, summed over jobs"), rows=tuple(rows))


def settings_table(study: Study, colors: Mapping[str, str]) -> tuple[Table, list[tuple[str, str]]]:
    """Return what each run adds to the first one, a row a run, and the settings all share as (key, value) pairs."""
    flat = {run: dict(_settings(settings or {})) for run, settings in study.runs.items()}
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    differing = [key for key in keys if len({settings.get(key, NONE) for settings in flat.values()}) > 1]
    shared = [(key, next(iter(flat.values()))[key]) for key in keys if key not in differing]
    first = next(iter(flat), None)
    rows = []
    for run, settings in flat.items():
        own = [key for key in differing if run == first or settings.get(key, NONE) != flat[first].get(key, NONE)]
        words = "; ".join(f"{key}: {settings.get(key, NONE)}" for key in own)
        methods = ", ".join(study.methods(run)) or NONE
        rows.append((Cell(text=run, color=colors[run]), Cell(text=methods), Cell(text=words or "nothing")))
    headers = ("run", "methods", f"settings (of {first} those that vary, of the others what differs from {first})")
    return Table(title="Settings", headers=headers, rows=tuple(rows) if len(flat) > 1 else ()), shared


def data_table(study: Study) -> Table:
    """Return source, size and splits of every dataset."""
    rows = []
    for name in dict.fromkeys((*(study.config.get("datasets") or {}), *study.manifests, *study.contact_sheets)):
        settings = (study.config.get("datasets") or {}).get(name) or {}
        sizes = _split_sizes(study.manifests.get(name, {}))
        rows.append(
            (
                Cell(text=name),
                Cell(text=_words(settings["source"]) if "source" in settings else NONE),
                Cell(text=f"{settings['resolution']} px" if "resolution" in settings else NONE),
                *(Cell(text=count(sizes[split]) if split in sizes else NONE) for split in SPLITS),
            )
        )
    headers = ("data set", "source", "side", *(f"{split} pictures" for split in SPLITS))
    return Table(title="Data", headers=headers, rows=tuple(rows))


def protocol_boxes(study: Study) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the protocols of each dataset, one box per judge and reference, with one line per metric."""
    boxes = []
    for dataset in study.datasets():
        shared: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        for evaluation in (e for e in study.evaluations if e.dataset == dataset):
            for name, measured in evaluation.metrics.items():
                shared.setdefault(tuple(_protocol(evaluation.record(name))), {})[name] = measured.protocol
        for protocol, lines in shared.items():
            about = dict(protocol)
            title = (
                dataset
                if len(shared) == 1
                else f"{dataset}, {about.get('network')} against {about.get('reference_split')}"
            )
            boxes.append((title, [*protocol, *lines.items()]))
    return boxes


def _protocol(record: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield what a number has in common with the others of its table."""
    own = {"seed", "train_seed", "versions", "judge_in_training"}
    own |= {"n_real"} if record.get("reference_split") == "train" else set()
    yield from ((key, str(value)) for key, value in record.items() if key not in own and value is not None)


def _metric_header(metric: str) -> str:
    arrow = {"lower": "\N{NO-BREAK SPACE}↓", "higher": "\N{NO-BREAK SPACE}↑", None: ""}[better(metric)]
    return metric_title(metric) + arrow


def _metric_cell(group: Sequence[Evaluation], metric: str, decimals: int) -> Cell:
    values = values_of(group, metric)
    if not values:
        return Cell(text=NONE)
    mean, interval = mean_interval(values)
    each = ", ".join(number(value, decimals) for value in values) if len(values) > 1 else ""
    return Cell(text=number(mean, decimals), interval=interval_text(interval, decimals), each=each)


def _effect_cell(effect: Paired, decimals: int) -> Cell:
    return Cell(text=optional(effect.mean, decimals), interval=interval_text(effect.ci95, decimals))


def _anchor_name(anchor: Evaluation, n_gen: object) -> str:
    if anchor.subject == "untrained":
        return f"untrained generator of {anchor.run}"
    if anchor.subject == "pca_gaussian":
        return f"PCA-Gaussian sampler on the pictures of {anchor.run}"
    if anchor.subject == "copycat":
        return f"copycat: the training pictures of {anchor.run} over and over"
    if anchor.subject == "real":
        own = anchor.protocol.get("n_gen")
        note = "" if own == n_gen or own is None else f", {own:,} pictures where runs have {n_gen:,}"
        return f"real train against real test, the floor{note}"
    return anchor.subject


def _stage_rank(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def _split_sizes(manifest: Mapping[str, Any]) -> dict[str, int]:
    splits = manifest.get("splits") or {}
    return {name: entry["n"] for name, entry in splits.items() if isinstance(entry, Mapping) and "n" in entry}


def _settings(settings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield (key, text) of a run's settings: one line a slot, one line for each field of `training`."""
    for key, value in settings.items():
        if key == "training" and isinstance(value, Mapping):
            yield from ((f"training.{name}", _words(entry)) for name, entry in value.items())
        else:
            yield key, _words(value)


def _words(value: object) -> str:
    """Write a setting in one line: its kind first, then its fields."""
    if isinstance(value, Mapping):
        fields = [f"{key} {_words(entry)}" for key, entry in value.items() if key != "kind"]
        kind = [str(value["kind"])] if "kind" in value else []
        return ", ".join(kind + fields) or "none"
    if isinstance(value, list | tuple):
        return (" + " if any(isinstance(entry, Mapping) for entry in value) else " ").join(map(_words, value)) or "none"
    return "none" if value is None else str(value)


def _each(values: Sequence[float]) -> str:
    return ", ".join(number(value) for value in values) if len(values) > 1 else ""
