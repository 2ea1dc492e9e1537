"""Bias, activation, gain and clamp in one pass over memory; gradient and gradient of the bias in another.

Activations, default slopes, default gains and the gradient, which is 0 where the output reaches the clamp, are those of
StyleGAN2-ADA's op of the same name (Karras et al., "Training Generative Adversarial Networks with Limited Data",
NeurIPS 2020, arXiv:2006.06676). As there, the gradient is told from the output, which the next layer keeps anyway.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pygan.ops import extension
from pygan.ops.layout import DTYPES


class Activation(NamedTuple):
    """An activation, its defaults, and what its second derivative takes."""

    function: Callable[[Tensor, float], Tensor]
    """(z, alpha) -> act(z)"""
    alpha: float
    gain: float
    slope_derivative: Callable[[Tensor], Tensor] | None = None
    """a -> d act'(z) / da with a = act(z), or z -> act''(z) where the input is saved; differentiable. None: 0."""
    saves_input: bool = False
    """Whether the gradient needs z, because two of them give the same act(z)."""


def _swish_second(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (2 + z * (1 - 2 * s))


def _one_where_negative(a: Tensor) -> Tensor:
    return (a <= 0).to(a.dtype)


# The order is that of `enum class Activation` in csrc/bias_act/bias_act.h.
ACTIVATIONS = {
    "linear": Activation(lambda z, alpha: z, 0.0, 1.0),
    "relu": Activation(lambda z, alpha: torch.relu(z), 0.0, math.sqrt(2)),
    "lrelu": Activation(lambda z, alpha: F.leaky_relu(z, alpha), 0.2, math.sqrt(2)),
    "tanh": Activation(lambda z, alpha: torch.tanh(z), 0.0, 1.0, lambda a: -2 * a),
    "sigmoid": Activation(lambda z, alpha: torch.sigmoid(z), 0.0, 1.0, lambda a: 1 - 2 * a),
    "elu": Activation(lambda z, alpha: F.elu(z), 0.0, 1.0, _one_where_negative),
    "selu": Activation(lambda z, alpha: F.selu(z), 0.0, 1.0, _one_where_negative),
    "softplus": Activation(lambda z, alpha: F.softplus(z), 0.0, 1.0, lambda a: torch.where(a > 20, 0.0, torch.exp(-a))),
    "swish": Activation(lambda z, alpha: z * torch.sigmoid(z), 0.0, math.sqrt(2), _swish_second, saves_input=True),
}
_NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}
_BY_NUMBER = tuple(ACTIVATIONS.values())
_LEAST_GAIN, _LARGEST_GAIN = 1 / 64, 64.0
"""Gains with which an output tells its activation, also in float16."""


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

    Gradients are 0 where the output is at the clamp. Under autocast `x` decides the dtype: nothing is cast but `b`, to
    the dtype of `x`. A negative slope below 0 or a gain outside [1/64, 64] runs in plain PyTorch.

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
    regular = alpha >= 0 and _LEAST_GAIN <= gain <= _LARGEST_GAIN
    if not (regular and extension.use_native(x)):
        return _reference(x, b, dim, act, alpha, gain, limit)
    return _FORWARD(x, b, dim % x.dim() if b is not None else 0, _NUMBERS[act], alpha, gain, limit)


def _check(x: Tensor, b: Tensor | None, dim: int, act: str, clamp: float | None) -> Activation:
    """Return the activation; raise ValueError for what neither implementation accepts."""
    definition = ACTIVATIONS.get(act)
    if definition is None:
        raise ValueError(f"bias_act: act is {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    if x.dtype not in DTYPES:
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
    if clamp < 0:
        return y
    limit = y.new_tensor(clamp)
    return torch.where(y.abs() >= limit, y.detach().clamp(-limit, limit), y)


def _fake_forward(x: Tensor, b: Tensor | None, dim: int, act: int, alpha: float, gain: float, clamp: float) -> Tensor:
    _check_operator(x, b, dim, act, alpha, gain)
    return torch.empty_like(x)


def _fake_grad(
    dy: Tensor,
    saved: Tensor,
    b: Tensor | None,
    dim: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    needs_db: bool,
) -> tuple[Tensor, Tensor]:
    _check_operator(saved, b, dim, act, alpha, gain)
    if needs_db and not 0 <= dim < saved.dim():
        raise ValueError("bias_act_grad: dim is out of range")
    if dy.shape != saved.shape or dy.dtype != saved.dtype:
        raise ValueError("bias_act_grad: dy must have the shape and dtype of the saved tensor")
    return torch.empty_like(saved), saved.new_empty(saved.shape[dim] if needs_db else 0)


def _check_operator(x: Tensor, b: Tensor | None, dim: int, act: int, alpha: float, gain: float) -> None:
    """What the compiled operators check, for those who call them directly."""
    if x.dtype not in DTYPES:
        raise ValueError(f"bias_act: x is {x.dtype}, expected float32, float64, float16 or bfloat16")
    if not 0 <= act < len(_BY_NUMBER):
        raise ValueError(f"bias_act: unknown activation number {act}")
    if not (alpha >= 0 and gain > 0):
        raise ValueError("bias_act: expected alpha of at least 0 and gain above 0")
    if b is not None and not (0 <= dim < x.dim() and b.shape == (x.shape[dim],) and b.dtype == x.dtype):
        raise ValueError("bias_act: b must be a vector with x's dtype and one element per channel")


def _save_forward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, b, *ctx.options = inputs
    ctx.saves_input = _BY_NUMBER[inputs[3]].saves_input
    if ctx.saves_input:
        ctx.save_for_backward(x, b)
    else:
        ctx.save_for_backward(output)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::bias_act`."""
    saved, b = ctx.saved_tensors if ctx.saves_input else (*ctx.saved_tensors, None)
    needs_db = ctx.needs_input_grad[1]
    dx, db = _GRAD(dy, saved, b, *ctx.options, needs_db)
    return dx, db if needs_db else None, None, None, None, None, None


def _save_grad(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    dy, saved, b, *ctx.options, _ = inputs
    ctx.save_for_backward(dy, saved, b)
    ctx.set_materialize_grads(False)


def _grad_backward(ctx: Any, ddx: Tensor | None, ddb: Tensor | None) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::bias_act_grad`, in operators that can be differentiated again.

    With respect to `dy` and the saved tensor. Where that is the output, autograd goes on through it to `x` and `b`.
    """
    dy, saved, b = ctx.saved_tensors
    dim, act, *_ = ctx.options
    total = _add_bias(torch.zeros_like(saved) if ddx is None else ddx, ddb, dim)
    ddy = _GRAD(total, saved, b, *ctx.options, False)[0] if ctx.needs_input_grad[0] else None
    dsaved = db = None
    if _BY_NUMBER[act].slope_derivative is not None and any(ctx.needs_input_grad[1:3]):
        dsaved = total * dy * _slope_derivative(saved, b, *ctx.options)
        if b is not None and ctx.needs_input_grad[2]:
            db = dsaved.sum([i for i in range(saved.dim()) if i != dim])
    return ddy, dsaved, db, None, None, None, None, None, None


def _slope_derivative(
    saved: Tensor, b: Tensor | None, dim: int, act: int, alpha: float, gain: float, clamp: float
) -> Tensor:
    """How the gradient of x, per gradient of the output, depends on the saved tensor."""
    definition = _BY_NUMBER[act]
    assert definition.slope_derivative is not None
    if definition.saves_input:
        y = _FORWARD(saved.detach(), None if b is None else b.detach(), dim, act, alpha, gain, clamp)
        derivative = gain * definition.slope_derivative(_add_bias(saved, b, dim))
    else:
        y = saved.detach()
        derivative = definition.slope_derivative(saved / gain)
    return derivative if clamp < 0 else torch.where(y.abs() >= y.new_tensor(clamp), 0.0, derivative)


_FORWARD = extension.Operator("bias_act", fake=_fake_forward, save=_save_forward, backward=_backward)
_GRAD = extension.Operator("bias_act_grad", fake=_fake_grad, save=_save_grad, backward=_grad_backward)
