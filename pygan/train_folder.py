"""`pygan train FOLDER`: a user's own pictures become a trained and measured generator, in one folder.

The folder is the state: settings and configuration in `plan.json`, pictures in `data/`, checkpoints in `state/`. The
same command continues where it was interrupted and ends with the files of an uninterrupted run; a larger `--kimg`
continues a finished run; other settings are refused. The parts are those of the pipeline's stages: prepare, train,
probe, select, evaluate.

Distances are measured to pictures that training did not see, in the features of MobileNetV2: they are no FID, and
compare only with distances to the same pictures.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygan.bank import Choice, choose
from pygan.checkpoint import write_json
from pygan.context import Context
from pygan.data.manifest import open_split
from pygan.data.store import Store
from pygan.environment import environment
from pygan.errors import ConfigError, Stopped
from pygan.features.frozen import FrozenNetwork
from pygan.folder_plan import Say, is_finished, planned
from pygan.folder_settings import Place, Settings, place
from pygan.folder_training import Stage, stages, train_stage
from pygan.folder_verdict import verdict
from pygan.lock import held
from pygan.metrics.base import Training, extract, measure, network_spec, protocol_record
from pygan.metrics.selection import select
from pygan.sampling import load, load_generator, sample
from pygan.sheets import save_grid
from pygan.spec import load_spec
from pygan.training.assemble import methods

JUDGE = {"kind": "mobilenet_v2", "resolution": 128}
METRICS = ({"kind": "fid"}, {"kind": "kid"}, {"kind": "prdc"})
N_SELECT, N_GEN = 300, 1000
"""Generated pictures per snapshot that competes, and of the one that is measured."""
_CANDIDATES = 3
"""Newest snapshots that compete; of a stage with pretrained networks all do, as published."""
_N_PROBE = 10_000
"""Real and generated pictures of a probe, at most, as published."""
_NEIGHBORS = 5
"""`prdc` compares each picture with this many neighbors."""
_COPIES_FROM = 8
"""Training and test pictures each, from which on copies are counted."""


def train_folder(settings: Settings, say: Say) -> dict[str, Any]:
    """Prepare, train and measure, or go on with it; return the content of `metrics.json`.

    Writes into `settings.out`: `rejected.tsv`, `data/`, `plan.json`, `snapshots/`, `stats.jsonl`, with pretrained
    networks `stages/` and `probe.json`, then `selected.json`, `samples.png`, `metrics.json` and, last, `run.json`.

    Args:
        say: told the plan, the progress and the result, a line or more at a time.

    Raises:
        ConfigError: the folder holds a run with other settings (the message names the first that differs) or lies
            among the pictures, or the machine lacks what the settings ask for.
        DataError: pictures can't be used; `rejected.tsv` lists them.
        MissingInput: the pictures are not there, or a packaged network is not installed.
        ValueError: an unknown recipe or an impossible resolution.
        Stopped: interrupted; the same command continues.
        TryAgain: another process holds the folder.
    """
    out = settings.out
    if out.resolve().is_relative_to(settings.pictures.resolve()):
        raise ConfigError(f"--out: {out} lies inside of {settings.pictures}, name a folder outside of it")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    where = place(settings)
    network = network_spec(JUDGE).build(Context(resolution=0))  # a missing file is found now
    with _interruptible(out), held(out):
        plan = planned(settings, where, say)
        if is_finished(out, plan):
            say(f"{out} is finished; a larger --kimg continues it, and another run needs another --out")
        else:
            for stage in stages(out, plan):
                _begin(out, plan, stage, where, network, say)
                train_stage(out, plan, stage, where, settings.threads, say)
            _evaluate(out, plan, where, network)
        metrics = json.loads((out / "metrics.json").read_text())
        say(_result(settings, plan, metrics))
        return metrics


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Turn Ctrl-C outside of the training loop, which answers signals itself, into a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"interrupted; the same command continues {out}") from None


def _begin(out: Path, plan: dict[str, Any], stage: Stage, where: Place, network: FrozenNetwork, say: Say) -> None:
    """Choose what a stage after the first one starts from, and the pretrained network that joins it."""
    before = stage.before
    if before is None:
        return
    manifest = out / "data" / "manifest.json"
    if not (before.folder / "selected.json").exists():
        real = extract(_pictures(open_split(manifest, "validation")), network.to(where.device))
        write_json(before.folder / "selected.json", _selected(before, real, network))
    if (stage.folder / "probe.json").exists():
        return
    stage.folder.mkdir(parents=True, exist_ok=True)
    answer = choose(
        Choice(bank=plan["bank"], count=stage.networks, n_images=_N_PROBE),
        open_split(manifest, "train"),
        load_generator(before.selected).to(where.device),
        seed=stage.config["seed"],
        used=before.frozen,
    )
    write_json(stage.folder / "probe.json", {key: stage.config[key] for key in ("run", "seed")} | answer)
    say(f"{answer['chosen'][-1]} joins the discriminator: of the bank it tells real from generated pictures best")


# Measuring


def _selected(stage: Stage, real: Tensor, network: FrozenNetwork) -> dict[str, Any]:
    """Return which snapshot of a stage is nearest to pictures whose features are `real`, as `selected.json` has it."""
    chosen = select(
        stage.snapshots if stage.networks else stage.snapshots[-_CANDIDATES:],
        real,
        metric={"kind": "kid"},
        n_gen=N_SELECT,
        seed=stage.config["seed"],
        network=network,
    )
    return {"run": stage.config["run"], "seed": stage.config["seed"], **chosen}


def _evaluate(out: Path, plan: dict[str, Any], where: Place, network: FrozenNetwork) -> None:
    """Choose a snapshot on the validation split, measure it on the test split, write the records.

    A record takes the place of an older one, of a shorter training, when it is complete; `run.json` comes last.
    """
    started = time.monotonic()
    config, trained = plan["config"], json.loads((out / "trained.json").read_text())
    network.to(where.device)
    manifest = out / "data" / "manifest.json"
    features = {
        split: extract(_pictures(open_split(manifest, split)), network) for split in ("train", "validation", "test")
    }
    last = stages(out, plan)[-1]
    selected = _selected(last, features["validation"], network)
    G = load_generator(out / "snapshots" / selected["snapshot"]).to(where.device)
    gen = extract(sample(G, N_GEN, seed=config["seed"], stream="evaluate"), network)
    metrics = [
        load_spec("pygan.metrics", metric).build()
        for metric in METRICS
        if metric["kind"] != "prdc" or len(features["test"]) > _NEIGHBORS
    ]
    record = {
        "subject": "run",
        **{key: config[key] for key in ("run", "seed", "dataset")},
        "n_images": trained["n_images"],
        "methods": methods(config),
        "nimg": selected["nimg"],
        "metrics": measure(metrics, network.name, features["test"], gen),
        "training_pictures": measure(metrics, network.name, features["test"], features["train"]),
        "copies": _copies(features, gen, network.name),
        "protocol": protocol_record(
            network, n_real=len(features["test"]), n_gen=N_GEN, reference_split="test", seed=config["seed"]
        ),
        "seconds": time.monotonic() - started,
    }
    write_json(out / "selected.json", selected)
    save_grid(out / "samples.png", load(out, where.device).sample(64))
    write_json(out / "metrics.json", record)
    write_json(
        out / "run.json",
        environment(where.device, where.why)
        | {key: record[key] for key in ("run", "seed", "dataset", "n_images", "methods")}
        | {"nimg": trained["nimg"], "nimg_start": 0, "seconds": trained["seconds"], "processes": where.processes}
        | {"frozen": [item["name"] for item in last.frozen], "masks": None}
        | {"recipe": plan["recipe"], "settings": plan["settings"], "base": config["base"]},
    )


def _copies(features: dict[str, Tensor], gen: Tensor, network: str) -> dict[str, dict[str, Any]]:
    """Measure how many generated pictures repeat training pictures; nothing where there are too few pictures."""
    train, test = features["train"], features["test"]
    if min(len(train), len(test)) < _COPIES_FROM:
        return {}
    judge = load_spec("pygan.metrics", {"kind": "memorization"}).build()
    return measure([judge], network, test, gen, training=Training(features=train, index=torch.arange(len(train))))


def _pictures(store: Store, at_most: int = N_GEN) -> Tensor:
    """Pictures of a store, uint8 `[N, C, H, W]`; of more than `at_most`, that many spread evenly over it."""
    count = min(len(store), at_most)
    return torch.from_numpy(store.read(np.arange(count) * len(store) // count))


def _result(settings: Settings, plan: dict[str, Any], record: dict[str, Any]) -> str:
    out = settings.out

    def line(name: str, title: str) -> str:
        ours, real = record["metrics"][name], record["training_pictures"][name]
        return f"{title}: {ours['value']:.4g} (the training pictures themselves: {real['value']:.4g})"

    scores = json.loads((out / "selected.json").read_text())["scores"]
    kimg = sum(stage.config["training"]["total_nimg"] for stage in stages(out, plan)) / 1000
    lengths = {"kimg": kimg, "usual_kimg": plan.get("recipe_kimg")}
    return "\n".join(
        [
            f"{out}: trained on {record['n_images']} pictures; the snapshot at {record['nimg']} images is nearest to "
            "the validation pictures",
            f"distances to {record['protocol']['n_real']} pictures that training did not see, in MobileNetV2 features "
            "(no FID; lower is better; compare only with the same pictures):",
            f"  {line('kid_mobilenet_v2', 'kernel distance')}",
            f"  {line('fd_mobilenet_v2', 'Fréchet distance')}",
            *verdict(record, scores, **lengths, mirrored=plan["config"]["mirror"]),
            f"generated pictures are in {out / 'samples.png'}; more of them: pygan generate {out} -o generated/",
        ]
    )
