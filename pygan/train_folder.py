"""`pygan train FOLDER`: a user's own pictures become a trained and measured generator, in one folder.

The folder is the state: settings and configuration in `plan.json`, pictures in `data/`, checkpoints in `state/`. The
same command continues where it was interrupted and ends with the files of an uninterrupted run; other settings are
refused. The parts are those of the pipeline's stages: prepare, train, select, evaluate.

Distances are measured to pictures that training did not see, in the features of MobileNetV2: they are no FID, and
compare only with distances to the same pictures.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from pygan.checkpoint import write_json
from pygan.config import Run
from pygan.context import Context
from pygan.data.atomic import replacing
from pygan.data.manifest import open_split, read_manifest
from pygan.data.pictures import Fit
from pygan.data.prepare import prepare
from pygan.data.raw_digest import raw_digest
from pygan.data.sources import folder
from pygan.data.store import Store
from pygan.environment import environment
from pygan.errors import ConfigError, DataError, TryAgain
from pygan.features.frozen import FrozenNetwork
from pygan.lock import held
from pygan.metrics.base import extract, measure, network_spec, protocol_record
from pygan.metrics.selection import select
from pygan.recipes import FEW, budget, recipe
from pygan.sampling import load, load_generator, sample, save_grid, snapshot_path
from pygan.spec import load_spec, parse
from pygan.training.assemble import assemble, methods
from pygan.training.gan import train
from pygan.training.init_from import read_snapshot, transfer
from pygan.training.material import Batch
from pygan.training.spec import TrainingSpec

Say = Callable[[str], None]

JUDGE = {"kind": "mobilenet_v2", "resolution": 128}
METRICS = ({"kind": "fid"}, {"kind": "kid"}, {"kind": "prdc"})
N_SELECT, N_GEN = 300, 1000
"""Generated pictures per snapshot that competes, and of the one that is measured."""
_CANDIDATES = 3
_LARGEST = {"cpu": 64}
"""Side chosen at most where none is asked for, pixels; on other devices 256."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line says; a run keeps the settings it was started with."""

    pictures: Path
    """Folder or zip, one class per sub-folder or none."""
    out: Path
    """Folder of the run."""
    fit: Fit = "crop"
    """How a picture becomes square."""
    resolution: int | None = None
    """Side of the pictures, pixels; None: by their sizes."""
    recipe: str | None = None
    """One of `pygan.recipes.RECIPES`; None: by their number."""
    kimg: float | None = None
    """Real pictures shown in all, thousands; None: the recipe's."""
    seed: int = 0
    """Of the initialization and everything after."""
    threads: int | None = None
    """Of the processor; None: as many as PyTorch takes."""
    skip_bad: bool = False
    """Leave unreadable pictures out instead of stopping."""
    allow_upscale: bool = False
    """Enlarge pictures that are smaller than the resolution."""
    init_from: Path | None = None
    """Snapshot, or folder of a training, whose networks this one begins with as far as they fit; None: as drawn."""

    def plain(self) -> dict[str, Any]:
        """Return the settings ready for JSON, without `out`, by the names of the command line."""
        values = asdict(self) | {"pictures": str(self.pictures.resolve())}
        values["init_from"] = None if self.init_from is None else str(self.init_from.resolve())
        return {name.replace("_", "-"): value for name, value in values.items() if name != "out"}


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
    network = network_spec(JUDGE).build(Context(resolution=0)).to(_device())  # a missing file is found now
    with _interruptible(settings.out), held(settings.out):
        plan = _plan(settings, say)
        if (settings.out / "run.json").exists():
            say(f"{settings.out} is finished; another run needs another --out")
        else:
            _train(settings.out, plan, say)
            _evaluate(settings.out, plan, network)
        metrics = json.loads((settings.out / "metrics.json").read_text())
        say(_result(settings.out, metrics))
        return metrics


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _interruptible(out: Path) -> Iterator[None]:
    """Turn Ctrl-C outside of the training loop, which answers signals itself, into a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        raise TryAgain(f"interrupted; the same command continues {out}") from None


# Pictures and plan


def _plan(settings: Settings, say: Say) -> dict[str, Any]:
    """Return the plan of the run, made and written at the first start."""
    file = settings.out / "plan.json"
    if file.exists():
        plan = json.loads(file.read_text())
        _check_same(settings, plan)
        say(f"continuing {settings.out}: {plan['text']}")
        return plan
    plan = _first_plan(settings)
    say(plan["text"])
    write_json(file, plan)
    return plan


def _check_same(settings: Settings, plan: dict[str, Any]) -> None:
    for name, value in settings.plain().items():
        before = plan["settings"].get(name)
        if value != before:
            raise ConfigError(
                f"--{name}: got {value}, but {settings.out} was started with {before}; give it again, or name another "
                "--out"
            )
    if settings.pictures.exists() and _digest(settings) != plan["digest"]:
        raise ConfigError(
            f"{settings.pictures}: the files changed after {settings.out} was started; name another --out"
        )


def _digest(settings: Settings) -> str:
    return raw_digest({"kind": "folder", "path": str(settings.pictures)})


def _first_plan(settings: Settings) -> dict[str, Any]:
    """Prepare the pictures, choose what was left open, and write down why."""
    device = _device().type
    recipe(1, settings.resolution or 16, name=settings.recipe)  # a wrong name is found before pictures are decoded
    digest = _digest(settings)
    source = None if settings.init_from is None else _source(settings.init_from)
    found = folder.survey(str(settings.pictures))
    resolution, why = choose_resolution(found.sizes, fit=settings.fit, asked=settings.resolution, device=device)
    if source and settings.resolution is None:
        resolution, why = source["context"]["resolution"], "that of --init-from"
    manifest = _prepare(settings, resolution, found)
    counts = {split: entry["n"] for split, entry in manifest["splits"].items()}
    if min(counts.values()) < 2:
        raise DataError(f"{settings.pictures}: got {counts} pictures, expected at least 2 in each: add pictures")
    of_classes = dict(zip(manifest["class_names"], manifest["splits"]["train"]["counts"], strict=True))
    empty = [name for name, count in of_classes.items() if not count]
    num_classes = 0 if empty else len(of_classes)
    name = settings.recipe or (_recipe_of(source, counts["train"]) if source else None)
    chosen = recipe(counts["train"], resolution, num_classes=num_classes, name=name, device=device)
    if source:
        chosen.run["base"] = source["base"] | {"conditional": chosen.run["base"]["conditional"]}
    config = _config(settings, chosen.run)
    training = config["training"]
    reasons = dict(chosen.reasons)
    if source:
        reasons["base"] = f"that of --init-from {source['snapshot']}, whose networks this training begins with"
    if empty:
        reasons["base.conditional"] = f"the class {empty[0]} has no picture left to train with"
    if settings.kimg is not None:
        reasons["training.total_nimg"] = "as asked for"
    because = "".join(f"  {key}: {reason}\n" for key, reason in reasons.items())
    rejected = f", {len(manifest['rejected'])} rejected (see {settings.out / 'rejected.tsv'})"
    text = (
        f"{settings.pictures} to {settings.out}\n"
        f"pictures: {sum(counts.values())} kept, {counts['train']} of them to train with and {counts['validation']} + "
        f"{counts['test']} to choose and to measure by{rejected if manifest['rejected'] else ''}, "
        f"{manifest['duplicates']} duplicates, {len(found.others)} other files left alone\n"
        f"resolution: {resolution} pixels ({why})\n"
        f"recipe: {chosen.name}\n{because}"
        f"training: {training['total_nimg']} images in steps of {training['batch']}"
    )
    return {
        "settings": settings.plain(),
        "digest": digest,
        "recipe": chosen.name,
        "reasons": reasons,
        "init_from": source and source["snapshot"],
        "config": config,
        "text": text,
    }


def _source(path: Path) -> dict[str, Any]:
    """Return base network and context of the snapshot that --init-from stands for, and the file as `snapshot`."""
    snapshot = snapshot_path(path)
    _, metadata = read_snapshot(snapshot)
    if not {"base", "context"} <= metadata.keys():
        raise DataError(f"--init-from: {snapshot} does not describe its networks, expected a training snapshot")
    return {"base": metadata["base"], "context": metadata["context"], "snapshot": str(snapshot.resolve())}


def _recipe_of(source: dict[str, Any], n_images: int) -> str:
    """Return the recipe for the base network of a snapshot."""
    kind = source["base"]["kind"]
    names = {"dcgan": "small", "sngan": "residual", "stylegan2": "low_shot" if n_images < FEW else "auto"}
    if kind not in names:
        raise ConfigError(
            f"--init-from: no recipe trains a {kind}, expected one of {', '.join(names)} (`init_from` of a study can)"
        )
    return names[kind]


def choose_resolution(sizes: list[tuple[int, int]], *, fit: Fit, asked: int | None, device: str) -> tuple[int, str]:
    """Return the side of the pictures and why: a power of two that nine of ten pictures have.

    Args:
        sizes: width and height of pictures.
        fit: how a picture becomes square.
        asked: the side that was asked for; None: none was.
        device: `cpu`, or a kind of GPU.
    """
    if asked is not None:
        return asked, "as asked for"
    if not sizes:
        return 32, "no picture could be read"
    side = max if fit == "pad" else min
    common = sorted(side(size) for size in sizes)[len(sizes) // 10]
    largest = _LARGEST.get(device, 256)
    why = f"nine of ten pictures have {common} or more"
    if common >= 2 * largest:
        return largest, f"{why}, and more takes long on this device: --resolution asks for it"
    return max(1 << (common.bit_length() - 1), 16), why


def held_out_share(n: int) -> float:
    """Return the share of n pictures to choose by, and as much to measure by: small sets hold out more."""
    return min(0.25, max(0.1, 10 / max(n, 1)))


def _prepare(settings: Settings, resolution: int, found: folder.Survey) -> dict[str, Any]:
    """Write the data set and `rejected.tsv`; return the manifest."""
    listed = settings.out / "rejected.tsv"

    def rejecting(rejected: list[tuple[str, str]]) -> None:
        rows = [*rejected, *((name, "left alone: its suffix is no picture's") for name in found.others)]
        with replacing(listed) as scratch:
            scratch.write_text("file\treason\n" + "".join(f"{_field(name)}\t{_field(why)}\n" for name, why in rows))
        if rejected and not settings.skip_bad:
            name, why = rejected[0]
            raise DataError(
                f"{settings.pictures}: {len(rejected)} pictures can't be used, the first is {name} ({why}); all are in "
                f"{listed}: repair them, or leave them out with --skip-bad"
            )

    held_out = held_out_share(found.n)
    source = folder.Spec(
        path=str(settings.pictures),
        fit=settings.fit,
        allow_upscale=settings.allow_upscale,
        skip_bad=True,  # `rejecting` decides, when all of them are known
        validation=held_out,
        test=held_out,
    )
    return prepare(
        settings.out.name,
        source,
        settings.out / "data",
        resolution=resolution,
        workers=os.cpu_count() or 1,
        rejecting=rejecting,
    )


def _field(text: str) -> str:
    """A name or sentence without what ends a field of the table; undecodable bytes are escaped."""
    return text.replace("\t", " ").replace("\n", " ").encode("utf-8", "backslashreplace").decode()


def _config(settings: Settings, run: dict[str, Any]) -> dict[str, Any]:
    """Return the whole configuration of the run as plain values."""
    training = dict(run["training"])
    if settings.kimg is not None:
        per_step = training["batch"] * training.get("d_steps", 1)
        training |= budget(settings.kimg, per_step, snapshots=max(len(training["snapshots"]) - 1, 1))
    adapter = TypeAdapter(Run)
    values = adapter.validate_python({**run, "training": training, "dataset": settings.out.name})
    return adapter.dump_python(values, mode="json") | {"seed": settings.seed, "run": settings.out.name}


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
        device=_device(),
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
    G = load_generator(out / "snapshots" / chosen["snapshot"]).to(_device())
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
