"""The rules of a study and what feeds what, taken from the jobs that Snakemake planned, for the report's drawing.

Only the standard library: the workflow calls it when it starts.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Job = TypeVar("Job", bound=Hashable)


def rule_graph(dependencies: Mapping[Job, Iterable[Job]], rule_of: Callable[[Job], str]) -> dict[str, Any]:
    """Return `jobs`, rule -> number of its jobs, those first that can start first, and `edges`, pairs of rules.

    Args:
        dependencies: job -> the jobs whose files it takes.
        rule_of: name of a job's rule.
    """
    depth: dict[Job, int] = {}

    def visit(job: Job) -> int:
        if job not in depth:
            depth[job] = 1 + max((visit(before) for before in dependencies.get(job, ())), default=-1)
        return depth[job]

    first: dict[str, int] = {}
    jobs: dict[str, int] = {}
    for job in dependencies:
        rule = rule_of(job)
        first[rule] = min(first.get(rule, visit(job)), visit(job))
        jobs[rule] = jobs.get(rule, 0) + 1
    edges = {(rule_of(before), rule_of(job)) for job, all_before in dependencies.items() for before in all_before}
    return {"jobs": {rule: jobs[rule] for rule in sorted(jobs, key=lambda r: (first[r], r))}, "edges": sorted(edges)}


def write_rule_graph(dependencies: Mapping[Job, Iterable[Job]], rule_of: Callable[[Job], str], path: Path) -> None:
    """Write the graph of a plan that ends in the report; another one is a part of the study and says less."""
    graph = rule_graph({job: tuple(before) for job, before in dependencies.items()}, rule_of)
    graph["jobs"].pop("reproduce", None)
    if "report" in graph["jobs"]:
        path.write_text(json.dumps(graph, indent=1))
