"""Vision-aided discriminator: Kumari, Zhang, Shechtman and Zhu, CVPR 2022 (arXiv 2112.09130), eq. 2.

Frozen pretrained networks with small trainable heads play beside the base discriminator, each head with the run's own
objective and weight 1. Which networks join is decided by a linear probe (`pygan.features.probe`).

Differs from the official code: each tap of a network has a head of three spectrally normalized convolutions on
batch-normalized features (real and generated pictures share the batch), and the losses of one network's taps are
averaged, so a network weighs as much as D whatever its number of taps (the release sums them). The published heads
are not implemented here.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pygan.context import Context
from pygan.discriminators.plain import Augment, Player
from pygan.draws import Draws
from pygan.ops import spectral_norm
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["vision_aided"] = "vision_aided"
    count: int = Field(default=1, ge=1)
    """How many networks join: the first `count` of the probe's ranking."""
    width: int = Field(default=64, ge=1)
    """Channels inside a head."""

    def build(self, ctx: Context, network: nn.Module, augment: Augment | None) -> "VisionAided":
        if len(ctx.frozen) < self.count:
            raise ValueError(f"discriminators.vision_aided.count: got {self.count}, but {len(ctx.frozen)} were chosen")
        return VisionAided(ctx.frozen[: self.count], self.width, augment)


class Head(nn.Module):
    """Feature map `[N, C, h, w]` to logits `[N]`: standardized over the batch, three convolutions, spatial mean."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
        self.conv1, self.conv2, self.conv3 = (
            spectral_norm(nn.Conv2d(a, b, k, padding=k // 2))
            for a, b, k in ((channels, width, 1), (width, width, 3), (width, 1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = leaky_relu(self.conv1(self.norm(x)), 0.2)
        x = leaky_relu(self.conv2(x), 0.2)
        return self.conv3(x).mean((1, 2, 3))


class VisionAided(Player):
    """Heads on the taps of frozen networks; `heads` names the networks.

    The frozen networks are deliberately not registered as submodules: they appear in no state dict, no optimizer and
    no `train()` call.
    """

    def __init__(self, frozen: tuple[nn.Module, ...], width: int, augment: Augment | None) -> None:
        super().__init__(augment)
        self._frozen = frozen
        self.taps = nn.ModuleList(nn.ModuleList(Head(c, width) for c in network.channels) for network in frozen)
        self.heads = tuple(network.name for network in frozen)

    def forward(self, img: Tensor, c: Tensor | None, draws: Draws | None) -> list[Tensor]:
        """Return one `[taps, N]` tensor of logits per frozen network; `draws` None: no augmentation."""
        img = self.augmented(img, draws)
        return [
            torch.stack([head(tap) for head, tap in zip(heads, network(img), strict=True)])
            for heads, network in zip(self.taps, self._frozen, strict=True)
        ]
