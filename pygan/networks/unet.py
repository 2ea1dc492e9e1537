"""A compact U-Net for denoising: DDPM++ of Song et al., ICLR 2021, arXiv 2011.13456, as in EDM (Karras et al., NeurIPS
2022, arXiv 2206.00364, appendix F.2).

Residual blocks with an additive embedding of the noise level, halvings by averaging and doublings by repetition with a
learned 1x1 convolution on the shortcut, one head of self-attention in the middle and at the listed sides (on the way up
in the last block of each), skip connections from every block on the way down. Sums of two branches are divided by
sqrt(2); the last convolution of every branch and of the network starts near zero, so that an untrained network predicts
zero.

Layers and parameters are those of the official code (SongUNet). Differs from it in: a doubling and its convolution are
one transposed convolution, and the 1x1 convolution of the shortcut comes before its repetition (the same functions);
dropout draws by global sample index. Sizes with 6 labels of augmentations: 64 channels with (1, 2, 2) and 2 blocks have
6.99 M parameters, 32 channels 1.75 M, 32 channels with (1, 2) and 1 block 0.75 M. EDM's own network for CIFAR-10 has
128 channels, (2, 2, 2), 4 blocks, 9 labels and 55.73 M.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, one_hot, scaled_dot_product_attention, silu

from pygan.context import Context
from pygan.draws import Draws
from pygan.networks.layers import UpsampledConv
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["unet"] = "unet"
    channels: int = Field(default=32, ge=4, multiple_of=4)
    """Channels of the first convolution and of the embedding of the noise level, whose layers have 4 times as many."""
    multipliers: tuple[int, ...] = Field(default=(1, 2, 2), min_length=1)
    """Channels at each side in units of `channels`, from the full side on, every next one being half of it."""
    blocks: int = Field(default=2, ge=1)
    """Residual blocks per side on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Sides of the maps that are followed by self-attention, pixels: after every block on the way down, after the last
    one on the way up; the smallest maps always have it once."""
    dropout: float = Field(default=0.13, ge=0, lt=1)
    """Probability that a value inside a block is left out in training (EDM on CIFAR-10: 0.13)."""
    augment_labels: int = Field(default=6, ge=0)
    """Numbers per picture that tell how it was augmented; labeled_warp has 6."""
    conditional: bool = False
    """Take class labels."""

    def network(self, ctx: Context) -> "UNet":
        """Return the network; ValueError where the side cannot be halved as often as `multipliers` asks."""
        halvings = len(self.multipliers) - 1
        if ctx.resolution % 2**halvings:
            raise ValueError(
                f"resolution: got {ctx.resolution}, expected a multiple of {2**halvings} for {halvings + 1} multipliers"
            )
        return UNet(self, ctx.resolution, ctx.channels, ctx.num_classes)


class UNet(nn.Module):
    """`F(x, noise, c, augment, draws)`: maps `[N, channels, side, side]` of a noise level `[N]` to maps of that shape.

    Args:
        resolution: side of the pictures.
        channels: of a picture.
        num_classes: 0: without labels.
    """

    def __init__(self, spec: Spec, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes, self.dropout = num_classes, spec.dropout
        widths = [spec.channels * factor for factor in spec.multipliers]
        sides = [resolution >> level for level in range(len(widths))]
        features = 4 * spec.channels
        self.levels = Fourier(spec.channels)
        self.of_class = linear(num_classes, spec.channels) if num_classes else None
        self.of_augment = linear(spec.augment_labels, spec.channels, bias=False) if spec.augment_labels else None
        self.embed = nn.ModuleList([linear(spec.channels, features), linear(features, features)])

        def block(into: int, out: int, resample: str = "", *, attention: bool = False) -> Block:
            return Block(into, out, features, resample=resample, attention=attention)

        self.first = conv(channels, spec.channels, 3)
        skips, width = [spec.channels], spec.channels
        self.down = nn.ModuleList()
        for level, (side, wanted) in enumerate(zip(sides, widths, strict=True)):
            if level:
                self.down.append(block(width, width, "down"))
                skips.append(width)
            for _ in range(spec.blocks):
                self.down.append(block(width, wanted, attention=side in spec.attention))
                width = wanted
                skips.append(width)
        self.middle = nn.ModuleList([block(width, width, attention=True), block(width, width)])
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for last in (*[False] * spec.blocks, True):
                attends = last and sides[level] in spec.attention
                self.up.append(block(width + skips.pop(), widths[level], attention=attends))
                width = widths[level]
            if level:
                self.up.append(block(width, width, "up"))
        self.norm = norm(width)
        self.last = conv(width, channels, 3, gain=_NEAR_ZERO)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        c: Tensor | None = None,
        augment: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor:
        """Return the output, of the shape of `x`.

        Args:
            noise: `[N]`, any increasing function of the noise level with values around -3 to 2.
            c: int64 `[N]`, where the network takes classes; None there: no class.
            augment: `[N, augment_labels]`, how each picture was augmented; None: not at all, the same as zeros.
            draws: for dropout; None: without.
        """
        dropped = None if draws is None or not self.dropout else (draws, self.dropout)
        y = self._embedding(noise, c, augment)
        x = self.first(x)
        skips = [x]
        for block in self.down:
            x = block(x, y, dropped)
            skips.append(x)
        for block in self.middle:
            x = block(x, y, dropped)
        for block in self.up:
            if block.resample != "up":
                x = torch.cat([x, skips.pop()], 1)
            x = block(x, y, dropped)
        return self.last(silu(self.norm(x)))

    def _embedding(self, noise: Tensor, c: Tensor | None, augment: Tensor | None) -> Tensor:
        """Return what every block is told, `[N, 4 * channels]`."""
        y = self.levels(noise)
        if self.of_class is not None and c is not None:
            y = y + self.of_class(one_hot(c, self.num_classes).to(y.dtype) * math.sqrt(self.num_classes))
        if self.of_augment is not None and augment is not None:
            y = y + self.of_augment(augment)
        for layer in self.embed:
            y = silu(layer(y))
        return y


class Fourier(nn.Module):
    """Sines and cosines of a number at geometrically falling frequencies, 1 to 1e-4 (positional embedding).

    Args:
        features: how many of them, even.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        self.register_buffer("frequencies", 1e-4 ** (torch.arange(half) / (half - 1)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N]` to `[N, features]`, sines first."""
        angles = x[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)


class Block(nn.Module):
    """Norm-SiLU-conv, the embedding added, norm-SiLU-dropout-conv, beside a shortcut; perhaps attention after it.

    The shortcut is a 1x1 convolution where the side or the channels change, else the identity.

    Args:
        features: of the embedding.
        resample: "down": halves the side, "up": doubles it.
        attention: one head of self-attention at the end.
    """

    def __init__(self, into: int, out: int, features: int, *, resample: str = "", attention: bool = False) -> None:
        super().__init__()
        self.resample = resample
        self.norms = nn.ModuleList([norm(into), norm(out)])
        self.conv0 = UpsampledConv(into, out, bias=True) if resample == "up" else conv(into, out, 3)
        self.affine = linear(features, out)
        self.conv1 = conv(out, out, 3, gain=_NEAR_ZERO)
        self.shortcut = conv(into, out, 1) if resample or into != out else None
        self.attention = Attention(out) if attention else None

    def forward(self, x: Tensor, y: Tensor, dropped: tuple[Draws, float] | None = None) -> Tensor:
        """`x` `[N, into, H, W]`, `y` `[N, features]`; `dropped`: what draws the values left out, and their share."""
        h = silu(self.norms[0](x))
        if self.resample == "down":
            x, h = avg_pool2d(x, 2), avg_pool2d(h, 2)
        if self.shortcut is not None:
            x = self.shortcut(x)
        if self.resample == "up":  # after the 1x1 convolution, with which repetition commutes
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        h = self.conv0(h) + self.affine(y)[:, :, None, None]
        h = silu(self.norms[1](h))
        if dropped is not None:
            draws, share = dropped
            h = h * (draws.uniform(*h.shape[1:]) >= share) / (1 - share)
        x = (self.conv1(h) + x) * _HALF_POWER
        return x if self.attention is None else self.attention(x)


class Attention(nn.Module):
    """Self-attention with one head over the pixels of a map, in float32, added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = conv(channels, 3 * channels, 1, gain=math.sqrt(0.2))
        self.out = conv(channels, channels, 1, gain=_NEAR_ZERO)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.qkv(self.norm(x)).float().flatten(2).transpose(1, 2)  # [N, H * W, 3 C]
        q, k, v = (part[:, None] for part in pixels.chunk(3, 2))
        with torch.autocast(x.device.type, enabled=False):
            seen = scaled_dot_product_attention(q, k, v)[:, 0]
        return (x + self.out(seen.transpose(1, 2).unflatten(2, x.shape[2:]))) * _HALF_POWER


_NEAR_ZERO = 1e-5
"""Gain of the weights whose outputs start near zero."""

_HALF_POWER = math.sqrt(0.5)


def norm(channels: int) -> nn.GroupNorm:
    """Return a group normalization of at least 4 channels a group."""
    groups = min(32, channels // 4)
    if channels % groups:
        raise ValueError(f"channels: got {channels}, which {groups} groups cannot share equally")
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv(into: int, out: int, kernel: int, *, bias: bool = True, gain: float = 1.0) -> nn.Conv2d:
    """Return a convolution that keeps the side, uniform by Glorot's rule times `gain`, its bias zero."""
    return _started(nn.Conv2d(into, out, kernel, padding=kernel // 2, bias=bias), gain)


def linear(into: int, out: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear map, uniform by Glorot's rule, its bias zero."""
    return _started(nn.Linear(into, out, bias=bias), 1.0)


def _started(layer, gain: float):
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
