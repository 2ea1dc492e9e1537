"""A ring in the plane, where everything about a diffusion model can be computed: what training leaves undone.

n points are drawn from a ring of radius 1 whose radius is off by a normal error. The empirical optimum of those points,
the finite-sample optimum of the chain objective (`chain_optimum`), and two small networks, trained on the same points
with the ordinary and with the chain objective, are sampled and compared with fresh points of the ring, the law itself.
The two optima are compared at the same steps of DDIM, because the second one exists at the levels of its chain alone.
The question of Yi, Sun and Li (arXiv 2305.14712): a trained network has nearly the same loss as the optimum, which
returns its training points; does it return them too?

In the plane a sample is nearer to its nearest training point than to a third of the distance to the second one by
chance alone (about one time in seven), so every number is given for held-out points as well.
"""

import copy
import math
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from pygan.context import Context
from pygan.diffusion import chain, denoising
from pygan.diffusion.chain_optimum import ChainOptimum
from pygan.diffusion.denoiser import Denoiser
from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.generalization import profile, reverse_path
from pygan.diffusion.precond import Preconditioned
from pygan.diffusion.sampler import ddim, heun, latents
from pygan.diffusion.schedule import vp_sigmas
from pygan.draws import Draws
from pygan.spec import spec

Objective = Literal["denoising", "chain"]
OBJECTIVES = {"denoising": denoising.Spec, "chain": chain.Spec}
"""What the networks are trained by."""
RADIUS = 1.0
SIGMA_DATA = math.sqrt(RADIUS**2 / 2)
"""Of one coordinate."""
SIGMA_MAX = 20.0
"""Where sampling starts."""


@spec
class ToySpec:
    """The ring, and the networks trained on points of it."""

    points: int = Field(default=64, ge=8)
    """Training points n."""
    spread: float = Field(default=0.05, gt=0)
    """Deviation of the radius."""
    hidden: int = Field(default=128, ge=1)
    """Width of the three hidden layers."""
    steps: int = Field(default=2500, ge=1)
    """Training steps."""
    batch: int = Field(default=256, ge=1)
    """Noised points in a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Of Adam."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Share of the averaged network that a step keeps."""
    samples: int = Field(default=1000, ge=2)
    """Samples of each system, and points of the ring that they are compared with."""
    sampler_steps: int = Field(default=32, ge=2)
    """Of Heun's method from sigma 20 to 0.002."""
    ddim_steps: int = Field(default=50, ge=2)
    """Of DDIM, by which the two optima are compared, on DDPM's schedule down to no noise."""
    copies: int = Field(default=16, ge=1)
    """Stored noisy points of every training point at every level, of the optimum of the chain objective."""
    sigmas: tuple[float, ...] = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
    """Noise levels at which networks are compared with the optimum."""


def ring(spread: float, draws: Draws) -> Tensor:
    """Return points of the ring, one per draw, float64 `[N, 2]`."""
    angle = 2 * math.pi * draws.uniform().double()
    radius = RADIUS + spread * draws.normal().double()
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """Return 2 E|x - y| - E|x - x'| - E|y - y'|, 0 for one law only (Székely and Rizzo, 2013); pairs are distinct.

    Args:
        x: `[N, D]`, N at least 2.
        y: `[M, D]`, M at least 2.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"expected at least two points in each set, got {len(x)} and {len(y)}")

    def within(points: Tensor) -> Tensor:
        return torch.cdist(points, points).sum() / (len(points) * (len(points) - 1))

    return float(2 * torch.cdist(x, y).mean() - within(x) - within(y))


class RingNetwork(nn.Module):
    """Three hidden layers with SiLU: `F(x, noise)` of points `[N, 2]` and what `Preconditioned` tells of their level.

    Args:
        hidden: width of the layers.
        draws: of one index; draws the weights, uniform up to 1 / sqrt(inputs) as PyTorch has them.
    """

    def __init__(self, hidden: int, draws: Draws) -> None:
        super().__init__()
        widths = (3, hidden, hidden, hidden, 2)
        self.layers = nn.ModuleList([nn.Linear(into, out) for into, out in pairwise(widths)])
        with torch.no_grad():
            for layer in self.layers:
                for parameter in (layer.weight, layer.bias):
                    parameter.copy_((2 * draws.uniform(*parameter.shape)[0] - 1) / math.sqrt(layer.in_features))

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        h = torch.cat([x, noise[:, None]], 1)
        for layer in self.layers[:-1]:
            h = silu(layer(h))
        return self.layers[-1](h)


def train_network(points: Tensor, objective: Objective, settings: ToySpec, seed: int) -> Preconditioned:
    """Return the averaged network after training on `points`, float64 `[n, 2]`.

    Both objectives start at the same weights and see the same points at the same noise levels.
    """
    draws = Draws(seed, "toy/weights", torch.zeros(1, dtype=torch.int64))
    network = Preconditioned(RingNetwork(settings.hidden, draws), sigma_data=SIGMA_DATA)
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
    loss = OBJECTIVES[objective](sigma_data=SIGMA_DATA).build(Context(resolution=0))
    x = points.float()
    for step in range(settings.steps):
        draws = Draws(seed, "toy/training", torch.arange(step * settings.batch, (step + 1) * settings.batch))
        noised = loss(x[draws.integers(len(x))], draws)
        optimizer.zero_grad(set_to_none=True)
        noised.loss(network.denoise(noised.z, noised.sigma)).mean().backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - settings.ema)
    return average


def toy_study(settings: ToySpec, seed: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train on points of the ring, and compare samples and denoisers.

    Returns:
        Plain values, and the points that the nearest-neighbor measures take: `train`, those of each system, `held_out`.
    """
    train, held_out, law = (
        ring(settings.spread, Draws(seed, f"toy/{name}", torch.arange(count)))
        for name, count in (("train", settings.points), ("held_out", settings.samples), ("law", settings.samples))
    )
    optimum = EmpiricalOptimum(train)
    networks = {objective: train_network(train, objective, settings, seed) for objective in OBJECTIVES}
    noise = latents(seed, torch.arange(settings.samples), 2)

    @torch.no_grad()
    def sampler(denoiser: Denoiser) -> Tensor:
        return heun(denoiser, noise, steps=settings.sampler_steps, sigma_max=SIGMA_MAX)

    levels = vp_sigmas(settings.ddim_steps)
    chain_optimum = ChainOptimum(train, levels, copies=settings.copies, seed=seed)
    samples = {
        "optimum": sampler(optimum),
        "optimum_ddim": ddim(optimum, noise, sigmas=levels),
        "chain_optimum": ddim(chain_optimum, noise, sigmas=levels),
    }
    reverse = {}
    for objective, network in networks.items():
        samples[objective], reverse[objective] = reverse_path(sampler, network, optimum)
    samples["held_out"] = held_out
    points = {"train": train, "held_out": held_out, "sigmas": settings.sigmas, "seed": seed}
    record = {
        "points": settings.points,
        "seed": seed,
        "variance": SIGMA_DATA**2,
        "systems": {
            name: {
                "energy_distance": energy_distance(x, law),
                "radius_error": float((x.norm(dim=1) - RADIUS).abs().mean()),
            }
            for name, x in samples.items()
        },
        "profiles": {name: profile(network, optimum, **points) for name, network in networks.items()},
        "reverse": reverse,
    }
    return record, {"train": train, **samples}
