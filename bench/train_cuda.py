"""Times of whole training steps on a GPU: precisions, and our operators beside their formulas in plain PyTorch.

    python bench/train_cuda.py [--only stylegan2_256,sngan] [--seconds 20] [--out bench]

A contender is the training loop itself, `pygan.training.gan.train`, on random pictures that lie in the GPU's memory:
random numbers, augmentation, lazy terms, average, checks for divergence and statistics are in its time, snapshots and
checkpoints are not. Contenders of a case run one after another, each in a process of its own; the number is the median
over ticks of 16 steps (the period of the lazy terms) after one tick to warm up.

Writes train_cuda.json and train_cuda.md. With --only the result is printed unless --out names a folder.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from data import machine
from measure_op import check_native, versions
from torch import Tensor, nn

from pygan.context import Context
from pygan.losses import OBJECTIVES
from pygan.ops import plain_operators
from pygan.sampling import describe
from pygan.spec import load_spec
from pygan.training.game import Run
from pygan.training.gan import train
from pygan.training.spec import TrainingSpec

HERE = Path(__file__).parent
WARM, FEWEST, MOST = 1, 2, 12
"""Ticks that do not count, and how many do."""
TICK = 16
PICTURES = 256

STYLEGAN2 = {"kind": "stylegan2", "channel_base": 16384}
HALF = {"half_resolutions": 4, "conv_clamp": 256}
PRECISIONS = {
    "fp32": {},
    "tf32": {"tf32": True},
    "tf32, formulas": {"tf32": True, "formulas": True},
    "bf16": {"tf32": True, "precision": "bf16"},
    "fp16": {"tf32": True, "precision": "fp16"},
}
CASES: dict[str, dict[str, Any]] = {
    "stylegan2_256": {
        "title": "StyleGAN2 of the `paper256` configuration, 256 pixels, R1 every 16 steps, path length every 4, ADA",
        "resolution": 256,
        "base": STYLEGAN2,
        "loss": "non_saturating",
        "augment": {"kind": "ada", "p": 0.3},
        "regularizers": [{"kind": "r1", "gamma": 1.0, "every": 16}, {"kind": "path_length", "every": 4}],
        "training": {"batch": 16, "lazy": "separate", "betas": (0.0, 0.99), "g_lr": 0.0025, "d_lr": 0.0025},
        "contenders": {
            "tf32": {"tf32": True},
            "tf32, formulas": {"tf32": True, "formulas": True},
            "fp16 blocks": {"tf32": True, "base": HALF},
            "fp16 blocks, formulas": {"tf32": True, "base": HALF, "formulas": True},
            "bf16": {"tf32": True, "precision": "bf16"},
            "fp32": {},
        },
    },
    "sngan": {
        "title": "SNGAN of the published width, 32 pixels, five steps of D",
        "resolution": 32,
        "base": {"kind": "sngan"},
        "loss": "hinge",
        "training": {"batch": 64, "d_steps": 5, "betas": (0.0, 0.9), "g_lr": 2e-4, "d_lr": 2e-4},
        "contenders": PRECISIONS,
    },
    "biggan": {
        "title": "BigGAN of gSR's size for CIFAR, 32 pixels, 10 classes, five steps of D, DiffAugment",
        "resolution": 32,
        "num_classes": 10,
        "base": {"kind": "biggan", "z_dim": 80},
        "loss": "hinge",
        "augment": {"kind": "diffaug"},
        "training": {"batch": 64, "d_steps": 5, "betas": (0.0, 0.999), "g_lr": 2e-4, "d_lr": 2e-4},
        "contenders": PRECISIONS,
    },
    "dcgan": {
        "title": "DCGAN of the default study, 32 pixels, R1 every 8 steps, DiffAugment",
        "resolution": 32,
        "base": {"kind": "dcgan", "g_channels": 32, "d_channels": 32},
        "loss": "hinge",
        "augment": {"kind": "diffaug"},
        "regularizers": [{"kind": "r1", "gamma": 0.1, "every": 8}],
        "training": {"batch": 32},
        "contenders": {
            "fp32": {},
            "tf32": {"tf32": True},
            "tf32, torch.compile": {"tf32": True, "compile": True},
            "bf16": {"tf32": True, "precision": "bf16"},
        },
    },
}


class Enough(Exception):
    """Ends a training whose time is up."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CASES), help="comma-separated cases (default: all)")
    parser.add_argument("--seconds", type=float, default=20.0, help="after which a contender starts no further tick")
    parser.add_argument("--contender", help="measure this one in this process and print JSON")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(CASES):
        parser.error(f"--only: got {', '.join(sorted(unknown))}, expected some of {', '.join(CASES)}")
    if arguments.contender:
        print(json.dumps(measure(CASES[wanted[0]], arguments.contender, arguments.seconds)))
        return
    check_native("cuda")
    result: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "machine": machine()}
    result |= {"versions": versions("cuda"), "cases": {}}
    for name in wanted:
        rows = [{"name": contender, **in_a_process(name, contender, arguments.seconds)} for contender in of(name)]
        result["cases"][name] = {"title": CASES[name]["title"], "batch": CASES[name]["training"]["batch"], "rows": rows}
        print("\n".join(table_of(name, result["cases"][name])), flush=True)
    if out := arguments.out or (HERE if wanted == list(CASES) else None):
        (out / "train_cuda.json").write_text(json.dumps(result, indent=1) + "\n")
        (out / "train_cuda.md").write_text(as_table(result))


def of(case: str) -> dict[str, Any]:
    return CASES[case]["contenders"]


def in_a_process(case: str, contender: str, limit: float) -> dict[str, Any]:
    """Measure in a process whose memory and tuned convolutions are its own."""
    command = [sys.executable, __file__, "--only", case, "--contender", contender, "--seconds", str(limit)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: dict[str, Any], contender: str, limit: float) -> dict[str, Any]:
    """Return the median time of a step, of the ticks that count, and the most memory that was in use."""
    how = dict(case["contenders"][contender])
    formulas, base = how.pop("formulas", False), case["base"] | how.pop("base", {})
    training = case["training"] | how
    step = training["batch"] * training.get("d_steps", 1)
    ticks = WARM + MOST
    total = ticks * TICK * step
    spec = TrainingSpec(**training, total_nimg=total, snapshots=(total,), tick_nimg=total, checkpoint_nimg=total)
    times: dict[int, float] = {}
    run = game(case, base)
    inner, start = run.batch, time.perf_counter()

    def batch(index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Read the clock where the first pictures of a tick are asked for."""
        first = int(index[0])
        if first % (TICK * step) == 0 and len(index) == training["batch"] and first not in times:
            torch.cuda.synchronize()
            times[first] = time.perf_counter()
            if len(times) > WARM + FEWEST and time.perf_counter() - start > limit:
                raise Enough
        return inner(index)

    run.batch = batch
    operators = plain_operators() if formulas else contextlib.nullcontext()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough), operators:
        Path(folder, "out").mkdir()
        train(run, spec, state_dir=Path(folder, "state"), out_dir=Path(folder, "out"))
    seconds = [(after - before) / TICK for before, after in itertools.pairwise(times.values())][WARM:]
    return {
        "seconds": statistics.median(seconds),
        "low": min(seconds),
        "high": max(seconds),
        "ticks": len(seconds),
        "images_per_second": step / statistics.median(seconds),
        "memory_bytes": torch.cuda.max_memory_allocated(),
    }


def game(case: dict[str, Any], base: dict[str, Any]) -> Run:
    """Return the run of a case on random pictures."""
    torch.manual_seed(0)
    device, num_classes = torch.device("cuda"), case.get("num_classes", 0)
    ctx = Context(resolution=case["resolution"], num_classes=num_classes, device=device)
    network = load_spec("pygan.networks", base)
    G, D = network.generator(ctx), network.discriminator(ctx)
    augment = load_spec("pygan.augment", case["augment"]).build(ctx) if case.get("augment") else None
    plain = load_spec("pygan.discriminators", {"kind": "plain"}).build(ctx, D, augment)
    side = case["resolution"]
    pool = torch.randint(0, 256, (PICTURES, 3, side, side), dtype=torch.uint8, device=device)
    classes = torch.arange(PICTURES, device=device) % num_classes if num_classes else None

    def batch(index: Tensor) -> tuple[Tensor, Tensor | None]:
        at = index.to(device) % PICTURES
        return pool[at], None if classes is None else classes[at]

    return Run(
        seed=0,
        G=G.to(device, memory_format=torch.channels_last),
        D=nn.ModuleList([plain]).to(device, memory_format=torch.channels_last),
        objective=OBJECTIVES[case["loss"]],
        regularizers=[load_spec("pygan.regularizers", r).build(ctx) for r in case.get("regularizers", [])],
        batch=batch,
        held_out=batch,
        gen_labels=lambda draws: draws.integers(num_classes) if num_classes else None,
        masks={},
        init=None,
        init_nimg=0,
        metadata=lambda nimg: describe(base, ctx, nimg),
    )


def as_table(result: dict[str, Any]) -> str:
    where, facts = result["machine"], result["versions"]
    lines = [
        f"`{result['command']}`: {facts['gpu']}, {where['processor']}, torch {facts['torch']}, CUDA {facts['cuda']}, "
        f"Python {where['python']}.",
        "",
        "Milliseconds of a whole step of the training loop, lazy terms by their share: median of ticks of 16 steps,",
        "with extremes. `formulas`: the operators in plain PyTorch. `fp16 blocks`: the four highest resolutions in",
        "float16, as published; `fp16`, `bf16`: every forward pass under autocast. All but `fp32` use TensorFloat32.",
    ]
    for name, case in result["cases"].items():
        lines += ["", *table_of(name, case)]
    return "\n".join(lines) + "\n"


def table_of(name: str, case: dict[str, Any]) -> list[str]:
    lines = [
        f"## {name}",
        "",
        f"{case['title']}; batch {case['batch']}.",
        "",
        "| contender | step, ms | pictures a second | memory, GiB | times as fast as the first |",
        "|---|---:|---:|---:|---:|",
    ]
    first = case["rows"][0]["seconds"]
    for row in case["rows"]:
        step = f"{row['seconds'] * 1e3:.1f} ({row['low'] * 1e3:.1f} to {row['high'] * 1e3:.1f})"
        cells = [row["name"], step, f"{row['images_per_second']:.0f}", f"{row['memory_bytes'] / 2**30:.1f}"]
        lines.append(f"| {' | '.join(cells)} | {first / row['seconds']:.2f} |")
    return lines


if __name__ == "__main__":
    main()
