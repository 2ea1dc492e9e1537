"""Sampling against PyTorch's own, and its second derivative, which PyTorch's own lacks."""

import pytest
import torch
from torch.nn import functional as F

from pygan.ops import grid_sample


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    img = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    return img, torch.rand(2, 4, 6, 2, dtype=torch.float64) * 2.6 - 1.3  # a few positions lie outside


def test_values_and_gradient_are_those_of_pytorch(inputs):
    img, grid = inputs
    ours = grid_sample(img, grid)
    theirs = F.grid_sample(img, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    assert torch.equal(ours, theirs)
    probe = torch.randn_like(ours)
    assert torch.equal(*(torch.autograd.grad(out, img, probe)[0] for out in (ours, theirs)))


def test_differentiable_three_times(inputs):
    img, grid = inputs
    assert torch.autograd.gradcheck(grid_sample, (img, grid))
    assert torch.autograd.gradgradcheck(grid_sample, (img, grid))

    def gradient(x):
        return torch.autograd.grad(grid_sample(x, grid).pow(3).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, (img,), fast_mode=True)


def test_pixel_centers_give_the_picture_back():
    img = torch.randn(1, 2, 4, 6)
    grid = F.affine_grid(torch.eye(2, 3)[None], [1, 2, 4, 6], align_corners=False)
    torch.testing.assert_close(grid_sample(img, grid), img)


@pytest.mark.parametrize(
    ("img", "grid", "message"),
    [
        (torch.zeros(1, 2, 3), torch.zeros(1, 4, 4, 2), r"got shapes \[1, 2, 3\]"),
        (torch.zeros(2, 1, 3, 3), torch.zeros(1, 4, 4, 2), r"expected \[N, C, H, W\] and \[N, H_out, W_out, 2\]"),
        (torch.zeros(1, 1, 3, 3), torch.zeros(1, 4, 4, 2).double(), "img is torch.float32 and grid is torch.float64"),
        (torch.zeros(1, 1, 3, 3), torch.zeros(1, 4, 4, 2, requires_grad=True), "only img gets one"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(img, grid, message):
    with pytest.raises(ValueError, match=message):
        grid_sample(img, grid)
