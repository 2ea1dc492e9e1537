"""The moving average of the generator, and batch-normalization statistics that fit it."""

import copy

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a generator, half-life in images (Karras et al., CVPR 2020, arXiv 1912.04958).

    Args:
        G: averaged from its present weights on.
        halflife_nimg: pictures after which an old weight counts half.
        rampup: caps the half-life at `rampup * nimg`; None: never.
        start_nimg: until then the average is a copy.
    """

    def __init__(self, G: nn.Module, halflife_nimg: float, rampup: float | None, start_nimg: int = 0) -> None:
        self.G = copy.deepcopy(G).eval().requires_grad_(False)
        self.halflife_nimg = halflife_nimg
        self.rampup = rampup
        self.start_nimg = start_nimg

    @torch.no_grad()
    def update(self, G: nn.Module, nimg: int, batch: int) -> None:
        """Move towards `G`, which has seen `nimg` pictures, the last `batch` of them since the previous update."""
        halflife = self.halflife_nimg if self.rampup is None else min(self.halflife_nimg, self.rampup * nimg)
        weight = 1 - 0.5 ** (batch / max(halflife, 1e-8)) if nimg > self.start_nimg else 1.0
        torch._foreach_lerp_(list(self.G.parameters()), list(G.parameters()), weight)
        for mine, other in zip(self.G.buffers(), G.buffers(), strict=True):
            mine.copy_(other)


@torch.no_grad()
def standing_statistics(G: nn.Module, z: Tensor, c: Tensor | None, batches: int) -> nn.Module:
    """Return a copy of `G` in eval mode whose batch-normalization statistics are the mean over fresh batches.

    Averaged weights do not fit the running statistics of the raw ones (Brock et al., "Large Scale GAN Training", ICLR
    2019, arXiv 1809.11096, appendix: standing statistics).

    Args:
        z: `[batches * N, z_dim]`; c: labels or None.
        batches: 0 leaves the statistics as they are.
    """
    G = copy.deepcopy(G)
    norms = [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)]
    if not batches or not norms:
        return G.eval()
    G.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    for i, part in enumerate(z.chunk(batches)):
        G(part, None if c is None else c.chunk(batches)[i])
    for norm in norms:
        norm.momentum = 0.1
    return G.eval()
