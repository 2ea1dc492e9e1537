"""`pygan plan CONFIG`: the jobs of a study and what they will take, told before anything is computed.

The time of a training step, of the start of a process and of a judge's look at a picture are measured on this machine
(`pygan.speeds`). What stages have taken before in this study (Snakemake's benchmark tables) comes before any of that,
trainings excepted, whose budget may have changed. The remaining constants are seconds on the machine of `bench/`.
"""

import csv
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from pygan.checkpoint import write_json
from pygan.config import Study, check_files, load
from pygan.config_combinations import selected_runs, start_nimg
from pygan.devices import study_sentence
from pygan.speeds import Speeds, measure
from pygan.wording import number_of

PREPARE, METRICS, PROBE, PRUNE, THEORY, REPORT = 2.0, 4.0, 1.0, 1.0, 60.0, 15.0
"""Seconds beside the start of the process and the judge's pictures: to decode a packaged data set, to compute the
metrics of a judge, to train linear probes per network, to prune, to compute the theory, to draw the report."""
TOY, COPYING = 20.0, 0.02
"""Seconds to train the networks of the toy; for a training picture to look for it in what was generated."""
PICTURES = 3_000
"""Real pictures of a data set that is not prepared yet."""
STAGES = (
    "prepare_data",
    "reference",
    "train",
    "probe",
    "prune_round",
    "select",
    "evaluate",
    "anchor",
    "theory",
    "diffusion",
    "report",
)
"""In the order in which they are shown."""
ON_A_GPU = ("reference", "train", "probe", "select", "evaluate", "anchor", "diffusion")
"""Whose jobs take a GPU each where the study may use any. The toy of the diffusion study and the anchor of real
pictures take none; they are short and counted with their stage."""
_RULES = {
    "anchor real": "anchor_real",
    "theory theory": "theory",
    "diffusion toy": "diffusion_toy",
    "diffusion exact": "diffusion_exact",
}
"""Jobs whose benchmark table is not named after their rule."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Equal jobs of a study, one per seed (and round)."""

    stage: str
    name: str
    """As `pipeline.progress.job_name` has it: the workflow's rule and the run, anchor or data set."""
    n: int
    seconds: float
    """Of one of them, on one core (on `threads` of them where the study says so)."""
    recorded: bool = False
    """Whether the seconds are those of an earlier time."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of a whole study."""

    name: str
    cores: int
    gpus: int
    """0: everything is computed on the CPU."""
    device: str
    """What the trainings compute on and why, in words."""
    jobs: list[Job]
    step: dict[str, float]
    """Run -> seconds of a training step."""
    chain: float
    """Seconds of the longest chain of jobs of which each one waits for the one before."""
    threads: int = 1
    """Cores of a training."""
    processes: int = 1
    """Of a training, each with a GPU of its own where the study may use any."""

    @property
    def core_seconds(self) -> float:
        """Of all jobs together."""
        return sum(job.n * job.seconds * (self.threads if job.stage == "train" else 1) for job in self.jobs)

    @property
    def wall_seconds(self) -> float:
        """By all cores and GPUs; never less than the longest chain."""
        walls = [self.core_seconds / self.cores, self.chain]
        if self.gpus:
            walls.append(self.gpu_seconds / self.gpus)
        return max(walls)

    @property
    def gpu_seconds(self) -> float:
        """Of all jobs that compute on a GPU, times the GPUs that each of them takes."""
        jobs = (job for job in self.jobs if job.stage in ON_A_GPU)
        return sum(job.n * job.seconds * (self.processes if job.stage == "train" else 1) for job in jobs)

    def plain(self) -> dict[str, Any]:
        """Return what the workflow reads when it tells what is left."""
        return {
            "cores": self.cores,
            "wall_seconds": self.wall_seconds,
            "step_seconds": self.step,
            "seconds": {job.name: job.seconds for job in self.jobs},
        }


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_plan(config: Path, cores: int, gpus: int, say: Callable[[str], None]) -> str:
    """Plan a study file and return the plan in words; `plan.json` in the folder of its results serves the workflow.

    Args:
        cores: how many jobs run side by side.
        gpus: that the study may use; 0: it computes on the CPU.
        say: told what is measured.

    Raises:
        ConfigError, MissingInput: as `pygan check`.
    """
    study = load(config)
    check_files(study)
    results = Path(study.output)
    device = study_sentence(gpus, study.processes)
    made = plan(study, measure(study, cores, gpus, say), cores, results, gpus=gpus, device=device)
    write_json(results / "plan.json", made.plain())
    return text(made)


# Jobs


def plan(
    study: Study, speeds: Speeds, cores: int, results: Path | None = None, *, gpus: int = 0, device: str = ""
) -> Plan:
    """Return the jobs of a study with their seconds.

    Args:
        speeds: of this machine.
        cores: how many jobs run side by side.
        results: folder of the results, where earlier times are looked up; None: nowhere.
        gpus: that the study may use.
        device: what the trainings compute on, in words.
    """
    recorded = _recorded(results) if results else {}
    jobs = [_with_record(job, recorded) for job in _jobs(study, speeds, results)]
    return Plan(
        name=study.name,
        cores=cores,
        gpus=gpus,
        device=device,
        jobs=jobs,
        step=speeds.step,
        chain=_longest_chain(study, {job.name: job.seconds for job in jobs}),
        threads=study.threads * study.processes,
        processes=study.processes,
    )


def _jobs(study: Study, speeds: Speeds, results: Path | None) -> Iterator[Job]:
    seeds, start = len(study.seeds), speeds.start
    judges = [] if study.evaluate is None else [study.evaluate, *study.evaluate.also]
    measured = start + sum(
        METRICS + (judge.n_gen or study.evaluate.n_gen) / rate
        for judge, rate in zip(judges, speeds.judged, strict=True)
    )
    for dataset in study.datasets:
        yield Job(stage="prepare_data", name=f"prepare_data {dataset}", n=1, seconds=start + PREPARE)
    for dataset in _judged_datasets(study):
        pictures = start + mean(_pictures(results, dataset) / rate for rate in speeds.judged)
        yield Job(stage="reference", name=f"reference {dataset}", n=len(judges), seconds=pictures)
    for run, settings in study.runs.items():
        training = settings.training
        steps = (training.total_nimg - start_nimg(settings)) / training.nimg_per_step
        rounds = _rounds(settings)
        for name in (*(f"train_{run}_round{number}" for number in range(1, rounds)), f"train_{run}"):
            yield Job(stage="train", name=name, n=seeds, seconds=start + steps * speeds.step[run])
        if _is_probed(settings):
            yield Job(stage="probe", name=f"probe {run}", n=seeds, seconds=start + PROBE * len(study.bank))
        if rounds:
            yield Job(stage="prune_round", name=f"prune_round {run}", n=seeds * rounds, seconds=start + PRUNE)
        if run in selected_runs(study):
            competing = min(study.select.candidates, len(_own_snapshots(settings))) * study.select.n_gen
            yield Job(stage="select", name=f"select {run}", n=seeds, seconds=start + competing / speeds.judged[0])
        if settings.evaluate:
            yield Job(stage="evaluate", name=f"evaluate {run}", n=seeds, seconds=measured)
    for anchor in ("untrained", "pca_gaussian", "copycat"):
        if getattr(study.anchors, anchor) is not None:
            seconds = start + METRICS * len(judges) if anchor == "copycat" else measured
            yield Job(stage="anchor", name=f"anchor {anchor}", n=seeds, seconds=seconds)
    if study.anchors.real is not None:
        yield Job(stage="anchor", name="anchor_real", n=1, seconds=start + METRICS * len(judges))
    if study.theory is not None:
        yield Job(stage="theory", name="theory", n=1, seconds=start + THEORY)
    yield from _diffusion_jobs(study, start)
    yield Job(stage="report", name="report", n=1, seconds=REPORT)


def _diffusion_jobs(study: Study, start: float) -> Iterator[Job]:
    section, seeds = study.diffusion, len(study.seeds)
    if section is None:
        return
    if section.toy is not None:
        yield Job(stage="diffusion", name="diffusion_toy", n=seeds, seconds=start + TOY)
    if section.exact is not None:
        searched = COPYING * sum(section.exact.sizes)
        yield Job(stage="diffusion", name="diffusion_exact", n=seeds, seconds=start + searched)
    for run in section.runs:
        subset, measured = study.runs[run].subset, len(_own_snapshots(study.runs[run])) + 1
        seconds = COPYING * getattr(subset, "n", PICTURES) * measured
        yield Job(stage="diffusion", name=f"diffusion_run {run}", n=seeds, seconds=start + seconds)


def _judged_datasets(study: Study) -> list[str]:
    anchors = study.anchors
    compared = [*selected_runs(study), anchors.untrained, anchors.pca_gaussian, anchors.copycat]
    judged = {study.runs[name].dataset for name in compared if name is not None} | {anchors.real}
    return [name for name in study.datasets if name in judged]


def _rounds(run: Any) -> int:
    return 0 if run.ticket is None else getattr(run.ticket, "rounds", 1)


def _own_snapshots(run: Any) -> list[int]:
    start = start_nimg(run)
    return [nimg for nimg in run.training.snapshots if nimg > start]


def _is_probed(run: Any) -> bool:
    return any(player.kind == "vision_aided" and not player.networks for player in run.discriminators)


def _pictures(results: Path | None, dataset: str) -> int:
    try:
        splits = json.loads((results / "data" / dataset / "manifest.json").read_text())["splits"]
    except (OSError, ValueError, KeyError, TypeError):
        return PICTURES
    return sum(split["n"] for split in splits.values())


def _longest_chain(study: Study, seconds: dict[str, float]) -> float:
    """Return the seconds of the jobs of one seed that wait for one another, over the run where they are most."""

    def trained(run: str) -> float:
        settings = study.runs[run]
        before = [settings.continues.run] if settings.continues is not None else []
        before += [
            other
            for key in ("found_in", "like", "mask_of")
            if (other := getattr(settings.ticket, key, None)) is not None
        ]
        own = [name for name in seconds if name == f"train_{run}" or name.startswith(f"train_{run}_round")]
        own += [f"probe {run}"] if _is_probed(settings) else []
        prune = _rounds(settings) * seconds.get(f"prune_round {run}", 0.0)
        return max(map(trained, before), default=0.0) + prune + sum(seconds[name] for name in own)

    def shared(run: str) -> float:
        dataset = study.runs[run].dataset
        return seconds[f"prepare_data {dataset}"] + sum(
            seconds.get(f"{stage} {run}", 0.0) for stage in ("select", "evaluate")
        )

    chains = [trained(run) + shared(run) for run in study.runs]
    return max(chains, default=0.0) + seconds["report"]


# Earlier times


def _recorded(results: Path) -> dict[str, float]:
    """Return name -> seconds of the longest job of that name, as Snakemake's benchmark tables have it."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in (results / "benchmarks").glob("*/*.tsv"):
        stage = path.parent.name
        subject = re.sub(r"_judge\d+$|_seed\d+(_round\d+)?$", "", path.stem)
        name = _RULES.get(f"{stage} {subject}", f"{stage} {subject}")
        with path.open(encoding="utf-8", newline="") as file:
            found[name] += [float(row["s"]) for row in csv.DictReader(file, delimiter="\t")]
    return {name: max(seconds) for name, seconds in found.items() if seconds}


def _with_record(job: Job, recorded: dict[str, float]) -> Job:
    if job.stage == "train" or job.name not in recorded:
        return job
    return replace(job, seconds=recorded[job.name], recorded=True)


# Words


def text(plan: Plan) -> str:
    """Return the plan as a table with what it will take."""
    lines = [f"{'stage':<14}{'jobs':>6}{'seconds each':>16}{'core-seconds':>16}"]
    for stage in STAGES:
        jobs = [job for job in plan.jobs if job.stage == stage]
        if not jobs:
            continue
        each = sorted({round(job.seconds) for job in jobs})
        cores = plan.threads if stage == "train" else 1
        lines.append(
            f"{stage:<14}{sum(job.n for job in jobs):>6}"
            f"{f'{each[0]}' if len(each) == 1 else f'{each[0]}-{each[-1]}':>16}"
            f"{sum(job.n * job.seconds * cores for job in jobs):>16.0f}"
            + ("  as recorded" if all(job.recorded for job in jobs) else "")
        )
    steps = ", ".join(f"{run} {1000 * seconds:.0f}" for run, seconds in plan.step.items())
    return "\n".join(
        [
            f"{plan.name}: {sum(job.n for job in plan.jobs)} jobs on {_machine(plan)}, about "
            f"{_minutes(plan.wall_seconds)} ({plan.core_seconds:.0f} core-seconds, longest chain "
            f"{_minutes(plan.chain)})",
            *filter(None, [plan.device]),
            *lines,
            *([f"milliseconds of a training step, measured: {steps}"] if steps else []),
        ]
    )


def _machine(plan: Plan) -> str:
    cores = number_of(plan.cores, "core")
    return f"{cores} and {number_of(plan.gpus, 'GPU')}" if plan.gpus else cores


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'s' if minutes > 1 else ''}" if minutes < 90 else f"{seconds / 3600:.1f} hours"
