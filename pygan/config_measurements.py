"""What a study measures, with what, and what it claims: checked before any job starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from pygan.config_combinations import has_untrained, needs_classes, networks_in_training, selected_runs
from pygan.config_reading import known
from pygan.diffusion.study import measured
from pygan.errors import ConfigError
from pygan.metrics.base import measured_name

if TYPE_CHECKING:
    from pygan.config import Claim, Run, Study


def check_measurements(study: Study) -> None:
    """Raise `ConfigError` where something is measured that is not there, or by what cannot measure it."""
    _check_anchors(study)
    if study.evaluate is not None:
        _check_judges(study)
    if selected_runs(study):
        _check_labels_to_measure(study)
    if study.diffusion is not None:
        _check_diffusion(study)
    _check_claims(study)


def _check_labels_to_measure(study: Study) -> None:
    """Refuse a class-wise metric that no run can be measured by; runs without labels do without it."""
    if needs_classes(study.select.metric):
        raise ConfigError(
            f"select.metric: {study.select.metric.kind} is class-wise, expected a distance of all pictures"
        )
    if not getattr(study.select.metric, "selects", True):
        raise ConfigError(f"select.metric: {study.select.metric.kind} chooses no snapshot, expected a distance")
    if any(run.evaluate and run.base.conditional for run in study.runs.values()):
        return
    further = [(f"evaluate.also.{i}.metrics", judge.metrics) for i, judge in enumerate(study.evaluate.also)]
    for key, metrics in [("evaluate.metrics", study.evaluate.metrics), *further]:
        for i, metric in enumerate(metrics):
            if needs_classes(metric):
                raise ConfigError(
                    f"{key}.{i}: {metric.kind} needs labels, but no run has `conditional: true` in its `base`"
                )


def _check_judges(study: Study) -> None:
    """Check that judges have names of their own, did not take part in training, and have what their metrics need."""
    judges = [("evaluate", study.evaluate)]
    judges += [(f"evaluate.also.{i}", judge) for i, judge in enumerate(study.evaluate.also)]
    trained = {network.name for network in study.bank}
    trained |= {network.name for run in study.runs.values() for network in networks_in_training(run)}
    seen: set[str] = set()
    for key, judge in judges:
        name = judge.network.name
        if name in seen:
            raise ConfigError(f"{key}.network: {name} judges already, expected another network")
        seen.add(name)
        if key != "evaluate" and name in trained and not judge.shared:
            raise ConfigError(
                f"{key}.network: {name} takes part in training, so it favors some runs: set `shared: true` to have its "
                "numbers all the same"
            )
        if (judge.n_gen or 0) > study.evaluate.n_gen:
            raise ConfigError(
                f"{key}.n_gen: got {judge.n_gen}, expected at most the {study.evaluate.n_gen} of evaluate"
            )
        for i, metric in enumerate(judge.metrics):
            if problem := getattr(metric, "unfit", lambda network: None)(judge.network):
                raise ConfigError(f"{key}.metrics.{i}: {problem}")


def _check_anchors(study: Study) -> None:
    for key in ("untrained", "pca_gaussian", "copycat"):
        if (run := getattr(study.anchors, key)) is not None:
            known(f"anchors.{key}", run, study.runs)
    if study.anchors.untrained is not None and not has_untrained(study.runs[study.anchors.untrained]):
        raise ConfigError(f"anchors.untrained: {study.anchors.untrained} writes no snapshot at 0 images: add it")
    if study.anchors.real is not None:
        known("anchors.real", study.anchors.real, study.datasets)


def _check_claims(study: Study) -> None:
    ids = [claim.id for claim in study.claims]
    of_runs = any(claim.stage == "evaluate" for claim in study.claims)
    names = {name: None for name in measured_names(study)} if of_runs else {}
    for place, claim in enumerate(study.claims):
        key = f"claims.{place}"
        if claim.id in ids[:place]:
            raise ConfigError(f"{key}.id: {claim.id!r} is there twice")
        for field in ("against", "control", "equal_time"):
            if getattr(claim, field) == claim.arm:
                raise ConfigError(f"{key}.{field}: {claim.arm!r} cannot be compared with itself")
        if claim.stage == "diffusion":
            _check_diffusion_claim(study, claim, key)
            continue
        for field in ("arm", "against", "control", "equal_time"):
            if (run := getattr(claim, field)) is not None:
                known(f"{key}.{field}", run, study.runs)
                if not study.runs[run].evaluate:
                    raise ConfigError(f"{key}.{field}: {run} has `evaluate: false`, expected a run that is measured")
        if study.runs[claim.arm].dataset != study.runs[claim.against].dataset:
            raise ConfigError(f"{key}.against: {claim.against} has another data set than {claim.arm}")
        known(f"{key}.method", claim.method, {kind: None for kind in _methods(study.runs[claim.arm])})
        known(f"{key}.metric", claim.metric, names)


def _check_diffusion_claim(study: Study, claim: Claim, key: str) -> None:
    if study.diffusion is None:
        raise ConfigError(f"{key}.stage: got diffusion, but the study has no section `diffusion`")
    denoisers = [name for name in study.diffusion.runs if study.runs[name].base.kind == "unet"]
    numbers = measured(study.diffusion, denoisers)
    for field in ("arm", "against", "control", "equal_time"):
        if (subject := getattr(claim, field)) is not None:
            known(f"{key}.{field}", subject, numbers)
            known(f"{key}.metric", claim.metric, dict.fromkeys(numbers[subject]))


def _methods(run: Run) -> Iterator[str]:
    objective = None if isinstance(run.loss, str) else run.loss
    for slot in (run.augment, *run.discriminators, *run.regularizers, run.ticket, objective):
        if slot is not None and getattr(slot, "weight", None) != 0:  # a term of weight 0 only reports
            yield slot.kind


def _check_diffusion(study: Study) -> None:
    """Check that there is something to measure, on pictures larger than the shifts that are searched."""
    section = study.diffusion
    if section.toy is None and section.exact is None and not section.runs:
        raise ConfigError("diffusion: got neither `toy` nor `exact` nor `runs`, expected something to measure")
    datasets = {}
    if section.exact is not None:
        known("diffusion.exact.dataset", section.exact.dataset, study.datasets)
        datasets["diffusion.exact.dataset"] = section.exact.dataset
    for place, name in enumerate(section.runs):
        known(f"diffusion.runs.{place}", name, study.runs)
        run = study.runs[name]
        known(f"runs.{name}.dataset", run.dataset, study.datasets)
        if run.base.kind == "unet" and run.base.conditional:
            raise ConfigError(
                f"diffusion.runs.{place}: {name} takes class labels, the empirical optimum it is compared with has none"
            )
        if getattr(run.subset, "n", None) == 1 and not run.subset.per_class:
            raise ConfigError(f"runs.{name}.subset.n: got 1, expected at least 2, since `diffusion` measures the run")
        datasets[f"diffusion.runs.{place}"] = run.dataset
    for key, dataset in datasets.items():
        if 2 * section.shift >= study.datasets[dataset].resolution:
            raise ConfigError(
                f"diffusion.shift: got {section.shift}, expected less than half the side of the pictures of {key}, "
                f"{study.datasets[dataset].resolution} pixels"
            )


def measured_names(study: Study) -> list[str]:
    """Return the names of the numbers that `evaluate` reports, found by measuring random features."""
    noise = torch.randn(2, 64, 4, generator=torch.Generator().manual_seed(0))
    found = [
        measured_name(name, judge.network.name, first=judge is study.evaluate)
        for judge in (study.evaluate, *study.evaluate.also)
        for metric in judge.metrics
        for name in getattr(metric, "names", None) or metric.build().compute(noise[0], noise[1])
    ]
    return list(dict.fromkeys(found))
