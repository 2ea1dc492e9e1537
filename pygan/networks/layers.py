"""Layers that several base networks share."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, interpolate, pad

from pygan.ops import bias_act, spectral_norm


class ConvAct(nn.Module):
    """Convolution whose bias, activation and gain run in one fused pass (`pygan.ops.bias_act`).

    Args:
        act: activation of `bias_act`; the gain is 1, not the activation's default.
        sn: spectral normalization of the weight (Miyato et al., ICLR 2018, arXiv 1802.05957).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        act: str = "linear",
        sn: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2, bias=False)
        nn.init.xavier_uniform_(self.conv.weight)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.act = act
        if sn:
            spectral_norm(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(self.conv(x), self.bias, act=self.act, gain=1.0)


class UpsampledConv(nn.Module):
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution without bias, as one transposed convolution.

    Each output pixel sees the 3x3 window of the upsampled picture, whose nine pixels are copies of four: summing the
    weights that fall on one pixel gives a 4x4 kernel at stride 2 with 4/9 of the multiplications and no upsampled copy.

    `[N, in_channels, H, H]` to `[N, out_channels, 2H, 2H]`; the parameter is the 3x3 weight.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        rows = pad(self.weight, (0, 0, 1, 0)) + pad(self.weight, (0, 0, 0, 1))
        kernel = pad(rows, (1, 0)) + pad(rows, (0, 1))
        return conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), stride=2, padding=1)


class ConditionalBatchNorm(nn.Module):
    """Batch normalization; with classes, each class has its own gain and bias.

    Args:
        num_classes: 0 gives the ordinary affine layer.
    """

    def __init__(self, channels: int, num_classes: int = 0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=num_classes == 0)
        if num_classes:
            self.gain = nn.Embedding(num_classes, channels)
            self.bias = nn.Embedding(num_classes, channels)
            nn.init.normal_(self.gain.weight, 1.0, 0.02)
            nn.init.zeros_(self.bias.weight)
        else:
            nn.init.normal_(self.norm.weight, 1.0, 0.02)
        self.num_classes = num_classes

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """`x` `[N, C, H, W]`; `c` int64 `[N]`, ignored without classes."""
        x = self.norm(x)
        return x * self.gain(c)[:, :, None, None] + self.bias(c)[:, :, None, None] if self.num_classes else x


class Projection(nn.Module):
    """Logit of a feature vector, plus its inner product with the class embedding.

    Source: Miyato and Koyama, "cGANs with Projection Discriminator", ICLR 2018 (arXiv 1802.05637), eq. 4.
    """

    def __init__(self, features: int, num_classes: int = 0, *, bias: bool = True, sn: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=bias)
        self.embed = nn.Embedding(num_classes, features) if num_classes else None
        if sn:
            spectral_norm(self.linear)
            if self.embed is not None:
                spectral_norm(self.embed)

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        """`h` `[N, features]`, `c` int64 `[N]` or None; returns logits `[N]`."""
        logit = self.linear(h).squeeze(1)
        return logit if self.embed is None else logit + (self.embed(c) * h).sum(1)


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by 2."""
    return interpolate(x, scale_factor=2, mode="nearest")


def doublings(resolution: int, start: int) -> int:
    """Number of doublings from `start` to `resolution`; ValueError when it is not a power-of-two multiple."""
    count = (resolution // start).bit_length() - 1
    if resolution != start << count or count < 1:
        raise ValueError(f"resolution: got {resolution}, expected {start} times a power of two")
    return count
