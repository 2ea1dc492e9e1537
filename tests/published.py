"""Arrays computed with public code, which a test may use where they lie beside the project and skips otherwise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
PUBLISHED = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"{FIXTURES} with arrays of the public code is not there")


def published(name: str) -> dict[str, Tensor]:
    """Return the arrays of one file by name; skip the test without it."""
    path = FIXTURES / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path.name}, computed with the public code, is not at hand")
    with np.load(path) as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}
