"""Small pictures that the tests of the data part share."""

from collections.abc import Callable

import numpy as np
import pytest

from pygan.data.pictures import ArrayPicture, Item


@pytest.fixture
def make_items() -> Callable[..., list[Item]]:
    """Return a function that makes n random pictures with labels 0, 1, 2, 0, ..."""

    def make(n: int, resolution: int = 8, channels: int = 3, seed: int = 0) -> list[Item]:
        pixels = np.random.default_rng(seed).integers(0, 256, (n, channels, resolution, resolution), np.uint8)
        return [(ArrayPicture(f"picture {i}", picture), i % 3) for i, picture in enumerate(pixels)]

    return make
