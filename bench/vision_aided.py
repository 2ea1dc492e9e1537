"""What a vision-aided step costs beside the parts that it cannot do without.

    python bench/vision_aided.py [--seconds 60] [--side 48] [--batch 32] [--out bench]

A step of the small baseline with one frozen network is compared with the sum of: the step without it, one forward of
the truncated network per picture that the discriminators see (real and generated), and one forward and backward per
picture of the generator step. What is over is heads, augmentation of their pictures and bookkeeping: at most 15 % (gate
1.15). One thread; all parts are timed in turn, another order each round, and the ratio is the median over rounds.
Writes vision_aided.json.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from data import machine
from paired import median_and_interval, rounds_of
from torch import Tensor, nn

from pygan.context import Context
from pygan.features.efficientnet_lite0 import Spec as EfficientNetLite0
from pygan.losses import OBJECTIVES
from pygan.pruning.masks import Masked
from pygan.spec import load_spec
from pygan.training.distributed import Ranks
from pygan.training.game import Run, Side
from pygan.training.spec import TrainingSpec

GATE = 1.15


def measure(*, seconds: float = 60, side: int = 48, batch: int = 32, resolution: int = 32) -> dict[str, Any]:
    """Return milliseconds of the parts and the ratio of the vision-aided step to their sum, with its interval.

    Args:
        seconds: the measurement starts no round after them.
        side: what the frozen network sees, pixels; its weights are random, which costs what the true ones cost.
        batch: real pictures per step, and generated ones.
        resolution: side of the pictures.
    """
    torch.set_num_threads(1)
    frozen = EfficientNetLite0(resolution=side, random_init=True).build(Context(resolution=resolution))
    img = torch.rand(2 * batch, 3, resolution, resolution) * 2 - 1
    contenders = {
        "baseline": _step([{"kind": "plain"}], (), batch, resolution),
        "vision_aided": _step([{"kind": "plain"}, {"kind": "vision_aided"}], (frozen,), batch, resolution),
        "forward": lambda: frozen(img),
        "forward_backward": lambda: _forward_backward(frozen, img[:batch].clone().requires_grad_()),
    }
    for run in contenders.values():
        run()
    rounds = rounds_of(contenders, "cpu", 50, 3, seconds)
    ms = {name: [1e3 * t for t in times] for name, times in rounds.items()}
    sums = [
        sum(parts) for parts in zip(*(ms[name] for name in ("baseline", "forward", "forward_backward")), strict=True)
    ]
    ratio, low, high = median_and_interval([a / b for a, b in zip(ms["vision_aided"], sums, strict=True)])
    return {
        "ms": {name: statistics.median(times) for name, times in ms.items()},
        "rounds": len(sums),
        "ratio": ratio,
        "interval": [low, high],
        "gate": GATE,
        "settings": {"side": side, "batch": batch, "resolution": resolution, "threads": 1},
    }


def _step(players: list[dict[str, Any]], frozen: tuple[nn.Module, ...], batch: int, resolution: int) -> Callable:
    """A call that trains one step on random pictures: D on real and generated ones, then G."""
    pictures = torch.randint(0, 256, (256, 3, resolution, resolution), dtype=torch.uint8)
    ctx = Context(resolution=resolution, frozen=frozen)
    torch.manual_seed(0)
    base = load_spec("pygan.networks", {"kind": "dcgan", "g_channels": 32, "d_channels": 32})
    G, network = base.generator(ctx).train(), base.discriminator(ctx)
    D = [p for values in players for p in load_spec("pygan.discriminators", values).players(ctx, network, lambda: None)]
    run = Run(
        seed=0,
        G=G.to(memory_format=torch.channels_last).requires_grad_(False),
        D=nn.ModuleList(D).to(memory_format=torch.channels_last).train().requires_grad_(False),
        objective=OBJECTIVES["hinge"],
        regularizers=[],
        batch=lambda index: (pictures[index % len(pictures)], None),
        held_out=lambda index: (pictures[index % len(pictures)], None),
        gen_labels=lambda draws: None,
        masks={},
        init=None,
        init_nimg=0,
        metadata=lambda nimg: {},
    )
    spec = TrainingSpec(batch=batch)
    ranks = Ranks(0, 1, torch.device("cpu"))
    sides = [Side("D", run.D, spec.d_lr, Masked(run.D, {}), run, spec, ranks)]
    sides.append(Side("G", run.G, spec.g_lr, Masked(run.G, {}), run, spec, ranks))

    def call() -> None:
        for side in sides:
            side.move(0, batch, torch.arange(batch))

    return call


def _forward_backward(frozen: nn.Module, img: Tensor) -> None:
    sum(tap.mean() for tap in frozen(img)).backward()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--side", type=int, default=48)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    measured = measure(seconds=arguments.seconds, side=arguments.side, batch=arguments.batch)
    text = json.dumps(measured | {"machine": machine()}, indent=1)
    (arguments.out / "vision_aided.json").write_text(text + "\n")
    print(text)
