"""The objective of previous points: a noisy picture is compared with the noise of its last step only.

After Yi, Sun and Li, "On the Generalization of Diffusion Model", 2023, arXiv 2305.14712, of which only the abstract and
a summary of the method were available (noise of the forward step from a previous point, random gaps, Tweedie's
formula): distributions of gaps and weights are derived here. For a previous level u < sigma

    x_u = x0 + u e,   z = x_u + sqrt(sigma^2 - u^2) xi,   kappa^2 = 1 - u^2 / sigma^2

and E[xi | z] = kappa E[eps | z] under every law of x0, so z - sigma xi / kappa is a target with the same mean as x0 and
the additional variance sigma^2 (1 / kappa^2 - 1). In DDPM's form, with r = abar_t / abar_s, this is
xi = (x_t - sqrt(r) x_s) / sqrt(1 - r) and kappa^2 = (1 - r) / (1 - abar_t).

With fresh noise the minimizer is that of the ordinary objective, on a finite set the same memorizing function; u = 0 is
the ordinary objective itself. What differs is the noise in the targets.
"""

from typing import Literal

from pydantic import model_validator
from torch import Tensor

from pygan.context import Context
from pygan.diffusion.loss import LossSpec, Noised, ddpm_sigmas, shares, steps_of
from pygan.diffusion.schedule import per_picture
from pygan.draws import Draws
from pygan.spec import spec


@spec
class Spec(LossSpec):
    kind: Literal["chain"] = "chain"
    gap: tuple[float, float] = (0.0, 1.0)
    """Where `levels` is lognormal: the smallest and largest step, 1 - u / sigma, drawn evenly; (1, 1) is the ordinary
    objective."""
    gap_steps: tuple[int, int] = (50, 200)
    """Where `levels` is ddpm: the fewest and most steps between the two points, drawn evenly, ending at the picture."""
    balance: Literal["inverse_variance", "kappa"] = "inverse_variance"
    """How gaps count: by the inverse of the variance of their targets, 1 / (1 / weight + sigma^2 (1 / kappa^2 - 1)),
    which is the ordinary weight at kappa = 1, or by kappa^2 times the ordinary weight, with the target eps the plain
    squared error of xi."""

    @model_validator(mode="after")
    def _ordered(self) -> "Spec":
        low, high = self.gap
        if not 0 <= low <= high <= 1 or high == 0:
            raise ValueError(f"gap: got {list(self.gap)}, expected two increasing numbers from 0 to 1")
        low, high = self.gap_steps
        if not 1 <= low <= high:
            raise ValueError(f"gap_steps: got {list(self.gap_steps)}, expected two increasing numbers from 1 on")
        return self

    def build(self, ctx: Context) -> "Chain":
        return Chain(self)


class Chain:
    """Callable objective: pictures `[N, ...]` and `Draws` of the samples to `Noised`."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def __call__(self, img: Tensor, draws: Draws) -> Noised:
        u = shares(draws)
        sigma = self.spec.sigma(u)
        xi, e = (draws.normal(*img.shape[1:]).to(img) for _ in range(2))
        gap = self._gap(u, draws)
        ratio, kappa = 1 - gap, (gap * (2 - gap)).sqrt()  # u / sigma and the root of 1 - (u / sigma)^2
        to_z = per_picture(sigma, img) * (per_picture(ratio, img) * e + per_picture(kappa, img) * xi)
        # z - sigma xi / kappa, whose terms cancel where u is 0
        to_target = per_picture(sigma * ratio, img) * (e - per_picture(ratio / kappa, img) * xi)
        return Noised(img + to_z, sigma, img + to_target, self._weight(sigma, ratio, kappa).to(img))

    def _weight(self, sigma: Tensor, ratio: Tensor, kappa: Tensor) -> Tensor:
        weight = self.spec.weight_of(sigma)
        if self.spec.balance == "kappa":
            return weight * kappa.square()
        return weight / (1 + weight * (sigma * ratio / kappa).square())

    def _gap(self, u: Tensor, draws: Draws) -> Tensor:
        """Return 1 - u / sigma in (0, 1], float64 `[N]`."""
        if self.spec.levels == "ddpm":
            low, high = self.spec.gap_steps
            now = steps_of(u)
            before = (now - low - draws.integers(high - low + 1)).clamp(min=0)
            sigmas = ddpm_sigmas()
            return 1 - sigmas[before] / sigmas[now]
        low, high = self.spec.gap
        return high - (high - low) * draws.uniform().double()
