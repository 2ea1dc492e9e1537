"""Fréchet distance of Gaussians: |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), float64.

Dowson and Landau, "The Fréchet Distance between Multivariate Normal Distributions", Journal of Multivariate Analysis
12, 1982. The matrix root is never formed. With S1 = A'A and S2 = B'B, tr((S1 S2)^(1/2)) is the sum of the
singular values of AB': real, and without the square root of rounding errors that eigenvalues of S1 S2 have. A factor is

- the centered features themselves, divided by (N - 1)^(1/2), where they are no more than their dimensions: no D x D
  matrix appears, and the distance of a set to itself is 0 to rounding;
- else the Cholesky factor of the covariance;
- else, where dead or dependent features make the covariance singular, the root of its spectrum with negative
  eigenvalues set to 0.

Two factors of different kinds go together, so few pictures meet stored moments of many without a detour.

Differs from the official code in: it calls `scipy.linalg.sqrtm` on the product, which is slower, drops imaginary parts,
and adds 1e-6 to the diagonals inside of the root, not of the traces, where that fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pygan.metrics.base import content_order
from pygan.metrics.moments import Moments

_REGULAR = 1e-4
"""Least ratio of the diagonal of a Cholesky factor at which its square may be used (singular values to 1e-8)."""


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Mean and covariance of a set of features, in the form that distances are computed from."""

    mean: Tensor
    """Float64 `[D]`."""
    factor: Tensor
    """Float64 `[r, D]`, r at most D: A with A'A the covariance."""
    regular: bool
    """Whether the factor is a well-conditioned triangle: upper, `[D, D]`."""
    n: int
    """Rows behind it."""

    @classmethod
    def of(cls, features: Tensor) -> "Gaussian":
        """Fit features `[N, D]`, N at least 2; their order changes no bit."""
        features = features.cpu()
        order = content_order(features)
        if len(features) > features.shape[1]:
            moments = Moments(features.shape[1])
            for part in order.split(1024):
                moments.add(features[part])
            return cls.of_moments(moments)
        x = features[order].double()
        mean = x.mean(0)
        return cls(mean=mean, factor=(x - mean) / (len(x) - 1) ** 0.5, regular=False, n=len(x))

    @classmethod
    def of_moments(cls, moments: Moments) -> "Gaussian":
        """Take mean and covariance of what came in batches."""
        return cls.of_covariance(moments.mean, moments.lower_covariance(), moments.n)

    @classmethod
    def of_covariance(cls, mean: Tensor, covariance: Tensor, n: int) -> "Gaussian":
        """Take a float64 mean `[D]` and covariance `[D, D]` of `n` rows, for example from a file of statistics.

        Of the covariance the lower triangle is read.
        """
        lower, failed = torch.linalg.cholesky_ex(covariance)
        diagonal = lower.diagonal()
        if not failed and diagonal.min() > _REGULAR * diagonal.max():
            return cls(mean=mean, factor=lower.T, regular=True, n=n)
        values, vectors = torch.linalg.eigh(covariance)
        return cls(mean=mean, factor=values.clamp(min=0).sqrt()[:, None] * vectors.T, regular=False, n=n)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return what `from_tensors` takes, under names that begin with `prefix`, to be stored beside the features."""
        about = torch.tensor([self.n, self.regular])
        return {f"{prefix}.mean": self.mean, f"{prefix}.factor": self.factor.contiguous(), f"{prefix}.about": about}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> "Gaussian | None":
        """Return the Gaussian that was stored as `tensors(prefix)`; None: there is none."""
        if f"{prefix}.about" not in tensors:
            return None
        n, regular = tensors[f"{prefix}.about"].tolist()
        mean, factor = tensors[f"{prefix}.mean"], tensors[f"{prefix}.factor"]
        return cls(mean=mean, factor=factor, regular=bool(regular), n=n)


def statistics(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what is worth storing of sets of real features `[N, D]`: the Gaussians of those with more than D rows.

    Fewer rows are their own factor. The root of a reference is thus computed once per data set.
    """
    stored = {}
    for name, rows in features.items():
        if len(rows) > rows.shape[1]:
            stored |= Gaussian.of(rows).tensors(name)
    return stored


def distance(a: Gaussian, b: Gaussian) -> float:
    """Return the squared Fréchet distance of two Gaussians of equal dimensions."""
    traces = a.factor.norm().square() + b.factor.norm().square()
    return float((a.mean - b.mean).square().sum() + traces - 2 * _root_trace(a, b))


def frechet_distance(real: Tensor, gen: Tensor) -> float:
    """Return the squared Fréchet distance of Gaussians fitted to `real` `[N, D]` and `gen` `[M, D]`."""
    return distance(Gaussian.of(real), Gaussian.of(gen))


def _root_trace(a: Gaussian, b: Gaussian) -> Tensor:
    """Return tr((S1 S2)^(1/2))."""
    if not (a.regular and b.regular):
        return torch.linalg.svdvals(a.factor @ b.factor.T).sum()
    from scipy.linalg.blas import dsyrk, dtrmm

    # squaring is several times faster than singular values and loses nothing that matters for regular factors
    product = dtrmm(1.0, a.factor.numpy().T, b.factor.numpy().T, lower=1, trans_a=1)
    square = torch.from_numpy(dsyrk(1.0, product, lower=1))
    return torch.linalg.eigvalsh(square, UPLO="L").clamp(min=0).sqrt().sum()
