"""Noise levels: schedules, and what a denoiser, a noise predictor, a score and a velocity say of one another.

Two forms are in use. EDM (Karras et al., NeurIPS 2022, arXiv 2206.00364) adds noise, z = x0 + sigma eps; DDPM (Ho, Jain
and Abbeel, NeurIPS 2020, arXiv 2006.11239) also shrinks the picture, x_t = sqrt(abar) x0 + sqrt(1 - abar) eps. They are
the same process in other units: z = x_t / sqrt(abar) and sigma^2 = (1 - abar) / abar. `Level` holds the two
coefficients of either form, so that every formula is written once:

    noisy = signal x0 + noise eps
    eps = (noisy - signal x0) / noise,   score = -eps / noise,   v = (signal eps - noise x0) / sqrt(signal^2 + noise^2)

where v is the velocity of Salimans and Ho (ICLR 2022, arXiv 2202.00512). eps and v are numbers of x0 and eps alone, so
they are the same in both forms; the score is of the law of what is noisy, so it is not.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Target = Literal["x0", "eps", "score", "v"]
T = 1000
"""Steps of the linear schedule."""
BETA_FIRST, BETA_LAST = 1e-4, 0.02
"""Its noise per step, first and last (Ho et al., section 4)."""
SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0
"""The noise levels of EDM (Karras et al., table 1)."""


@dataclass(frozen=True)
class Level:
    """How much of picture and noise is in noisy pictures: `noisy = signal x0 + noise eps`.

    Both coefficients are float64, of no dimension or `[N]`, one for each picture; `ve` and `vp` make them.
    """

    signal: Tensor
    noise: Tensor

    @classmethod
    def ve(cls, sigma: float | Tensor) -> "Level":
        """Return the level sigma > 0 in EDM's form."""
        sigma = checked_sigma(sigma)
        return cls(torch.ones_like(sigma), sigma)

    @classmethod
    def vp(cls, alpha_bar: float | Tensor) -> "Level":
        """Return the level 0 < alpha_bar < 1 in DDPM's form."""
        alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64)
        if not bool(((alpha_bar > 0) & (alpha_bar < 1)).all()):
            raise ValueError(f"got alpha_bar {_shown(alpha_bar)}, expected numbers between 0 and 1")
        return cls(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    @property
    def sigma(self) -> Tensor:
        """Noise relative to the signal: the level that a denoiser is called with."""
        return self.noise / self.signal

    def noisy(self, x0: Tensor, eps: Tensor) -> Tensor:
        """Return pictures with noise."""
        signal, noise = self._like(x0)
        return signal * x0 + noise * eps

    def z(self, noisy: Tensor) -> Tensor:
        """Return noisy pictures in EDM's form, which denoisers take."""
        return noisy / self._like(noisy)[0]

    def from_x0(self, target: Target, noisy: Tensor, x0: Tensor) -> Tensor:
        """Return the `target` that belongs to a noisy picture and an estimate of x0, in x0's shape."""
        signal, noise = self._like(noisy)
        if target == "x0":
            return x0
        eps = (noisy - signal * x0) / noise
        if target == "eps":
            return eps
        if target == "score":
            return -eps / noise
        if target == "v":
            return (signal * eps - noise * x0) / torch.hypot(signal, noise)
        raise ValueError(f"got the target {target!r}, expected x0, eps, score or v")

    def to_x0(self, target: Target, noisy: Tensor, value: Tensor) -> Tensor:
        """Return the estimate of x0 that belongs to a noisy picture and `value`, an estimate of `target`."""
        signal, noise = self._like(noisy)
        if target == "x0":
            return value
        if target == "eps":
            return (noisy - noise * value) / signal
        if target == "score":
            return (noisy + noise.square() * value) / signal
        if target == "v":
            norm = torch.hypot(signal, noise)
            return (signal * noisy / norm - noise * value) / norm
        raise ValueError(f"got the target {target!r}, expected x0, eps, score or v")

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return per_picture(self.signal, x), per_picture(self.noise, x)


def checked_sigma(sigma: float | Tensor) -> Tensor:
    """Return noise levels as float64, of no dimension or `[N]`; anything but finite numbers above 0 is an error."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64)
    if sigma.dim() > 1 or not bool((torch.isfinite(sigma) & (sigma > 0)).all()):
        raise ValueError(f"got sigma {_shown(sigma)}, expected a number above 0, or one for each picture")
    return sigma


def per_picture(values: Tensor, x: Tensor) -> Tensor:
    """Return `values`, of no dimension or `[N]`, in x's dtype and so that they multiply x `[N, ...]` by its rows."""
    if values.dim() and len(values) not in (1, len(x)):
        raise ValueError(f"got {len(values)} noise levels for {len(x)} pictures")
    return values.to(x).reshape(-1, *[1] * (x.dim() - 1)) if values.dim() else values.to(x)


def _shown(values: Tensor) -> str:
    return str(values.item()) if values.numel() == 1 else f"of shape {list(values.shape)} from {values.min()}"


def linear_alpha_bars(steps: int = T, first: float = BETA_FIRST, last: float = BETA_LAST) -> Tensor:
    """Return abar_0 = 1, ..., abar_T of DDPM's linear schedule, float64 `[steps + 1]`."""
    betas = torch.linspace(first, last, steps, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])


def sigma_of(alpha_bar: float | Tensor) -> Tensor:
    """Return sigma = sqrt((1 - abar) / abar) in float64; 0 for abar = 1."""
    alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64)
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_of(sigma: float | Tensor) -> Tensor:
    """Return abar = 1 / (1 + sigma^2) in float64."""
    return 1 / (1 + torch.as_tensor(sigma, dtype=torch.float64).square())


def karras_sigmas(
    steps: int = 18, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO
) -> Tensor:
    """Return EDM's falling noise levels, float64 `[steps + 1]`: sigma_max to sigma_min, and 0 (its equation 5)."""
    if not 0 < sigma_min < sigma_max or not math.isfinite(sigma_max):
        raise ValueError(f"got sigma_min {sigma_min} and sigma_max {sigma_max}, expected 0 < sigma_min < sigma_max")
    if steps < 2:
        raise ValueError(f"got {steps} steps, expected at least 2")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def vp_sigmas(steps: int = 50, last_step: int = 0) -> Tensor:
    """Return the falling sigmas of `steps` equal jumps from t = T to t = `last_step`, float64 `[steps + 1]`.

    The times are those of the linear schedule, rounded; `last_step` above 0 stops early, at a sigma above 0.
    """
    if not 0 <= last_step < T or not 1 <= steps <= T - last_step:
        raise ValueError(f"got {steps} steps from t = {T} to {last_step}, expected 1 to {T} jumps between whole t")
    times = torch.linspace(T, last_step, steps + 1, dtype=torch.float64).round().long()
    return sigma_of(linear_alpha_bars())[times]
