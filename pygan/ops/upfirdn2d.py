"""Upsampling, FIR filtering and downsampling of pictures in one pass over memory.

Conventions and values are those of StyleGAN2-ADA's op of the same name (Karras et al., "Training Generative Adversarial
Networks with Limited Data", NeurIPS 2020, arXiv:2006.06676); resampling by low-pass filters entered GANs with Zhang,
"Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486.
Differs from the official code in: float16 and bfloat16 are summed in float32 with a float32 filter and rounded once.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pygan.ops import extension
from pygan.ops.layout import DTYPES, accumulator, is_channels_last, memory_format

_INTEGERS = (int, torch.SymInt)
_FEWEST_SEPARABLE_TAPS = 8


def setup_filter(
    f: Tensor | Sequence | float | None,
    device: torch.device | str | None = None,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """Return a filter in the form that `upfirdn2d` takes: float32, `[fh, fw]`, or `[k]` if it is separable.

    Args:
        f: taps `[fh, fw]`, `[k]` (the same along both axes) or a single number; None: the identity.
        device: where the result is; None: where `f` is.
        normalize: divide by the sum, so that a constant picture stays as it is.
        flip_filter: reverse the taps along both axes.
        gain: factor that the filter has on a picture (its square root goes into each pass of a separable one).
        separable: keep `[k]` taps for two passes, or multiply them out to `[k, k]`; None: keep 8 or more.

    Raises:
        ValueError: no taps, more than two dimensions, a sum of 0 that should be normalized, `separable` for a
            two-dimensional filter, or a negative `gain` for a separable one.
    """
    f = torch.as_tensor(1.0 if f is None else f, dtype=torch.float32)
    if f.dim() == 0:
        f = f[None]
    if f.dim() > 2 or f.numel() == 0:
        raise ValueError(f"setup_filter: f has shape {list(f.shape)}, expected a number, [k] or [fh, fw]")
    if separable is None:
        separable = f.dim() == 1 and f.numel() >= _FEWEST_SEPARABLE_TAPS
    if separable and f.dim() == 2:
        raise ValueError(f"setup_filter: separable needs the taps of one axis, but f has shape {list(f.shape)}")
    if separable and gain < 0:
        raise ValueError(f"setup_filter: gain is {gain}, expected at least 0 for a separable filter")
    if f.dim() == 1 and not separable:
        f = torch.outer(f, f)
    if normalize:
        total = f.sum()
        if not f.is_meta and total == 0:
            raise ValueError("setup_filter: the taps sum to 0 and cannot be normalized")
        f = f / total
    if flip_filter:
        f = f.flip(list(range(f.dim())))
    return (f * gain ** (f.dim() / 2)).to(device)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Upsample with zeros, pad, filter and downsample a batch of pictures; differentiable any number of times in `x`.

    Each axis on its own: `up - 1` zeros are inserted after every sample; zeros are added, or samples cropped, at both
    ends; the filter is applied where it fits; every `down`-th sample is kept, beginning with the first. The output has
    `(size * up + padding before + padding after - taps) // down + 1` samples.

    Args:
        x: `[N, C, H, W]`, any strides; float32, float64, float16 or bfloat16 (summed in float32).
        f: float32 taps `[fh, fw]`, or `[k]` to be applied along both axes, see `setup_filter`; None: the identity.
            It gets no gradient.
        up: factor, or (x, y).
        down: factor, or (x, y).
        padding: samples of the upsampled picture: a number for all four sides, (x, y), or (x0, x1, y0, y1); negative
            ones crop.
        flip_filter: False: convolution; True: correlation.
        gain: factor of the result.

    Returns:
        A tensor of the dtype of `x`, also under autocast; channels_last if `x.stride(1) == 1` and C > 1, else
        contiguous.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, factors below 1, a filter that requires a gradient, or
            an empty picture as input or output.
    """
    upx, upy = _factors("up", up)
    downx, downy = _factors("down", down)
    padx0, padx1, pady0, pady1 = _padding(padding)
    _check(x, f)
    sizes = (upx, upy, downx, downy, padx0, padx1, pady0, pady1)
    _output_shape(x, f, *sizes)
    implementation = _OPERATOR if extension.use_native(x) else _reference
    return implementation(x, f, *sizes, bool(flip_filter), float(gain))


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Return `x` enlarged by `up`, each output picture placed over its input; arguments are those of `upfirdn2d`.

    `padding` adds to that which makes the output `up` times as large; `gain` to the factor `up` per axis, which makes
    up for the zeros.
    """
    upx, upy = _factors("up", up)
    padx0, padx1, pady0, pady1 = _padding(padding)
    fh, fw = _taps(f)
    padding = (
        *(padx0 + (fw + upx - 1) // 2, padx1 + (fw - upx) // 2),
        *(pady0 + (fh + upy - 1) // 2, pady1 + (fh - upy) // 2),
    )
    return upfirdn2d(x, f, up=up, padding=padding, flip_filter=flip_filter, gain=gain * upx * upy)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: int | Sequence[int] = 2,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Return `x` reduced by `down`, each output picture placed over its input; arguments are those of `upfirdn2d`.

    `padding` adds to that which makes the output as large as the input divided by `down`.
    """
    downx, downy = _factors("down", down)
    padx0, padx1, pady0, pady1 = _padding(padding)
    fh, fw = _taps(f)
    padding = (
        *(padx0 + (fw - downx + 1) // 2, padx1 + (fw - downx) // 2),
        *(pady0 + (fh - downy + 1) // 2, pady1 + (fh - downy) // 2),
    )
    return upfirdn2d(x, f, down=down, padding=padding, flip_filter=flip_filter, gain=gain)


def filter2d(
    x: Tensor, f: Tensor | None, padding: int | Sequence[int] = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Return `x` filtered, of the same size unless `padding` adds to it; arguments are those of `upfirdn2d`."""
    padx0, padx1, pady0, pady1 = _padding(padding)
    fh, fw = _taps(f)
    padding = (padx0 + fw // 2, padx1 + (fw - 1) // 2, pady0 + fh // 2, pady1 + (fh - 1) // 2)
    return upfirdn2d(x, f, padding=padding, flip_filter=flip_filter, gain=gain)


def _factors(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return the factors along x and y."""
    factors = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(factors) != 2 or not all(isinstance(factor, _INTEGERS) and factor >= 1 for factor in factors):
        raise ValueError(f"upfirdn2d: {name} is {value}, expected an integer of at least 1 or two of them (x, y)")
    return factors


def _padding(value: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Return the padding left, right, above and below."""
    pads = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pads) == 2:
        pads = (pads[0], pads[0], pads[1], pads[1])
    if len(pads) != 4 or not all(isinstance(pad, _INTEGERS) for pad in pads):
        raise ValueError(f"upfirdn2d: padding is {value}, expected an integer, (x, y) or (x0, x1, y0, y1)")
    return pads


def _taps(f: Tensor | None) -> tuple[int, int]:
    """Return the height and width of a filter."""
    if f is None:
        return 1, 1
    if f.dim() not in (1, 2) or f.numel() == 0:
        raise ValueError(f"upfirdn2d: f has shape {list(f.shape)}, expected [fh, fw] or [k]")
    return int(f.shape[0]), int(f.shape[-1])  # sizes are tensors while torch.jit.trace records


def _check(x: Tensor, f: Tensor | None) -> None:
    """Raise ValueError for tensors that neither implementation accepts."""
    if x.dim() != 4:
        raise ValueError(f"upfirdn2d: x has shape {list(x.shape)}, expected [N, C, H, W]")
    if x.dtype not in DTYPES:
        raise ValueError(f"upfirdn2d: x is {x.dtype}, expected float32, float64, float16 or bfloat16")
    if f is None:
        return
    if f.dtype != torch.float32:
        raise ValueError(f"upfirdn2d: f is {f.dtype}, expected float32")
    if f.requires_grad:
        raise ValueError("upfirdn2d: f requires a gradient, but only x gets one")
    if f.device != x.device:
        raise ValueError(f"upfirdn2d: f is on {f.device} and x on {x.device}, expected one device")


def _output_shape(
    x: Tensor,
    f: Tensor | None,
    upx: int,
    upy: int,
    downx: int,
    downy: int,
    padx0: int,
    padx1: int,
    pady0: int,
    pady1: int,
) -> tuple[int, int, int, int]:
    """Return the shape of the output; raise ValueError if input or output have no pixels."""
    n, c, height, width = x.shape
    fh, fw = _taps(f)
    padded_height = height * upy + pady0 + pady1
    padded_width = width * upx + padx0 + padx1
    if height < 1 or width < 1:
        raise ValueError(f"upfirdn2d: x has shape {list(x.shape)}, expected at least one pixel")
    if padded_height < fh or padded_width < fw:
        raise ValueError(
            f"upfirdn2d: the padded picture has {padded_height} x {padded_width} pixels, too few for the filter of "
            f"{fh} x {fw} taps"
        )
    return n, c, (padded_height - fh) // downy + 1, (padded_width - fw) // downx + 1


def _reference(
    x: Tensor,
    f: Tensor | None,
    upx: int,
    upy: int,
    downx: int,
    downy: int,
    padx0: int,
    padx1: int,
    pady0: int,
    pady1: int,
    flip_filter: bool,
    gain: float,
) -> Tensor:
    """The definition step by step in plain PyTorch."""
    n, c, height, width = x.shape
    dtype = accumulator(x.dtype)
    y = x.to(dtype).reshape(n * c, 1, height, 1, width, 1)
    y = F.pad(y, [0, upx - 1, 0, 0, 0, upy - 1]).reshape(n * c, 1, height * upy, width * upx)
    y = F.pad(y, [max(padx0, 0), max(padx1, 0), max(pady0, 0), max(pady1, 0)])
    y = y[:, :, max(-pady0, 0) : y.shape[2] - max(-pady1, 0), max(-padx0, 0) : y.shape[3] - max(-padx1, 0)]
    if f is not None:
        taps = f.to(dtype) if flip_filter else f.to(dtype).flip(list(range(f.dim())))
        passes = [taps[None, :], taps[:, None]] if f.dim() == 1 else [taps]
        with torch.autocast(x.device.type, enabled=False):
            for taps in passes:
                y = F.conv2d(y, taps[None, None])
    y = y[:, :, ::downy, ::downx] * gain
    return y.reshape(n, c, *y.shape[2:]).to(x.dtype).contiguous(memory_format=memory_format(is_channels_last(x)))


def _fake(x: Tensor, f: Tensor | None, *options: Any) -> Tensor:
    *sizes, _, _ = options
    _check(x, f)
    return x.new_empty(_output_shape(x, f, *sizes)).to(memory_format=memory_format(is_channels_last(x)))


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, f, *ctx.options = inputs
    ctx.size, ctx.output_size = x.shape[2:], output.shape[2:]
    ctx.save_for_backward(f)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::upfirdn2d`: the transposed operator, which is one of its kind."""
    (f,) = ctx.saved_tensors
    upx, upy, downx, downy, padx0, _, pady0, _, flip_filter, gain = ctx.options
    fh, fw = _taps(f)
    (height, width), (output_height, output_width) = ctx.size, ctx.output_size
    padding = (
        *(fw - padx0 - 1, width * upx - output_width * downx + padx0 - upx + 1),
        *(fh - pady0 - 1, height * upy - output_height * downy + pady0 - upy + 1),
    )
    dx = _OPERATOR(dy, f, downx, downy, upx, upy, *padding, not flip_filter, gain)
    return (dx, *[None] * 11)


_OPERATOR = extension.Operator("upfirdn2d", fake=_fake, save=_save, backward=_backward)
