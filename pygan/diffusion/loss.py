"""What the objectives of denoisers share: noise levels, weights, and noisy pictures with what they are compared with.

The loss of a picture is the mean over its values of weight(sigma) (D(z, sigma) - target)^2. With EDM's target and
weight (Karras et al., NeurIPS 2022, arXiv 2206.00364, equation 8) a network that predicts zero has an expected loss of
1.0 per value at every level if the data's deviation is `sigma_data`.

Differs from the official code in: the mean over a picture's values in place of their sum, which Adam does not see, and
learning rates keep their published values.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from pygan.context import Context
from pygan.diffusion.generator import Generator
from pygan.diffusion.precond import Preconditioned, Target, coefficients
from pygan.diffusion.schedule import linear_alpha_bars, per_picture, sigma_of
from pygan.draws import Draws
from pygan.spec import spec


@dataclass(frozen=True)
class Noised:
    """Noisy pictures of one step, and what the denoiser's estimates of them are compared with."""

    z: Tensor
    """x0 + sigma eps, float32 `[N, ...]`."""
    sigma: Tensor
    """Float64 `[N]`."""
    target: Tensor
    """In z's shape; its mean, given z, is that of x0."""
    weight: Tensor
    """Of the squared error, float32 `[N]`."""

    def loss(self, x0: Tensor) -> Tensor:
        """Return the loss of each picture, `[N]`, per value, of the estimates `x0`."""
        return self.weight * (x0 - self.target).square().flatten(1).mean(1)


@spec
class LossSpec:
    """The denoiser that is trained, and at which noise levels."""

    target: Target = "edm"
    """What the network predicts: edm: the mixture of picture and noise that has unit variance at every level (EDM),
    eps: the noise (DDPM), v: the velocity, x0: the picture."""
    weight: Literal["target", "edm"] = "target"
    """Whose squared error counts alike at all levels: that of the target, or in any case that of EDM's mixture."""
    sigma_data: float = Field(default=0.5, gt=0)
    """Standard deviation of the values of the pictures, which are in [-1, 1] (EDM: 0.5)."""
    levels: Literal["lognormal", "ddpm"] = "lognormal"
    """Noise levels in training: ln(sigma) is normal (EDM), or the 1,000 steps of DDPM's linear schedule."""
    log_sigma: tuple[float, float] = (-1.2, 1.2)
    """Mean and standard deviation of ln(sigma), where `levels` is lognormal (EDM: -1.2 and 1.2)."""
    steps: int = Field(default=18, ge=2)
    """Noise levels of the sampler that makes pictures; Heun's method evaluates the network 2 steps - 1 times."""

    def generator(self, base: Any, ctx: Context) -> Generator:
        """Return what makes pictures with the network of `base`, untrained."""
        denoiser = Preconditioned(base.network(ctx), target=self.target, sigma_data=self.sigma_data)
        return Generator(denoiser, (ctx.channels, ctx.resolution, ctx.resolution), ctx.num_classes, self.steps)

    def sigma(self, u: Tensor) -> Tensor:
        """Return the levels below which the share u of the training's levels lies, float64; u in (0, 1)."""
        if self.levels == "ddpm":
            return ddpm_sigmas()[steps_of(u)]
        mean, deviation = self.log_sigma
        return (mean + deviation * torch.special.ndtri(u.double())).exp()

    def weight_of(self, sigma: Tensor) -> Tensor:
        """Return the weight of x0's squared error, float32."""
        target = self.target if self.weight == "target" else "edm"
        return coefficients(target, sigma, self.sigma_data).out.square().reciprocal()

    def noised(self, img: Tensor, sigma: Tensor, draws: Draws) -> Noised:
        """Return pictures with noise of the levels `sigma` `[N]`, compared with the pictures themselves."""
        eps = draws.normal(*img.shape[1:]).to(img)
        return Noised(img + per_picture(sigma, img) * eps, sigma, img, self.weight_of(sigma).to(img))


class Objective(Protocol):
    """What a denoiser is trained by."""

    spec: LossSpec

    def __call__(self, img: Tensor, draws: Draws) -> Noised:
        """Return noisy pictures for pictures `[N, ...]`, levels and noise being draws of these samples."""


def shares(draws: Draws) -> Tensor:
    """Return a number in (0, 1) for each sample, float64 `[N]`: `LossSpec.sigma` makes levels of them."""
    return draws.uniform().double() + 2.0**-25


def steps_of(u: Tensor) -> Tensor:
    """Return the steps 1 to 1,000 of DDPM's schedule at the shares u, int64."""
    return (u * (len(ddpm_sigmas()) - 1)).long() + 1


def ddpm_sigmas() -> Tensor:
    """Return sigma at the steps 0 to 1,000 of DDPM's linear schedule, float64 `[1001]`, 0 at first."""
    return sigma_of(linear_alpha_bars())
