"""What the numbers were made with: versions, machine, code, data and every setting, for those who make them again."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pygan.report.study import Job, Study
from pygan.report.tables import Cell, Table
from pygan.report.text import NONE, duration, mean_of

SPLITS = ("train", "validation", "test")


def made_with(study: Study) -> list[tuple[str, str]]:
    """Return operators, machine, threads, versions and revision of all trainings, differing ones side by side."""
    records = [job.record for job in study.jobs.values()]
    ops = _distinct(
        f"{entry.get('backend')} ({entry['reason']})" if entry.get("reason") else entry.get("backend")
        for record in records
        if (entry := record.get("ops"))
    )
    pairs = [("Ops", ops or "not recorded")]
    pairs += [
        ("Machine", _distinct(_device(record.get("device")) for record in records)),
        ("Threads per training job", _distinct(record.get("threads") for record in records)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in study.versions().items())),
        ("Revision", _distinct(record.get("git") for record in records)),
        ("Digest of the native sources", _digests(records, "csrc")),
    ]
    for name, manifest in study.manifests.items():
        for split in SPLITS:
            if digest := (manifest.get("splits") or {}).get(split, {}).get("sha256"):
                pairs.append((f"sha256 of {name}, {split}", digest))
    return [(key, value) for key, value in pairs if value]


def provenance_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return, for every training job, seeds, images, seconds and the digest of the code it ran."""
    rows = []
    for name, jobs in _jobs(study).items():
        rows.append(
            (
                Cell(text=name, color=colors.get(name.partition("@")[0], "")),
                Cell(text=", ".join(str(job.seed) for job in jobs)),
                Cell(text=", ".join(dict.fromkeys(f"{job.nimg:,}" for job in jobs))),
                Cell(text=duration(mean_of([job.seconds for job in jobs]))),
                Cell(text=_digests([job.record for job in jobs], "code") or NONE),
                Cell(text=_distinct(job.record.get("git") for job in jobs) or NONE),
            )
        )
    headers = ("training", "seeds", "images seen", "seconds a seed", "digest of its code", "revision")
    return Table(title="Trainings", headers=headers, rows=tuple(rows))


def _jobs(study: Study) -> dict[str, list[Job]]:
    """Return job name -> jobs by seed, in the order of the runs, a ticket's earlier rounds before it."""
    order = list(study.runs)
    ranked = sorted(
        study.jobs.values(),
        key=lambda job: (order.index(job.name.partition("@")[0]), "@" not in job.name, job.name, job.seed),
    )
    found: dict[str, list[Job]] = {}
    for job in ranked:
        found.setdefault(job.name, []).append(job)
    return found


def configuration(study: Study) -> str:
    """Return the whole configuration as JSON text."""
    return json.dumps(study.config, indent=2, ensure_ascii=False)


def _digests(records: Iterable[Mapping[str, Any]], key: str) -> str:
    return _distinct((record.get("digests") or {}).get(key) for record in records)


def _distinct(values: Iterable[object]) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _device(value: object) -> str | None:
    if isinstance(value, Mapping):
        return ", ".join(str(entry) for entry in value.values() if entry)
    return None if value is None else str(value)
