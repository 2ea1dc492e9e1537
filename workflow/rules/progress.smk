# What is checked before the study runs, and told while it does.
import subprocess
import tempfile

from pygan.devices import study_sentence
from pipeline.planned_rules import write_rule_graph
from pipeline.progress import Estimate, Progress, Refresh, job_name, planned


def start_at_will():
    """Let jobs of this machine start as soon as there is a core.

    Snakemake's limit on the jobs that start in a second wakes its scheduler once a second for every job that has
    started, until the end: after 110 jobs that took a quarter of a core. On a cluster the limit stays.
    """
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


def device_sentence():
    """Say which device the trainings compute on and why."""
    if GPUS is None:
        return "Trainings compute on the GPUs that the cluster grants them."
    return study_sentence(GPUS, config["processes"])


def check():
    """End Snakemake with a sentence and exit code where something that the study needs is wrong or missing."""
    if workflow.local_exec and GPUS is None:
        print(
            "error: got --jobs beside --cores, expected --cores alone on this machine",
            file=sys.stderr,
        )
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.json"
        study.write_text(json.dumps(config))
        command = [sys.executable, "-m", "pygan", "check", str(study)]
        if GPUS is not None:
            command += ["--gpus", str(GPUS)]
        try:
            checked = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except KeyboardInterrupt:
            sys.exit(130)
    if checked.returncode:
        print(checked.stderr.replace(f"{study}: ", ""), end="", file=sys.stderr)
        sys.exit(checked.returncode)


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
    # a cluster has a number of jobs in place of cores; a job that trains or measures waits for a GPU of its own
    limits = workflow.resource_settings
    at_once = limits.cores or limits.nodes or 1
    if GPUS:
        at_once = min(at_once, GPUS)
    progress = Progress(
        remaining,
        Estimate(expected, at_once),
        lambda line: print(f"[{line}]", file=sys.stderr, flush=True),
        Refresh(results),
    )
    progress.begin(device_sentence())
    logger.addHandler(progress)
