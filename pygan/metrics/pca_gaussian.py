"""An anchor for every metric: pictures drawn from the Gaussian that has the training pixels' mean and covariance."""

import torch
from torch import Tensor

from pygan.draws import Draws


def pca_gaussian(img: Tensor, n: int, *, seed: int) -> Tensor:
    """Return `n` pictures of a Gaussian fitted to `img` in pixel space, uint8 `[n, C, H, W]`.

    With fewer pictures than pixels the Gaussian lives on their principal components; no network is involved, so a
    trained generator that does not beat it has learned no more than second moments.

    Args:
        img: uint8 `[N, C, H, W]`, N at least 2.
    """
    x = img.flatten(1).double()
    mean = x.mean(0)
    # x = mean + z A with A = (x - mean) / sqrt(N - 1) has the sample covariance A^T A
    factors = (x - mean) / (len(x) - 1) ** 0.5
    z = Draws(seed, "pca_gaussian", torch.arange(n)).normal(len(x)).double()
    return (mean + z @ factors).round().clamp(0, 255).to(torch.uint8).view(n, *img.shape[1:])
