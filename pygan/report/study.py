"""A study as the report sees it: what was configured, what the stages found, and what follows from it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pygan.report.evidence import Claim, Paired, Verdict, judge, paired

ANCHOR_ORDER = ("untrained", "pca_gaussian", "copycat", "real")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One value of one metric."""

    value: float
    interval: tuple[float, float] | None
    """95 % interval over resampled pictures; None: the metric has none."""
    protocol: str
    classes: dict[str, dict[str, Any]] | None = None
    """Class name -> `value`, and the numbers of `train`, `real` and `gen` pictures; None: not a class-wise number."""
    record: dict[str, Any] = field(default_factory=dict)
    """Network and its sha256, resize, n_real, n_gen, reference split, seeds, dtype, versions; empty: those of the
    evaluation."""
    beside: dict[str, Any] = field(default_factory=dict)
    """What else was found: `held_out` (the same measure of held-out real pictures), `generated`, `copying`, ..."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One `metrics.json`: a run's generator, or an anchor, against the test split."""

    path: Path
    subject: str
    """"run", "untrained", "pca_gaussian", "copycat" or "real"."""
    run: str | None
    """None: the subject is no run's ("real")."""
    dataset: str
    n_images: int | None
    """Training pictures; None: all of them."""
    methods: tuple[str, ...]
    seed: int | None
    nimg: int | None
    metrics: dict[str, Measured]
    protocol: dict[str, Any]
    """Network and its sha256, resize, n_real, n_gen, reference split, dtype, ... of the first judge."""
    device: str | None = None
    """Kind of device that computed the numbers; None: not recorded."""

    def record(self, metric: str) -> dict[str, Any]:
        """Return how a number came about: its own record, or that of all numbers where it has none."""
        return self.metrics[metric].record or self.protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """One `run.json`: a training job that ended."""

    path: Path
    name: str
    """The run, or `RUN@R` for an intermediate training of a ticket."""
    seed: int
    nimg: int
    seconds: float
    """Of this job alone."""
    record: dict[str, Any]
    """The whole file: ops, device, threads, versions, git, ..."""


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A JSON file of one run and seed, as it is."""

    path: Path
    run: str
    seed: int
    record: dict[str, Any]


@dataclass(kw_only=True)
class Study:
    """Everything the report shows."""

    name: str
    seeds: tuple[int, ...]
    runs: dict[str, dict[str, Any]]
    """The configuration of each run, in the order of the config file."""
    config: dict[str, Any]
    claims: tuple[Claim, ...]
    evaluations: list[Evaluation] = field(default_factory=list)
    """Of runs."""
    anchors: list[Evaluation] = field(default_factory=list)
    jobs: dict[tuple[str, int], Job] = field(default_factory=dict)
    """By job name and seed."""
    stats: dict[tuple[str, int], list[dict[str, float]]] = field(default_factory=dict)
    """By job name and seed; one mapping a tick."""
    samples: dict[tuple[str, int], dict[int, Path]] = field(default_factory=dict)
    """By job name and seed, then nimg -> PNG."""
    neighbors: dict[tuple[str, int], Path] = field(default_factory=dict)
    """By run and seed: PNG of generated pictures beside the training pictures nearest to them."""
    probes: list[Owned] = field(default_factory=list)
    prunings: list[Owned] = field(default_factory=list)
    selections: list[Owned] = field(default_factory=list)
    contact_sheets: dict[str, Path] = field(default_factory=dict)
    """By dataset."""
    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By dataset."""
    theory: dict[str, Any] | None = None
    """`theory.json` as it is; None: the study has no theory."""
    rule_graph: dict[str, Any] | None = None
    """`jobs`, rule -> number of jobs, and `edges`, pairs of rules; None: not recorded."""
    diffusion: list[dict[str, Any]] = field(default_factory=list)
    """Records of the study of diffusion models; `numbers` of a record hold subject -> metric -> value of its `seed`,
    `panels` the path of a picture -> its caption."""
    stage_seconds: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Stage -> seconds summed over its jobs, number of jobs."""

    @property
    def evaluated(self) -> list[str]:
        """The runs that are to be measured against the test split."""
        return [run for run, settings in self.runs.items() if (settings or {}).get("evaluate", True)]

    def of_run(self, run: str) -> list[Evaluation]:
        """Return the evaluations of `run`, by seed."""
        return sorted((e for e in self.evaluations if e.run == run), key=lambda e: e.seed)

    def methods(self, run: str) -> tuple[str, ...]:
        """Return the methods of `run`, in the order of its records; empty where nothing of it has finished."""
        found = [e.methods for e in self.of_run(run)]
        found += [tuple(job.record.get("methods") or ()) for job in self.jobs.values() if job.name == run]
        return next(iter(found), ())

    def values(self, run: str, metric: str) -> dict[int, float]:
        """Return seed -> value of `metric` for `run`; empty where it was not measured."""
        return {e.seed: e.metrics[metric].value for e in self.of_run(run) if metric in e.metrics}

    def claimed_values(self, claim: Claim, subject: str | None) -> dict[int, float]:
        """Return seed -> value of the claim's metric for one of its subjects; empty where it was not measured."""
        if subject is None:
            return {}
        if claim.stage == "diffusion":
            found = ((record, record.get("numbers", {}).get(subject, {})) for record in self.diffusion)
            return {record["seed"]: numbers[claim.metric] for record, numbers in found if claim.metric in numbers}
        return self.values(subject, claim.metric)

    def metric_names(self) -> list[str]:
        """Return the metrics that compare whole sets of pictures, of all runs, in the order of their computation.

        Those that compare with the training pictures are `copy_names`: they measure copying, not quality.
        """
        return [name for name in self._names() if name not in self.copy_names()]

    def copy_names(self) -> list[str]:
        """Return the metrics that compare with the training pictures, of all runs."""
        found = (
            name for e in self.evaluations for name in e.metrics if e.record(name).get("reference_split") == "train"
        )
        return list(dict.fromkeys(found))

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for e in self.evaluations for name, m in e.metrics.items() if not m.classes))

    def anchors_of(self, dataset: str) -> list[list[Evaluation]]:
        """Return the anchors of a dataset, one list of seeds per anchor: untrained, PCA-Gaussian, real, others."""
        groups: dict[tuple[int, str, str], list[Evaluation]] = {}
        for anchor in sorted(self.anchors, key=lambda a: a.seed or 0):
            rank = ANCHOR_ORDER.index(anchor.subject) if anchor.subject in ANCHOR_ORDER else len(ANCHOR_ORDER)
            if anchor.dataset == dataset:
                groups.setdefault((rank, anchor.subject, anchor.run or ""), []).append(anchor)
        return [groups[key] for key in sorted(groups)]

    def datasets(self) -> list[str]:
        """Return the datasets that runs were evaluated on."""
        return list(dict.fromkeys(evaluation.dataset for evaluation in self.evaluations))

    def verdicts(self) -> list[Verdict]:
        """Judge every claim."""
        found = []
        for claim in self.claims:
            compared = (claim.arm, claim.against, claim.control, claim.equal_time)
            found.append(judge(claim, *(self.claimed_values(claim, name) for name in compared)))
        return found

    def other_judges(self, claim: Claim) -> dict[str, Paired]:
        """Return the improvement over `against` in the features of other networks, by the metric's name there.

        It decides nothing: a claim names the network that judges it.
        """
        if claim.stage == "diffusion":
            return {}
        networks = {name: _network(e, name) for e in self.of_run(claim.arm) for name in e.metrics}
        own = networks.get(claim.metric, "")
        stem = claim.metric.removesuffix(f"_{own}")
        return {
            name: paired(self.values(claim.arm, name), self.values(claim.against, name), claim.direction)
            for name, network in networks.items()
            if network != own and name == f"{stem}_{network}"
        }

    def device_kinds(self, run: str) -> list[str]:
        """Return the kinds of device, `cpu` or `cuda`, that trained, probed, selected or measured a run.

        Empty where none is recorded.
        """
        records = [job.record for job in self.jobs.values() if run_of(job) == run]
        records += [owned.record for owned in (*self.probes, *self.selections) if owned.run == run]
        found = [(record.get("device") or {}).get("type") for record in records]
        found += [evaluation.device for evaluation in self.of_run(run)]
        return sorted({kind for kind in found if kind})

    def versions(self) -> dict[str, str]:
        """Return package -> version over all training jobs; differing versions are joined by " / "."""
        found: dict[str, dict[str, None]] = {}
        for job in self.jobs.values():
            for name, version in (job.record.get("versions") or {}).items():
                found.setdefault(name, {})[str(version)] = None
        return {name: " / ".join(values) for name, values in found.items()}

    def curves(self, run: str, seed: int) -> list[dict[str, float]]:
        """Return the ticks of `run`, those of the run it continues first."""
        own = self.stats.get((run, seed), [])
        parent = (self.runs.get(run) or {}).get("continues")
        if not parent or parent["nimg"] == "best":  # from a best snapshot the image count begins anew
            return own
        before = self.curves(parent["run"], seed)
        return [tick for tick in before if tick["nimg"] <= parent["nimg"]] + own

    def continued_seconds(self, job: Job) -> float:
        """Return the training seconds that led to the snapshot from which `job` went on; 0 for one from scratch."""
        parent = (self.runs.get(run_of(job)) or {}).get("continues")
        nimg = self._start_nimg(parent, job.seed) if parent else None
        return 0.0 if nimg is None else self.seconds_at(parent["run"], job.seed, nimg) or 0.0

    def _start_nimg(self, parent: dict[str, Any], seed: int) -> int | None:
        """Return the image count of the snapshot that `continues` means; None where a best one is not known."""
        if parent["nimg"] != "best":
            return parent["nimg"]
        chosen = (s.record["nimg"] for s in self.selections if (s.run, s.seed) == (parent["run"], seed))
        return next(chosen, None)

    def seconds_total(self, job: Job) -> float:
        """Return the training seconds of `job` with those that it continues."""
        return self.continued_seconds(job) + job.seconds

    def ticket_search_seconds(self, run: str, seed: int) -> float:
        """Return the training seconds spent on finding the ticket of `run`; 0 for a run without a ticket."""
        ticket = (self.runs.get(run) or {}).get("ticket")
        if not ticket:
            return 0.0
        found = self.jobs.get((ticket["found_in"], seed))
        rounds = [job for job in self.jobs.values() if job.name.startswith(f"{run}@") and job.seed == seed]
        return (self.seconds_total(found) if found else 0.0) + sum(job.seconds for job in rounds)

    def seconds_by_seed(self, run: str) -> dict[int, float]:
        """Return seed -> training seconds of `run`, with what it continues and the search for its ticket."""
        return {
            job.seed: self.seconds_total(job) + self.ticket_search_seconds(run, job.seed)
            for job in self.jobs.values()
            if job.name == run
        }

    def seconds_ratio(self, arm: str, against: str) -> float | None:
        """Return how many times as long `arm` trained as `against`, over common seeds; None without a common seed."""
        a, b = self.seconds_by_seed(arm), self.seconds_by_seed(against)
        common = a.keys() & b.keys()
        return sum(a[s] for s in common) / total if (total := sum(b[s] for s in common)) > 0 else None

    def seconds_at(self, run: str, seed: int, nimg: int) -> float | None:
        """Return the training seconds of `run` when it had seen `nimg` images; None where no tick says so."""
        parent = (self.runs.get(run) or {}).get("continues")
        if parent and nimg <= (0 if parent["nimg"] == "best" else parent["nimg"]):
            start = self._start_nimg(parent, seed) if parent["nimg"] == "best" else nimg
            return None if start is None else self.seconds_at(parent["run"], seed, start)
        job = self.jobs.get((run, seed))
        ticks = [tick for tick in self.stats.get((run, seed), ()) if tick["nimg"] >= nimg and "seconds" in tick]
        if job is None or not ticks:
            return 0.0 if nimg == 0 else None
        return self.continued_seconds(job) + ticks[0]["seconds"] + self.ticket_search_seconds(run, seed)


def run_of(job: Job) -> str:
    """Return the run that a training job belongs to."""
    return job.name.partition("@")[0]


def _network(evaluation: Evaluation, metric: str) -> str:
    """Return the network whose features a metric compares, without its resolution; empty where it names none."""
    return str(evaluation.record(metric).get("network") or "").partition(" ")[0]


def values_of(group: Iterable[Evaluation], metric: str) -> list[float]:
    """Return the values of `metric` in the order of `group`; evaluations without it are left out."""
    return [e.metrics[metric].value for e in group if metric in e.metrics]
