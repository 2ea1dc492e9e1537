"""The `diffusion` section of a study: the toy, exact denoisers of real pictures, and trained runs.

The question of "On the Generalization of Diffusion Model" (Yi, Sun and Li, arXiv 2305.14712) asked in three places:

- the toy (`pygan.diffusion.toy`), where the law of the data is known;
- exact denoisers of n real pictures (`exact_study`): the empirical optimum D*, sampled with and without fresh noise,
  against the Gaussian with the same two moments, a denoiser that generalizes and needs no training;
- trained runs (`run_study`): of a U-Net, the distance from D* on noised pictures and along its own sampling path,
  and samples of D* from the same noise; and of any run, diffusion model or GAN, its samples.

How samples relate to single training pictures is measured by `pygan.metrics.memorization`, in the stage.
"""

from collections.abc import Collection
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from pygan.diffusion.denoiser import Denoiser
from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.gaussian import GaussianDenoiser
from pygan.diffusion.generalization import RealPictures, information, profile, reverse_path, two_model_test
from pygan.diffusion.sampler import ancestral, heun, latents
from pygan.diffusion.toy import OBJECTIVES, ToySpec
from pygan.draws import Draws, permutation
from pygan.errors import ConfigError
from pygan.spec import spec

Sigma = Annotated[float, Field(gt=0)]

_COPYING = ("copies", "copies_moved", "nearest", "calibrated", "authentic")
_OF_SAMPLES = (*_COPYING, "energy_distance")


@spec
class ExactSpec:
    """Exact denoisers of real pictures of a data set."""

    dataset: str
    """Key of `datasets`; its splits are pooled, for the sets must be of one distribution and nothing is trained. (Tiles
    of earthcover overlap inside a split, so a tile held out may show half of what a training tile shows.)"""
    sizes: tuple[Annotated[int, Field(ge=2)], ...] = Field(default=(100, 500, 1500), min_length=1)
    """Training pictures n."""
    ancestral_steps: int = Field(default=20, ge=2)
    """Steps of the sampler with fresh noise."""


@spec
class DiffusionSpec:
    """What a generative model owes its training set, measured; null leaves a part out."""

    toy: ToySpec | None = Field(default={}, validate_default=True)
    """A ring in the plane with trained networks."""
    exact: ExactSpec | None = None
    """Exact denoisers of real pictures; null: no data are needed."""
    runs: tuple[str, ...] = ()
    """Trained runs, diffusion models and GANs, at each of their snapshots."""
    samples: int = Field(default=64, ge=8)
    """Samples of a system, and held-out pictures they are compared with."""
    calibration: int = Field(default=200, ge=3)
    """Real pictures that decide about principal components and kernel width, in no other set."""
    components: int = Field(default=32, ge=1)
    """Principal components in which densities are estimated."""
    shift: int = Field(default=4, ge=0)
    """Pixels up, down and to the sides by which a copy may be shifted; less than half of a picture's side."""
    brightness: float = Field(default=0.5, ge=0)
    """Change of brightness that a copy may have, on the scale of -1 to 1."""
    sigmas: tuple[Sigma, ...] = Field(default=(0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 8, 12, 20), min_length=1)
    """Noise levels at which denoisers are compared."""
    sampler_steps: int = Field(default=18, ge=2)
    """Of Heun's method, from sigma 80 to 0.002."""

    @model_validator(mode="after")
    def _enough_to_calibrate(self) -> "DiffusionSpec":
        if self.components >= self.calibration:
            raise ValueError(f"components: got {self.components}, expected fewer than calibration = {self.calibration}")
        return self


def measured(settings: DiffusionSpec, denoisers: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of the numbers that a claim can be about, by subject: `numbers` of the stage's records.

    Args:
        denoisers: those of the runs that are diffusion models.
    """
    found: dict[str, tuple[str, ...]] = {}
    if settings.toy is not None:
        names = ("energy_distance", "radius_error", "median_nearest", "copies")
        systems = ("optimum", "optimum_ddim", "chain_optimum", *OBJECTIVES, "held_out")
        found |= {f"toy_{system}": names for system in systems}
    for n in settings.exact.sizes if settings.exact is not None else ():
        found |= {f"{system}_{n}": (*_OF_SAMPLES, "information") for system in ("optimum", "ancestral", "gaussian")}
        found[f"held_out_{n}"] = _COPYING
    for run in settings.runs:
        found |= {run: (*_OF_SAMPLES, "information"), f"{run}_held_out": _COPYING}
        found |= {f"{run}_optimum": _OF_SAMPLES} if run in denoisers else {}
    return found


def divide(pictures: Tensor, n: int, settings: DiffusionSpec, key: str) -> RealPictures:
    """Return disjoint sets of real pictures: the first n, those held out, those for calibration, and up to n others.

    Args:
        pictures: uint8 `[N, C, H, W]`, in random order after the first n.
        n: training pictures.
        settings: how many are held out and for calibration.
        key: of the configuration that asks for n.

    Raises:
        ConfigError: there are too few pictures.
    """
    spare = settings.samples + settings.calibration
    if len(pictures) < n + spare + 2:
        raise ConfigError(
            f"{key}: got {n} training pictures of {len(pictures)}, expected {spare + 2} more than are trained on "
            f"({settings.samples} held out, {settings.calibration} for calibration, 2 others)"
        )
    train, held_out, calibration, other = as_float(pictures).split(
        [n, settings.samples, settings.calibration, len(pictures) - n - spare]
    )
    return RealPictures(train=train, held_out=held_out, calibration=calibration, other=other[:n])


def _optimum(pictures: Tensor, *, flips: bool = False) -> EmpiricalOptimum:
    """Return the optimum of pictures that are in memory anyhow, in float64 throughout."""
    return EmpiricalOptimum(pictures, flips=flips, exact_values=pictures.numel())


def as_float(pictures: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return pictures.float() / 127.5 - 1


@torch.no_grad()
def exact_study(
    settings: DiffusionSpec, n: int, pool: Tensor, seed: int, device: torch.device | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Compare the empirical optimum and the Gaussian of n pictures.

    Args:
        settings: of the section; `exact` is there.
        n: training pictures.
        pool: all pictures, uint8 `[N, C, H, W]`.
        seed: of the draw of pictures and of all noise.
        device: that the denoisers compute on; None: the CPU.

    Returns:
        Plain values, and what the nearest-neighbor measures take: pictures `[M, C, H, W]` in [-1, 1] on the CPU of
        `train`, of the systems `optimum` (Heun), `ancestral` (the optimum with fresh noise) and `gaussian`, and those
        `held_out`.
    """
    pool = pool[permutation(seed, "diffusion/exact", len(pool))].to(device)
    real = divide(pool, n, settings, "diffusion.exact.sizes")
    optimum, gaussian = _optimum(real.train), GaussianDenoiser(real.train)
    index = torch.arange(settings.samples, device=device)
    noise = latents(seed, index, *real.train.shape[1:])

    def sampler(denoiser: Denoiser) -> Tensor:
        return heun(denoiser, noise, steps=settings.sampler_steps)

    gaussian_samples, reverse = reverse_path(sampler, gaussian, optimum)
    fresh = Draws(seed, "diffusion/ancestral", index)
    samples = {
        "optimum": sampler(optimum),
        "ancestral": ancestral(optimum, noise, steps=settings.exact.ancestral_steps, draws=fresh),
        "gaussian": gaussian_samples,
    }
    points = {"train": real.train[: settings.samples], "held_out": real.held_out, "sigmas": settings.sigmas}
    record = {
        "n": n,
        "seed": seed,
        "information": {name: information(x, real, settings.components) for name, x in samples.items()},
        "two_model_test": {
            "optimum": two_model_test(samples["optimum"], sampler(_optimum(real.other))),
            "gaussian": two_model_test(samples["gaussian"], sampler(GaussianDenoiser(real.other))),
        },
        "profiles": {
            "optimum": profile(optimum, optimum, **points, seed=seed),
            "gaussian": profile(gaussian, optimum, **points, seed=seed),
        },
        "reverse": {"gaussian": reverse},
    }
    pictures = {"train": real.train, **samples, "held_out": real.held_out}
    return record, {name: values.cpu() for name, values in pictures.items()}


@torch.no_grad()
def run_study(
    settings: DiffusionSpec,
    denoiser: Denoiser,
    real: RealPictures,
    *,
    mirror: bool,
    steps: int,
    seed: int,
    device: torch.device | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """Compare a trained denoiser with the optimum of its training pictures, on noised pictures and on its own path.

    Args:
        settings: of the section.
        denoiser: the network.
        real: its training pictures and others.
        mirror: whether it saw them flipped as well.
        steps: of its sampler.
        seed: of the noise.
        device: of the network, which the optimum computes on as well; None: the CPU.

    Returns:
        Plain values, and samples of the optimum by the same sampler, `[settings.samples, C, H, W]` in [-1, 1] on the
        CPU.
    """
    train, held_out = real.train.to(device), real.held_out.to(device)
    optimum = _optimum(train, flips=mirror)
    noise = latents(seed, torch.arange(settings.samples, device=device), *train.shape[1:])

    def sampler(model: Denoiser) -> Tensor:
        return heun(model, noise, steps=steps)

    _, reverse = reverse_path(sampler, denoiser, optimum)
    record = {
        "variance": float(real.train.var(0, correction=0).mean()),
        "profile": profile(
            denoiser,
            optimum,
            train=train[: settings.samples],
            held_out=held_out,
            sigmas=settings.sigmas,
            seed=seed,
        ),
        "reverse": reverse,
    }
    return record, sampler(optimum).cpu()
