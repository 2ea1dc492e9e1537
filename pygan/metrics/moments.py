"""Mean and covariance of features that come in batches, in double precision.

With a shift K near the mean, the sums of x - K and of (x - K)(x - K)' lose nothing to cancellation, whereas raw second
moments in single precision are off by a percent where the mean is a hundred standard deviations (Chan, Golub and
LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 37, 1983). Parts that several
processes have seen add up. Neither the sizes of the batches nor their order matters beyond rounding (1e-13 relative).
"""

import torch
from torch import Tensor

_ROWS = 1024
"""Rows converted and multiplied at a time; they stay in the cache."""


class Moments:
    """Count, mean and covariance of everything that was added.

    Args:
        dimensions: D, of the features.
    """

    def __init__(self, dimensions: int) -> None:
        self.n = 0
        self._shift = torch.zeros(dimensions, dtype=torch.float64)
        self._sum = torch.zeros(dimensions, dtype=torch.float64)
        self._scatter = torch.zeros(dimensions, dimensions, dtype=torch.float64)  # the lower triangle counts

    def add(self, features: Tensor) -> "Moments":
        """Add features `[N, D]` of any floating dtype; return self."""
        from scipy.linalg.blas import dsyrk

        for rows in features.cpu().split(_ROWS):
            x = rows.to(torch.float64, copy=True)
            if self.n == 0:
                self._shift = x.mean(0)
            x -= self._shift
            self._sum += x.sum(0)
            # a symmetric product costs half of a general one; BLAS wants columns, so everything is seen transposed
            scatter = dsyrk(1.0, x.numpy().T, beta=1.0, c=self._scatter.numpy().T, overwrite_c=1)
            self._scatter = torch.from_numpy(scatter.T)
            self.n += len(x)
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Add what `other` has seen; return self."""
        if other.n == 0:
            return self
        if self.n == 0:
            self._shift = other._shift
        apart = other._shift - self._shift
        across = torch.outer(apart, other._sum)
        self._scatter += other._scatter + across + across.T + other.n * torch.outer(apart, apart)
        self._sum += other._sum + other.n * apart
        self.n += other.n
        return self

    @property
    def mean(self) -> Tensor:
        """Float64 `[D]`."""
        return self._shift + self._sum / self.n

    @property
    def covariance(self) -> Tensor:
        """Float64 `[D, D]`, divided by N - 1; N is at least 2."""
        lower = self.lower_covariance().tril_()
        return lower.add_(lower.tril(-1).T)

    def lower_covariance(self) -> Tensor:
        """Return what a Cholesky decomposition reads: the covariance, of which the lower triangle alone counts."""
        return torch.addr(self._scatter, self._sum, self._sum, alpha=-1 / self.n).div_(self.n - 1)
