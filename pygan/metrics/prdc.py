"""Precision, recall, density and coverage: which part of one set of features lies where the other set is.

Precision and recall: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
NeurIPS 2019, arXiv 1904.06991, equation 2. Density and coverage: Naeem et al., "Reliable Fidelity and Diversity Metrics
for Generative Models", ICML 2020, arXiv 2002.09797, equations 2 and 3. A ball around a picture reaches to its k-th
nearest other picture: border included as in the first paper, or not as in the code of the second (`border`), which
differs where pictures are there twice. Radii shrink as a set grows, so both sets are cut to the same size.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.draws import permutation
from pygan.metrics.base import prepared, wilson
from pygan.spec import spec


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Return squared distances `[N, M]` of `x` `[N, D]` and `y` `[M, D]`, float64."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1)[None]
    return (squares - 2 * x @ y.T).clamp(min=0)


def _radii(x: Tensor, k: int) -> Tensor:
    """Return `[N]`: squared distance of each row of `x` to its `k`-th nearest other row."""
    distances = _distances(x, x).fill_diagonal_(0)
    return distances.kthvalue(k + 1, dim=1).values


class PrecisionRecall:
    """Computes "precision", "recall", "density" and "coverage"."""

    def __init__(self, k: int, seed: int, border: Literal["included", "excluded"] = "included") -> None:
        self.k = k
        self.inside = torch.le if border == "included" else torch.lt
        self.seed = seed

    def compute(self, real: Tensor, gen: Tensor) -> dict[str, dict[str, Any]]:
        """Compare the features `real` `[N, D]` and `gen` `[M, D]`; the larger set is cut at random to the smaller."""
        real, gen = prepared(real, gen, at_least=self.k + 1)
        n = min(len(real), len(gen))
        real, gen = (
            x if len(x) == n else x[permutation(self.seed, f"metrics/prdc/{name}", len(x))[:n]]
            for x, name in ((real, "real"), (gen, "gen"))
        )
        across = _distances(real, gen)
        in_real_ball = self.inside(across, _radii(real, self.k)[:, None])  # [real, gen]
        in_gen_ball = self.inside(across, _radii(gen, self.k)[None])
        balls_are = "closed" if self.inside is torch.le else "open"
        protocol = (
            f"k = {self.k} nearest neighbors, {balls_are} balls, {n} real and {n} generated; interval: 95 % over the "
        )

        def share(hits: Tensor, of: str) -> dict[str, Any]:
            interval = [*wilson(int(hits.sum()), n)]
            return {"value": float(hits.double().mean()), "interval": interval, "protocol": protocol + of}

        balls = in_real_ball.sum(0).double() / self.k
        density, half_width = float(balls.mean()), 1.96 * float(balls.std()) / n**0.5
        return {
            "precision": share(in_real_ball.any(0), "generated pictures, the real ones given"),
            "recall": share(in_gen_ball.any(1), "real pictures, the generated ones given"),
            "density": {
                "value": density,
                "interval": [max(density - half_width, 0.0), density + half_width],
                "protocol": protocol + "generated pictures, the real ones given",
            },
            "coverage": share(in_real_ball.any(1), "real pictures, the generated ones given"),
        }


@spec
class Spec:
    """Precision, recall, density and coverage."""

    selects: ClassVar[bool] = False
    kind: Literal["prdc"] = "prdc"
    k: int = Field(default=5, ge=1)
    """Neighbors that a ball reaches to: 3 in the first paper, 5 in the second."""
    border: Literal["included", "excluded"] = "included"
    """Whether a picture on the border of a ball is in it: yes in the first paper, no in the code of the second."""
    seed: int = 0
    """Decides which pictures of the larger set are used."""

    def build(self) -> PrecisionRecall:
        """Return the metric."""
        return PrecisionRecall(self.k, self.seed, self.border)
