"""Twemoji: single code points on white, labeled by their Unicode group."""

import numpy as np
import pytest
from PIL import Image

from pygan import assets
from pygan.context import Context
from pygan.data.pictures import SPLITS
from pygan.data.sources.twemoji import CLASS_NAMES, Spec
from pygan.errors import ConfigError, MissingInput


@pytest.fixture(scope="module")
def collection():
    try:
        return Spec().build(Context(resolution=72))
    except MissingInput as error:
        pytest.skip(str(error))


def test_labels(collection):
    labels = {picture.name: CLASS_NAMES[c] for split in SPLITS for picture, c in collection.splits[split]}
    assert labels["1f600.png"] == "Smileys & Emotion"
    assert labels["1f34e.png"] == "Food & Drink"
    assert labels["2708.png"] == "Travel & Places"  # listed as 2708-FE0F
    assert labels["a9.png"] == "Symbols"  # listed as 00A9-FE0F
    assert not any("-" in name for name in labels)


def test_splits(collection):
    names = {split: {picture.name for picture, _ in collection.splits[split]} for split in SPLITS}
    total = sum(map(len, names.values()))
    assert total == len(set.union(*names.values())) > 1300
    for split, share in zip(SPLITS, (0.5, 0.15, 0.35), strict=True):
        assert abs(len(names[split]) / total - share) < 3 * (share * (1 - share) / total) ** 0.5


def test_transparent_is_white_and_opaque_is_the_drawing(collection):
    picture, _ = next(item for item in collection.splits["train"])
    drawing = np.asarray(Image.open(assets.find("72x72") / picture.name).convert("RGBA")).astype(float)
    alpha = drawing[..., 3:] / 255
    expected = (drawing[..., :3] * alpha + 255 * (1 - alpha)).transpose(2, 0, 1)
    assert np.abs(picture.load() - expected).max() <= 1


def test_no_resolution_beyond_that_of_the_drawings():
    with pytest.raises(ConfigError, match="72 pixels"):
        Spec().build(Context(resolution=128))
