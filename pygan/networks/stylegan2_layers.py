"""Layers with equalized learning rate, and the mapping network, which StyleGAN2's generator and discriminator share.

Karras, Aila, Laine and Lehtinen, "Progressive Growing of GANs", ICLR 2018 (arXiv 1710.10196), section 4.1; Karras et
al., CVPR 2020 (arXiv 1912.04958). Values and state names as in `pygan.networks.stylegan2`.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan.ops import bias_act, conv2d_resample, setup_filter
from pygan.ops.bias_act import ACTIVATIONS

Architecture = Literal["orig", "skip", "resnet"]
"""How the resolutions of a network are joined."""


class FullyConnected(nn.Module):
    """Linear layer with equalized learning rate: weights are drawn from n(0, 1) / m and scaled by m / sqrt(in).

    Args:
        lr_multiplier: m, by which the layer learns slower.
        bias: initial bias.
    """

    def __init__(
        self, in_features: int, out_features: int, *, act: str = "linear", lr_multiplier: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Autocast changes nothing: styles and logits do not bear the rounding of a shorter type."""
        with torch.autocast(x.device.type, enabled=False):
            x = F.linear(x.to(self.weight.dtype), self.weight * self.weight_gain)
            return bias_act(x, self.bias * self.bias_gain, act=self.act)


class Conv2dLayer(nn.Module):
    """Convolution with equalized learning rate, optional resampling, bias and activation.

    Args:
        up: upsampling factor before the convolution.
        down: downsampling factor after it.
        clamp: largest absolute value of the output at gain 1; None: no limit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        act: str = "linear",
        bias: bool = True,
        up: int = 1,
        down: int = 1,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter([1, 3, 3, 1]))
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.act, self.up, self.down, self.clamp = act, up, down, clamp

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """`gain` multiplies the activation's default gain, and the clamp."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        padding = int(weight.shape[-1]) // 2
        # Where it upsamples, the kernel is that of the transposed convolution: a true convolution.
        x = conv2d_resample(x, weight, self.resample_filter, self.up, self.down, padding, flip_weight=self.up == 1)
        clamp = None if self.clamp is None else self.clamp * gain
        return bias_act(x, self.bias, act=self.act, gain=ACTIVATIONS[self.act].gain * gain, clamp=clamp)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    """Divide `[N, F]` by the root mean square over the features."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class Mapping(nn.Module):
    """z `[N, z_dim]` and class numbers `[N]` to w: `[N, num_ws, w_dim]`, or `[N, w_dim]` where `num_ws` is None.

    Args:
        z_dim: 0: the class alone.
        num_classes: 0: unconditional.
        num_ws: copies of w, one per layer of the synthesis; None: no copies and no running average.
    """

    w_avg_beta = 0.995

    def __init__(self, z_dim: int, num_classes: int, w_dim: int, num_ws: int | None, *, layers: int = 8) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.num_ws, self.layers = z_dim, num_classes, num_ws, layers
        if num_classes:
            self.embed = FullyConnected(num_classes, w_dim)
        widths = [z_dim + (w_dim if num_classes else 0)] + [w_dim] * layers
        for i in range(layers):
            self.add_module(f"fc{i}", FullyConnected(widths[i], widths[i + 1], act="lrelu", lr_multiplier=0.01))
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, c: Tensor | None, *, track: bool = True) -> Tensor:
        """`track`: let w_avg follow, in training mode."""
        inputs = []
        if self.z_dim:
            inputs.append(normalize_2nd_moment(z.float()))
        if self.num_classes:
            inputs.append(self._embedded(c))
        w = torch.cat(inputs, dim=1)
        for i in range(self.layers):
            w = getattr(self, f"fc{i}")(w)
        if self.num_ws is None:
            return w
        if self.training and track:
            self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, self.w_avg_beta))
        return w[:, None].expand(-1, self.num_ws, -1)

    def _embedded(self, c: Tensor) -> Tensor:
        """Class numbers `[N]` to their part of the first layer's input, `[N, w_dim]`."""
        return normalize_2nd_moment(self.embed(F.one_hot(c, self.num_classes).float()))

    def class_bias(self) -> Tensor:
        """Return what each class adds to the first layer before its activation, `[num_classes, w_dim]`."""
        first = self.fc0
        classes = torch.arange(self.num_classes, device=first.weight.device)
        return F.linear(self._embedded(classes), (first.weight * first.weight_gain)[:, self.z_dim :])


def resolutions_from_4(resolution: int) -> list[int]:
    """Return 4, 8, ... `resolution`; ValueError when it is not such a power of two."""
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(f"resolution: got {resolution}, expected a power of two of at least 4")
    return [1 << i for i in range(2, resolution.bit_length())]


def half_from(resolution: int, half_resolutions: int) -> int:
    """Return the lowest resolution computed in float16; 8 at least."""
    return max(2 * resolution >> half_resolutions, 8) if half_resolutions else 2 * resolution
