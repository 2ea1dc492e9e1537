"""Spectral norm of a weight by power iteration, and the parametrization that divides a weight by it.

Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
arXiv:1802.05957, algorithm 1. Differs from `torch.nn.utils.parametrizations.spectral_norm` in: v is updated before u,
as in the paper, which saves one of three matrix-vector products; the values agree once the iteration has converged.

Everything here runs in the precision of the weight: autocast changes neither the vectors nor the normalized weight.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pygan.ops import extension
from pygan.ops.layout import DTYPES, accumulator, is_channels_last, memory_format

_INITIAL_POWER_ITERATIONS = 15


def spectral_sigma(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int = 1, eps: float = 1e-12
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest singular value of a weight, estimated from `u` and `v`, and the improved vectors.

    The gradient of sigma with respect to `weight` is `u v^T`, with `u` and `v` held constant; it can be differentiated
    any number of times. The inputs are not modified.

    Args:
        weight: `[O, ...]`, read as the matrix `[O, K]`; float32, float64, float16 or bfloat16 (summed in float32).
        u: `[O]`, the left singular vector so far, any of these dtypes.
        v: `[K]`, the right singular vector so far; only its size matters unless `n_power_iterations` is 0.
        n_power_iterations: steps of the iteration; 0 evaluates `u^T W v` with the vectors as they are.
        eps: lower bound of the norms that are divided by.

    Returns:
        sigma `[]` in the dtype of `weight`, then u `[O]` and v `[K]` in their dtypes, without gradient.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, or a negative number of iterations.
    """
    _check(weight, u, v, n_power_iterations)
    inputs = (weight, *_in_vector_dtype(weight, u, v), n_power_iterations, eps)
    if extension.use_native(weight):
        sigma, new_u, new_v = _SIGMA(*inputs)
    else:
        sigma, new_u, new_v = _reference(*inputs)
    return sigma.to(weight.dtype), new_u.to(u.dtype), new_v.to(v.dtype)


def spectral_normalize(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int = 1, eps: float = 1e-12
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return `weight / sigma` and what `spectral_sigma` returns, in one operator with a gradient of its own.

    The normalized weight is differentiable any number of times with respect to `weight`, with `u` and `v` held
    constant: `dW = (dy - <dy, W / sigma> u v^T) / sigma`. For a differentiable sigma there is `spectral_sigma`.

    Returns:
        The normalized weight, in the dtype and memory format of `weight`; sigma, u and v, all three without gradient.
        Arguments and errors are those of `spectral_sigma`.
    """
    _check(weight, u, v, n_power_iterations)
    normalized, sigma, new_u, new_v = _normalize(weight, u, v, n_power_iterations, eps)
    return normalized, sigma.to(weight.dtype), new_u.to(u.dtype), new_v.to(v.dtype)


def spectral_norm(
    module: nn.Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12
) -> nn.Module:
    """Divide a parameter of `module` by its spectral norm, at every access; return the module.

    Each forward in training mode improves the vectors u `[O]` and v `[K]`, which are buffers and so part of the state
    dict; `eval()` freezes them. The unnormalized parameter stays `module.parametrizations[name].original`.

    Args:
        module: a layer with the parameter `name`, of two or more dimensions; the output channels come first, second in
            transposed convolutions.
        name: the parameter's name.
        n_power_iterations: steps per forward in training mode.
        eps: lower bound of the norms that are divided by.

    Raises:
        ValueError: no such parameter, or one of fewer than two dimensions, or `n_power_iterations` below 1.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"spectral_norm: {type(module).__name__} has no parameter {name!r}")
    if n_power_iterations < 1:
        raise ValueError(f"spectral_norm: n_power_iterations is {n_power_iterations}, expected at least 1")
    transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    normalized = SpectralNorm(weight, dim=1 if transposed else 0, n_power_iterations=n_power_iterations, eps=eps)
    parametrize.register_parametrization(module, name, normalized)
    return module


class SpectralNorm(nn.Module):
    """The parametrization that `spectral_norm` registers: weight -> weight / sigma.

    Args:
        weight: the parameter as it is now; the vectors start from 15 iterations on it.
        dim: the dimension of `weight` with the output channels.
        n_power_iterations: steps per forward in training mode.
        eps: lower bound of the norms that are divided by.
    """

    def __init__(self, weight: Tensor, dim: int = 0, n_power_iterations: int = 1, eps: float = 1e-12) -> None:
        super().__init__()
        self.dim = dim
        self.n_power_iterations = n_power_iterations
        self.eps = eps
        with torch.no_grad():
            matrix = weight.transpose(0, dim)
            _check_weight(matrix)
            u = F.normalize(torch.randn(len(matrix), dtype=matrix.dtype, device=matrix.device), dim=0, eps=eps)
            v = matrix.new_zeros(matrix[0].numel())
            _, u, v = spectral_sigma(matrix, u, v, _INITIAL_POWER_ITERATIONS, eps)
        self.register_buffer("u", u)
        self.register_buffer("v", v)

    def forward(self, weight: Tensor) -> Tensor:
        u, v, dim = self.u, self.v, self.dim
        matrix = weight.transpose(0, dim) if dim else weight
        if self.training:
            normalized, _, new_u, new_v = _normalize(matrix, u, v, self.n_power_iterations, self.eps)
            with torch.no_grad():  # the backward pass uses new_u and new_v, whatever becomes of the buffers
                u.copy_(new_u)
                v.copy_(new_v)
        else:
            normalized = _normalize(matrix, u, v, 0, self.eps)[0]
        return normalized.transpose(0, dim) if dim else normalized


def _check_weight(weight: Tensor) -> None:
    if weight.dim() < 2:
        raise ValueError(f"spectral_norm: weight has shape {list(weight.shape)}, expected two or more dimensions")
    if weight.dtype not in DTYPES:
        raise ValueError(f"spectral_norm: weight is {weight.dtype}, expected float32, float64, float16 or bfloat16")


def _check(weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int) -> None:
    """Raise ValueError for what neither implementation accepts."""
    _check_weight(weight)
    rows = weight.shape[0]
    columns = weight.numel() // rows if rows else 0
    for name, vector, size in (("u", u, rows), ("v", v, columns)):
        if vector.dim() != 1 or vector.shape[0] != size:
            raise ValueError(
                f"spectral_norm: {name} has shape {list(vector.shape)}, expected [{size}] "
                f"for a weight of shape {list(weight.shape)}"
            )
        if vector.dtype not in DTYPES:
            raise ValueError(f"spectral_norm: {name} is {vector.dtype}, expected a floating point type")
        if vector.device != weight.device:
            raise ValueError(f"spectral_norm: {name} is on {vector.device} and weight on {weight.device}")
    if n_power_iterations < 0:
        raise ValueError(f"spectral_norm: n_power_iterations is {n_power_iterations}, expected at least 0")


def _in_vector_dtype(weight: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    dtype = accumulator(weight.dtype)
    return u if u.dtype == dtype else u.to(dtype), v if v.dtype == dtype else v.to(dtype)


def _normalize(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`spectral_normalize` unchecked, sigma and the new vectors in the vectors' dtype."""
    u, v = _in_vector_dtype(weight, u, v)
    if extension.use_native(weight):
        return _NORMALIZE(weight, u, v, n_power_iterations, eps)
    sigma, u, v = _reference(weight, u, v, n_power_iterations, eps)
    return (weight / sigma).to(weight.dtype), sigma.detach(), u, v


def _reference(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula in plain PyTorch; `u` and `v` are float64 for a float64 weight, else float32."""
    with torch.autocast(weight.device.type, enabled=False):
        matrix = weight.flatten(1).to(u.dtype)
        with torch.no_grad():
            u, v = u.clone(), v.clone()
            for _ in range(n_power_iterations):
                v = F.normalize(torch.mv(matrix.T, u), dim=0, eps=eps)
                u = F.normalize(torch.mv(matrix, v), dim=0, eps=eps)
        return torch.dot(u, torch.mv(matrix, v)), u, v


def _outer(u: Tensor, v: Tensor, weight: Tensor) -> Tensor:
    """`u v^T` in the shape of `weight`."""
    return (u.unsqueeze(1) * v).reshape(weight.shape)


def _save_sigma(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, u, v = output
    ctx.mark_non_differentiable(u, v)
    ctx.shape, ctx.dtype = inputs[0].shape, inputs[0].dtype
    ctx.save_for_backward(u, v)


def _sigma_backward(ctx: Any, dsigma: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::spectral_sigma`: d sigma / d W = u v^T."""
    u, v = ctx.saved_tensors
    return ((dsigma * u).unsqueeze(1) * v).reshape(ctx.shape).to(ctx.dtype), None, None, None, None


def _save_normalize(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    _, sigma, u, v = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(sigma, u, v)
    ctx.save_for_backward(inputs[0], sigma, u, v)


def _normalize_backward(ctx: Any, dy: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::spectral_normalize`."""
    return None if dy is None else _NORMALIZE_GRAD(dy, *ctx.saved_tensors), None, None, None, None


def _save_normalize_grad(ctx: Any, inputs: tuple, output: Tensor) -> None:
    dy, weight, _, u, v = inputs
    ctx.save_for_backward(dy, weight, u, v)


def _normalize_grad_backward(ctx: Any, ddw: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::spectral_normalize_grad`, where sigma = u^T W v is a function of the weight.

    With a = <ddw, u v^T> and b = <dy, W> it comes from <ddw, dW> = <ddw, dy> / sigma - a b / sigma^2.
    """
    dy, weight, u, v = ctx.saved_tensors
    ddw, dy, weight = (x.to(u.dtype) for x in (ddw, dy, weight))
    uv = _outer(u, v, weight)
    sigma = (weight * uv).sum()
    a, b = (ddw * uv).sum(), (dy * weight).sum()
    ddy = ddw / sigma - a / sigma.square() * weight
    d_sigma = 2 * a * b / sigma.pow(3) - (ddw * dy).sum() / sigma.square()
    d_weight = d_sigma * uv - a / sigma.square() * dy
    dtype = ctx.saved_tensors[0].dtype
    return ddy.to(dtype), d_weight.to(dtype), None, None, None


def _output_format(weight: Tensor) -> torch.memory_format:
    """The layout that the kernels write, as `strides_for` in csrc/spectral_norm/spectral_norm_torch.cpp has it."""
    return memory_format(is_channels_last(weight))


def _fake_sigma(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(weight, u, v, n_power_iterations)
    if not u.dtype == v.dtype == accumulator(weight.dtype):
        raise ValueError(f"spectral_norm: u is {u.dtype} and v {v.dtype}, expected {accumulator(weight.dtype)}")
    return u.new_empty([]), u.new_empty(u.shape), v.new_empty(v.shape)


def _fake_normalize(weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(weight, memory_format=_output_format(weight)), *_fake_sigma(weight, *rest)


def _fake_normalize_grad(dy: Tensor, weight: Tensor, sigma: Tensor, u: Tensor, v: Tensor) -> Tensor:
    if dy.shape != weight.shape or dy.dtype != weight.dtype:
        raise ValueError(f"spectral_norm: dy is {dy.dtype} {list(dy.shape)}, expected the dtype and shape of weight")
    return torch.empty_like(weight, memory_format=_output_format(weight))


_SIGMA = extension.Operator("spectral_sigma", fake=_fake_sigma, save=_save_sigma, backward=_sigma_backward)
_NORMALIZE = extension.Operator(
    "spectral_normalize", fake=_fake_normalize, save=_save_normalize, backward=_normalize_backward
)
_NORMALIZE_GRAD = extension.Operator(
    "spectral_normalize_grad",
    fake=_fake_normalize_grad,
    save=_save_normalize_grad,
    backward=_normalize_grad_backward,
)
