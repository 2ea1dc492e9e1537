"""Spectral norm of a weight by power iteration, and the parametrization that divides a weight by it.

Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
arXiv:1802.05957, algorithm 1. Differs from `torch.nn.utils.parametrizations.spectral_norm` in: v is updated before u,
as in the paper, which saves one of three matrix-vector products; the values agree once the iteration has converged.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pygan.ops import extension

_DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
_INITIAL_POWER_ITERATIONS = 15


def spectral_sigma(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int = 1, eps: float = 1e-12
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest singular value of a weight, estimated from `u` and `v`, and the improved vectors.

    The gradient of sigma with respect to `weight` is `u v^T`, with `u` and `v` held constant; it can be differentiated
    again. The inputs are not modified.

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
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    inputs = (weight, u.to(dtype), v.to(dtype), n_power_iterations, eps)
    if not extension.use_native(weight):
        sigma, new_u, new_v = _reference(*inputs)
    elif torch.compiler.is_compiling():
        sigma, new_u, new_v = torch.ops.pygan.spectral_sigma(*inputs)
    else:
        sigma, new_u, new_v = _SpectralSigma.apply(*inputs)
    return sigma.to(weight.dtype), new_u.to(u.dtype), new_v.to(v.dtype)


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
        matrix = weight.transpose(0, self.dim)
        sigma, u, v = spectral_sigma(matrix, self.u, self.v, self.n_power_iterations if self.training else 0, self.eps)
        if self.training:
            with torch.no_grad():
                self.u.copy_(u)
                self.v.copy_(v)
        return weight / sigma


def _check_weight(weight: Tensor) -> None:
    if weight.dim() < 2:
        raise ValueError(f"spectral_norm: weight has shape {list(weight.shape)}, expected two or more dimensions")
    if weight.dtype not in _DTYPES:
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
        if vector.dtype not in _DTYPES:
            raise ValueError(f"spectral_norm: {name} is {vector.dtype}, expected a floating point type")
        if vector.device != weight.device:
            raise ValueError(f"spectral_norm: {name} is on {vector.device} and weight on {weight.device}")
    if n_power_iterations < 0:
        raise ValueError(f"spectral_norm: n_power_iterations is {n_power_iterations}, expected at least 0")


def _reference(
    weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula in plain PyTorch; `u` and `v` are float64 for a float64 weight, else float32."""
    matrix = weight.flatten(1).to(u.dtype)
    with torch.no_grad():
        u, v = u.clone(), v.clone()
        for _ in range(n_power_iterations):
            v = F.normalize(torch.mv(matrix.T, u), dim=0, eps=eps)
            u = F.normalize(torch.mv(matrix, v), dim=0, eps=eps)
    return torch.dot(u, torch.mv(matrix, v)), u, v


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    weight, (_, u, v) = inputs[0], output
    ctx.shape, ctx.dtype = weight.shape, weight.dtype
    ctx.save_for_backward(u, v)
    ctx.mark_non_differentiable(u, v)


def _backward(ctx: Any, dsigma: Tensor, du: Tensor, dv: Tensor) -> tuple[Tensor | None, ...]:
    """Derivative of `pygan::spectral_sigma`: d sigma / d W = u v^T."""
    u, v = ctx.saved_tensors
    return torch.outer(dsigma * u, v).reshape(ctx.shape).to(ctx.dtype), None, None, None, None


class _SpectralSigma(torch.autograd.Function):
    """`pygan::spectral_sigma` for eager calls, cheaper than what `register_autograd` makes of the same parts."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output = torch.ops.pygan.spectral_sigma.default(*inputs)
        _save(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)


def _fake(weight: Tensor, u: Tensor, v: Tensor, n_power_iterations: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return u.new_empty([]), u.new_empty(u.shape), v.new_empty(v.shape)


if extension.MODULE is not None:
    torch.library.register_fake("pygan::spectral_sigma", _fake)
    torch.library.register_autograd("pygan::spectral_sigma", _backward, setup_context=_save)
