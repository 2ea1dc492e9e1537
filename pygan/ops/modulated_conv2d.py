"""Convolution whose weight is scaled per sample by styles, with demodulation, noise, bias and activation behind it.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958, equations 1 to 3;
order of operations, constants and the normalization for float16 as in StyleGAN2-ADA (arXiv:2006.06676).

    y = act(conv(x * s) * d + noise + b),  d[n, o] = 1 / sqrt(sum_i s[n, i]^2 sum_k w[o, i, k]^2 + 1e-8)

The convolution is that of PyTorch; x * s and all that follows the convolution take one pass over memory each.
Differs from the official code in: the demodulation is a product of two matrices, the weight per sample is never built;
one weight serves all samples in training and in evaluation, where the official code convolves in groups; noise, bias
and activation are computed in float32 also for float16, and rounded once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pygan.ops import extension
from pygan.ops.bias_act import _BY_NUMBER, _NUMBERS, ACTIVATIONS
from pygan.ops.conv2d_resample import conv2d_resample
from pygan.ops.layout import DTYPES, accumulator, is_channels_last, memory_format

_EPSILON = 1e-8
_FEWEST_PIXELS_OF_CHANNELS_LAST = 64
_AFFINE = (_NUMBERS["linear"], 0.0, 1.0, -1.0)
"""act, alpha, gain and clamp that leave x * d + noise + b as it is."""


def _sigmoid_second(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (1 - 2 * s)


def _tanh_second(z: Tensor) -> Tensor:
    t = torch.tanh(z)
    return -2 * t * (1 - t * t)


def _softplus_second(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return torch.where(z > 20, 0.0, s * (1 - s))  # above 20 softplus(z) = z, as torch has it


def _swish_second(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (2 + z * (1 - 2 * s))


_SECOND_DERIVATIVES = {
    _NUMBERS["tanh"]: _tanh_second,
    _NUMBERS["sigmoid"]: _sigmoid_second,
    _NUMBERS["elu"]: lambda z: torch.where(z > 0, 0.0, z.exp()),
    _NUMBERS["selu"]: lambda z: torch.where(z > 0, 0.0, 1.0507009873554805 * 1.6732632423543772 * z.exp()),
    _NUMBERS["softplus"]: _softplus_second,
    _NUMBERS["swish"]: _swish_second,
}
"""z -> d2 act(z) / dz2, in differentiable operators; the others have none."""


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Return `bias_act(conv2d_resample(x * styles, weight) * d + noise, bias)`; differentiable any number of times.

    Demodulation, noise and bias are computed in float32 (with a float64 `x` in float64), the convolution in the dtype
    of `x`. Under autocast the convolution runs in the autocast dtype, as `torch.nn.functional.conv2d` does, and that is
    the dtype of the output.

    Args:
        x: `[N, I, H, W]`, float32, float64, float16 or bfloat16.
        weight: `[O, I, kh, kw]`, of any of these dtypes.
        styles: `[N, I]`, factors of the channels of `x`.
        noise: added after the demodulation, already scaled by its strength; its shape broadcasts to `[N, 1, H', W']`;
            None: no noise.
        up: factor of upsampling before the convolution.
        down: factor of downsampling after it.
        padding: zeros around the upsampled picture: a number, (x, y) or (x0, x1, y0, y1).
        resample_filter: low-pass filter of the resampling, as `setup_filter` makes it; None: the identity.
        demodulate: scale each output channel of each sample so that its weight has norm 1.
        flip_weight: True: correlation, as in `torch.nn.functional.conv2d`; False: convolution. StyleGAN2 has False for
            `up=2` and True otherwise.
        bias: `[O]`; None: no bias.
        act, alpha, gain, clamp: as in `bias_act`.

    Returns:
        `[N, O, H', W']` in the memory format of `x`; `H' = H * up / down` with a padding of half the kernel.

    Raises:
        ValueError: an unknown activation, or shapes, dtypes or devices that do not fit.
    """
    definition = _check(x, weight, styles, bias, act, clamp)
    options = (
        _NUMBERS[act],
        definition.alpha if alpha is None else float(alpha),
        definition.gain if gain is None else float(gain),
        -1.0 if clamp is None else float(clamp),
    )
    channels_last = is_channels_last(x)
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    sum_dtype = accumulator(x.dtype)
    weight, styles = weight.to(sum_dtype), styles.to(sum_dtype)
    if demodulate and x.dtype == torch.float16:
        weight, styles = _normalized(weight, styles)
    d = _demodulation(weight, styles) if demodulate else None

    x = _modulated_bias_act(x, styles, None, None, *_AFFINE, _convolves_channels_last(x, weight))
    y = conv2d_resample(x, weight.to(x.dtype), resample_filter, up, down, padding, flip_weight=flip_weight)
    if noise is not None:
        noise = _expanded(noise.to(sum_dtype), y)
    bias = None if bias is None else bias.to(sum_dtype)
    return _modulated_bias_act(y, d, noise, bias, *options, channels_last)


def _check(x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor | None, act: str, clamp: float | None) -> Any:
    """Return the activation; raise ValueError for what no implementation accepts."""
    if act not in ACTIVATIONS:
        raise ValueError(f"modulated_conv2d: act is {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    if x.dtype not in DTYPES:
        raise ValueError(f"modulated_conv2d: x is {x.dtype}, expected float32, float64, float16 or bfloat16")
    if x.dim() != 4 or weight.dim() != 4 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"modulated_conv2d: x has shape {list(x.shape)} and weight {list(weight.shape)}, "
            "expected [N, I, H, W] and [O, I, kh, kw]"
        )
    if styles.shape != x.shape[:2]:
        raise ValueError(f"modulated_conv2d: styles has shape {list(styles.shape)}, expected {list(x.shape[:2])}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"modulated_conv2d: bias has shape {list(bias.shape)}, expected [{weight.shape[0]}]")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"modulated_conv2d: clamp is {clamp}, expected None or a number of at least 0")
    for name, tensor in (("weight", weight), ("styles", styles), ("bias", bias)):
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"modulated_conv2d: {name} is on {tensor.device} and x on {x.device}, expected one device")
    return ACTIVATIONS[act]


def _convolves_channels_last(x: Tensor, weight: Tensor) -> bool:
    """The memory format in which the convolution is fastest.

    On CPU that is channels last, except for the smallest pictures (forward and gradients together: 1.1 to 1.6 times as
    fast from 8 x 8 pixels on, 0.7 times at 4 x 4). The scaling before and the epilogue behind it change the format in
    passing. Kernels of one tap take no longer than a pass over memory, so there it would not pay.
    """
    if x.device.type != "cpu" or x.dtype == torch.float64 or weight.shape[2:] == (1, 1):
        return is_channels_last(x)
    return x.shape[1] > 1 and x.shape[2] * x.shape[3] >= _FEWEST_PIXELS_OF_CHANNELS_LAST


def _normalized(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Scale both so that no sum of products in float16 overflows; the demodulation takes the factors out again."""
    fan_in = weight[0].numel()
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    return weight / (largest * fan_in**0.5), styles / styles.abs().amax(dim=1, keepdim=True)


def _demodulation(weight: Tensor, styles: Tensor) -> Tensor:
    """Return `[N, O]`, the inverse norms of the weights `[O, I, kh, kw]` scaled by each sample's styles."""
    energy = _KERNEL_ENERGY(weight) if extension.use_native(weight) else weight.square().sum(dim=(2, 3))
    with torch.autocast(weight.device.type, enabled=False):
        return (styles.square() @ energy.t() + _EPSILON).rsqrt()


def _expanded(noise: Tensor, y: Tensor) -> Tensor:
    """Return noise as `[N or 1, 1, H, W]` for `y` of shape `[N, C, H, W]`."""
    n, _, *size = y.shape
    batch = n if noise.dim() == 4 and noise.shape[0] != 1 else 1
    try:
        return noise.expand(batch, 1, *size)
    except RuntimeError as error:
        raise ValueError(
            f"modulated_conv2d: noise has shape {list(noise.shape)}, expected one that broadcasts to {[n, 1, *size]}"
        ) from error


def _modulated_bias_act(
    x: Tensor,
    d: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    channels_last: bool,
) -> Tensor:
    """Return `clamp(act(x * d + noise + b) * gain)` in the memory format asked for; `clamp` below 0 means none.

    x is `[N, C, H, W]`; in the dtype it is computed in: d `[N, C]`, noise `[N or 1, 1, H, W]`, b `[C]`; None: 1, 0, 0.
    """
    implementation = _FORWARD if extension.use_native(x) else _reference
    return implementation(x, d, noise, b, act, alpha, gain, clamp, channels_last)


def _reference(
    x: Tensor,
    d: Tensor | None,
    noise: Tensor | None,
    b: Tensor | None,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    channels_last: bool,
) -> Tensor:
    """The formula in plain PyTorch."""
    z = x.to(accumulator(x.dtype))
    if d is not None:
        z = z * d[:, :, None, None]
    if noise is not None:
        z = z + noise
    if b is not None:
        z = z + b[:, None, None]
    y = _BY_NUMBER[act].function(z, alpha) * gain
    if clamp >= 0:
        y = torch.where(y.abs() >= clamp, y.detach().clamp(-clamp, clamp), y)  # no gradient at the clamp
    return y.to(x.dtype).contiguous(memory_format=memory_format(channels_last))


def _affine(x: Tensor, d: Tensor | None, noise: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    return _FORWARD(x, d, noise, b, *_AFFINE, is_channels_last(x))


def _check_operands(x: Tensor, d: Tensor | None, noise: Tensor | None, b: Tensor | None, act: int) -> None:
    """Raise ValueError for what the kernels refuse, for those who call `torch.ops` themselves."""
    if x.dim() != 4:
        raise ValueError(f"modulated_bias_act: x has shape {list(x.shape)}, expected 4 dimensions")
    if not 0 <= act < len(_BY_NUMBER):
        raise ValueError(f"modulated_bias_act: unknown activation number {act}")
    n, c, h, w = x.shape
    expected = {"d": (d, [(n, c)]), "noise": (noise, [(n, 1, h, w), (1, 1, h, w)]), "b": (b, [(c,)])}
    for name, (tensor, shapes) in expected.items():
        if tensor is not None and (tuple(tensor.shape) not in shapes or tensor.dtype != accumulator(x.dtype)):
            raise ValueError(
                f"modulated_bias_act: {name} is {tensor.dtype} of shape {list(tensor.shape)}, expected "
                f"{accumulator(x.dtype)} of shape {list(shapes[0])}"
            )


def _fake(x: Tensor, d: Tensor | None, noise: Tensor | None, b: Tensor | None, act: int, *rest: Any) -> Tensor:
    _check_operands(x, d, noise, b, act)
    *_, channels_last = rest
    return torch.empty_like(x, memory_format=memory_format(channels_last))


def _grad_fake(
    dy: Tensor, x: Tensor, d: Tensor | None, noise: Tensor | None, b: Tensor | None, act: int, *rest: Any
) -> tuple[Tensor, ...]:
    _check_operands(x, d, noise, b, act)
    if dy.shape != x.shape or dy.dtype != x.dtype:
        raise ValueError(
            f"modulated_bias_act_grad: dy is {dy.dtype} of shape {list(dy.shape)}, "
            f"expected {x.dtype} of shape {list(x.shape)}"
        )
    n, c, h, w = x.shape
    dtype = accumulator(x.dtype)
    return (
        torch.empty_like(x, memory_format=memory_format(is_channels_last(x))),
        x.new_empty((0,) if d is None else (n, c), dtype=dtype),
        x.new_empty((0,) if noise is None else (n, 1, h, w), dtype=dtype),
        x.new_empty((0,) if b is None else (c,), dtype=dtype),
    )


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    *tensors, act, alpha, gain, clamp, _ = inputs
    ctx.options = (act, alpha, gain, clamp)
    ctx.save_for_backward(*tensors)


def _grad_save(ctx: Any, inputs: tuple, output: tuple) -> None:
    *tensors, act, alpha, gain, clamp = inputs
    ctx.options = (act, alpha, gain, clamp)
    ctx.save_for_backward(*tensors)


def _sum_to(noise: Tensor | None, dnoise: Tensor) -> Tensor | None:
    """Gradient of noise, which samples may have in common, given that of each sample's."""
    if noise is None:
        return None
    return dnoise if noise.shape == dnoise.shape else dnoise.sum(0, keepdim=True)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::modulated_bias_act`."""
    x, d, noise, b = ctx.saved_tensors
    dx, dd, dnoise, db = _GRAD(dy, x, d, noise, b, *ctx.options)
    return (
        dx,
        None if d is None else dd,
        _sum_to(noise, dnoise),
        None if b is None else db,
        *[None] * 5,
    )


def _grad_backward(ctx: Any, ddx: Tensor, ddd: Tensor, ddnoise: Tensor, ddb: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::modulated_bias_act_grad`, in operators that can be differentiated again.

    All its outputs are linear in dz = dy * slope(z); `m` is what dz is multiplied by.
    """
    dy, x, d, noise, b = ctx.saved_tensors
    act, alpha, gain, clamp = ctx.options
    m = _affine(ddx, d, None if noise is None else ddnoise, None if b is None else ddb)
    if d is not None:
        m = m + _affine(x, ddd)
    if ctx.options == _AFFINE:
        ddy, dz = m, dy
    else:
        z = _affine(x, d, noise, b)
        ddy, dz = (_GRAD(v, z, None, None, None, *ctx.options)[0] for v in (m, dy))
    dx = dd = dnoise = db = None
    if d is not None:
        dx, dd, _, _ = _GRAD(dz, ddx, ddd, None, None, *_AFFINE)
    second = _SECOND_DERIVATIVES.get(act)
    if second is not None:
        curvature = dy * m * second(z) * gain
        if clamp >= 0:
            clamped = (_BY_NUMBER[act].function(z, alpha) * gain).abs() >= clamp
            curvature = torch.where(clamped, 0.0, curvature)
        dx_of_z, dd_of_z, dnoise, db = _GRAD(curvature, x, d, noise, b, *_AFFINE)
        dx = dx_of_z if dx is None else dx + dx_of_z
        dd = None if d is None else dd + dd_of_z
        dnoise = _sum_to(noise, dnoise)
        db = None if b is None else db
    return (ddy, dx, dd, dnoise, db, *[None] * 4)


def _energy_fake(w: Tensor) -> Tensor:
    if w.dim() != 4:
        raise ValueError(f"kernel_energy: w has shape {list(w.shape)}, expected 4 dimensions")
    return w.new_empty(w.shape[:2], dtype=accumulator(w.dtype))


def _energy_save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _energy_backward(ctx: Any, de: Tensor) -> Tensor:
    """Derivative of `pygan::kernel_energy`: 2 w de, a weight taken for a batch of pictures."""
    (w,) = ctx.saved_tensors
    return _affine(w, 2 * de)


_FORWARD = extension.Operator("modulated_bias_act", fake=_fake, save=_save, backward=_backward)
_GRAD = extension.Operator("modulated_bias_act_grad", fake=_grad_fake, save=_grad_save, backward=_grad_backward)
_KERNEL_ENERGY = extension.Operator("kernel_energy", fake=_energy_fake, save=_energy_save, backward=_energy_backward)
