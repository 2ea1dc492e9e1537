# Slices of the configuration: every rule has one parameter, the canonical JSON of its stage (pipeline/provenance.py).
#
# A slice holds what the job's result depends on and nothing else, so editing one run in the YAML leaves the others alone.
import json
from pathlib import Path

from pipeline.provenance import raw_digest, stage_json


def frozen_of(run, seed):
    """The networks that the probe chose: the others are no concern of the training."""
    return [
        network
        for path in probed(run, seed)
        for network in json.loads(Path(path).read_text())["frozen"]
    ]


def data_stage(name):
    dataset = config["datasets"][name]
    return stage_json(
        "prepare_data", {"name": name, **dataset}, raw=raw_digest(dataset["source"])
    )


def reference_stage(dataset, judge):
    return stage_json(
        "reference", {"dataset": dataset, "network": JUDGES[int(judge)]["network"]}
    )


def trainer_of(job):
    """The stage that trains a run: a denoiser's loss is a mapping."""
    loss = RUNS[run_of(job)]["loss"]
    return "train_denoiser" if isinstance(loss, dict) else "train"


def training_stage(job, seed):
    run = run_of(job)
    names = {"run": run, "seed": int(seed), "frozen": frozen_of(run, seed)}
    settings = {key: value for key, value in RUNS[run].items() if key != "evaluate"}
    ticket = settings["ticket"]
    # the rest of a ticket decides about mask and start, which are inputs
    settings["ticket"] = ticket and {"kind": ticket["kind"]}
    return stage_json(trainer_of(job), {**settings, **names}, threads=config["threads"])


def probe_stage(run, seed):
    names = {
        "run": run,
        "seed": int(seed),
        "base": RUNS[run]["base"],
        "subset": RUNS[run]["subset"],
    }
    (aided,) = aided_of(run)
    choice = {key: aided[key] for key in ("count", "pick", "random_init")}
    probe = {"probe": config["probe"], "bank": config["bank"], **choice}
    return stage_json("probe", {**names, **probe})


def pruning_stage(run, seed, number):
    """A round knows its own share alone, so that a change of later rounds does not concern it."""
    number, ticket = int(number), dict(RUNS[run]["ticket"])
    names = {"run": run, "seed": int(seed), "round": number}
    fields = {key: RUNS[run][key] for key in ("dataset", "base")}
    if ticket["kind"] == "lottery":
        shares = ticket["fractions"] or [ticket["fraction"]] * ticket["rounds"]
        ticket |= {"rounds": 1, "fraction": shares[number - 1], "fractions": None}
    return stage_json("prune_round", {**names, **fields, "ticket": ticket})


def select_stage(run, seed):
    names = {
        "run": run,
        "seed": int(seed),
        "base": RUNS[run]["base"],
        "loss": RUNS[run]["loss"],
        "network": config["evaluate"]["network"],
    }
    select = {key: config["select"][key] for key in ("metric", "n_gen")}
    return stage_json("select", {**names, **select})


def evaluate_stage(subject, run, seed):
    fields = {key: RUNS[run][key] for key in ("dataset", "base", "loss", "subset")}
    return stage_json(
        "evaluate",
        {
            "subject": subject,
            "run": run,
            "seed": int(seed),
            **fields,
            **config["evaluate"],
        },
    )


def real_stage(dataset):
    names = {"subject": "real", "run": None, "seed": None, "dataset": dataset}
    return stage_json("evaluate", {**names, **config["evaluate"]})


def theory_stage():
    return stage_json("theory", config["theory"])


def diffusion_stage(subject, seed, run=None):
    """A subject knows its own part of the section; a run knows what it was trained by."""
    settings = {**DIFFUSION, "runs": []}
    settings |= {part: None for part in ("toy", "exact") if part != subject}
    fields = ("dataset", "subset", "mirror", "base", "loss") if run else ()
    names = {"run": run} if run else {}
    names |= {key: RUNS[run][key] for key in fields}
    return stage_json(
        "diffusion",
        {"subject": subject, "seed": seed, "diffusion": settings, **names},
    )


def report_stage():
    """Everything but where results and weights lie, and the runs in the order of the file: JSON's keys are sorted."""
    shown = {
        key: value
        for key, value in config.items()
        if key not in ("output", "weights_dir")
    }
    return stage_json("report", {**shown, "order": list(RUNS)})
