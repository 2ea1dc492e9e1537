"""Fréchet distance between Gaussians fitted to the features of real and of generated pictures.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017, arXiv
1706.08500, equation 6: |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)). It is called FID only with the Inception
features of that paper; here it is reported as "fd" with the name of its network.

The matrix root is never formed. With S1 = A'A and S2 = B'B, tr((S1 S2)^(1/2)) is the sum of the singular values of AB':
real, exact where the covariances are singular, and free of the root of rounding errors that an eigenvalue of S1 S2 has.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from pygan.metrics.base import prepared
from pygan.spec import spec


def _factor(centered: Tensor) -> tuple[Tensor, bool]:
    """Return A with A'A the covariance of `[N, D]` (divided by N - 1), at most D rows, and whether it is regular."""
    rows, columns = centered.shape
    scaled = centered / (rows - 1) ** 0.5
    if rows <= columns:
        return scaled, False
    lower, failed = torch.linalg.cholesky_ex(scaled.T @ scaled)
    diagonal = lower.diagonal()
    if not failed and diagonal.min() > 1e-4 * diagonal.max():
        return lower.T, True
    return torch.linalg.qr(scaled, mode="r").R, False


def frechet_distance(real: Tensor, gen: Tensor) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to `real` `[N, D]` and `gen` `[M, D]`, float64."""
    mean_real, mean_gen = real.mean(0), gen.mean(0)
    a, regular_a = _factor(real - mean_real)
    b, regular_b = _factor(gen - mean_gen)
    product = a @ b.T
    if regular_a and regular_b:  # squaring is several times faster and loses nothing that matters here
        singular_values = torch.linalg.eigvalsh(product @ product.T).clamp(min=0).sqrt()
    else:
        singular_values = torch.linalg.svdvals(product)
    traces = a.square().sum() + b.square().sum()
    return float((mean_real - mean_gen).square().sum() + traces - 2 * singular_values.sum())


class FrechetDistance:
    """Computes "fd"; biased upwards by few pictures, so only values with equal counts are comparable."""

    def compute(self, real: Tensor, gen: Tensor) -> dict[str, dict[str, Any]]:
        """Compare the features `real` `[N, D]` and `gen` `[M, D]`; `rank_deficient` says that N or M is at most D."""
        real, gen = prepared(real, gen)
        dimensions = real.shape[1]
        deficient = min(len(real), len(gen)) <= dimensions
        protocol = (
            f"squared Fréchet distance of Gaussians, covariance / (N - 1), float64, {dimensions} dimensions, "
            f"{len(real)} real, {len(gen)} generated" + (", rank-deficient covariance" if deficient else "")
        )
        value = frechet_distance(real, gen)
        return {"fd": {"value": value, "interval": None, "protocol": protocol, "rank_deficient": deficient}}


@spec
class Spec:
    """Fréchet distance."""

    kind: Literal["fid"] = "fid"

    def build(self) -> FrechetDistance:
        """Return the metric."""
        return FrechetDistance()
