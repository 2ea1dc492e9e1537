"""Packaged pictures that the tests of this folder share."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pygan.context import Context
from pygan.data.sources.earthcover import Spec
from pygan.errors import MissingInput


@pytest.fixture(scope="session")
def tiles() -> dict[str, Tensor]:
    """EarthCover's splits at 32 pixels, uint8 `[n, 3, 32, 32]`."""
    try:
        splits = Spec().build(Context(resolution=32)).splits
    except MissingInput as error:
        pytest.skip(str(error))
    return {
        name: torch.from_numpy(np.stack([picture.load() for picture, _ in items])) for name, items in splits.items()
    }
