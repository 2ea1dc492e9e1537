"""Geometric augmentation that says what it did: flip, scale, rotation and translation with six labels per picture.

After EDM (Karras et al., NeurIPS 2022, arXiv 2206.00364, appendix F.2; its ranges). A denoiser is told the labels and
asked with zeros, which mean an untouched picture, when it samples: so it learns from warped pictures and does not
generate them, flipped ones included.

Differs from the official code in: one bicubic reading of the picture, mirrored at its edges, in place of a reading at
twice the size between two wavelet filters; no flips upside down and no anisotropic scaling.
"""

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pygan.context import Context
from pygan.draws import Draws
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["labeled_warp"] = "labeled_warp"
    p: float = Field(default=0.12, ge=0, le=1)
    """Probability of each of scaling, rotation and translation (EDM: 0.12 on CIFAR-10, 0.15 on faces)."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a flip from left to right."""

    labels: ClassVar[int] = 6
    """Numbers per picture: flip (0 or 1), log2 of the scale, cos - 1 and sin of the angle, shift to the right and
    downward in units of 1/8 of the side."""

    def build(self, ctx: Context) -> "LabeledWarp":
        return LabeledWarp(self.p, self.flip)


class LabeledWarp:
    """Callable augmentation; `labeled` also returns what was done.

    Args:
        p: probability of scaling by 2^N(0, 0.2), of any rotation, and of a shift by N(0, 0.125) of the side each way.
        flip: probability of a flip.
    """

    def __init__(self, p: float, flip: float) -> None:
        self.p, self.flip = p, flip

    def __call__(self, img: Tensor, draws: Draws) -> Tensor:
        return self.labeled(img, draws)[0]

    def labeled(self, img: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the pictures and their labels (`Spec.labels`), float32 `[N, 6]`; those with zeros are untouched."""
        chosen = draws.uniform(4)
        size = draws.normal(3)
        angle = (2 * draws.uniform() - 1) * math.pi * (chosen[:, 2] < self.p)
        flipped = chosen[:, 0] < self.flip
        scale = 0.2 * size[:, 0] * (chosen[:, 1] < self.p)
        shift = size[:, 1:] * (chosen[:, 3] < self.p)[:, None]
        labels = torch.stack([flipped.float(), scale, angle.cos() - 1, angle.sin(), *shift.unbind(1)], 1)
        return warp(img, labels), labels


def warp(img: Tensor, labels: Tensor) -> Tensor:
    """Return pictures `[N, C, H, W]` flipped, then scaled, rotated and shifted as labels `[N, 6]` say."""
    flip, scale, cos_less_1, sin, right, down = labels.unbind(1)
    cos, size = cos_less_1 + 1, torch.exp2(scale)
    # where a pixel of the result is read: shifted back, turned back, made smaller, flipped
    inverse = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2) / size[:, None, None]
    inverse[:, 0] *= (1 - 2 * flip)[:, None]
    back = -inverse @ (torch.stack([right, down], 1) / 4)[:, :, None]  # 1/8 of the side is 1/4 of [-1, 1]
    grid = affine_grid(torch.cat([inverse, back], 2), list(img.shape), align_corners=False)
    read = grid_sample(img, grid.to(img), mode="bicubic", padding_mode="reflection", align_corners=False)
    return torch.where((labels != 0).any(1)[:, None, None, None], read, img)
