"""How fast this machine is: what `pygan plan` measures for a study before anything is computed, and `pygan advise`.

Every run trains for some steps on noise, as many runs side by side as there are cores, in the loop that will train it.
So are the start of a process and the pictures per second of the networks that judge.

Nothing here imports torch before a process has chosen its allocator (`_begin`).
"""

import importlib
import json
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from pygan.config import Study

_NOT_ITS_STEP = ("continues", "init_from", "ticket", "subset", "dataset", "evaluate")
"""Keys of a run that do not decide the time of its step."""
_STEPS = 8
"""Measured at least; half as many come before, in which caches warm up."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What was measured on this machine."""

    start: float
    """Seconds until a process has imported everything."""
    judged: tuple[float, ...]
    """Pictures per second through the network of every judge; empty: there is none."""
    step: dict[str, float]
    """Run -> seconds of a training step."""


def measure(study: "Study", cores: int, gpus: int, say: Callable[[str], None]) -> Speeds:
    """Return the speeds of this machine for the runs of a study, several processes measuring side by side.

    Runs that differ in their budget or their start alone are measured once.

    Args:
        cores: processes, where they compute on the CPU.
        gpus: processes, where each one computes on a GPU; 0: they compute on the CPU.
        say: told what is measured.
    """
    values = study.plain()
    cases = {run: _case(values, run) for run in study.runs}
    distinct = {json.dumps(case, sort_keys=True): case for case in cases.values()}
    say(f"measuring {len(distinct)} kinds of training step on this machine ...")
    asked = time.time()
    with ProcessPoolExecutor(
        min(cores, gpus) or cores,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(study.threads, min(gpus, 1)),
    ) as pool:
        ready = pool.submit(_ready)
        judges = [] if study.evaluate is None else [values["evaluate"], *values["evaluate"]["also"]]
        judged = [pool.submit(_judged_per_second, judge["network"]) for judge in judges]
        measured = tqdm(
            pool.map(_step_seconds, distinct.values()), "measured", len(distinct), unit="kind", disable=None
        )
        steps = dict(zip(distinct, measured, strict=True))
        return Speeds(
            start=ready.result() - asked,
            judged=tuple(rate.result() for rate in judged),
            step={run: steps[json.dumps(case, sort_keys=True)] for run, case in cases.items()},
        )


def images_per_second(run: dict[str, Any], resolution: int) -> float:
    """Return how many real pictures per second a setting trains on this machine, measured in a process of its own.

    Args:
        run: `base`, `loss`, `augment`, `regularizers` and `training`, as of `pygan.recipes.Recipe`.
        resolution: side of the pictures, pixels.
    """
    import torch
    from pydantic import TypeAdapter

    from pygan.config import Run
    from pygan.devices import choose

    adapter = TypeAdapter(Run)
    settings = adapter.dump_python(adapter.validate_python({**run, "dataset": "noise"}), mode="json")
    dataset = {"resolution": resolution, "channels": 3}
    case = _case({"runs": {"run": settings}, "datasets": {"noise": dataset}, "bank": []}, "run")
    how = (torch.get_num_threads(), int(choose()[0].type == "cuda"))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_begin, initargs=how) as pool:
        seconds = pool.submit(_step_seconds, case).result()
    return settings["training"]["batch"] * settings["training"]["d_steps"] / seconds


def _case(values: dict[str, Any], run: str) -> dict[str, Any]:
    """Return what decides the time of a step: the run without its length, the picture and the networks of its heads."""
    settings = dict(values["runs"][run])
    dataset = values["datasets"][settings["dataset"]]
    aided = next((d for d in settings["discriminators"] if d["kind"] == "vision_aided" and not d["networks"]), None)
    training = {k: v for k, v in settings["training"].items() if not k.endswith("nimg") and k != "snapshots"}
    return {
        **{key: value for key, value in settings.items() if key not in _NOT_ITS_STEP},
        "training": training,
        "resolution": dataset["resolution"],
        "channels": dataset["channels"],
        "frozen": values["bank"][: aided["count"]] if aided else [],
    }


def _begin(threads: int, gpus: int) -> None:
    """Prepare a measuring process as a stage is prepared, with a GPU or without."""
    from pygan.allocator import set_allocator
    from pygan.gpu_claims import take

    take(gpus)
    set_allocator()
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    torch.set_num_threads(threads)


def _ready() -> float:
    """Return the time when everything that a stage needs is imported."""
    for module in ("pygan.metrics.base", "pygan.training.gan"):
        importlib.import_module(module)
    return time.time()


def _judged_per_second(network: dict[str, Any], n: int = 128) -> float:
    import torch

    from pygan.context import Context
    from pygan.devices import choose
    from pygan.metrics.base import extract, network_spec

    judge = network_spec(network, "evaluate.network").build(Context(resolution=0, device=choose()[0]))
    pictures = torch.from_numpy(_Noise(n, 32, 3).read(range(n)))
    extract(pictures[: n // 4], judge)
    started = time.perf_counter()
    extract(pictures, judge)
    return n / (time.perf_counter() - started)


def _step_seconds(case: dict[str, Any]) -> float:
    """Return the seconds of a step of a run, its own loop training it on noise."""
    from pygan.devices import choose
    from pygan.spec import parse
    from pygan.training.spec import TrainingSpec

    per_step = case["training"]["batch"] * case["training"]["d_steps"]
    lazy = max([term.get("every") or 1 for term in case["regularizers"]], default=1)
    tick = per_step * math.ceil(max(_STEPS, min(lazy, 2 * _STEPS)) / 2)
    lengths = {key: 3 * tick for key in ("total_nimg", "checkpoint_nimg")}
    lengths |= {"snapshots": [3 * tick], "tick_nimg": tick, "monitor_images": 1}
    spec = parse(TrainingSpec, case["training"] | lengths | {"ema_start_nimg": 0}, "training")
    noise = _Noise(256, case["resolution"], case["channels"])
    names = [f"class {label}" for label in range(noise.classes)]
    config = case | {"seed": 0, "subset": None, "ticket": None, "continues": None}
    train, run = _assembled(config, store=noise, held_out=noise, class_names=names, device=choose()[0])
    with TemporaryDirectory() as folder:
        train(run, spec, state_dir=Path(folder, "state"), out_dir=Path(folder))
        ticks = Path(folder, "stats.jsonl").read_text().splitlines()
    return per_step * fmean(1 / json.loads(tick)["img_per_sec"] for tick in ticks[1:])


def _assembled(config: dict[str, Any], **material: Any) -> tuple[Callable[..., dict[str, Any]], Any]:
    """Return the loop of a run and the run: those of a denoiser where the loss is a mapping."""
    if isinstance(config["loss"], dict):
        from pygan.training.assemble_denoiser import assemble
        from pygan.training.diffusion import train

        return train, assemble(config, **material)[0]
    from pygan.context import Context
    from pygan.spec import load_spec
    from pygan.training.assemble import assemble
    from pygan.training.gan import train

    ctx = Context(resolution=0, device=material["device"])
    frozen = [load_spec("pygan.features", entry, "bank").build(ctx) for entry in config["frozen"]]
    for network in frozen:
        network.separable = True
    return train, assemble(config, frozen=tuple(frozen), **material)[0]


class _Noise:
    """Pictures of noise in place of a store."""

    classes = 10

    def __init__(self, n: int, resolution: int, channels: int) -> None:
        import numpy as np

        self.path = Path("noise")
        self.resolution, self.channels = resolution, channels
        self.labels = np.arange(n) % self.classes
        self._pictures = np.random.default_rng(0).integers(0, 256, (n, channels, resolution, resolution), np.uint8)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Any) -> Any:
        return self._pictures[list(indices)]
