"""Bilinear sampling of pictures at given positions, differentiable any number of times with respect to the picture.

PyTorch's own `grid_sample` has no second derivative, but R1 needs one through an augmentation. Sampling is linear in
the picture, so its derivative is the transposed map (each output gradient is spread over the four pixels that it was
read from), and the derivative of the transposed map is sampling again: two functions that are each other's derivative.
StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv 2006.06676) closes the same gap in its code.

Differs from `torch.nn.functional.grid_sample` in: positions get no gradient, and under autocast nothing is rounded.
"""

from typing import Any

import torch
from torch import Tensor


def grid_sample(img: Tensor, grid: Tensor) -> Tensor:
    """Return `img` read at the positions of `grid`: bilinear, zeros outside.

    Args:
        img: `[N, C, H, W]`, float32 or float64.
        grid: `[N, H_out, W_out, 2]` of (x, y), dtype and device of `img`; -1 and 1 are the outer edges of the outermost
            pixels (`align_corners=False`). It gets no gradient.

    Returns:
        `[N, C, H_out, W_out]`.

    Raises:
        ValueError: shapes or dtypes that do not fit, or a grid that requires a gradient.
    """
    if img.dim() != 4 or grid.dim() != 4 or grid.shape[3] != 2 or len(img) != len(grid):
        raise ValueError(
            f"grid_sample: got shapes {list(img.shape)} and {list(grid.shape)}, expected [N, C, H, W] and "
            "[N, H_out, W_out, 2]"
        )
    if img.dtype != grid.dtype:
        raise ValueError(f"grid_sample: img is {img.dtype} and grid is {grid.dtype}, expected one dtype")
    if grid.requires_grad:
        raise ValueError("grid_sample: grid requires a gradient, but only img gets one")
    return _Gather.apply(img, grid)


_BILINEAR, _ZEROS, _ALIGN_CORNERS = 0, 0, False


class _Gather(torch.autograd.Function):
    """Pictures `[N, C, H, W]` to their values at the positions of a grid."""

    @staticmethod
    def forward(ctx: Any, img: Tensor, grid: Tensor) -> Tensor:
        ctx.size = img.shape[2:]
        ctx.save_for_backward(grid)
        return torch.ops.aten.grid_sampler_2d(img, grid, _BILINEAR, _ZEROS, _ALIGN_CORNERS)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Scatter.apply(gradient, grid, ctx.size), None


class _Scatter(torch.autograd.Function):
    """The transposed map: values at the positions of a grid, added up in pictures `[N, C, *size]`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        shape_only = values.new_zeros(()).expand(*values.shape[:2], *size)
        mask = [True, False]  # for the picture, not for the positions
        img, _ = torch.ops.aten.grid_sampler_2d_backward(
            values, shape_only, grid, _BILINEAR, _ZEROS, _ALIGN_CORNERS, mask
        )
        return img

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Gather.apply(gradient, grid), None, None
