"""SNGAN: the residual generator and spectrally normalized discriminator of Miyato et al., ICLR 2018 (arXiv 1802.05957).

Layer by layer as in the lottery-ticket release (Chen et al., NeurIPS 2021), which trains it on CIFAR: no spectral
normalization in G, sum pooling and a bias-free last layer in D. At resolutions other than 32 the number of
up- and downsampling blocks follows the side. With classes: conditional batch normalization and a projection
discriminator (Miyato and Koyama, ICLR 2018, arXiv 1802.05637).
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from pygan.context import Context
from pygan.networks.layers import ConditionalBatchNorm, ConvAct, Projection, doublings, upsample
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["sngan"] = "sngan"
    z_dim: int = 128
    """Dimension of the latent vector."""
    g_channels: int = 256
    """Width of every generator block."""
    d_channels: int = 128
    """Width of every discriminator block."""
    conditional: bool = False
    """Class-conditional batch normalization in G, projection in D."""

    def generator(self, ctx: Context) -> "Generator":
        return Generator(self.z_dim, self.g_channels, ctx.resolution, ctx.channels, ctx.num_classes)

    def discriminator(self, ctx: Context) -> "Discriminator":
        return Discriminator(self.d_channels, ctx.resolution, ctx.channels, ctx.num_classes)


class GeneratorBlock(nn.Module):
    """BN-ReLU-upsample-conv-BN-ReLU-conv beside an upsampled 1x1 shortcut: `[N, W, H, H]` to `[N, W, 2H, 2H]`."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (ConditionalBatchNorm(width, num_classes) for _ in range(2))
        self.conv1, self.conv2 = (ConvAct(width, width, 3) for _ in range(2))
        self.shortcut = ConvAct(width, width, 1)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        h = self.conv1(upsample(relu(self.norm1(x, c))))
        h = self.conv2(relu(self.norm2(h, c)))
        return h + upsample(self.shortcut(x))  # a 1x1 convolution commutes with nearest upsampling


class Generator(nn.Module):
    """`G(z, c) = body(stem(z, c), c)`: z `[N, z_dim]` to pictures `[N, channels, side, side]` in [-1, 1]."""

    def __init__(self, z_dim: int, width: int, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.linear = nn.Linear(z_dim, width * 16)
        self.blocks = nn.ModuleList(GeneratorBlock(width, num_classes) for _ in range(doublings(resolution, 4)))
        self.norm = ConditionalBatchNorm(width)
        self.to_img = ConvAct(width, channels, 3, act="tanh")

    def stem(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the first feature map `[N, g_channels, 4, 4]`."""
        return self.linear(z).unflatten(1, (-1, 4, 4))

    def body(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            h = block(h, c)
        return self.to_img(relu(self.norm(h, None)))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.body(self.stem(z, c), c)


class DiscriminatorBlock(nn.Module):
    """Two spectrally normalized convolutions beside a shortcut; `down` halves the side by average pooling.

    Args:
        first: the block that sees pictures: no ReLU before its first convolution, pooling before its shortcut.
    """

    def __init__(self, in_channels: int, width: int, *, down: bool, first: bool = False) -> None:
        super().__init__()
        self.conv1 = ConvAct(in_channels, width, 3, act="relu", sn=True)
        self.conv2 = ConvAct(width, width, 3, sn=True)
        self.shortcut = ConvAct(in_channels, width, 1, sn=True) if down else None
        self.down = down
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x if self.first else relu(x)))
        if self.down:
            h, x = avg_pool2d(h, 2), avg_pool2d(x, 2)  # pooling commutes with the 1x1 shortcut
        return h + (x if self.shortcut is None else self.shortcut(x))


class Discriminator(nn.Module):
    """`D(img, c) = head(features(img), c)`: pictures `[N, channels, resolution, resolution]` to logits `[N]`."""

    def __init__(self, width: int, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        down = doublings(resolution, 8)
        self.blocks = nn.Sequential(
            DiscriminatorBlock(channels, width, down=True, first=True),
            *(DiscriminatorBlock(width, width, down=True) for _ in range(down - 1)),
            *(DiscriminatorBlock(width, width, down=False) for _ in range(2)),
        )
        self.logit = Projection(width, num_classes, bias=False, sn=True)

    def features(self, img: Tensor) -> Tensor:
        """Return the sum-pooled feature `[N, d_channels]`."""
        return relu(self.blocks(img)).sum((2, 3))

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        return self.logit(h, c)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        return self.head(self.features(img), c)
