"""StyleGAN2's discriminator: original, skip and residual architectures, minibatch standard deviation, projection.

Karras et al., CVPR 2020 (arXiv 1912.04958); Karras et al., ICLR 2018 (arXiv 1710.10196). Values and state names as in
`pygan.networks.stylegan2`.
"""

import math

import torch
from torch import Tensor, nn

from pygan.errors import ConfigError
from pygan.networks.stylegan2_layers import (
    Architecture,
    Conv2dLayer,
    FullyConnected,
    Mapping,
    half_from,
    resolutions_from_4,
)
from pygan.ops import downsample2d, setup_filter


class DiscriminatorBlock(nn.Module):
    """Two convolutions that halve the side; reads the picture in the first block, and in each where skipping."""

    def __init__(
        self,
        width: int,
        out_channels: int,
        img_channels: int,
        *,
        first: bool,
        architecture: Architecture,
        half: bool,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.half = half
        self.architecture = architecture
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        reads_img = first or architecture == "skip"
        self.fromrgb = Conv2dLayer(img_channels, width, 1, act="lrelu", clamp=clamp) if reads_img else None
        self.conv0 = Conv2dLayer(width, width, 3, act="lrelu", clamp=clamp)
        self.conv1 = Conv2dLayer(width, out_channels, 3, act="lrelu", down=2, clamp=clamp)
        self.skip = Conv2dLayer(width, out_channels, 1, bias=False, down=2) if architecture == "resnet" else None

    def forward(self, x: Tensor | None, img: Tensor | None) -> tuple[Tensor, Tensor | None]:
        given = img if x is None else x
        dtype = torch.float16 if self.half and given.is_cuda else torch.float32
        if self.fromrgb is not None:
            features = self.fromrgb(img.to(dtype))
            x = features if x is None else x.to(dtype) + features
            img = downsample2d(img, self.resample_filter) if self.architecture == "skip" else None
        x = x.to(dtype)
        if self.skip is None:
            return self.conv1(self.conv0(x)), img
        shortcut = self.skip(x, gain=math.sqrt(0.5))
        return shortcut + self.conv1(self.conv0(x), gain=math.sqrt(0.5)), img


def std_group(n: int, group: int | None) -> int:
    """Return how many of `n` pictures of one kind, real or generated, share a standard deviation.

    Args:
        n: pictures of the kind that are computed at a time.
        group: `mbstd_group`; None: all of them.

    Raises:
        ConfigError: the pictures do not divide into groups.
    """
    group = n if group is None else min(group, n)
    if n % group:
        raise ConfigError(f"mbstd_group: got {group}, expected a divisor of the {n} pictures computed at a time")
    return group


def minibatch_std(x: Tensor, group: int | None, channels: int, *, paired: bool = False) -> Tensor:
    """Append constant maps: the standard deviation over groups of samples, averaged over features.

    With n samples of a kind and groups of g, a group is every (n / g)-th sample of the kind (Karras et al., ICLR 2018,
    arXiv 1710.10196). No group has samples of both kinds.

    Args:
        x: `[N, C, H, W]`.
        group: samples of a group, at most those of a kind; None: all of a kind.
        channels: maps to append, each the average over `C / channels` features.
        paired: real and generated samples come by turns, so that N is twice the number of a kind.

    Returns:
        `[N, C + channels, H, W]`.

    Raises:
        ConfigError: the samples of a kind do not divide into groups.
    """
    n, _, height, width = x.shape
    group = std_group(n // 2 if paired else n, group)
    # n / group is even in a paired batch, so all samples of a group have places of the same parity
    y = x.reshape(group, n // group, channels, -1, height, width)
    y = (y.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=[2, 3, 4])
    y = y.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat([x, y.to(x.dtype)], dim=1)


class DiscriminatorEpilogue(nn.Module):
    """The 4x4 layers, up to the vector that the last layer reads."""

    def __init__(
        self,
        width: int,
        out_features: int,
        img_channels: int,
        *,
        architecture: Architecture,
        clamp: float | None,
        mbstd_group: int | None,
        mbstd_channels: int,
    ) -> None:
        super().__init__()
        self.mbstd_group, self.mbstd_channels = mbstd_group, mbstd_channels
        self.fromrgb = Conv2dLayer(img_channels, width, 1, act="lrelu") if architecture == "skip" else None
        self.conv = Conv2dLayer(width + mbstd_channels, width, 3, act="lrelu", clamp=clamp)
        self.fc = FullyConnected(width * 16, width, act="lrelu")
        self.out = FullyConnected(width, out_features)

    def forward(self, x: Tensor, img: Tensor | None, *, paired: bool = False) -> Tensor:
        """`paired`: as in `minibatch_std`."""
        x = x.float()
        if self.fromrgb is not None:
            x = x + self.fromrgb(img.float())
        if self.mbstd_channels:
            group = self.mbstd_group
            if group is not None and not self.training:  # batches of any size can be judged
                group = max(size for size in range(1, group + 1) if x.shape[0] % size == 0)
            x = minibatch_std(x, group, self.mbstd_channels, paired=paired)
        return self.fc(self.conv(x).flatten(1))


class Discriminator(nn.Module):
    """`D(img, c) = head(features(img), c)`: pictures `[N, channels, resolution, resolution]` to logits `[N]`."""

    def __init__(
        self,
        num_classes: int,
        resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "resnet",
        half_resolutions: int = 0,
        conv_clamp: float | None = None,
        mbstd_group: int | None = 4,
        mbstd_channels: int = 1,
        mapping_layers: int = 8,
    ) -> None:
        super().__init__()
        self.resolutions = resolutions_from_4(resolution)[:0:-1]  # the 4x4 layers are the epilogue
        first_half = half_from(resolution, half_resolutions)
        width = {r: min(channel_base // r, channel_max) for r in resolutions_from_4(resolution)}
        for r in self.resolutions:
            block = DiscriminatorBlock(
                width[r],
                width[r // 2],
                img_channels,
                first=r == resolution,
                architecture=architecture,
                half=r >= first_half,
                clamp=conv_clamp,
            )
            self.add_module(f"b{r}", block)
        self.num_classes = num_classes
        if num_classes:
            self.mapping = Mapping(0, num_classes, width[4], None, layers=mapping_layers)
        self.b4 = DiscriminatorEpilogue(
            width[4],
            width[4] if num_classes else 1,
            img_channels,
            architecture=architecture,
            clamp=conv_clamp,
            mbstd_group=mbstd_group,
            mbstd_channels=mbstd_channels,
        )

    def features(self, img: Tensor, *, paired: bool = False) -> Tensor:
        """Return the vector `[N, F]` that the last layer reads; `paired`: as in `minibatch_std`."""
        x, img = None, img.float()
        for r in self.resolutions:
            x, img = getattr(self, f"b{r}")(x, img)
        return self.b4(x, img, paired=paired)

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        out = self.b4.out(h)
        if not self.num_classes:
            return out.squeeze(1)
        return (out * self.mapping(None, c)).sum(1) / math.sqrt(out.shape[1])

    def forward(self, img: Tensor, c: Tensor | None = None, *, paired: bool = False) -> Tensor:
        return self.head(self.features(img, paired=paired), c)
