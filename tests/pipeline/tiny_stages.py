"""A tiny class-conditional run, and stages as functions."""

from pathlib import Path

import pytest

from pygan import assets
from pygan.errors import MissingInput

CLASSES = ["dark", "light"]
JUDGE = {"kind": "mobilenet_v2", "resolution": 32}
RUN = {
    "run": "tiny",
    "seed": 0,
    "dataset": "two",
    "subset": {"kind": "n_shot", "n": 6, "per_class": True},
    "mirror": True,
    "sampling": "natural",
    "gen_labels": "natural",
    "base": {"kind": "sngan", "z_dim": 8, "g_channels": 4, "d_channels": 4, "conditional": True},
    "loss": "hinge",
    "augment": {"kind": "diffaug"},
    "discriminators": [{"kind": "plain"}],
    "regularizers": [{"kind": "r1", "gamma": 1.0, "every": 2}],
    "training": {
        "batch": 4,
        "total_nimg": 24,
        "snapshots": [0, 12, 24],
        "tick_nimg": 4,
        "checkpoint_nimg": 12,
        "monitor_images": 4,
        "standing_batches": 1,
    },
    "continues": None,
    "ticket": None,
    "frozen": [],
}


def stage(module, out: Path, inputs: dict[str, list[Path]], **config) -> Path:
    (out / "out").mkdir(parents=True)
    module.main({"stage": module.__name__, "config": config}, inputs=inputs, out=out / "out")
    return out / "out"


def needs(*files: str) -> None:
    for file in files:
        try:
            assets.find(file)
        except MissingInput as error:
            pytest.skip(str(error))
