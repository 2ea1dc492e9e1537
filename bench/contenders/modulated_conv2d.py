"""modulated_conv2d with demodulation, noise, bias and leaky ReLU: a layer of StyleGAN2's synthesis network."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from contenders.bias_act import CLAMP, formula
from contenders.case import FORWARD, LAYOUTS, MODES, TRAINING, Case, nbytes, runs
from contenders.upfirdn2d import pad_and_convolve
from pygan import ops

# N, input channels, output channels, side of the input, up
SHAPES = (
    (16, 512, 512, 4, 1),
    (16, 512, 512, 8, 1),
    (16, 512, 512, 16, 1),
    (2, 256, 256, 64, 1),
    (2, 64, 64, 256, 1),
    (16, 512, 512, 4, 2),
    (16, 512, 512, 16, 2),
    (2, 128, 64, 128, 2),
)
FORWARD_SIDE = 16
"""Up to this side the forward pass is measured alone, too."""
GATES = {4: 4.0, 8: 2.0, 16: 1.3}
"""Side -> least ratio to the formula with 512 channels when training."""
UP_GATE = 1.3
CHEAP_GATE = 0.95


def per_sample(weight: Tensor, styles: Tensor) -> Tensor:
    """Demodulation as StyleGAN2-ADA trains: from the weight of every sample, [N, O, I, kh, kw]."""
    modulated = weight[None] * styles[:, None, :, None, None]
    return (modulated.square().sum([2, 3, 4]) + 1e-8).rsqrt()


def cheap(weight: Tensor, styles: Tensor) -> Tensor:
    """The same as a small matrix product."""
    return (styles.square() @ weight.square().sum([2, 3]).T + 1e-8).rsqrt()


def layer(demodulation: Callable[[Tensor, Tensor], Tensor], up: int, f: Tensor) -> Callable[..., Tensor]:
    """The layer in plain PyTorch, which scales the input, convolves, and scales the output."""

    def run(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        y = convolution(up)(x * styles[:, :, None, None], weight)
        if up > 1:
            y = pad_and_convolve(y, f, padding=(1, 1, 1, 1), gain=up**2)
        y = torch.addcmul(noise, y, demodulation(weight, styles)[:, :, None, None])
        return formula(y, bias)

    return run


def convolution(up: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The bare convolution of a layer; with `up` 2 a transposed one, as in StyleGAN2-ADA."""
    if up == 1:
        return lambda x, weight: F.conv2d(x, weight, padding=1)
    return lambda x, weight: F.conv_transpose2d(x, weight.transpose(0, 1), stride=up)


def ours(up: int, f: Tensor) -> Callable[..., Tensor]:
    def run(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        return ops.modulated_conv2d(
            x,
            weight,
            styles,
            noise,
            up=up,
            padding=1,
            resample_filter=f,
            flip_weight=up == 1,
            bias=bias,
            act="lrelu",
            clamp=CLAMP,
        )

    return run


def cases(device: str, quick: bool) -> Iterator[Case]:
    f = ops.setup_filter([1, 3, 3, 1]).to(device)
    for n, in_channels, out_channels, side, up in SHAPES:
        if quick:
            n, in_channels, out_channels = 1, in_channels // 4, out_channels // 4
        for layout, memory_format in LAYOUTS.items():
            tensors = (
                torch.randn(n, in_channels, side, side, device=device).to(memory_format=memory_format),
                torch.randn(out_channels, in_channels, 3, 3, device=device),
                torch.randn(n, in_channels, device=device) + 1,
                torch.randn(n, 1, up * side, up * side, device=device),
                torch.randn(out_channels, device=device),
            )
            for mode in MODES if side <= FORWARD_SIDE else [TRAINING]:
                yield _case(tensors, up, f, layout, mode)


def _case(tensors: tuple[Tensor, ...], up: int, f: Tensor, layout: str, mode: str) -> Case:
    inputs = [tensor.detach().requires_grad_(mode != FORWARD) for tensor in tensors]
    x, weight = inputs[:2]
    functions = {
        "pygan": ours(up, f),
        "formula": layer(per_sample, up, f),
        "cheap demodulation": layer(cheap, up, f),
    }
    with torch.no_grad():
        y = functions["pygan"](*inputs)
    side = x.shape[-1]
    gates = {"cheap demodulation": CHEAP_GATE}
    if up > 1:
        gates["formula"] = UP_GATE
    elif mode != FORWARD and side in GATES:
        gates["formula"] = GATES[side]
    return Case(
        name=f"{'x'.join(map(str, x.shape))} to {len(weight)}{', up 2' if up > 1 else ''}",
        layout=layout,
        mode=mode,
        contenders=runs(mode, functions, *inputs),
        yardsticks=runs(mode, {"convolution alone": convolution(up)}, x, weight),
        # x, w -> y, and dy, y, x, w -> dx, dw
        floor_bytes=nbytes(*inputs, y) + (0 if mode == FORWARD else 2 * nbytes(x, weight, y)),
        gates=gates,
        # Rounding flips the slope of single activations near 0; a wrong formula is off by far more.
        tolerance=1e-4 if mode == FORWARD else 5e-3,
        headline=layout == "channels_last" and side <= 16 and (up == 1 or side == 16),
    )
