"""Kernel distance: the unbiased squared maximum mean discrepancy of features under a cubic kernel.

Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, arXiv 1801.01401, equation 4 with k(x, y) = (x'y / D + 1)^3. The
value is the estimate on all pictures; published code averages it over random subsets, which has the same expectation
and more noise. It can be negative. The interval is a bootstrap over pictures in which a picture that is drawn twice is
never compared with itself.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.draws import Draws
from pygan.metrics.base import prepared
from pygan.spec import spec


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return (x'y / D + 1)^3 of all pairs of rows of `[N, D]` and `[M, D]`, `[N, M]`."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def within(values: Tensor, weights: Tensor) -> Tensor:
    """Return `[B]`: the mean of `values` `[N, N]` over pairs of different pictures, each counted `weights` `[B, N]`."""
    square = weights.square()
    pairs = ((weights @ values) * weights).sum(1) - square @ values.diagonal()
    return pairs / (weights.sum(1).square() - square.sum(1))


def _bootstrap(seed: int, stream: str, resamples: int, n: int) -> Tensor:
    """Return float64 `[resamples, n]`: how often each of `n` pictures is in each resample; the first has each once."""
    drawn = Draws(seed, f"metrics/kid/{stream}", torch.arange(resamples)).integers(n, n)
    counts = torch.zeros(resamples, n, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones((), dtype=torch.float64).expand_as(drawn))
    return torch.cat([torch.ones(1, n, dtype=torch.float64), counts])


class KernelDistance:
    """Computes "kid", as it is (published tables often print it times 1000)."""

    def __init__(self, resamples: int, seed: int) -> None:
        self.resamples = resamples
        self.seed = seed

    def compute(self, real: Tensor, gen: Tensor) -> dict[str, dict[str, Any]]:
        """Compare the features `real` `[N, D]` and `gen` `[M, D]`."""
        real, gen = prepared(real, gen)
        w_real = _bootstrap(self.seed, "real", self.resamples, len(real))
        w_gen = _bootstrap(self.seed, "gen", self.resamples, len(gen))
        across = ((w_real @ kernel(real, gen)) * w_gen).sum(1) / (len(real) * len(gen))
        estimates = within(kernel(real, real), w_real) + within(kernel(gen, gen), w_gen) - 2 * across
        resampled = estimates[1:][estimates[1:].isfinite()]  # of few pictures, some resamples hold one picture alone
        interval = torch.quantile(resampled, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        protocol = (
            f"unbiased squared MMD, kernel (x'y/D + 1)^3, {len(real)} real, {len(gen)} generated, raw value; "
            f"interval: 95 % of {self.resamples} bootstrap resamples of the pictures"
        )
        return {"kid": {"value": float(estimates[0]), "interval": interval, "protocol": protocol}}


@spec
class Spec:
    """Kernel distance."""

    kind: Literal["kid"] = "kid"
    resamples: int = Field(default=1000, ge=100)
    """Bootstrap resamples behind the interval."""
    seed: int = 0
    """Of the bootstrap; the value has no randomness."""

    def build(self) -> KernelDistance:
        """Return the metric."""
        return KernelDistance(self.resamples, self.seed)
