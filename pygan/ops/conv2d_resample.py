"""Convolution with upsampling or downsampling by a low-pass filter around it.

Values are those of the function of the same name of StyleGAN2-ADA (Karras et al., "Training Generative Adversarial
Networks with Limited Data", NeurIPS 2020, arXiv:2006.06676): insert zeros, pad, filter, convolve, filter, keep every
`down`-th pixel. The steps are merged where that gives the same up to rounding.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pygan.ops.layout import is_channels_last
from pygan.ops.upfirdn2d import upfirdn2d


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Return `x`, upsampled by `up`, convolved with `w` and downsampled by `down`; differentiable any number of times.

    Under autocast the convolution runs in the autocast dtype, as `torch.nn.functional.conv2d` does.

    Args:
        x: `[N, I, H, W]`.
        w: `[O, I / groups, kh, kw]`, of the dtype of `x`, or float32 under autocast.
        f: low-pass filter, as `pygan.ops.upfirdn2d.setup_filter` makes it; None: the identity.
        up: factor of upsampling before the convolution.
        down: factor of downsampling after it.
        padding: zeros around the upsampled picture: a number, (x, y) or (x0, x1, y0, y1); negative: crop.
        groups: groups of channels that are convolved apart.
        flip_weight: True: correlation, as in `torch.nn.functional.conv2d`; False: convolution.
        flip_filter: True: the filter is applied as a correlation, False: as a convolution.

    Returns:
        `[N, O, H * up / down, W * up / down]`, less or more by what `padding` leaves of the kernel.

    Raises:
        ValueError: shapes that do not fit, or factors below 1.
    """
    _check(x, w, f, up, down, groups)
    px0, px1, py0, py1 = resample_padding(f, up, down, padding)
    kh, kw = w.shape[2:]
    if kh == kw == 1 and down > 1 and up == 1:  # filter and decimate first: fewer pixels to convolve
        x = upfirdn2d(x, f, down=down, padding=(px0, px1, py0, py1), flip_filter=flip_filter)
        return _conv2d(x, w, groups=groups, flip_weight=flip_weight)
    if kh == kw == 1 and up > 1 and down == 1:
        x = _conv2d(x, w, groups=groups, flip_weight=flip_weight)
        return upfirdn2d(x, f, up=up, padding=(px0, px1, py0, py1), gain=up**2, flip_filter=flip_filter)
    if down > 1 and up == 1:
        x = upfirdn2d(x, f, padding=(px0, px1, py0, py1), flip_filter=flip_filter)
        return _conv2d(x, w, stride=down, groups=groups, flip_weight=flip_weight)
    if up > 1:
        x = transposed_and_filtered(x, w, f, up, (px0, px1, py0, py1), groups, flip_weight, flip_filter)
        return upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x
    if px0 == px1 >= 0 and py0 == py1 >= 0:
        return _conv2d(x, w, padding=(py0, px0), groups=groups, flip_weight=flip_weight)
    return _conv2d(F.pad(x, (px0, px1, py0, py1)), w, groups=groups, flip_weight=flip_weight)


def transposed_and_filtered(
    x: Tensor,
    w: Tensor,
    f: Tensor | None,
    up: int,
    padding: tuple[int, int, int, int],
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample and convolve: a transposed convolution of stride `up`, then the filter, both at the new resolution.

    The filter commutes with the convolution, and zeros that the one would insert the other never multiplies.
    """
    px0, px1, py0, py1 = padding
    kh, kw = map(int, w.shape[2:])
    px0, px1, py0, py1 = px0 - (kw - 1), px1 - (kw - up), py0 - (kh - 1), py1 - (kh - up)
    crop_x, crop_y = max(min(-px0, -px1), 0), max(min(-py0, -py1), 0)  # by the convolution itself
    o, i, *_ = w.shape
    # Channels in and out change places within each group.
    w = w.transpose(0, 1) if groups == 1 else w.reshape(groups, o // groups, i, kh, kw).transpose(1, 2).flatten(0, 1)
    if flip_weight:  # a transposed correlation is a convolution
        w = w.flip([2, 3])
    x = _conv_transpose2d(x, w, up, (crop_y, crop_x), groups)
    padding = (px0 + crop_x, px1 + crop_x, py0 + crop_y, py1 + crop_y)
    return upfirdn2d(x, f, padding=padding, gain=up**2, flip_filter=flip_filter)


def resample_padding(f: Tensor | None, up: int, down: int, padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    """Return (x0, x1, y0, y1): `padding` and what keeps the filters' output centered, on the upsampled grid."""
    values = [padding] if isinstance(padding, int) else list(padding)
    if len(values) not in (1, 2, 4):
        raise ValueError(f"conv2d_resample: padding is {padding}, expected a number, (x, y) or (x0, x1, y0, y1)")
    x0, x1, y0, y1 = {1: values * 4, 2: [values[0]] * 2 + [values[-1]] * 2, 4: values}[len(values)]
    taps_y, taps_x = (1, 1) if f is None else (int(f.shape[0]), int(f.shape[-1]))
    if up > 1:
        x0, x1 = x0 + (taps_x + up - 1) // 2, x1 + (taps_x - up) // 2
        y0, y1 = y0 + (taps_y + up - 1) // 2, y1 + (taps_y - up) // 2
    if down > 1:
        x0, x1 = x0 + (taps_x - down + 1) // 2, x1 + (taps_x - down) // 2
        y0, y1 = y0 + (taps_y - down + 1) // 2, y1 + (taps_y - down) // 2
    return x0, x1, y0, y1


def _check(x: Tensor, w: Tensor, f: Tensor | None, up: int, down: int, groups: int) -> None:
    if x.dim() != 4 or w.dim() != 4:
        raise ValueError(
            f"conv2d_resample: x has shape {list(x.shape)} and w {list(w.shape)}, expected 4 dimensions of each"
        )
    if groups < 1 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(
            f"conv2d_resample: w has shape {list(w.shape)}, which does not fit x with {x.shape[1]} channels"
            f" in {groups} groups"
        )
    if f is not None and f.dim() not in (1, 2):
        raise ValueError(f"conv2d_resample: f has shape {list(f.shape)}, expected [fh, fw] or [k]")
    for name, factor in (("up", up), ("down", down)):
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(f"conv2d_resample: {name} is {factor!r}, expected a whole number of at least 1")


class _ChannelsLastTransposed(torch.autograd.Function):
    """`F.conv_transpose2d` on CPU, channels last but for the gradient of the weight.

    That one oneDNN computes 1.2 to 1.6 times as fast in the contiguous format, which outweighs the copies; all else it
    computes faster channels last. Split in dense convolutions, one for each phase of the output, it is no faster.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, stride: int, padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.stride, ctx.padding = [stride] * 2, list(padding)
        return F.conv_transpose2d(x, w, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = F.conv2d(dy, w, stride=ctx.stride, padding=ctx.padding)
        if ctx.needs_input_grad[1]:
            geometry = (ctx.stride, ctx.padding, [1, 1], True, [0, 0], 1)
            dy, x = _contiguous(dy), _contiguous(x)
            _, dw, _ = torch.ops.aten.convolution_backward(dy, x, w, None, *geometry, [False, True, False])
        return dx, dw, None, None


def _contiguous(x: Tensor) -> Tensor:
    """Return `x` in the contiguous format; ATen transposes one matrix several times as fast as a batch of them."""
    if x.shape[0] == 0:
        return x
    return torch.stack([sample.flatten(1).contiguous() for sample in x]).reshape(x.shape)


def _conv_transpose2d(x: Tensor, w: Tensor, stride: int, padding: tuple[int, int], groups: int) -> Tensor:
    channels_last = is_channels_last(x)
    float32_on_cpu = x.device.type == "cpu" and x.dtype == w.dtype == torch.float32
    # Forward it is the same; a compiler would unroll the copies of its backward.
    for_gradients = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if float32_on_cpu and channels_last and groups == 1 and for_gradients:
        return _ChannelsLastTransposed.apply(x, w, stride, padding)
    return F.conv_transpose2d(x, w, stride=stride, padding=padding, groups=groups)


def _conv2d(
    x: Tensor,
    w: Tensor,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    flip_weight: bool = True,
) -> Tensor:
    if not flip_weight and w.shape[2:] != (1, 1):
        w = w.flip([2, 3])
    return F.conv2d(x, w, stride=stride, padding=padding, groups=groups)
