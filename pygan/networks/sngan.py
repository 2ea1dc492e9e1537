"""SNGAN: the residual generator and spectrally normalized discriminator of Miyato et al., ICLR 2018 (arXiv 1802.05957).

With classes: conditional batch normalization and a projection discriminator (Miyato and Koyama, ICLR 2018, arXiv
1802.05637). G has no spectral normalization; D pools by summation.

Published sizes (the papers' and, width for width, those of the lottery-ticket and gSR releases):

| pixels | `widths` | `g_channels` | `d_channels` | blocks of G | blocks of D |
|---|---|---|---|---|---|
| 32 | constant | 256 | 128 | 256, 256, 256 | 128 down, 128 down, 128, 128 |
| 64 | pyramid | 64 | 64 | 512, 256, 128, 64 | 64, 128, 256, 512 down, 1024 |
| 128 | pyramid | 64 | 64 | 1024, 512, 256, 128, 64 | 64, 128, 256, 512, 1024 down, 1024 |

The authors' own D for 64 pixels halves in its last block too; the one here is the gSR release's.

Two releases train it on little data, and `release` follows one or the other in their details:

- `lottery` (Chen et al., NeurIPS 2021; 32 pixels, unconditional): convolutions Xavier-uniform, linear layer by
  PyTorch's default, gains of batch normalization normal around 1 with deviation 0.02, epsilons 1e-5 in batch and 1e-12
  in spectral normalization, D's last layer without bias. Where the channels change, D's first convolution keeps those
  of its input, as in the authors' code.
- `gsr` (Rangwani et al., ECCV 2022, a fork of StudioGAN; all three sizes, conditional): orthogonal weights and
  embeddings, class gains 1 + an orthogonal table, epsilons 1e-4 and 1e-6, D's last layer with bias, the first
  convolution of a block as wide as the second. Its in-place ReLU also rectifies what the shortcuts of D read.

Differs from the official code in: the gSR release normalizes with the batch's statistics when it samples, here those of
training (or standing statistics) are used; one power iteration a forward starts from converged vectors, not random
ones.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import relu, relu_

from pygan.context import Context
from pygan.draws import Draws
from pygan.networks.layers import (
    ConditionalBatchNorm,
    ConvAct,
    DownBlock,
    Init,
    Projection,
    UpBlock,
    class_affines,
    doublings,
    first_map,
    linear,
    sum_pool,
)
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["sngan"] = "sngan"
    z_dim: int = 128
    """Dimension of the latent vector."""
    g_channels: int = 256
    """Width of every generator block; with `widths: pyramid`, of the last one."""
    d_channels: int = 128
    """Width of every discriminator block; with `widths: pyramid`, of the first one."""
    widths: Literal["constant", "pyramid"] = "constant"
    """Constant: as published at 32 pixels; pyramid: half with every doubling of the side, at most 16 times the
    narrowest, as published at 64 and 128 pixels."""
    release: Literal["lottery", "gsr"] = "lottery"
    """Whose initialization and details: the lottery-ticket paper's or gSR's release."""
    conditional: bool = False
    """Class-conditional batch normalization in G, projection in D."""

    def generator(self, ctx: Context) -> "Generator":
        n = doublings(ctx.resolution, 4)
        factors = [1] * (n + 1) if self.widths == "constant" else [min(1 << i, 16) for i in range(n, -1, -1)]
        widths = [self.g_channels * factor for factor in factors]
        return Generator(self.z_dim, widths, ctx.channels, ctx.num_classes, RELEASES[self.release])

    def discriminator(self, ctx: Context) -> "Discriminator":
        if self.widths == "constant":
            halvings = doublings(ctx.resolution, 8)
            widths = [self.d_channels] * (halvings + 2)
        else:
            halvings = doublings(ctx.resolution, 4)
            widths = [self.d_channels * min(1 << i, 16) for i in range(halvings + 1)]
        return Discriminator(widths, halvings, ctx.channels, ctx.num_classes, RELEASES[self.release])


@dataclass(frozen=True, kw_only=True)
class Release:
    """Details in which published codes differ."""

    conv_init: Init
    init: Init | None
    """Linear layers, embeddings and class tables; None: the defaults of the layers."""
    bn_eps: float
    sn_eps: float
    last_bias: bool
    """D's last layer has a bias."""
    thin: bool
    """The channels inside a block of D are those of its input; else of its output."""
    relu_shortcut: bool
    """The shortcuts of D read the rectified input."""


RELEASES = {
    "lottery": Release(
        conv_init=nn.init.xavier_uniform_,
        init=None,
        bn_eps=1e-5,
        sn_eps=1e-12,
        last_bias=False,
        thin=True,
        relu_shortcut=False,
    ),
    "gsr": Release(
        conv_init=nn.init.orthogonal_,
        init=nn.init.orthogonal_,
        bn_eps=1e-4,
        sn_eps=1e-6,
        last_bias=True,
        thin=False,
        relu_shortcut=True,
    ),
}


class Generator(nn.Module):
    """`G(z, c) = body(stem(z, c), c)`: z `[N, z_dim]` to pictures `[N, channels, side, side]` in [-1, 1].

    Args:
        widths: channels at 4x4 pixels, then after every block; each block doubles the side.
    """

    def __init__(self, z_dim: int, widths: list[int], channels: int, num_classes: int, release: Release) -> None:
        super().__init__()
        norm = partial(ConditionalBatchNorm, eps=release.bn_eps, init=release.init)
        conv = partial(ConvAct, init=release.conv_init)
        self.z_dim = z_dim
        self.num_classes = num_classes
        if release.init is None:
            self.linear = nn.Linear(z_dim, widths[0] * 16)
        else:
            self.linear = linear(z_dim, widths[0] * 16, init=release.init)
        self.blocks = nn.ModuleList(
            UpBlock(a, b, partial(norm, num_classes=num_classes), conv) for a, b in pairwise(widths)
        )
        self.norm = norm(widths[-1])
        self.to_img = conv(widths[-1], channels, 3, act="tanh", pictures=True)

    def stem(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Return the first feature map `[N, widths[0], 4, 4]`."""
        return first_map(self.linear(z), self.to_img.channels_last)

    def body(self, h: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        for block in self.blocks:
            h = block(h, c)
        return self.to_img(relu_(self.norm(h, None)))

    def forward(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return self.body(self.stem(z, c), c)

    def class_affines(self) -> list[tuple[Tensor, Tensor]]:
        """See `pygan.networks.layers.class_affines`; empty without classes."""
        return class_affines(self)


class Discriminator(nn.Module):
    """`D(img, c) = head(features(img), c)`: pictures `[N, channels, resolution, resolution]` to logits `[N]`.

    Args:
        widths: channels after every block.
        halvings: how many blocks, the first ones, halve the side.
    """

    def __init__(self, widths: list[int], halvings: int, channels: int, num_classes: int, release: Release) -> None:
        super().__init__()
        conv = partial(ConvAct, sn=True, sn_eps=release.sn_eps, init=release.conv_init)
        self.blocks = nn.Sequential(
            *(
                DownBlock(
                    a,
                    b,
                    conv,
                    hidden=a if release.thin and i else b,
                    down=i < halvings,
                    first=i == 0,
                    relu_shortcut=release.relu_shortcut,
                )
                for i, (a, b) in enumerate(pairwise([channels, *widths]))
            )
        )
        self.logit = Projection(
            widths[-1], num_classes, bias=release.last_bias, sn=True, sn_eps=release.sn_eps, init=release.init
        )

    def features(self, img: Tensor, *, paired: bool = False) -> Tensor:
        """Return the sum-pooled feature `[N, widths[-1]]`."""
        return sum_pool(relu(self.blocks(img)))

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        return self.logit(h, c)

    def forward(self, img: Tensor, c: Tensor | None = None, *, paired: bool = False) -> Tensor:
        return self.head(self.features(img), c)
