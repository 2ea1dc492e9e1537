"""What a denoiser is, and what it says in other words: noise, score or velocity, in either form."""

from typing import Protocol

from torch import Tensor

from pygan.diffusion.schedule import Level, Target


class Denoiser(Protocol):
    """An estimate of pictures from noisy ones: a trained network, the empirical optimum, a Gaussian."""

    def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the estimate of x0 in the shape and dtype of z = x0 + sigma eps, which is `[N, ...]`.

        Args:
            sigma: above 0; a number, or one for each picture `[N]`.
            labels: int64 `[N]`; None where the denoiser knows no classes.
        """


def predict(denoiser: Denoiser, target: Target, noisy: Tensor, level: Level, labels: Tensor | None = None) -> Tensor:
    """Return what a denoiser estimates of `target` (x0, eps, score or v), in the shape of `noisy` and in its form.

    `Level.ve(sigma)` is EDM's form and `Level.vp(alpha_bar)` DDPM's.
    """
    sigma = level.sigma.to(noisy.device)
    x0 = denoiser.denoise(level.z(noisy), sigma, labels)
    return level.from_x0(target, noisy, x0)
