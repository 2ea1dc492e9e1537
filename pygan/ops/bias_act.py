"""Bias, activation, gain and clamp in one pass over memory.

Activations, default slopes and default gains are those of StyleGAN2-ADA's op of the same name (Karras et al.,
"Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, arXiv:2006.06676).
Differs from the official code in: the gradient passes where the output equals the clamp exactly, as in `torch.clamp`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pygan.ops import extension


class Activation(NamedTuple):
    """An activation and its defaults; `second` is None where the second derivative is 0."""

    function: Callable[[Tensor, float], Tensor]
    """(z, alpha) -> act(z)"""
    alpha: float
    gain: float
    second: Callable[[Tensor], Tensor] | None = None
    """z -> d2 act(z) / dz2, in differentiable operators."""


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


_SELU_NEGATIVE = 1.0507009873554805 * 1.6732632423543772

# The order is that of `enum class Activation` in csrc/bias_act/bias_act.h.
ACTIVATIONS = {
    "linear": Activation(lambda z, alpha: z, 0.0, 1.0),
    "relu": Activation(lambda z, alpha: torch.relu(z), 0.0, math.sqrt(2)),
    "lrelu": Activation(lambda z, alpha: F.leaky_relu(z, alpha), 0.2, math.sqrt(2)),
    "tanh": Activation(lambda z, alpha: torch.tanh(z), 0.0, 1.0, _tanh_second),
    "sigmoid": Activation(lambda z, alpha: torch.sigmoid(z), 0.0, 1.0, _sigmoid_second),
    "elu": Activation(lambda z, alpha: F.elu(z), 0.0, 1.0, lambda z: torch.where(z > 0, 0.0, z.exp())),
    "selu": Activation(
        lambda z, alpha: F.selu(z), 0.0, 1.0, lambda z: torch.where(z > 0, 0.0, _SELU_NEGATIVE * z.exp())
    ),
    "softplus": Activation(lambda z, alpha: F.softplus(z), 0.0, 1.0, _softplus_second),
    "swish": Activation(lambda z, alpha: z * torch.sigmoid(z), 0.0, math.sqrt(2), _swish_second),
}
_NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}
_BY_NUMBER = tuple(ACTIVATIONS.values())
_DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Return `clamp(act(x + b) * gain)`; differentiable any number of times with respect to `x` and `b`.

    Args:
        x: any shape and strides, float32, float64, float16 or bfloat16; a `[N, C, H, W]` picture batch, usually.
        b: `[x.shape[dim]]`, cast to the dtype of `x`; None: no bias.
        dim: the dimension of `x` that `b` runs along.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus or swish.
        alpha: negative slope of lrelu, ignored by the others; None: 0.2.
        gain: factor after the activation; None: sqrt(2) for relu, lrelu and swish, 1 for the others.
        clamp: largest absolute value of the output; None: no limit.

    Returns:
        A tensor of the shape, dtype and memory format of `x`.

    Raises:
        ValueError: an unknown activation, or shapes, dtypes or devices that do not fit.
    """
    definition = _check(x, b, dim, act, clamp)
    alpha = definition.alpha if alpha is None else float(alpha)
    gain = definition.gain if gain is None else float(gain)
    limit = -1.0 if clamp is None else float(clamp)
    if b is not None and b.dtype != x.dtype:
        b = b.to(x.dtype)
    if not extension.use_native(x):
        return _reference(x, b, dim, act, alpha, gain, limit)
    return _native(x, b, dim % x.dim() if b is not None else 0, _NUMBERS[act], alpha, gain, limit)


def _check(x: Tensor, b: Tensor | None, dim: int, act: str, clamp: float | None) -> Activation:
    """Return the activation; raise ValueError for what neither implementation accepts."""
    definition = ACTIVATIONS.get(act)
    if definition is None:
        raise ValueError(f"bias_act: act is {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    if x.dtype not in _DTYPES:
        raise ValueError(f"bias_act: x is {x.dtype}, expected float32, float64, float16 or bfloat16")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"bias_act: clamp is {clamp}, expected None or a number of at least 0")
    if b is not None:
        if not -x.dim() <= dim < x.dim():
            raise ValueError(f"bias_act: dim is {dim}, but x has {x.dim()} dimensions")
        if b.dim() != 1 or b.shape[0] != x.shape[dim]:
            raise ValueError(
                f"bias_act: b has shape {list(b.shape)}, expected [{x.shape[dim]}], the size of x along dim {dim}"
            )
        if b.device != x.device:
            raise ValueError(f"bias_act: b is on {b.device} and x on {x.device}, expected one device")
    return definition


def _add_bias(x: Tensor, b: Tensor | None, dim: int) -> Tensor:
    return x if b is None else x + b.reshape([-1 if i == dim % x.dim() else 1 for i in range(x.dim())])


def _reference(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float) -> Tensor:
    """The formula in plain PyTorch; `clamp` below 0 means none."""
    y = ACTIVATIONS[act].function(_add_bias(x, b, dim), alpha)
    if gain != 1:
        y = y * gain
    return y.clamp(-clamp, clamp) if clamp >= 0 else y


def _sum_to_bias(dx: Tensor, dim: int) -> Tensor:
    """Gradient of a bias that was added along `dim`, given the gradient of the sum."""
    return dx.sum([i for i in range(dx.dim()) if i != dim])


def _save_forward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, b, *ctx.options = inputs
    ctx.save_for_backward(x, b)


def _save_grad(ctx: Any, inputs: tuple, output: Tensor) -> None:
    dy, x, b, *ctx.options = inputs
    ctx.save_for_backward(dy, x, b)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::bias_act`."""
    x, b = ctx.saved_tensors
    dx = _grad(dy, x, b, *ctx.options)
    db = _sum_to_bias(dx, ctx.options[0]) if b is not None and ctx.needs_input_grad[1] else None
    return dx, db, None, None, None, None, None


def _grad_backward(ctx: Any, ddx: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::bias_act_grad`, in operators that can be differentiated again."""
    dy, x, b = ctx.saved_tensors
    dim, act, alpha, gain, clamp = ctx.options
    ddy = _grad(ddx, x, b, *ctx.options) if ctx.needs_input_grad[0] else None
    second = _BY_NUMBER[act].second
    dx = db = None
    if second is not None and any(ctx.needs_input_grad[1:3]):
        z = _add_bias(x, b, dim)
        dx = ddx * dy * second(z) * gain
        if clamp >= 0:
            dx = torch.where((_BY_NUMBER[act].function(z, alpha) * gain).abs() > clamp, 0.0, dx)
        db = _sum_to_bias(dx, dim) if b is not None else None
    return ddy, dx, db, None, None, None, None, None


class _BiasAct(torch.autograd.Function):
    """`pygan::bias_act` for eager calls, at a third of the cost of what `register_autograd` makes of the same parts."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _save_forward(ctx, inputs, None)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.pygan.bias_act.default(*inputs)

    backward = staticmethod(_backward)


class _BiasActGrad(torch.autograd.Function):
    """`pygan::bias_act_grad` for eager calls."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        _save_grad(ctx, inputs, None)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.pygan.bias_act_grad.default(*inputs)

    backward = staticmethod(_grad_backward)


def _native(*inputs: Any) -> Tensor:
    return torch.ops.pygan.bias_act(*inputs) if torch.compiler.is_compiling() else _BiasAct.apply(*inputs)


def _grad(*inputs: Any) -> Tensor:
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _BiasActGrad.apply(*inputs)
    return torch.ops.pygan.bias_act_grad(*inputs)


if extension.MODULE is not None:
    torch.library.register_fake("pygan::bias_act", lambda x, *rest: torch.empty_like(x))
    torch.library.register_fake("pygan::bias_act_grad", lambda dy, x, *rest: torch.empty_like(x))
    torch.library.register_autograd("pygan::bias_act", _backward, setup_context=_save_forward)
    torch.library.register_autograd("pygan::bias_act_grad", _grad_backward, setup_context=_save_grad)
