"""Samplers: from noise to pictures with any denoiser, in EDM's form z = x0 + sigma eps.

- `heun`: algorithm 2 of EDM (Karras et al., NeurIPS 2022, arXiv 2206.00364); without churn it solves the probability
  flow dz/dsigma = (z - D(z, sigma)) / sigma to second order, and takes a step of first order to sigma = 0.
- `ddim`: Song, Meng and Ermon, ICLR 2021 (arXiv 2010.02502), equation 12. In EDM's form a jump from sigma to s is
  z_s = x0 + sqrt(s^2 - c^2) eps + c xi with c = eta s sqrt(1 - s^2 / sigma^2); at eta = 0 this is Euler's method.
- `ancestral`: DDPM (Ho, Jain and Abbeel, NeurIPS 2020, arXiv 2006.11239) with the posterior's variance, which is DDIM
  with eta = 1; on all T steps of the schedule unless told otherwise.

The state is float64 whatever the denoiser computes in. Latents are noise of unit variance; the first z is sigma_max
times them, in all samplers (DDPM's own start is longer by sqrt(1 + 1 / sigma_max^2), 1 + 2e-5). Noise on the way comes
from `Draws` over the samples' indices, so a sample does not depend on the batch that it is made in. Differs from the
official codes in that alone.
"""

import math
from itertools import pairwise

from torch import Tensor

from pygan.diffusion.denoiser import Denoiser
from pygan.diffusion.schedule import RHO, SIGMA_MAX, SIGMA_MIN, T, karras_sigmas, vp_sigmas
from pygan.draws import Draws


def latents(seed: int, index: Tensor, *shape: int) -> Tensor:
    """Return the latents of samples `index` (int64 `[N]`), standard normal, float64 `[N, *shape]`."""
    return Draws(seed, "diffusion/latents", index).normal(*shape).double()


def heun(
    denoiser: Denoiser,
    latents: Tensor,
    *,
    steps: int = 18,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
    rho: float = RHO,
    labels: Tensor | None = None,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = math.inf,
    churn_noise: float = 1.0,
    draws: Draws | None = None,
) -> Tensor:
    """Return samples by EDM's stochastic Heun method, float64 in the latents' shape; 2 steps - 1 evaluations.

    Args:
        latents: unit-variance noise `[N, ...]`.
        labels: int64 `[N]`, handed to the denoiser.
        churn: noise added per run (EDM's S_churn) between the levels `churn_min` and `churn_max`, times `churn_noise`;
            0: none.
        draws: of the samples; needed where churn is above 0.
    """
    _check_noise("churn", churn, draws)
    sigmas = karras_sigmas(steps, sigma_min, sigma_max, rho).tolist()
    z = latents.double() * sigmas[0]
    for sigma, following in pairwise(sigmas):
        if churn > 0 and churn_min <= sigma <= churn_max:
            raised = sigma * (1 + min(churn / steps, math.sqrt(2) - 1))
            z = z + math.sqrt(raised**2 - sigma**2) * churn_noise * draws.normal(*z.shape[1:]).to(z)
            sigma = raised
        slope = (z - denoiser.denoise(z, sigma, labels)) / sigma
        ahead = z + (following - sigma) * slope
        if following > 0:
            slope_ahead = (ahead - denoiser.denoise(ahead, following, labels)) / following
            ahead = z + (following - sigma) * (slope + slope_ahead) / 2
        z = ahead
    return z


def ddim(
    denoiser: Denoiser,
    latents: Tensor,
    *,
    steps: int = 50,
    eta: float = 0.0,
    sigmas: Tensor | None = None,
    labels: Tensor | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """Return samples by DDIM, float64 in the latents' shape; an evaluation per step.

    Args:
        latents: unit-variance noise `[N, ...]`.
        steps: equal jumps over the linear schedule; ignored where `sigmas` are given.
        eta: share of the posterior's noise that is drawn anew; 0: none, 1: DDPM.
        sigmas: falling noise levels `[steps + 1]`; None: `vp_sigmas(steps)`. The last may be above 0, then the result
            still has that much noise.
        labels: int64 `[N]`, handed to the denoiser.
        draws: of the samples; needed where eta is above 0.
    """
    _check_noise("eta", eta, draws)
    levels = (vp_sigmas(steps) if sigmas is None else sigmas).tolist()
    if len(levels) < 2 or levels[-1] < 0 or any(s <= following for s, following in pairwise(levels)):
        raise ValueError("got sigmas that do not fall, expected at least two, each below the one before")
    z = latents.double() * levels[0]
    for sigma, following in pairwise(levels):
        x0 = denoiser.denoise(z, sigma, labels)
        fresh = eta * following * math.sqrt(1 - (following / sigma) ** 2)
        kept = math.sqrt(max(following**2 - fresh**2, 0.0))
        z = x0 + kept * (z - x0) / sigma
        if fresh > 0:
            z = z + fresh * draws.normal(*z.shape[1:]).to(z)
    return z


def ancestral(
    denoiser: Denoiser, latents: Tensor, *, steps: int = T, labels: Tensor | None = None, draws: Draws
) -> Tensor:
    """Return samples by DDPM's ancestral sampling, float64 in the latents' shape; see `ddim`."""
    return ddim(denoiser, latents, steps=steps, eta=1.0, labels=labels, draws=draws)


def _check_noise(name: str, amount: float, draws: Draws | None) -> None:
    if not (math.isfinite(amount) and amount >= 0) or (name == "eta" and amount > 1):
        raise ValueError(f"got {name} {amount}, expected a number from 0{' to 1' * (name == 'eta')}")
    if amount > 0 and draws is None:
        raise ValueError(f"got {name} {amount} without draws, expected `draws` of the samples")
