"""The numbers of the report for programs: `summary.json`."""

from collections.abc import Sequence
from typing import Any

from pygan.report.diffusion import diffusion_summary
from pygan.report.evidence import MDE_DEFINITION, Paired, Verdict, mean_interval
from pygan.report.sentences import headlines
from pygan.report.study import Evaluation, Study, values_of
from pygan.report.text import mean_of
from pygan.report.theory import theory_summary


def summary(study: Study, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return `summary.json`: runs, claims, anchors, seconds and versions, for programs."""
    lines = headlines(study, verdicts)
    return {
        "name": study.name,
        "runs": [_group_summary(run, group) for run in study.runs if (group := study.of_run(run))],
        "claims": [
            {
                "id": v.claim.id,
                "method": v.claim.method,
                "statement": v.claim.statement,
                "effect": v.effect.mean,
                "ci95": v.effect.ci95,
                "n_seeds": len(v.effect.seeds),
                "control": _comparison(v.claim.control, v.control),
                "equal_time": _comparison(v.claim.equal_time, v.equal_time),
                "other_judges": {
                    metric: _comparison(v.claim.against, effect)
                    for metric, effect in study.other_judges(v.claim).items()
                },
                "verdict": v.verdict,
                "reason": v.reason,
                "stage": v.claim.stage,
                "arm": v.claim.arm,
                "against": v.claim.against,
                "metric": v.claim.metric,
                "direction": v.claim.direction,
                "difference": v.difference,
                "minimum_effect": v.claim.minimum_effect,
                "minimum_detectable_effect": v.minimum_detectable_effect,
                "seconds_ratio": study.seconds_ratio(v.claim.arm, v.claim.against),
                "sentence": line.sentence,
            }
            for v, line in zip(verdicts, lines, strict=False)
        ],
        "minimum_detectable_effect": MDE_DEFINITION,
        "anchors": [
            {"subject": group[0].subject, **_group_summary(group[0].run, group)}
            for dataset in dict.fromkeys(anchor.dataset for anchor in study.anchors)
            for group in study.anchors_of(dataset)
        ],
        "seconds": {
            "stages": {stage: seconds for stage, (seconds, _) in study.stage_seconds.items()},
            "training": {
                run: {
                    "nimg": max(job.nimg for job in jobs),
                    "seconds": mean_of([job.seconds for job in jobs]),
                    "seconds_total": mean_of([study.seconds_total(job) for job in jobs]),
                    "seconds_ticket_search": mean_of([study.ticket_search_seconds(run, job.seed) for job in jobs]),
                }
                for run in study.runs
                if (jobs := [job for job in study.jobs.values() if job.name == run])
            },
        },
        "versions": study.versions(),
        **({"theory": theory_summary(study.theory)} if study.theory else {}),
        **({"diffusion": diffusion_summary(study.diffusion)} if study.diffusion else {}),
    }


def _comparison(run: str | None, effect: Paired | None) -> dict[str, Any] | None:
    if effect is None:
        return None
    return {"run": run, "effect": effect.mean, "ci95": effect.ci95, "n_seeds": len(effect.seeds)} | {
        "minimum_detectable_effect": effect.minimum_detectable_effect
    }


def _group_summary(run: str | None, group: Sequence[Evaluation]) -> dict[str, Any]:
    metrics = {}
    for metric in dict.fromkeys(name for e in group for name in e.metrics):
        mean, interval = mean_interval(values_of(group, metric))
        metrics[metric] = {
            "mean": mean,
            "ci95": interval,
            "protocol": next(e.metrics[metric].protocol for e in group if metric in e.metrics),
            "values": [e.metrics[metric].value for e in group if metric in e.metrics],
        }
    return {
        "run": run,
        "dataset": group[0].dataset,
        "n_images": group[0].n_images,
        "methods": list(group[0].methods),
        "seeds": [e.seed for e in group if e.seed is not None],
        "metrics": metrics,
    }
