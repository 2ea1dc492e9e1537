"""`pygan train FOLDER`: a user's own pictures become a trained and measured generator, in one folder.

The folder is the state: settings and configuration in `plan.json`, pictures in `data/`, checkpoints in `state/`. The
same command continues where it was interrupted and ends with the files of an uninterrupted run; other settings are
refused. The parts are those of the pipeline's stages: prepare, train, select, evaluate.

Distances are measured to pictures that training did not see, in the features of MobileNetV2: they are no FID, and
compare only with distances to the same pictures.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygan.checkpoint import write_json
from pygan.context import Context
from pygan.data.manifest import open_split, read_manifest
from pygan.data.store import Store
from pygan.environment import environment
from pygan.errors import ConfigError, TryAgain
from pygan.features.frozen import FrozenNetwork
from pygan.folder_plan import Say, Settings, device, planned
from pygan.lock import held
from pygan.metrics.base import extract, measure, network_spec, protocol_record
from pygan.metrics.selection import select
from pygan.sampling import load, load_generator, sample, save_grid
from pygan.spec import load_spec, parse
from pygan.training.assemble import assemble, methods
from pygan.training.gan import train
from pygan.training.init_from import transfer
from pygan.training.material import Batch
from pygan.training.spec import TrainingSpec

JUDGE = {"kind": "mobilenet_v2", "resolution": 128}
METRICS = ({"kind": "fid"}, {"kind": "kid"}, {"kind": "prdc"})
N_SELECT, N_GEN = 300, 1000
"""Generated pictures per snapshot that competes, and of the one that is measured."""
_CANDIDATES = 3


def train_folder(settings: Settings, say: Say) -> dict[str, Any]:
    """Prepare, train and measure, or go on with it; return the content of `metrics.json`.

    Writes into `settings.out`: `rejected.tsv`, `data/`, `plan.json`, `snapshots/`, `stats.jsonl`, `selected.json`,
    `samples.png`, `metrics.json` and, last, `run.json`.

    Args:
        say: told the plan, the progress and the result, a line or more at a time.

    Raises:
        ConfigError: the folder holds a run with other settings (the message names the first that differs), or lies
            among the pictures.
        DataError: pictures can't be used; `rejected.tsv` lists them.
        MissingInput: the pictures are not there, or a packaged network is not installed.
        ValueError: an unknown recipe or an impossible resolution.
        TryAgain: interrupted, or another process holds the folder; the same command continues.
    """
    if settings.out.resolve().is_relative_to(settings.pictures.resolve()):
        raise ConfigError(f"--out: {settings.out} lies inside of {settings.pictures}, name a folder outside of it")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    network = network_spec(JUDGE).build(Context(resolution=0)).to(device())  # a missing file is found now
    with _interruptible(settings.out), held(settings.out):
        plan = planned(settings, say)
        if (settings.out / "run.json").exists():
            say(f"{settings.out} is finished; another run needs another --out")
        else:
            _train(settings.out, plan, say)
            _evaluate(settings.out, plan, network)
        metrics = json.loads((settings.out / "metrics.json").read_text())
        say(_result(settings.out, metrics))
        return metrics


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Turn Ctrl-C outside of the training loop, which answers signals itself, into a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        raise TryAgain(f"interrupted; the same command continues {out}") from None


# Training


def _train(out: Path, plan: dict[str, Any], say: Say) -> None:
    """Train, from the newest checkpoint where there is one; `trained.json` tells that it is done."""
    if (out / "trained.json").exists():
        return
    config = plan["config"]
    training = parse(TrainingSpec, config["training"], "training")
    manifest = out / "data" / "manifest.json"
    run, indices = assemble(
        config,
        store=open_split(manifest, "train"),
        held_out=open_split(manifest, "validation"),
        class_names=read_manifest(manifest)["class_names"],
        device=device(),
    )
    begun = any(".tmp-" not in path.name for path in (out / "state").glob("*"))
    if plan.get("init_from") and not begun:
        say(transfer(run, Path(plan["init_from"])))
    run.batch = _timed(run.batch, training.total_nimg, say)
    with _signals_restored():
        result = train(run, training, state_dir=out / "state", out_dir=out)
    write_json(out / "trained.json", {**result, "n_images": len(indices)})


@contextmanager
def _signals_restored() -> Iterator[None]:
    """The loop answers signals itself; what comes after it is to end at the first Ctrl-C again."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _timed(batch: Batch, total: int, say: Say, *, steps: int = 16, seconds: float = 3.0) -> Batch:
    """Return `batch` that says, after the first steps, how long the training will take.

    Where there is no terminal for the progress bar, it goes on to say so at every tenth.

    Args:
        steps: measured at least, so that terms which come every few steps have their share.
        seconds: measured at least.
    """
    start: tuple[float, int] | None = None
    calls, next_nimg = 0, 0

    def timed(index: Tensor) -> tuple[Tensor, Tensor | None]:
        nonlocal start, calls, next_nimg
        now, nimg = time.monotonic(), int(index[0])
        calls += 1
        if calls == 3:  # the first call is for the monitor, the first step warms up
            start = (now, nimg)
        elif start is not None and nimg >= next_nimg and calls >= 3 + steps and now - start[0] >= seconds:
            rate = (nimg - start[1]) / (now - start[0])
            say(f"{nimg} of {total} images, {rate:.0f} a second: about {_duration((total - nimg) / rate)} to go")
            next_nimg = total if sys.stderr.isatty() else nimg + total // 10
        return batch(index)

    return timed


def _duration(seconds: float) -> str:
    """Rounded so that it promises no more than an estimate can."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{seconds / 3600:.1f} hours"


# Measuring


def _evaluate(out: Path, plan: dict[str, Any], network: FrozenNetwork) -> None:
    """Choose a snapshot on the validation split, measure it on the test split, write the records."""
    started = time.monotonic()
    config, trained = plan["config"], json.loads((out / "trained.json").read_text())
    manifest = out / "data" / "manifest.json"
    features = {
        split: extract(_pictures(open_split(manifest, split)), network) for split in ("train", "validation", "test")
    }
    snapshots = [out / "snapshots" / f"{nimg:09d}.safetensors" for nimg in config["training"]["snapshots"]]
    chosen = select(
        snapshots[-_CANDIDATES:],
        features["validation"],
        metric={"kind": "kid"},
        n_gen=N_SELECT,
        seed=config["seed"],
        network=network,
    )
    G = load_generator(out / "snapshots" / chosen["snapshot"]).to(device())
    gen = extract(sample(G, N_GEN, seed=config["seed"], stream="evaluate"), network)
    metrics = [
        load_spec("pygan.metrics", metric).build()
        for metric in METRICS
        if metric["kind"] != "prdc" or len(features["test"]) > _NEIGHBORS
    ]
    common = {"run": config["run"], "seed": config["seed"]}
    record = {
        "subject": "run",
        **common,
        "dataset": config["dataset"],
        "n_images": trained["n_images"],
        "methods": methods(config),
        "nimg": chosen["nimg"],
        "metrics": measure(metrics, network.name, features["test"], gen),
        "training_pictures": measure(metrics, network.name, features["test"], features["train"]),
        "protocol": protocol_record(
            network, n_real=len(features["test"]), n_gen=N_GEN, reference_split="test", seed=config["seed"]
        ),
        "seconds": time.monotonic() - started,
    }
    write_json(out / "selected.json", {**common, **chosen})
    save_grid(out / "samples.png", load(out).sample(64))
    write_json(out / "metrics.json", record)
    write_json(
        out / "run.json",
        environment()
        | {key: record[key] for key in ("run", "seed", "dataset", "n_images", "methods")}
        | {"nimg": trained["nimg"], "nimg_start": 0, "seconds": trained["seconds"], "frozen": [], "masks": None}
        | {"recipe": plan["recipe"], "settings": plan["settings"], "base": config["base"]},
    )


_NEIGHBORS = 5
"""`prdc` looks at this many neighbors of each picture."""


def _pictures(store: Store, at_most: int = N_GEN) -> Tensor:
    """Pictures of a store, uint8 `[N, C, H, W]`; of more than `at_most`, that many spread evenly over it."""
    count = min(len(store), at_most)
    return torch.from_numpy(store.read(np.arange(count) * len(store) // count))


def _result(out: Path, record: dict[str, Any]) -> str:
    def line(name: str, title: str) -> str:
        ours, real = record["metrics"][name], record["training_pictures"][name]
        return f"{title}: {ours['value']:.4g} (the training pictures themselves: {real['value']:.4g})"

    return (
        f"{out}: trained on {record['n_images']} pictures; the snapshot at {record['nimg']} images is nearest to the "
        f"validation pictures\n"
        f"distances to {record['protocol']['n_real']} pictures that training did not see, in MobileNetV2 features "
        f"(no FID; lower is better; compare only with the same pictures):\n"
        f"  {line('kid_mobilenet_v2', 'kernel distance')}\n"
        f"  {line('fd_mobilenet_v2', 'Fréchet distance')}\n"
        f"look at {out / 'samples.png'}; more: pygan generate {out} -o pictures/"
    )
