"""Pictures from generators: value ranges, independence of the batch, and grids."""

import numpy as np
import pytest
import torch
from PIL import Image

from pygan.errors import DataError
from pygan.metrics.pca_gaussian import pca_gaussian
from pygan.sampling import load_generator, save_grid, to_float, to_uint8


def test_ranges_round_trip_every_value():
    img = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(img)), img)
    assert to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


def test_a_grid_shows_the_pictures_in_reading_order(tmp_path):
    img = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2) * 100
    save_grid(tmp_path / "grid.png", img, columns=2, scale=3)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (2 * 2 * 3, 2 * 2 * 3, 3)
    assert [pixels[0, 0, 0], pixels[0, -1, 0], pixels[-1, 0, 0], pixels[-1, -1, 0]] == [0, 100, 200, 255]


def test_a_file_that_is_no_snapshot_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x\.safetensors: not a readable safetensors file"):
        load_generator(path)


def test_the_pca_gaussian_has_the_moments_of_the_pictures():
    """Pictures on a line in pixel space (mean 100, direction d, scale 20) give samples on that line."""
    steps = torch.linspace(-1, 1, 41)
    direction = torch.tensor([1.0, -1.0, 0.5, 0.0]).view(1, 2, 2)
    img = (100 + 20 * steps.view(-1, 1, 1, 1) * direction).round().to(torch.uint8)
    drawn = pca_gaussian(img, 4000, seed=0).double()
    x = img.double().flatten(1)
    assert (drawn.flatten(1).mean(0) - x.mean(0)).abs().max() < 1
    torch.testing.assert_close(drawn.flatten(1).T.cov(), x.T.cov(), rtol=0.1, atol=2.0)
    assert drawn.shape == (4000, 1, 2, 2)
