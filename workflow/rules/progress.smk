# What is told while the study runs.
from pipeline.planned_rules import write_rule_graph
from pipeline.progress import Estimate, Progress, Refresh, job_name, planned


def follow():
    """Write configuration and rules for the report, and tell what is left whenever a job ends."""
    from snakemake.logging import logger

    def remaining():
        jobs = workflow.dag.needrun_jobs()
        return [
            (job.jobid, job_name(job.rule.name, job.wildcards_dict)) for job in jobs
        ]

    results = Path(RESULTS)
    results.mkdir(parents=True, exist_ok=True)
    (results / "config.json").write_text(json.dumps(config, indent=1))
    write_rule_graph(
        workflow.dag.dependencies,
        lambda job: "train" if job.rule.name.startswith("train_") else job.rule.name,
        results / "rule_graph.json",
    )
    expected = planned(results / "plan.json") | {"reproduce": 0.0}
    # a cluster has a number of jobs in place of cores
    limits = workflow.resource_settings
    progress = Progress(
        remaining,
        Estimate(expected, limits.cores or limits.nodes or 1),
        lambda line: print(f"[{line}]", file=sys.stderr, flush=True),
        Refresh(results),
    )
    progress.begin()
    logger.addHandler(progress)
