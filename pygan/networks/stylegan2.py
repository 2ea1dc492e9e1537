"""StyleGAN2 with the changes of StyleGAN2-ADA: mapping, modulated synthesis, residual discriminator.

Karras, Laine, Aittala, Hellsten, Lehtinen and Aila, "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020
(arXiv 1912.04958); Karras, Aittala, Hellsten, Laine, Lehtinen and Aila, "Training Generative Adversarial Networks with
Limited Data", NeurIPS 2020 (arXiv 2006.06676). Values, initialization and state names are those of the public PyTorch
code of the second paper, so that its published networks load.

Differs from it in: labels are class numbers; noise and style mixing of a training step are drawn from counters; on a
CPU every block computes in float32.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pygan.context import Context
from pygan.draws import Draws
from pygan.networks.stylegan2_discriminator import Discriminator, std_group
from pygan.networks.stylegan2_layers import (
    Architecture,
    Conv2dLayer,
    FullyConnected,
    Mapping,
    half_from,
    resolutions_from_4,
)
from pygan.ops import modulated_conv2d, setup_filter, upsample2d
from pygan.ops.layout import is_channels_last, memory_format
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["stylegan2"] = "stylegan2"
    z_dim: int = 512
    """Dimension of the latent vector."""
    w_dim: int = 512
    """Dimension of the intermediate latent vector."""
    channel_base: int = 32768
    """Channels at resolution r are `channel_base // r`, at most `channel_max`."""
    channel_max: int = 512
    mapping_layers: int = 8
    """Layers of G's mapping network (2 in the `auto` and `cifar` configurations)."""
    g_architecture: Literal["orig", "skip", "resnet"] = "skip"
    d_architecture: Literal["orig", "skip", "resnet"] = "resnet"
    half_resolutions: int = 0
    """The highest resolutions computed in float16 on a GPU (published: 4); the others in float32."""
    conv_clamp: float | None = None
    """Largest absolute value of a convolution's output (published: 256, with `half_resolutions`); null: no limit."""
    noise: bool = True
    """Noise inputs in the synthesis layers."""
    style_mixing: float = 0.9
    """Probability that a training batch takes its later layers' styles from other latents."""
    mbstd_group: int | None = 4
    """Real or generated pictures over which the minibatch standard deviation is taken, at most those of the kind that
    are computed at a time; null: all of these."""
    mbstd_channels: int = 1
    """Feature maps of minibatch standard deviation; 0: none."""
    conditional: bool = False
    """Class label as input of both mapping networks."""

    def check_micro_batch(self, n: int) -> None:
        """Raise `ConfigError` where D cannot compute `n` pictures of a kind at a time."""
        if self.mbstd_channels:
            std_group(n, self.mbstd_group)

    def generator(self, ctx: Context) -> "Generator":
        synthesis = Synthesis(
            self.w_dim,
            ctx.resolution,
            ctx.channels,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            architecture=self.g_architecture,
            half_resolutions=self.half_resolutions,
            conv_clamp=self.conv_clamp,
            noise=self.noise,
        )
        mapping = Mapping(self.z_dim, ctx.num_classes, self.w_dim, synthesis.num_ws, layers=self.mapping_layers)
        return Generator(synthesis, mapping, self.style_mixing)

    def discriminator(self, ctx: Context) -> "Discriminator":
        return Discriminator(
            ctx.num_classes,
            ctx.resolution,
            ctx.channels,
            channel_base=self.channel_base,
            channel_max=self.channel_max,
            architecture=self.d_architecture,
            half_resolutions=self.half_resolutions,
            conv_clamp=self.conv_clamp,
            mbstd_group=self.mbstd_group,
            mbstd_channels=self.mbstd_channels,
        )


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        clamp: float | None = None,
        noise: bool = True,
    ) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        if noise:
            self.register_buffer("noise_const", torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.zeros([]))
        self.resolution, self.up, self.clamp, self.noise = resolution, up, clamp, noise

    def forward(self, x: Tensor, w: Tensor, draws: Draws | None, gain: float = 1.0) -> Tensor:
        noise = None
        if self.noise:
            size = (1, self.resolution, self.resolution)
            noise = (self.noise_const if draws is None else draws.normal(*size)) * self.noise_strength
        return modulated_conv2d(
            x,
            self.weight,
            self.affine(w),
            noise=noise,
            up=self.up,
            padding=1,
            resample_filter=self.resample_filter,
            flip_weight=self.up == 1,
            bias=self.bias,
            act="lrelu",
            gain=math.sqrt(2) * gain,
            clamp=None if self.clamp is None else self.clamp * gain,
        )


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to picture channels, without demodulation."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) / math.sqrt(self.weight.shape[1])
        return modulated_conv2d(x, self.weight, styles, demodulate=False, bias=self.bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """The layers of one resolution; the first block starts from a learned constant.

    Args:
        in_channels: 0 in the first block.
        to_rgb: whether the block adds to the picture.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        architecture: Architecture,
        to_rgb: bool,
        half: bool,
        clamp: float | None,
        noise: bool,
    ) -> None:
        super().__init__()
        self.half = half
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        self.is_first = in_channels == 0
        if self.is_first:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, clamp=clamp, noise=noise)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, clamp=clamp, noise=noise)
        self.torgb = ToRGB(out_channels, img_channels, w_dim, clamp=clamp) if to_rgb else None
        residual = architecture == "resnet" and not self.is_first
        self.skip = Conv2dLayer(in_channels, out_channels, 1, bias=False, up=2) if residual else None
        self.num_conv = 1 if self.is_first else 2

    def forward(self, x: Tensor | None, img: Tensor | None, ws: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """`ws` `[N, layers, w_dim]`: one w per convolution, then that of `torgb`."""
        w = iter(ws.unbind(1))
        dtype = torch.float16 if self.half and ws.is_cuda else torch.float32
        if self.is_first:
            x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
            x = x.contiguous(memory_format=memory_format(is_channels_last(self.conv1.weight)))
            x = self.conv1(x, next(w), draws)
        elif self.skip is not None:
            x = x.to(dtype)
            shortcut = self.skip(x, gain=math.sqrt(0.5))
            x = self.conv0(x, next(w), draws)
            x = shortcut + self.conv1(x, next(w), draws, gain=math.sqrt(0.5))
        else:
            x = self.conv0(x.to(dtype), next(w), draws)
            x = self.conv1(x, next(w), draws)
        if img is not None:
            img = upsample2d(img, self.resample_filter)
        if self.torgb is not None:
            rgb = self.torgb(x, next(w)).float()
            img = rgb if img is None else img + rgb
        return x, img


class Synthesis(nn.Module):
    """ws `[N, num_ws, w_dim]` to pictures `[N, img_channels, resolution, resolution]`."""

    def __init__(
        self,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        architecture: Architecture = "skip",
        half_resolutions: int = 0,
        conv_clamp: float | None = None,
        noise: bool = True,
    ) -> None:
        super().__init__()
        self.resolutions = resolutions_from_4(resolution)
        first_half = half_from(resolution, half_resolutions)
        width = {r: min(channel_base // r, channel_max) for r in self.resolutions}
        for r in self.resolutions:
            block = SynthesisBlock(
                width[r // 2] if r > 4 else 0,
                width[r],
                w_dim,
                r,
                img_channels,
                architecture=architecture,
                to_rgb=architecture == "skip" or r == resolution,
                half=r >= first_half,
                clamp=conv_clamp,
                noise=noise,
            )
            self.add_module(f"b{r}", block)
        self.num_ws = 2 * len(self.resolutions)

    def forward(self, ws: Tensor, draws: Draws | None = None) -> Tensor:
        """`draws`: fresh noise for each picture; None: the constant noise."""
        ws = ws.float()
        x = img = None
        first = 0
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            x, img = block(x, img, ws[:, first : first + block.num_conv + 1], draws)
            first += block.num_conv  # torgb shares its w with the first convolution of the next block
        return img


class Generator(nn.Module):
    """`G(z, c) = body(stem(z, c), c)`: z `[N, z_dim]` to pictures `[N, channels, side, side]`; the stem gives ws.

    Args:
        style_mixing: probability of mixing, per batch of a training step.
    """

    def __init__(self, synthesis: Synthesis, mapping: Mapping, style_mixing: float = 0.9) -> None:
        super().__init__()
        self.synthesis = synthesis
        self.mapping = mapping
        self.style_mixing = style_mixing

    @property
    def z_dim(self) -> int:
        return self.mapping.z_dim

    def stem(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """Return ws `[N, num_ws, w_dim]`; in training mode and with `draws`, the styles of some batches are mixed."""
        ws = self.mapping(z, c)
        if draws is None or not self.training or self.style_mixing == 0:
            return ws
        # One cut for the batch, so the first sample's draws decide.
        cut = 1 + int(draws.integers(ws.shape[1] - 1)[0])
        if draws.uniform()[0] >= self.style_mixing:
            return ws
        other = self.mapping(draws.normal(self.z_dim), c, track=False)
        return torch.cat([ws[:, :cut], other[:, cut:]], dim=1)

    def body(self, ws: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return self.synthesis(ws, draws)

    def truncate(self, ws: Tensor, psi: float, cutoff: int | None = None) -> Tensor:
        """Move the first `cutoff` ws (None: all) towards the average: `w_avg + psi (w - w_avg)`."""
        moved = self.mapping.w_avg.lerp(ws, psi)
        return moved if cutoff is None else torch.cat([moved[:, :cutoff], ws[:, cutoff:]], dim=1)

    def forward(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        """`draws`: fresh noise, and in training mode style mixing; None: constant noise, no mixing."""
        return self.body(self.stem(z, c, draws), c, draws)

    def class_affines(self) -> list[tuple[Tensor, Tensor]]:
        """Return gain 1 and bias, `[num_classes, w_dim]` each, of the one place where a class enters; else nothing.

        The bias is what a class adds to the first layer of the mapping. Beside a large one the latent is not heard, and
        the class becomes one picture, which is how a class collapses in batch normalization too. That this place stands
        in for the class-conditional normalizations that StyleGAN2 does not have is our reading of gSR (Rangwani et al.,
        ECCV 2022).
        """
        if not self.mapping.num_classes:
            return []
        bias = self.mapping.class_bias()
        return [(torch.ones_like(bias), bias)]
