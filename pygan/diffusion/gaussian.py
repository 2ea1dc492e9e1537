"""The Gaussian denoiser: the best one that is linear in z, a model that generalizes and cannot copy.

With mean mu and covariance Sigma of the training set (1/n),

    D_G(z, sigma) = mu + Sigma (Sigma + sigma^2 I)^-1 (z - mu),

the posterior mean if pictures were Gaussian, and of all affine denoisers the one with the least loss on the set.
Trained networks that generalize are near it: Li, Dai and Qu, "Understanding Generalizability of Diffusion Models
Requires Rethinking the Hidden Gaussian Structure" (NeurIPS 2024, arXiv 2410.24060). Sampling gives blurred pictures
about as far from the set as its own are from each other, which says nothing of their quality.
"""

import numpy as np
import torch
from torch import Tensor

from pygan.data.store import Store
from pygan.diffusion.picture_set import PictureSet
from pygan.diffusion.schedule import checked_sigma, per_picture

_RANK = 1e-12
"""Variances below this share of the largest are rounding."""


class GaussianDenoiser:
    """The denoiser of the Gaussian with a set's mean and covariance, whose rank is at most n - 1.

    Args:
        images: uint8 `[n, C, H, W]`, a `Store` of such pictures, or floating-point `[n, ...]`; at least two. In memory
            is the smaller of all pictures and a matrix `[D, D]`, D numbers in a picture.

    Raises:
        ValueError: there are fewer than two pictures.
    """

    def __init__(self, images: Tensor | np.ndarray | Store) -> None:
        pictures = PictureSet(images)
        if len(pictures) < 2:
            raise ValueError("got a set of one picture, expected at least two: one has no covariance")
        self.shape = pictures.shape
        total = sum(rows.sum(0) for _, rows in pictures.chunks())
        self.mean: Tensor = total / len(pictures)
        """float64 `[D]`."""
        self.variances, self.directions = _principal_axes(pictures, self.mean)
        """Variances, float64 `[r]`, falling, above 0, and their directions, orthonormal rows `[r, D]`."""

    def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Return D_G(z, sigma) in z's shape and dtype.

        Args:
            z: `[N, C, H, W]`, or as the set's points are.
            sigma: above 0; a number or `[N]`.
            labels: ignored, the Gaussian is that of all classes together.
        """
        if tuple(z.shape[1:]) != self.shape:
            raise ValueError(f"got z of shape {list(z.shape)}, expected [N, {', '.join(map(str, self.shape))}]")
        rows = z.detach().to(self.mean).flatten(1)
        noise = per_picture(checked_sigma(sigma), rows).square()
        kept = (rows - self.mean) @ self.directions.T * (self.variances / (self.variances + noise))
        return (self.mean + kept @ self.directions).view(z.shape).to(z)


def _principal_axes(pictures: PictureSet, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Return variances and directions of a set: the singular values and vectors of x = pictures - mean.

    They come from the smaller of x x^T and x^T x, four times as fast as from x. That costs digits of the smallest
    variances alone, far below the square of any noise level in use.
    """
    n = len(pictures)
    if n <= pictures.dim:
        x = pictures.read(torch.arange(n), center=mean)
        variances, columns = torch.linalg.eigh(x @ x.T / n)
        directions = columns.T @ x / (n * variances.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()[:, None]
    else:
        moments = torch.zeros(pictures.dim, pictures.dim, dtype=torch.float64, device=mean.device)
        for _, rows in pictures.chunks(center=mean):
            moments.addmm_(rows.T, rows)
        variances, columns = torch.linalg.eigh(moments / n)
        directions = columns.T
    kept = variances.flip(0) > _RANK * variances[-1].clamp_min(torch.finfo(torch.float64).tiny)
    return variances.flip(0)[kept], directions.flip(0)[kept]
