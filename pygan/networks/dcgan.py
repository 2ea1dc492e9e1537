"""A small convolutional GAN for studies on a CPU, after DCGAN (Radford et al., ICLR 2016, arXiv 1511.06434).

Differs from the paper: nearest-neighbour upsampling and 3x3 convolutions in place of transposed convolutions (which
leave a checkerboard texture at these budgets), no batch normalization in D, and the generator's width halves with
every doubling of the side.
"""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import relu_

from pygan.context import Context
from pygan.draws import Draws
from pygan.networks.layers import (
    ConditionalBatchNorm,
    ConvAct,
    Projection,
    UpsampledConv,
    class_affines,
    doublings,
    first_map,
)
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["dcgan"] = "dcgan"
    z_dim: int = 128
    """Dimension of the latent vector."""
    g_channels: int = 32
    """Generator width: 4 times this at 4x4 pixels, half after every doubling."""
    d_channels: int = 32
    """Discriminator width: this after the first convolution, double after every halving."""
    conditional: bool = False
    """Class-conditional batch normalization in G, projection in D."""

    def generator(self, ctx: Context) -> "Generator":
        return Generator(self.z_dim, self.g_channels, ctx.resolution, ctx.channels, ctx.num_classes)

    def discriminator(self, ctx: Context) -> "Discriminator":
        return Discriminator(self.d_channels, ctx.resolution, ctx.channels, ctx.num_classes)


class Generator(nn.Module):
    """`G(z, c) = body(stem(z, c), c)`: z `[N, z_dim]` to pictures `[N, channels, side, side]` in [-1, 1]."""

    def __init__(self, z_dim: int, width: int, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        widths = [max(4 * width >> i, 4) for i in range(doublings(resolution, 4) + 1)]
        self.linear = nn.Linear(z_dim, widths[0] * 16)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.norms = nn.ModuleList(ConditionalBatchNorm(w, num_classes) for w in widths)
        self.convs = nn.ModuleList(UpsampledConv(a, b) for a, b in pairwise(widths))
        self.to_img = ConvAct(widths[-1], channels, 3, act="tanh", pictures=True)

    def stem(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Return the first feature map `[N, 4 * g_channels, 4, 4]`."""
        return first_map(self.linear(z), self.to_img.channels_last)

    def body(self, h: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        h = relu_(self.norms[0](h, c))
        for conv, norm in zip(self.convs, self.norms[1:], strict=True):
            h = relu_(norm(conv(h), c))
        return self.to_img(h)

    def forward(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return self.body(self.stem(z, c), c)

    def class_affines(self) -> list[tuple[Tensor, Tensor]]:
        """See `pygan.networks.layers.class_affines`; empty without classes."""
        return class_affines(self)


class Discriminator(nn.Module):
    """`D(img, c) = head(features(img), c)`: pictures `[N, channels, resolution, resolution]` to logits `[N]`."""

    def __init__(self, width: int, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [channels, *(width << i for i in range(doublings(resolution, 4)))]
        self.convs = nn.ModuleList(ConvAct(a, b, 4, stride=2, act="lrelu") for a, b in pairwise(widths))
        self.logit = Projection(widths[-1] * 16, num_classes)
        nn.init.xavier_uniform_(self.logit.linear.weight)
        nn.init.zeros_(self.logit.linear.bias)

    def features(self, img: Tensor, *, paired: bool = False) -> Tensor:
        """Return the flat feature `[N, F]` that the last layer reads."""
        for conv in self.convs:
            img = conv(img)
        return img.flatten(1)

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        return self.logit(h, c)

    def forward(self, img: Tensor, c: Tensor | None = None, *, paired: bool = False) -> Tensor:
        return self.head(self.features(img), c)
