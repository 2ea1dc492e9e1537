"""DiffAugment: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020 (2006.10738).

The same random family is applied to real and generated pictures in both phases, and gradients pass through it.
Ranges, order (color, translation, cutout) and rounding are those of the authors' code.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from pygan.context import Context
from pygan.draws import Draws
from pygan.spec import spec

Policy = Literal["color", "translation", "cutout"]


@spec
class Spec:
    kind: Literal["diffaug"] = "diffaug"
    policy: tuple[Policy, ...] = ("color", "translation", "cutout")
    """Families to apply, in the order given."""

    def build(self, ctx: Context) -> "DiffAug":
        return DiffAug(self.policy)


class DiffAug:
    """Callable augmentation: pictures `[N, C, H, W]` in [-1, 1] and `Draws` for those N samples to pictures."""

    def __init__(self, policy: tuple[Policy, ...]) -> None:
        self.families = [_FAMILIES[name] for name in policy]

    def __call__(self, img: Tensor, draws: Draws) -> Tensor:
        for family in self.families:
            img = family(img, draws)
        return img


def color(img: Tensor, draws: Draws) -> Tensor:
    """Brightness plus U(-0.5, 0.5); saturation times U(0, 2); contrast times U(0.5, 1.5).

    The three steps are affine in the picture, its gray value and its mean, and are applied as one.
    """
    b, s, k = draws.uniform(3, 1, 1, 1).unbind(1)
    b, s, k = b - 0.5, 2 * s, k + 0.5
    gray = img.mean(1, keepdim=True)
    mean = gray.mean((2, 3), keepdim=True)
    # k (s (x - gray) + gray + b - (mean + b)) + mean + b
    return img * (k * s) + (gray * (k - k * s) + (mean * (1 - k) + b))


def translation(img: Tensor, draws: Draws, ratio: float = 0.125) -> Tensor:
    """Shift by whole pixels, at most `ratio` of the side each way, filling with zeros."""
    n, _, height, width = img.shape
    reach_y, reach_x = int(height * ratio + 0.5), int(width * ratio + 0.5)
    rows = draws.integers(2 * reach_y + 1, 1) + torch.arange(height, device=img.device)
    columns = draws.integers(2 * reach_x + 1, 1) + torch.arange(width, device=img.device)
    padded = pad(img, (reach_x, reach_x, reach_y, reach_y))
    sample = torch.arange(n, device=img.device)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # channels_last in memory


def cutout(img: Tensor, draws: Draws, ratio: float = 0.5) -> Tensor:
    """Zero a square of `ratio` of the side, its center anywhere in the picture."""
    _, _, height, width = img.shape
    inside = []
    for side in (height, width):
        cut = int(side * ratio + 0.5)
        start = draws.integers(side + 1 - cut % 2, 1) - cut // 2
        position = torch.arange(side, device=img.device)
        inside.append((position >= start) & (position < start + cut))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return img * ~hole[:, None]


_FAMILIES = {"color": color, "translation": translation, "cutout": cutout}
