# The job graph of a study, as names of files.
import os
import sys
from pathlib import Path

ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
sys.path.insert(0, str(ROOT))

# Rules say `python` and mean the one that runs Snakemake, whether or not its environment is activated. Its jobs find
# the stages in this tree, also where the workflow is a module of another one.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
)

from pygan.devices import visible_gpus

# How many GPUs the study may use on this machine: those that are visible, unless `--resources gpu=N` says otherwise.
# A cluster, which has a number of jobs (`--jobs`), grants them job by job. Snakemake
# chooses the executor after this file is read, so the number of jobs has to tell.
GPUS = None
if workflow.is_main_process and workflow.resource_settings.nodes is None:
    if "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", len(visible_gpus().ids))
    GPUS = workflow.global_resources["gpu"].value

if config["weights_dir"]:
    os.environ.setdefault("PYGAN_WEIGHTS", config["weights_dir"])

RESULTS = config["output"]
LOGS = f"{RESULTS}/logs"
BENCHMARKS = f"{RESULTS}/benchmarks"
TEMPLATE = os.path.relpath(ROOT / "pygan/report/page.html.j2")
SEEDS = config["seeds"]
RUNS = config["runs"]
ANCHORS = {name: subject for name, subject in config["anchors"].items() if subject}
JUDGES = [config["evaluate"], *config["evaluate"]["also"]] if config["evaluate"] else []
# Whether a metric looks at the pictures that a run was trained on; further judges look at their features alone.
SEES_TRAINING = any(
    metric["kind"] == "memorization"
    for judge in JUDGES[:1]
    for metric in judge["metrics"]
)


wildcard_constraints:
    dataset=r"[^/]+",
    run=r"[^/@]+",
    seed=r"\d+",
    round=r"\d+",
    anchor="untrained|pca_gaussian|copycat",
    judge=r"\d+",


# Runs and their trainings.


def rounds_of(run):
    ticket = RUNS[run]["ticket"]
    return ticket.get("rounds", 1) if ticket else 0


def jobs_of(run):
    """The trainings of a run: RUN@R is the one with the mask of round R that the next round prunes."""
    return [*(f"{run}@{number}" for number in range(1, rounds_of(run))), run]


def run_of(job):
    return job.partition("@")[0]


def dataset_of(job):
    return RUNS[run_of(job)]["dataset"]


def round_of(job):
    """The round whose mask a training wears; 0 for none."""
    run, _, number = job.partition("@")
    return int(number) if number else rounds_of(run)


def heads_of(run):
    """How many networks of the bank join the discriminator; 0 means that the run needs no probe."""
    return sum(aided["count"] for aided in aided_of(run) if not aided["networks"])


def aided_of(run):
    """The vision-aided discriminators of a run: one or none."""
    return [d for d in RUNS[run]["discriminators"] if d["kind"] == "vision_aided"]


def start_of(run):
    """The run and image count whose snapshot a training starts from; None starts from its own initialization."""
    start, ticket = RUNS[run]["continues"], RUNS[run]["ticket"]
    if start:
        return start["run"], 0 if start["nimg"] == "best" else start["nimg"]
    return (
        (ticket["found_in"], ticket["rewind_nimg"])
        if ticket and ticket["rewind_nimg"]
        else None
    )


JOBS = [job for run in RUNS for job in jobs_of(run)]
EVALUATED = [run for run in RUNS if RUNS[run]["evaluate"]]
PRIORITY = {run: len(RUNS) - place for place, run in enumerate(RUNS)}


# Files of a job.


def data(dataset, *names):
    return [f"{RESULTS}/data/{dataset}/{name}" for name in names]


def stores(dataset, *splits):
    """LMDB stores: their manifest is the input whose content counts, so their times do not."""
    return [
        ancient(path) for path in data(dataset, *(f"{split}.lmdb" for split in splits))
    ]


def reference(dataset, judge=0):
    """Features of the real pictures: those of the first judge, unless told otherwise."""
    return f"{RESULTS}/reference/{dataset}/{judge}/features.safetensors"


def references(dataset):
    return [reference(dataset, judge) for judge in range(len(JUDGES))]


def real_pictures(dataset):
    """What a metric that looks for copies of the training pictures needs besides features."""
    if not SEES_TRAINING:
        return {"manifest": [], "train": [], "test": []}
    return {
        "manifest": data(dataset, "manifest.json"),
        "train": stores(dataset, "train"),
        "test": stores(dataset, "test"),
    }


def trained(job, seed, *names):
    return [f"{RESULTS}/train/{job}/seed{seed}/{name}" for name in names]


def snapshots(job, seed, nimgs, suffix="safetensors"):
    return trained(job, seed, *(f"snapshots/{nimg:09d}.{suffix}" for nimg in nimgs))


def nimgs_of(job):
    """The snapshots that a training writes: those after its start."""
    run = run_of(job)
    start = start_of(run)
    return [
        nimg
        for nimg in RUNS[run]["training"]["snapshots"]
        if not start or nimg > start[1]
    ]


def candidates(run):
    """The image counts among which the validation split selects."""
    return nimgs_of(run)[-config["select"]["candidates"] :]


def masks(run, seed, number, name="mask.safetensors"):
    return [f"{RESULTS}/masks/{run}/seed{seed}/round{number}/{name}"] if number else []


def per_seed(make, names):
    """The files that `make(name, seed)` lists, for every name and seed."""
    return [path for name in names for seed in SEEDS for path in make(name, seed)]


# Inputs that not every job has.


def starts_from_best(run):
    start = RUNS[run]["continues"]
    return bool(start) and start["nimg"] == "best"


def first_snapshot(run, seed):
    """The snapshot that a run starts from; all that compete where `selected` decides."""
    start = start_of(run)
    if not start:
        return []
    return snapshots(
        start[0], seed, candidates(start[0]) if starts_from_best(run) else start[1:]
    )


def selected_start(run, seed):
    if not starts_from_best(run):
        return []
    return [f"{RESULTS}/select/{start_of(run)[0]}/seed{seed}/selected.json"]


def probed(run, seed):
    return (
        [checkpoints.probe.get(run=run, seed=seed).output.probe]
        if heads_of(run)
        else []
    )


def probed_before(run, seed):
    """The answer of the probe of the run that a run continues."""
    start = RUNS[run]["continues"]
    keeps = start and "discriminators" not in start["reset"]
    return probed(start["run"], seed) if keeps else []


def pruning_input(run, seed, number):
    """A lottery reads the training of the round before; other pruners read the last mask of a run, or of a file."""
    ticket = RUNS[run]["ticket"]
    trained, other = [], ticket.get("like") or ticket.get("mask_of")
    if ticket["kind"] == "lottery":
        before = f"{run}@{number - 1}" if number > 1 else ticket["found_in"]
        trained = snapshots(before, seed, nimgs_of(before)[-1:])
    return {
        "manifest": data(dataset_of(run), "manifest.json"),
        "snapshot": trained,
        "mask": masks(run, seed, number - 1),
        "like": (
            masks(other, seed, rounds_of(other))
            if other
            else [ticket["path"]] if ticket.get("path") else []
        ),
    }


def anchor_input(anchor, seed):
    run = ANCHORS[anchor]
    dataset = RUNS[run]["dataset"]
    untrained = anchor == "untrained"
    return real_pictures(dataset) | {
        "manifest": data(dataset, "manifest.json"),
        "train": [] if untrained and not SEES_TRAINING else stores(dataset, "train"),
        "snapshot": snapshots(run, seed, [0]) if untrained else [],
        "features": references(dataset),
    }


def evaluate_input(run, seed):
    return real_pictures(dataset_of(run)) | {
        "selected": f"{RESULTS}/select/{run}/seed{seed}/selected.json",
        "snapshot": snapshots(run, seed, candidates(run)),
        "run_json": trained(run, seed, "run.json"),
        "features": references(dataset_of(run)),
    }


def anchor_metrics(anchor):
    if anchor == "real":
        return [f"{RESULTS}/anchors/real/metrics.json"]
    return [f"{RESULTS}/anchors/{anchor}/seed{seed}/metrics.json" for seed in SEEDS]


def theory_input():
    """Pictures where likelihoods of real ones are asked for."""
    images = (config["theory"] or {}).get("images")
    return {
        "manifest": data(images["dataset"], "manifest.json") if images else [],
        "train": stores(images["dataset"], "train") if images else [],
        "test": stores(images["dataset"], "test") if images else [],
    }


def transferred(run):
    """A file of the user, whose content counts."""
    return [RUNS[run]["init_from"]] if RUNS[run]["init_from"] else []


DIFFUSION = config["diffusion"] or {}


def exact_input():
    """All pictures of the data set whose exact denoisers are asked for."""
    exact = DIFFUSION.get("exact")
    return {
        "manifest": data(exact["dataset"], "manifest.json") if exact else [],
        "pictures": (
            stores(exact["dataset"], "train", "validation", "test") if exact else []
        ),
    }


def exact_panels():
    exact = DIFFUSION.get("exact") or {"sizes": []}
    return [
        f"neighbors_{n}_{system}.png"
        for n in exact["sizes"]
        for system in ("optimum", "gaussian")
    ]


def last_of_other_seed(run, seed):
    """The last snapshot of the next seed, whose model is compared on the same noise; nothing where there is one seed."""
    following = SEEDS[(SEEDS.index(seed) + 1) % len(SEEDS)]
    return (
        snapshots(run, following, nimgs_of(run)[-1:])
        if following != seed and RUNS[run]["base"]["kind"] == "unet"
        else []
    )


def diffusion_files():
    """Everything that the section `diffusion` measures: a record of each subject, and panels beside it."""
    subjects = [
        (name, files)
        for name, files in (("toy", []), ("exact", exact_panels()))
        if DIFFUSION.get(name)
    ]
    subjects += [(f"run/{run}", ["neighbors.png"]) for run in DIFFUSION.get("runs", [])]
    folders = [
        (f"{RESULTS}/diffusion/{name}/seed{seed}", files)
        for name, files in subjects
        for seed in SEEDS
    ]
    return {
        "diffusion": [f"{folder}/diffusion.json" for folder, _ in folders],
        "panels": [f"{folder}/{name}" for folder, files in folders for name in files],
    }
