"""The labeled warp: zeros are the identity and only they, and every label moves a picture as it says."""

import math

import pytest
import torch

from pygan.augment.labeled_warp import LabeledWarp, warp
from pygan.draws import Draws

IMG = Draws(0, "img", torch.arange(6)).uniform(3, 16, 16) * 2 - 1


def labels(flip=0.0, scale=0.0, angle=0.0, right=0.0, down=0.0) -> torch.Tensor:
    return torch.tensor([flip, scale, math.cos(angle) - 1, math.sin(angle), right, down]).expand(6, 6)


def test_a_picture_is_untouched_where_its_labels_are_zero_and_there_alone():
    img, told = LabeledWarp(p=0.3, flip=0.5).labeled(IMG.repeat(40, 1, 1, 1), Draws(0, "a", torch.arange(240)))
    same = (img == IMG.repeat(40, 1, 1, 1)).flatten(1).all(1)
    assert torch.equal(same, (told == 0).all(1))
    assert 0 < same.sum() < 240
    share = 0.5 * 0.7**3
    assert same.float().mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / 240) ** 0.5)


def test_the_geometry_of_almost_nothing_is_almost_the_identity():
    """The reading itself, which untouched pictures do not pass through."""
    assert (warp(IMG, labels(scale=1e-6)) - IMG).abs().max() < 1e-3


def test_a_flip_mirrors():
    torch.testing.assert_close(warp(IMG, labels(flip=1)), IMG.flip(3), rtol=0, atol=1e-4)


def test_a_quarter_turn_is_a_turn_of_the_grid():
    turned = warp(IMG, labels(angle=math.pi / 2))
    torch.testing.assert_close(turned, IMG.rot90(-1, (2, 3)), rtol=0, atol=1e-4)


def test_shifts_are_eighths_of_the_side_to_the_right_and_down():
    moved = warp(IMG, labels(right=1.0, down=-0.5))  # 2 pixels right, 1 up
    torch.testing.assert_close(moved[:, :, 2:13, 4:14], IMG[:, :, 3:14, 2:12], rtol=0, atol=1e-4)


def test_scaling_enlarges_about_the_centre():
    """A disc of area A has the area 4 A at the scale 2^1, while it fits."""
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    disc = ((x**2 + y**2) < 6**2).float()[None, None].expand(6, 1, 32, 32)
    assert warp(disc, labels(scale=1.0)).sum().item() == pytest.approx(4 * disc.sum().item(), rel=0.02)
