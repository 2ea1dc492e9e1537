"""CLIP maximum mean discrepancy.

Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", CVPR 2024, arXiv
2401.09603, section 4.1: the squared MMD of L2-normalized CLIP embeddings under exp(-|x - y|^2 / (2 sigma^2)) with sigma
= 10, the biased estimate that counts a picture's similarity to itself, times 1000. The paper's embedding is that of
ViT-L/14 at 336 pixels; the number carries the name of the one it was computed with.

Embeddings have length 1, so |x - y|^2 is at most 4 and the kernel close to 1 - |x - y|^2 / 200: this is 10 times the
squared distance of the two mean embeddings, nearly blind to lost variety. Read it beside recall or coverage.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pygan.metrics.base import prepared
from pygan.spec import spec

SCALE = 1000


class ClipDiscrepancy:
    """Computes "cmmd"."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def compute(self, real: Tensor, gen: Tensor) -> dict[str, dict[str, Any]]:
        """Compare the embeddings `real` `[N, D]` and `gen` `[M, D]`, normalized here."""
        x, y = (F.normalize(values, dim=1) for values in prepared(real, gen))

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return torch.exp((a @ b.T - 1) / self.sigma**2)  # |a - b|^2 = 2 - 2 a'b

        within_real, within_gen, across = kernel(x, x), kernel(y, y), kernel(x, y)
        value = float(within_real.mean() + within_gen.mean() - 2 * across.mean())
        # what one picture more or less does to the value, to first order
        influence = (within_real.mean(1) - across.mean(1), within_gen.mean(1) - across.mean(0))
        half = 1.96 * 2 * float(sum(part.var() / len(part) for part in influence)) ** 0.5
        protocol = (
            f"squared MMD of normalized embeddings, Gaussian kernel with sigma {self.sigma:g}, biased estimate, times "
            f"{SCALE}, {len(real)} real, {len(gen)} generated; interval: 95 %, normal approximation over the pictures"
        )
        interval = [SCALE * max(value - half, 0.0), SCALE * (value + half)]
        return {"cmmd": {"value": SCALE * value, "interval": interval, "protocol": protocol}}


@spec
class Spec:
    """CLIP maximum mean discrepancy."""

    kind: Literal["cmmd"] = "cmmd"
    sigma: float = Field(default=10.0, gt=0)
    """Width of the kernel."""

    @staticmethod
    def unfit(network: Any) -> str | None:
        """Say why the metric cannot be computed from a network's features; None: it can."""
        return None if "clip" in network.name else f"cmmd needs embeddings of CLIP, got those of {network.name}"

    def build(self) -> ClipDiscrepancy:
        """Return the metric."""
        return ClipDiscrepancy(self.sigma)
