"""Largest singular values of many small matrices at once: every class of every layer of a conditional network.

Group spectral regularization (gSR): Rangwani, Jaswani, Karmali, Jampani and Babu, "Improving GANs for Long-Tailed Data
through Group Spectral Regularization", ECCV 2022, arXiv:2208.09932. It cuts the gain (and the bias) that a conditional
batch norm has for a class into h groups of w channels, a matrix `[h, w]`, and penalizes its largest singular value.
The vectors start as standard normal numbers and stay between steps; the first step takes ten times the iterations.
Differs from the official code in: v is always made from the matrix whose u it updates (there the bias borrows the v of
the gain), the vectors are the caller's to keep in checkpoints, and all matrices share one launch.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pygan.ops import extension
from pygan.ops.layout import DTYPES, accumulator


def group_spectral_sigma(
    Es: Sequence[Tensor], us: Sequence[Tensor], vs: Sequence[Tensor], n_power_iterations: int = 4, eps: float = 1e-3
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the largest singular value of every matrix, estimated from `us` and `vs`, and the improved vectors.

    An iteration is `v = normalize(E^T u)`, `u = normalize(E v)`, where a norm below `eps` counts as `eps`, and
    `sigma = u^T E v`. The gradient of sigma is `u v^T`, with `u` and `v` held constant; it can be differentiated any
    number of times. The inputs are not modified, and autocast changes nothing.

    Args:
        Es: one tensor `[C, h_l, w_l]` per layer: float32, float64, float16 or bfloat16, all alike; C is the same.
        us: one `[C, h_l]` per layer, float64 for float64 matrices, else float32.
        vs: one `[C, w_l]` per layer, of the same dtype; only the shape matters unless `n_power_iterations` is 0.
        n_power_iterations: steps of the iteration; 0 evaluates `u^T E v` with the vectors as they are.
        eps: lower bound of the norms that are divided by.

    Returns:
        Per layer sigma `[C]`, u `[C, h_l]` and v `[C, w_l]`, in the dtype of `us`; the vectors without gradient.

    Raises:
        ValueError: no layer, shapes, dtypes or devices that do not fit, or a negative number of iterations.
    """
    Es, us, vs = list(Es), list(us), list(vs)
    _check(Es, us, vs, n_power_iterations)
    if not extension.use_native(Es[0]):
        return _reference(Es, us, vs, n_power_iterations, eps)
    sigma, new_us, new_vs = _SIGMA(Es, us, vs, n_power_iterations, eps)
    return list(sigma.unbind()), list(new_us), list(new_vs)


def _check(Es: list[Tensor], us: list[Tensor], vs: list[Tensor], n_power_iterations: int) -> None:
    """Raise ValueError for what neither implementation accepts."""
    if not Es or not len(Es) == len(us) == len(vs):
        raise ValueError(
            f"group_spectral_sigma: got {len(Es)} matrices, {len(us)} us and {len(vs)} vs, expected as many of each, "
            "and at least one"
        )
    dtype, device = Es[0].dtype, Es[0].device
    if dtype not in DTYPES:
        raise ValueError(f"group_spectral_sigma: Es[0] is {dtype}, expected float32, float64, float16 or bfloat16")
    vector_dtype = accumulator(dtype)
    for i, E in enumerate(Es):
        if E.dim() != 3 or E.shape[0] != Es[0].shape[0]:
            raise ValueError(
                f"group_spectral_sigma: Es[{i}] has shape {list(E.shape)}, expected [C, h, w] with the C of Es[0]"
            )
        C, h, w = E.shape
        for name, x, shape, expected in (
            ("Es", E, (C, h, w), dtype),
            ("us", us[i], (C, h), vector_dtype),
            ("vs", vs[i], (C, w), vector_dtype),
        ):
            if x.shape != shape:
                raise ValueError(
                    f"group_spectral_sigma: {name}[{i}] has shape {list(x.shape)}, expected {list(shape)} "
                    f"for matrices of shape {list(E.shape)}"
                )
            if x.dtype != expected:
                raise ValueError(f"group_spectral_sigma: {name}[{i}] is {x.dtype}, expected {expected}")
            if x.device != device:
                raise ValueError(f"group_spectral_sigma: {name}[{i}] is on {x.device}, but Es[0] on {device}")
    if n_power_iterations < 0:
        raise ValueError(f"group_spectral_sigma: n_power_iterations is {n_power_iterations}, expected at least 0")


def _reference(
    Es: list[Tensor], us: list[Tensor], vs: list[Tensor], n_power_iterations: int, eps: float
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The formula in plain PyTorch."""
    sigmas, new_us, new_vs = [], [], []
    with torch.autocast(Es[0].device.type, enabled=False):
        for E, u, v in zip(Es, us, vs, strict=True):
            E, u, v = E.to(u.dtype), u.unsqueeze(2).clone(), v.unsqueeze(2).clone()
            with torch.no_grad():
                for _ in range(n_power_iterations):
                    v = F.normalize(torch.bmm(E.mT, u), dim=1, eps=eps)
                    u = F.normalize(torch.bmm(E, v), dim=1, eps=eps)
            sigmas.append((u * torch.bmm(E, v)).sum([1, 2]))
            new_us.append(u.squeeze(2))
            new_vs.append(v.squeeze(2))
    return sigmas, new_us, new_vs


def _gradients(dsigma: Tensor, us: Sequence[Tensor], vs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """`dsigma u v^T` for every layer, in operators that can be differentiated again."""
    gradients = []
    for d, u, v in zip(dsigma.unsqueeze(2).unbind(), us, vs, strict=True):
        gradient = (u * d).unsqueeze(2) * v.unsqueeze(1)
        gradients.append(gradient if gradient.dtype == dtype else gradient.to(dtype))
    return gradients


def _fake(
    Es: list[Tensor], us: list[Tensor], vs: list[Tensor], n_power_iterations: int, eps: float
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    _check(Es, us, vs, n_power_iterations)
    sigma = us[0].new_empty([len(us), us[0].shape[0]])
    return sigma, [u.new_empty(u.shape) for u in us], [v.new_empty(v.shape) for v in vs]


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, list[Tensor], list[Tensor]]) -> None:
    _, us, vs = output
    ctx.dtype = inputs[0][0].dtype
    ctx.mark_non_differentiable(*us, *vs)
    ctx.save_for_backward(*us, *vs)


def _backward(ctx: Any, dsigma: Tensor, *unused: Any) -> tuple[Any, ...]:
    """Derivative of `pygan::group_spectral_sigma`."""
    vectors = ctx.saved_tensors
    layers = len(vectors) // 2
    gradients = _gradients(dsigma, vectors[:layers], vectors[layers:], ctx.dtype)
    return gradients, [None] * layers, [None] * layers, None, None


class _Flattened(torch.autograd.Function):
    """The operator for eager calls, where autograd only sees tensors that are arguments themselves."""

    @staticmethod
    def forward(ctx: Any, us: list[Tensor], vs: list[Tensor], n_power_iterations: int, eps: float, *Es: Tensor) -> Any:
        with torch.no_grad():
            sigma, new_us, new_vs = _SIGMA(list(Es), us, vs, n_power_iterations, eps)
        ctx.set_materialize_grads(False)  # there are many vectors
        _save(ctx, (Es,), (sigma, new_us, new_vs))
        return sigma, *new_us, *new_vs

    @staticmethod
    def backward(ctx: Any, dsigma: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        gradients = [None] * layers if dsigma is None else _backward(ctx, dsigma)[0]
        return None, None, None, None, *gradients


class _ListOperator(extension.Operator):
    """An operator on lists of tensors."""

    def __call__(self, Es: list[Tensor], us: list[Tensor], vs: list[Tensor], *options: Any) -> Any:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return super().__call__(Es, us, vs, *options)
        sigma, *vectors = _Flattened.apply(us, vs, *options, *Es)
        return sigma, vectors[: len(us)], vectors[len(us) :]


_SIGMA = _ListOperator("group_spectral_sigma", fake=_fake, save=_save, backward=_backward)
