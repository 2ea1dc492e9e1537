"""upfirdn2d with the filter [1, 3, 3, 1] on the shapes of StyleGAN2's layers."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from contenders.case import FORWARD, LAYOUTS, MODES, Case, compiled_reference, nbytes, quick_shape, runs
from pygan import ops

PADDINGS = {"up": (2, 1, 2, 1), "down": (1, 1, 1, 1), "blur": (1, 1, 1, 1)}
FACTORS = {"up": {"up": 2, "gain": 4.0}, "down": {"down": 2}, "blur": {"gain": 4.0}}
SHAPES = (
    ("up", (16, 512, 16, 16)),
    ("up", (8, 64, 128, 128)),
    ("down", (16, 512, 32, 32)),
    ("down", (8, 64, 256, 256)),
    ("blur", (16, 512, 33, 33)),
    ("blur", (8, 64, 257, 257)),
)
COMPILED_SIDE = 128
"""torch.compile takes part from this side on."""


def pad_and_convolve(
    x: Tensor,
    f: Tensor,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:
    """StyleGAN2-ADA's reference: insert zeros, pad, convolve every channel, keep every `down`-th pixel."""
    n, c, h, w = x.shape
    x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1])
    x = F.pad(x.reshape(n, c, h * up, w * up), list(padding))
    x = F.conv2d(x, _depthwise(f.flip([0, 1]) * gain, c), groups=c)
    return x[:, :, ::down, ::down]


def depthwise(x: Tensor, f: Tensor, up: int = 1, down: int = 1, gain: float = 1.0) -> Tensor:
    """The same by hand, for the paddings above: one (transposed) depthwise convolution with a stride."""
    c = x.shape[1]
    if up > 1:
        return F.conv_transpose2d(x, _depthwise(f * gain, c), stride=up, padding=1, groups=c)
    return F.conv2d(x, _depthwise(f.flip([0, 1]) * gain, c), stride=down, padding=1, groups=c)


def _depthwise(f: Tensor, channels: int) -> Tensor:
    return f[None, None].repeat(channels, 1, 1, 1)


def cases(device: str, quick: bool) -> Iterator[Case]:
    f = ops.setup_filter([1, 3, 3, 1]).to(device)
    for kind, shape in SHAPES:
        for layout, memory_format in LAYOUTS.items():
            x = torch.randn(quick_shape(*shape) if quick else shape, device=device).to(memory_format=memory_format)
            for mode in MODES:
                yield _case(kind, x, f, layout, mode, compiled=not quick)


def _case(kind: str, x: Tensor, f: Tensor, layout: str, mode: str, compiled: bool) -> Case:
    x = x.detach().requires_grad_(mode != FORWARD)
    options = {**FACTORS[kind], "padding": PADDINGS[kind]}
    ours = partial(_ours, **options)
    functions = {
        "pygan": ours,
        "formula": partial(pad_and_convolve, **options),
        "depthwise convolution": partial(depthwise, **FACTORS[kind]),
    }
    side = x.shape[-1]
    if compiled and layout == "channels_last" and side >= COMPILED_SIDE:
        functions["torch.compile"] = compiled_reference(ours)
    one_pass = nbytes(x, ours(x.detach(), f))
    return Case(
        name=f"{kind}{' 2' if kind != 'blur' else ''}, {'x'.join(map(str, x.shape))}",
        layout=layout,
        mode=mode,
        contenders=runs(mode, functions, x, f),
        floor_bytes=one_pass if mode == FORWARD else 2 * one_pass,
        gates=_gates(kind, layout, mode, side),
        headline=layout == "channels_last" and side >= COMPILED_SIDE,
    )


def _ours(x: Tensor, f: Tensor, **options) -> Tensor:
    return ops.upfirdn2d(x, f, **options)


def _gates(kind: str, layout: str, mode: str, side: int) -> dict[str, float]:
    if layout == "contiguous":
        return {"formula": {"up": 3.0, "down": 2.0, "blur": 1.6}[kind]}
    if kind == "blur":
        return {"formula": 4.0 if side < 257 else 2.5}
    if kind == "up":
        return {"formula": 8.0 if side < 128 else 6.0, "depthwise convolution": 2.5}
    small = 6.0 if side < 256 else 4.5
    return {"formula": small if mode == FORWARD else 8.0, "depthwise convolution": 2.5}
