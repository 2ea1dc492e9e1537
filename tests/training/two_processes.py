"""A training as one of torchrun's processes, or alone: `OUT NIMG`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from tiny import SPEC, tiny_run

from pygan.training.distributed import join
from pygan.training.gan import train

BASE = {
    "kind": "stylegan2",
    "z_dim": 8,
    "w_dim": 8,
    "channel_base": 64,
    "channel_max": 8,
    "mapping_layers": 2,
    "style_mixing": 0.0,
    "mbstd_channels": 0,
}
"""Without anything that looks at a batch as a whole."""
ADA = {"kind": "ada", "family": "bg", "p": 0.3, "interval": 2, "speed_kimg": 0.1}
LINEAR = {"adam_eps": 1.0, "g_lr": 0.1, "d_lr": 0.1}
"""Adam that moves in proportion to the gradient, so that rounding stays rounding."""


def main(out: Path, nimg: int) -> None:
    torch.set_num_threads(1)
    run = tiny_run(base=BASE, augment=ADA)
    spec = replace(SPEC, **LINEAR, batch=4, total_nimg=nimg, snapshots=(nimg,), lazy="separate")
    (out / "out").mkdir(parents=True, exist_ok=True)
    train(run, spec, state_dir=out / "state", out_dir=out / "out", ranks=join())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
