"""EarthCover: the counts of the calibration, and no pixel in two splits."""

import re

import numpy as np
import pytest
from PIL import Image

from pygan import assets
from pygan.context import Context
from pygan.data.pictures import SPLITS
from pygan.data.sources.earthcover import CLASS_NAMES, Spec, split_of_block
from pygan.errors import ConfigError, MissingInput


@pytest.fixture(scope="module")
def collection():
    try:
        return Spec().build(Context(resolution=32))
    except MissingInput as error:
        pytest.skip(str(error))


def corner(picture) -> tuple[int, int]:
    x, y = map(int, re.fullmatch(r"bmng.jpg at x=(\d+) y=(\d+)", picture.name).groups())
    return y, x


def test_counts(collection):
    counts = {split: np.bincount([c for _, c in collection.splits[split]], minlength=9) for split in SPLITS}
    # the calibration of the default study: 1619 tiles on one color of the checkerboard, 1583 on the other
    pool = counts["train"] + counts["validation"]
    assert pool.tolist() == [549, 285, 161, 152, 225, 77, 84, 48, 38] and pool.sum() == 1619
    assert counts["test"].sum() == 1583
    assert min(array.min() for array in counts.values()) > 0
    assert collection.class_names == CLASS_NAMES


def test_no_pixel_is_in_two_splits(collection):
    covered = {split: np.zeros((2700, 5400), bool) for split in SPLITS}
    for split in SPLITS:
        for picture, _ in collection.splits[split]:
            y, x = corner(picture)
            covered[split][y : y + 64, x : x + 64] = True
    assert sum(mask.astype(int) for mask in covered.values()).max() == 1


def test_every_split_is_spread_over_the_globe():
    blocks = {split: [(r, c) for r in range(8) for c in range(16) if split_of_block(r, c) == split] for split in SPLITS}
    for split in SPLITS:
        assert {r for r, _ in blocks[split]} == set(range(8))
        assert len({c // 2 for _, c in blocks[split]}) == 8
    assert len(blocks["validation"]) * 3 == len(blocks["train"]) and len(blocks["test"]) == 64


def test_tiles_are_means_of_the_photograph(collection):
    photograph = np.asarray(Image.open(assets.find("bmng.jpg")).convert("RGB")).astype(float)
    for picture, _ in collection.splits["train"][::200]:
        y, x = corner(picture)
        means = photograph[y : y + 64, x : x + 64].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
        assert np.abs(picture.load() - means).max() <= 1  # rounded once per axis


def test_another_resolution_keeps_the_tiles_and_their_deal(collection):
    other = Spec().build(Context(resolution=16))
    for split in SPLITS:
        assert [(p.name, c) for p, c in other.splits[split]] == [(p.name, c) for p, c in collection.splits[split]]
    assert other.splits["test"][0][0].load().shape == (3, 16, 16)


def test_no_resolution_beyond_that_of_the_tiles():
    with pytest.raises(ConfigError, match="64 pixels"):
        Spec().build(Context(resolution=128))
