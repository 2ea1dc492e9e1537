"""The empirical optimum of the chain objective: what is learned from stored noisy points in place of pictures.

Yi, Sun and Li, "On the Generalization of Diffusion Model" (arXiv 2305.14712), propose a second objective: predict the
noise xi of the step from an earlier point of the chain to z. With x_u = x0 + u e the earlier point, u < sigma,

    z = x_u + sqrt(sigma^2 - u^2) xi,   E[xi | z, x0] = kappa eps,   kappa^2 = 1 - u^2 / sigma^2,

so that its regression function is kappa eps*(z): with fresh noise in every step, the objective has the same minimizer
as the ordinary one. What differs is the optimum over *stored* points x_u^j, M of every picture, drawn once:

    D(z, sigma) = z + (m(z) - z) / kappa^2,   m(z) = sum_j w_j x_u^j,
    w = softmax_j(-||z - x_u^j||^2 / (2 (sigma^2 - u^2))),

which depends on the pictures through noisy copies alone as long as u > 0, and tends to D* as M grows. The text of the
paper was not at hand, and there is no official code: the objective is derived from a description of it, and gaps and
weights are ours. The paper says that this optimum has no generalization problem. At the level of samples that was not
reproduced: with u = 0 in the last step it returns training pictures again, and stopped at u > 0 training pictures with
noise, as does the ordinary optimum when it is stopped there.
"""

from itertools import pairwise

import torch
from torch import Tensor

from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.picture_set import PictureSet
from pygan.diffusion.schedule import checked_sigma
from pygan.draws import Draws


def squared_kappa(sigma: float | Tensor, earlier: float | Tensor) -> Tensor:
    """Return kappa^2 = 1 - u^2 / sigma^2, float64: the share of z's noise that came after the earlier point."""
    sigma, earlier = (torch.as_tensor(level, dtype=torch.float64) for level in (sigma, earlier))
    if not bool(((earlier >= 0) & (earlier < sigma)).all()):
        raise ValueError(f"got an earlier level {earlier.max()} for sigma {sigma.min()}, expected 0 <= earlier < sigma")
    return (sigma - earlier) * (sigma + earlier) / sigma.square()


class ChainOptimum:
    """The optimal denoiser of the chain objective on stored noisy points; a denoiser at the levels of its chain.

    Args:
        images: uint8 `[n, C, H, W]` or floating-point `[n, ...]`.
        sigmas: the chain's noise levels, falling `[S]`; the earlier point of each is stored at the next. With 0 as the
            last, the last earlier points are the pictures themselves.
        copies: stored points of every picture at every level, M.
        seed: of their noise. It is a function of seed, level and picture, so no level but the current one is in memory.

    Raises:
        ValueError: the set is empty, the levels do not fall, or there is no copy.
    """

    def __init__(self, images: Tensor, sigmas: Tensor, *, copies: int = 1, seed: int = 0) -> None:
        pictures = PictureSet(images)
        self.shape = pictures.shape
        levels = torch.as_tensor(sigmas, dtype=torch.float64).tolist()
        if len(levels) < 2 or levels[-1] < 0 or any(high <= low for high, low in pairwise(levels)):
            raise ValueError("got sigmas that do not fall, expected at least two, each below the one before")
        if copies < 1:
            raise ValueError(f"got {copies} copies, expected at least 1")
        self._x0 = pictures.read(torch.arange(len(pictures)))
        self._earlier = dict(pairwise(levels))
        self._copies, self._seed = copies, seed
        self._current: tuple[float, EmpiricalOptimum] | None = None

    def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Return D(z, sigma) in z's shape and dtype.

        Args:
            z: `[N, C, H, W]`, or as the set's points are.
            sigma: one of the chain's levels but the last; a number, or `[N]` times the same.
            labels: ignored, there are no classes.
        """
        if tuple(z.shape[1:]) != self.shape:
            raise ValueError(f"got z of shape {list(z.shape)}, expected [N, {', '.join(map(str, self.shape))}]")
        sigmas = checked_sigma(sigma).unique()
        level = min(self._earlier, key=lambda known: abs(known - sigmas[0].item()))
        if len(sigmas) > 1 or abs(level - sigmas[0].item()) > 1e-6 * level:
            raise ValueError(f"got sigma {sigmas.tolist()}, expected one of the chain's {len(self._earlier)} levels")
        earlier = self._earlier[level]
        rows = z.detach().to(self._x0).flatten(1)
        mean = self._stored(earlier).denoise(rows, (level**2 - earlier**2) ** 0.5)
        return (rows + (mean - rows) / squared_kappa(level, earlier)).view(z.shape).to(z)

    def _stored(self, level: float) -> EmpiricalOptimum:
        """Return the optimum over the points stored at a level, kept until another one is asked for."""
        if self._current is None or self._current[0] != level:
            points = self._x0
            if level > 0:
                index = torch.arange(len(points) * self._copies)
                noise = Draws(self._seed, f"diffusion/chain/{level}", index).normal(points.shape[1]).to(points)
                points = points.repeat_interleave(self._copies, 0) + level * noise
            self._current = level, EmpiricalOptimum(points)
        return self._current[1]
