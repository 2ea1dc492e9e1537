"""bias_act as StyleGAN2 uses it: bias, leaky ReLU, gain sqrt(2), clamp at 256."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from contenders.case import FORWARD, LAYOUTS, MODES, Case, compiled_reference, nbytes, quick_shape, runs
from pygan import ops

SHAPES = ((16, 512, 4, 4), (16, 512, 8, 8), (16, 512, 16, 16), (16, 512, 32, 32), (8, 64, 256, 256))
COMPILED_SIDE = 32
"""torch.compile takes part from this side on."""
LARGE = 8_000_000
"""Bytes from which memory decides; below, the cost of a call."""
CLAMP = 256.0


def formula(x: Tensor, b: Tensor) -> Tensor:
    """StyleGAN2-ADA's reference."""
    x = x + b.reshape(1, -1, 1, 1)
    x = F.leaky_relu(x, 0.2)
    x = x * math.sqrt(2)
    return x.clamp(-CLAMP, CLAMP)


def cases(device: str, quick: bool) -> Iterator[Case]:
    for shape in SHAPES:
        for layout, memory_format in LAYOUTS.items():
            x = torch.randn(quick_shape(*shape) if quick else shape, device=device).to(memory_format=memory_format)
            b = torch.randn(x.shape[1], device=device)
            for mode in MODES:
                yield _case(x, b, layout, mode, compiled=not quick)


def _case(x: Tensor, b: Tensor, layout: str, mode: str, compiled: bool) -> Case:
    x, b = (tensor.detach().requires_grad_(mode != FORWARD) for tensor in (x, b))
    functions = {"pygan": _ours, "formula": formula}
    if compiled and x.shape[-1] >= COMPILED_SIDE:
        functions["torch.compile"] = compiled_reference(_ours)
    large = nbytes(x) >= LARGE
    gates = {"formula": (5.0 if mode == FORWARD else 2.8) if large else 1.0}
    if large:
        gates["torch.compile"] = 1.0
    return Case(
        name="x".join(map(str, x.shape)),
        layout=layout,
        mode=mode,
        contenders=runs(mode, functions, x, b),
        # x -> y, and dy, y -> dx
        floor_bytes=(2 if mode == FORWARD else 5) * nbytes(x),
        gates=gates,
        headline=layout == "channels_last" and x.shape[-1] >= COMPILED_SIDE,
    )


def _ours(x: Tensor, b: Tensor) -> Tensor:
    return ops.bias_act(x, b, act="lrelu", clamp=CLAMP)
