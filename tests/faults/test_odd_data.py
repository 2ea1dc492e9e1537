"""Data sets that are odd or too small: copies, a class of one picture, fewer pictures than a batch or dimensions."""

import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pygan.data.manifest import open_split
from pygan.data.prepare import prepare
from pygan.data.sources.folder import Spec
from pygan.errors import DataError, NumericalError
from pygan.metrics.base import measure
from pygan.spec import load_spec, parse
from pygan.training.assemble import assemble
from pygan.training.gan import train
from pygan.training.spec import TrainingSpec

SPLITS = ("train", "validation", "test")
CONFIG = {
    "seed": 0,
    "subset": None,
    "sampling": "natural",
    "mirror": False,
    "gen_labels": "natural",
    "base": {"kind": "dcgan", "z_dim": 8, "g_channels": 4, "d_channels": 4, "conditional": True},
    "loss": "hinge",
    "augment": None,
    "discriminators": [{"kind": "plain"}],
    "regularizers": [],
}
TRAINING = {
    "batch": 16,
    "total_nimg": 32,
    "snapshots": [32],
    "tick_nimg": 32,
    "checkpoint_nimg": 32,
    "monitor_images": 4,
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten training pictures of which one class has a single one, and four in each of the other splits."""
    draw = np.random.default_rng(0)
    for split, counts in zip(SPLITS, ({"many": 9, "one": 1}, {"many": 4}, {"many": 4}), strict=True):
        for name, count in counts.items():
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def prepared(pictures: Path) -> Path:
    prepare("odd", Spec(path=str(pictures)), pictures.parent / "data", resolution=16)
    return pictures.parent / "data" / "manifest.json"


def test_copies_are_counted_and_told_and_shared_ones_refused(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(pictures / "train/many/0.png", pictures / "train/many/copy.png")
    prepared(pictures)
    assert "odd: 1 pictures are copies of others in their split, 0 are in several" in caplog.text
    shutil.copy(pictures / "train/many/0.png", pictures / "test/many/copy.png")
    with pytest.raises(DataError, match="odd: 1 pictures are in more than one of train, validation and test") as caught:
        prepared(pictures)
    assert caught.value.exit_code == 65


def test_a_class_of_one_picture_and_a_batch_larger_than_the_data_set(
    pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = prepared(pictures)
    stores = {name: open_split(manifest, split) for name, split in (("store", "train"), ("held_out", "validation"))}
    with caplog.at_level(logging.WARNING):
        run, _ = assemble(CONFIG | {"training": TRAINING}, class_names=("many", "one"), **stores)
    assert "the class 'one' has one training picture" in caplog.text
    assert "10 training pictures for batches of 16: a batch shows pictures more than once" in caplog.text
    img, labels = run.batch(torch.arange(16))
    shown = [picture.numpy().tobytes() for picture in img]
    assert len(set(shown[:10])) == 10 and set(shown[10:]) < set(shown[:10])  # an epoch, and part of the next
    assert labels[:10].sum() == 1
    spec = parse(TrainingSpec, TRAINING, "training")
    assert train(run, spec, state_dir=tmp_path / "state", out_dir=tmp_path)["nimg"] == 32


def test_enough_pictures_for_a_batch_are_no_matter(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = prepared(pictures)
    stores = {name: open_split(manifest, split) for name, split in (("store", "train"), ("held_out", "validation"))}
    assemble(CONFIG | {"training": TRAINING | {"batch": 10}}, class_names=("many", "one"), **stores)
    assert "more than once" not in caplog.text


def features(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 64, generator=torch.Generator().manual_seed(seed))


METRICS = [load_spec("pygan.metrics", {"kind": kind}).build() for kind in ("fid", "kid")]


def test_fewer_pictures_than_dimensions_are_measured_with_a_flag_and_the_kernel_distance_beside() -> None:
    found = measure(METRICS, "net", features(20, 0), features(30, 1))
    assert found["fd_net"]["rank_deficient"] and math.isfinite(found["fd_net"]["value"])
    assert math.isfinite(found["kid_net"]["value"])
    assert "20 real, 30 generated" in found["kid_net"]["protocol"]  # all of them, whatever subset is usual
    same = measure(METRICS, "net", features(20, 0), features(20, 0).flip(0))
    assert abs(same["fd_net"]["value"]) < 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_give_no_number(value: float) -> None:
    broken = features(30, 1)
    broken[3, 5] = value
    with pytest.raises(NumericalError) as caught:
        measure(METRICS, "net", features(20, 0), broken)
    assert caught.value.exit_code == 70
