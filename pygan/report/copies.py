"""Memorization in the report: how near generated pictures come to the training pictures, beside held-out real ones."""

from collections.abc import Mapping, Sequence

from pygan.report.evidence import mean_interval
from pygan.report.study import Evaluation, Study, values_of
from pygan.report.tables import Cell, Table, anchor_label
from pygan.report.text import NONE, count, decimals_for, interval_text, mean_of, metric_title, number

ALARM = "training_kid"


def copies_tables(study: Study, colors: Mapping[str, str]) -> list[Table]:
    """Return one table per dataset that has such numbers: excess over held-out pictures, and both sides of it."""
    tables = []
    for dataset in study.datasets():
        groups = [(run, [e for e in study.of_run(run) if e.dataset == dataset]) for run in study.runs]
        groups = [(run, group) for run, group in groups if group]
        anchors = [(anchor_label(group[0].subject), group) for group in study.anchors_of(dataset)]
        everything = [*groups, *anchors]
        names = [m for m in study.copy_names() if any(m in e.metrics for _, group in everything for e in group)]
        anchors = [(name, group) for name, group in anchors if any(m in e.metrics for m in names for e in group)]
        if not names:
            continue
        decimals = {m: decimals_for(values_of([e for _, group in everything for e in group], m)) for m in names}
        rows = [
            (
                Cell(text=name, color=colors.get(name, "")),
                Cell(text=_training_pictures(group, names)),
                *(_cell(group, metric, decimals[metric]) for metric in names),
            )
            for name, group in (*groups, *anchors)
        ]
        headers = ("run", "training pictures", *map(metric_title, names))
        rank = len(groups) if anchors else None
        tables.append(Table(title=dataset, headers=headers, rows=tuple(rows), anchors_from=rank))
    return tables


def copies_sentence(study: Study) -> str:
    """Say for which trainings the alarm rang; empty: nothing was measured that could ring."""
    names = [name for name in study.copy_names() if name.startswith(ALARM)]
    heard = [(e, name) for e in study.evaluations for name in names if name in e.metrics]
    if not heard:
        return ""
    rang = [f"{e.run} (seed {e.seed}, {metric_title(name)})" for e, name in heard if e.metrics[name].beside["copying"]]
    if not rang:
        return (
            "No alarm of copying: no training's kernel distance to its own pictures is lower than chance allows for "
            "pictures of the same kind that are independent of them."
        )
    return (
        "Alarm of copying: the kernel distance to the training pictures is lower than independent pictures of the same "
        f"kind would have, in {', '.join(rang)}."
    )


def judge_cautions(study: Study) -> list[str]:
    """Return one sentence per judge that also took part in the training of runs."""
    runs: dict[str, dict[str, None]] = {}
    for evaluation in study.evaluations:
        for name in evaluation.metrics:
            record = evaluation.record(name)
            if record.get("judge_in_training"):
                runs.setdefault(str(record["network"]), {})[str(evaluation.run)] = None
    return [
        f"{network}, which judges, also took part in the training of {', '.join(names)}: its numbers favor them."
        for network, names in runs.items()
    ]


def _training_pictures(group: Sequence[Evaluation], names: Sequence[str]) -> str:
    found = {e.record(name).get("n_real") for e in group for name in names if name in e.metrics}
    return ", ".join(count(n) for n in sorted(n for n in found if n is not None)) or NONE


def _cell(group: Sequence[Evaluation], metric: str, decimals: int) -> Cell:
    measured = [e.metrics[metric] for e in group if metric in e.metrics]
    if not measured:
        return Cell(text=NONE)
    mean, interval = mean_interval([m.value for m in measured])
    sides = [
        f"{word} {number(mean_of([m.beside[key] for m in measured]), decimals)}"
        for key, word in (("generated", "generated"), ("held_out", "held out"))
        if all(key in m.beside for m in measured)
    ]
    return Cell(text=number(mean, decimals), interval=interval_text(interval, decimals), each=", ".join(sides))
