"""Fréchet distance between Gaussians fitted to the features of real and of generated pictures.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017, arXiv
1706.08500, equation 6; how it is computed: `pygan.metrics.frechet`. It is called FID only with the Inception features
of that paper; with any other network it is reported as "fd" with the name of the network.

`infinity`: Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", CVPR 2020, arXiv
1911.07023: the intercept of a line through the distances of 15 subsets against 1 / their size. It takes away the bias
of few generated pictures, not that of few real ones, and the law holds only for subsets of well over D pictures: on a
model problem with D = 128 a fit on 32 to 128 pictures is off by half, one on 1,000 to 8,000 by 2 %.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from pygan.draws import permutation
from pygan.errors import ConfigError
from pygan.metrics.base import checked, content_order
from pygan.metrics.frechet import Gaussian, distance
from pygan.spec import spec

_FEWEST = 5000
"""Pictures of the smallest subset in the paper; with more dimensions than half of that, twice their number."""
_SUBSETS = 15


class FrechetDistance:
    """Computes "fd"; biased upwards by few pictures, so only values with equal counts are comparable."""

    takes = ("reference",)

    def __init__(self, infinity: bool, seed: int) -> None:
        self.infinity = infinity
        self.seed = seed

    def compute(self, real: Tensor, gen: Tensor, reference: Gaussian | None = None) -> dict[str, dict[str, Any]]:
        """Compare the features `real` `[N, D]` and `gen` `[M, D]`; `rank_deficient` says that N or M is at most D.

        Args:
            reference: the Gaussian of `real`, where it was stored; None: it is fitted here.

        Raises:
            ConfigError: `infinity` with too few pictures for it.
        """
        real, gen = checked(real, gen)
        dimensions = real.shape[1]
        deficient = min(len(real), len(gen)) <= dimensions
        protocol = (
            f"squared Fréchet distance of Gaussians, covariance / (N - 1), float64, {dimensions} dimensions, "
            f"{len(real)} real, {len(gen)} generated" + (", rank-deficient covariance" if deficient else "")
        )
        reference = reference or Gaussian.of(real)
        value = distance(reference, Gaussian.of(gen))
        results = {"fd": {"value": value, "interval": None, "protocol": protocol, "rank_deficient": deficient}}
        if self.infinity:
            sizes = subset_sizes(len(real), len(gen), dimensions)
            results["fd_infinity"] = {
                "value": self._at_infinity(reference, gen, sizes),
                "interval": None,
                "protocol": f"{protocol}; intercept of {_SUBSETS} subsets of {sizes[0]} to {sizes[-1]} generated",
            }
        return results

    def _at_infinity(self, reference: Gaussian, gen: Tensor, sizes: list[int]) -> float:
        gen = gen[content_order(gen)]
        values = []
        for i, size in enumerate(sizes):
            subset = gen[permutation(self.seed, f"metrics/fid/{i}", len(gen))[:size]]
            values.append(distance(reference, Gaussian.of(subset)))
        inverse = 1 / torch.tensor(sizes, dtype=torch.float64)
        line = torch.stack([torch.ones_like(inverse), inverse], 1)
        return float(torch.linalg.lstsq(line, torch.tensor(values, dtype=torch.float64)[:, None]).solution[0])


def subset_sizes(n_real: int, n_gen: int, dimensions: int) -> list[int]:
    """Return how many generated pictures each subset of `infinity` has.

    Raises:
        ConfigError: there are too few pictures for the line to be one.
    """
    fewest = max(_FEWEST, 2 * dimensions)
    if n_gen < 2 * fewest or n_real < 2 * dimensions:
        raise ConfigError(
            f"metrics: fid.infinity got {n_real} real and {n_gen} generated pictures, expected at least "
            f"{2 * dimensions} and {2 * fewest} for features of {dimensions} dimensions: leave it out, or set n_gen"
        )
    return torch.linspace(fewest, n_gen, _SUBSETS, dtype=torch.float64).long().tolist()


@spec
class Spec:
    """Fréchet distance."""

    kind: Literal["fid"] = "fid"
    infinity: bool = False
    """Extrapolate to infinitely many generated pictures, too; refused where there are too few to do so."""
    seed: int = 0
    """Decides which pictures are in the subsets of `infinity`; the distance itself has no randomness."""

    def build(self) -> FrechetDistance:
        """Return the metric."""
        return FrechetDistance(self.infinity, self.seed)
