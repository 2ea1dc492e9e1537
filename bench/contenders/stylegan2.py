"""StyleGAN2 on the formulas of StyleGAN2-ADA's public code in plain PyTorch, the layout contiguous.

Every operator is the reference that the code falls back to without its CUDA extensions: zeros inserted, padded and
convolved; bias, activation and gain one after the other; the weight of every sample built for the demodulation. State
names are those of `pygan.networks.stylegan2`, so that one state fits both. G skips, D is residual, without classes.
"""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contenders.modulated_conv2d import per_sample
from contenders.upfirdn2d import pad_and_convolve
from pygan import ops
from pygan.networks.stylegan2 import Spec

_RESAMPLE = (1, 3, 3, 1)


def drawn_by_torch(n: int) -> SimpleNamespace:
    """The methods of `Draws` that a generator calls, from PyTorch's own generator."""
    return SimpleNamespace(
        normal=lambda *shape: torch.randn(n, *shape),
        uniform=lambda *shape: torch.rand(n, *shape),
        integers=lambda high, *shape: torch.randint(high, (n, *shape)),
    )


def bias_act(x: Tensor, b: Tensor | None, act: str, gain: float) -> Tensor:
    if b is not None:
        x = x + b.reshape([1, -1] + [1] * (x.dim() - 2))
    if act == "lrelu":
        x = F.leaky_relu(x, 0.2)
        gain = gain * math.sqrt(2)
    return x if gain == 1 else x * gain


def upsample2d(x: Tensor, f: Tensor) -> Tensor:
    return pad_and_convolve(x, f, up=2, padding=(2, 1, 2, 1), gain=4)


def resampled_conv(x: Tensor, w: Tensor, f: Tensor, up: int = 1, down: int = 1) -> Tensor:
    """Convolution with a kernel of 1 or 3, beside up- or downsampling by 2."""
    if up == 2:  # of the kernels of 3 alone
        return pad_and_convolve(F.conv_transpose2d(x, w.transpose(0, 1), stride=2), f, padding=(1, 1, 1, 1), gain=4)
    if down == 2 and w.shape[-1] == 1:
        return F.conv2d(pad_and_convolve(x, f, down=2, padding=(1, 1, 1, 1)), w)
    if down == 2:
        return F.conv2d(pad_and_convolve(x, f, padding=(2, 2, 2, 2)), w, stride=2)
    return F.conv2d(x, w, padding=w.shape[-1] // 2)


class FullyConnected(nn.Module):
    def __init__(self, in_features: int, out_features: int, act: str = "linear", lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.weight_gain, self.bias_gain, self.act = lr_multiplier / math.sqrt(in_features), lr_multiplier, act

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.weight * self.weight_gain, self.bias
        if self.bias_gain != 1:
            b = b * self.bias_gain
        if self.act == "linear":
            return torch.addmm(b[None], x, w.t())
        return bias_act(x @ w.t(), b, self.act, 1)


class Conv2dLayer(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, act: str = "lrelu", bias: bool = True, down: int = 1
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.register_buffer("resample_filter", ops.setup_filter(_RESAMPLE))
        self.weight_gain, self.act, self.down = 1 / math.sqrt(in_channels * kernel**2), act, down

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        x = resampled_conv(x, self.weight * self.weight_gain, self.resample_filter, down=self.down)
        return bias_act(x, self.bias, self.act, gain)


class SynthesisLayer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, up: int = 1) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.noise_strength = nn.Parameter(torch.empty([]))
        self.register_buffer("noise_const", torch.empty(resolution, resolution))
        self.register_buffer("resample_filter", ops.setup_filter(_RESAMPLE))
        self.resolution, self.up = resolution, up

    def forward(self, x: Tensor, w: Tensor, draws: SimpleNamespace) -> Tensor:
        noise = draws.normal(1, self.resolution, self.resolution) * self.noise_strength
        styles = self.affine(w)
        d = per_sample(self.weight, styles)
        x = resampled_conv(x * styles[:, :, None, None], self.weight, self.resample_filter, up=self.up)
        return bias_act(torch.addcmul(noise, x, d[:, :, None, None]), self.bias, "lrelu", 1)


class ToRGB(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * (1 / math.sqrt(self.weight.shape[1]))
        return bias_act(F.conv2d(x * styles[:, :, None, None], self.weight), self.bias, "linear", 1)


class SynthesisBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int) -> None:
        super().__init__()
        self.register_buffer("resample_filter", ops.setup_filter(_RESAMPLE))
        if in_channels:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2)
        else:
            self.const = nn.Parameter(torch.empty(out_channels, resolution, resolution))
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution)
        self.torgb = ToRGB(out_channels, img_channels, w_dim)
        self.num_conv = 2 if in_channels else 1

    def forward(
        self, x: Tensor | None, img: Tensor | None, ws: Tensor, draws: SimpleNamespace
    ) -> tuple[Tensor, Tensor]:
        w = iter(ws.unbind(1))
        x = self.const[None].repeat(len(ws), 1, 1, 1) if x is None else self.conv0(x, next(w), draws)
        x = self.conv1(x, next(w), draws)
        if img is not None:
            img = upsample2d(img, self.resample_filter)
        rgb = self.torgb(x, next(w))
        return x, rgb if img is None else img + rgb


class Synthesis(nn.Module):
    def __init__(self, spec: Spec, resolutions: list[int], img_channels: int) -> None:
        super().__init__()
        self.resolutions = resolutions
        for r in resolutions:
            block = SynthesisBlock(width(spec, r // 2) if r > 4 else 0, width(spec, r), spec.w_dim, r, img_channels)
            self.add_module(f"b{r}", block)

    def forward(self, ws: Tensor, draws: SimpleNamespace) -> Tensor:
        x = img = None
        first = 0
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            x, img = block(x, img, ws[:, first : first + block.num_conv + 1], draws)
            first += block.num_conv
        return img


class Mapping(nn.Module):
    def __init__(self, spec: Spec, num_ws: int) -> None:
        super().__init__()
        self.layers, self.num_ws = spec.mapping_layers, num_ws
        for i in range(self.layers):
            layer = FullyConnected(spec.w_dim if i else spec.z_dim, spec.w_dim, "lrelu", lr_multiplier=0.01)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.empty(spec.w_dim))

    def forward(self, z: Tensor, track: bool = True) -> Tensor:
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.layers):
            x = getattr(self, f"fc{i}")(x)
        if track:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, 0.995))
        return x[:, None].repeat(1, self.num_ws, 1)


class Generator(nn.Module):
    """Takes noise and mixed styles from the draws that it is given, or where not `counted`, PyTorch's generator."""

    counted = True

    def __init__(self, spec: Spec, resolution: int, img_channels: int = 3) -> None:
        super().__init__()
        self.z_dim, self.style_mixing = spec.z_dim, spec.style_mixing
        resolutions = [1 << i for i in range(2, resolution.bit_length())]
        self.synthesis = Synthesis(spec, resolutions, img_channels)
        self.mapping = Mapping(spec, 2 * len(resolutions))

    def stem(self, z: Tensor, c: None, draws: SimpleNamespace) -> Tensor:
        draws = draws if self.counted else drawn_by_torch(len(z))
        ws = self.mapping(z)
        cut = 1 + int(draws.integers(ws.shape[1] - 1)[0])
        if draws.uniform()[0] >= self.style_mixing:
            return ws
        ws[:, cut:] = self.mapping(draws.normal(self.z_dim), track=False)[:, cut:]
        return ws

    def body(self, ws: Tensor, c: None, draws: SimpleNamespace) -> Tensor:
        return self.synthesis(ws, draws if self.counted else drawn_by_torch(len(ws)))

    def forward(self, z: Tensor, c: None, draws: SimpleNamespace) -> Tensor:
        return self.body(self.stem(z, c, draws), c, draws)


class DiscriminatorBlock(nn.Module):
    def __init__(self, width: int, out_channels: int, img_channels: int | None) -> None:
        super().__init__()
        self.register_buffer("resample_filter", ops.setup_filter(_RESAMPLE))
        self.fromrgb = Conv2dLayer(img_channels, width, 1) if img_channels else None
        self.conv0 = Conv2dLayer(width, width, 3)
        self.conv1 = Conv2dLayer(width, out_channels, 3, down=2)
        self.skip = Conv2dLayer(width, out_channels, 1, "linear", bias=False, down=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        shortcut = self.skip(x, gain=math.sqrt(0.5))
        return shortcut + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


class DiscriminatorEpilogue(nn.Module):
    def __init__(self, width: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.conv = Conv2dLayer(width + 1, width, 3)
        self.fc = FullyConnected(width * 16, width, "lrelu")
        self.out = FullyConnected(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        group = min(self.group, n)
        y = x.reshape(group, n // group, 1, -1, h, w)
        y = y - y.mean(dim=0)
        y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=[2, 3, 4])
        x = torch.cat([x, y[:, :, None, None].repeat(group, 1, h, w)], dim=1)
        return self.out(self.fc(self.conv(x).flatten(1))).squeeze(1)


class Discriminator(nn.Module):
    def __init__(self, spec: Spec, resolution: int, img_channels: int = 3) -> None:
        super().__init__()
        self.resolutions = [1 << i for i in range(resolution.bit_length() - 1, 2, -1)]
        for r in self.resolutions:
            first = img_channels if r == resolution else None
            self.add_module(f"b{r}", DiscriminatorBlock(width(spec, r), width(spec, r // 2), first))
        self.b4 = DiscriminatorEpilogue(width(spec, 4), spec.mbstd_group)

    def forward(self, img: Tensor, c: None = None) -> Tensor:
        for r in self.resolutions:
            img = getattr(self, f"b{r}")(img)
        return self.b4(img)


def width(spec: Spec, resolution: int) -> int:
    return min(spec.channel_base // resolution, spec.channel_max)
