"""The Gaussian denoiser: the best affine one, whose samples have the set's moments and copy nothing."""

import math

import pytest
import torch
from torch import Tensor

from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.gaussian import GaussianDenoiser
from pygan.diffusion.sampler import ddim, heun, latents


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [5, 200], ids=["fewer than numbers", "more than numbers"])
@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_it_is_the_formula(n: int, sigma: float) -> None:
    x, z = random(n, 3, 2, 2), random(4, 3, 2, 2, seed=1)
    mean, centered = x.flatten(1).mean(0), x.flatten(1) - x.flatten(1).mean(0)
    covariance = centered.T @ centered / n
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(12, dtype=torch.float64))
    expected = mean + (z.flatten(1) - mean) @ gain.T
    denoiser = GaussianDenoiser(x)
    torch.testing.assert_close(denoiser.denoise(z, sigma).flatten(1), expected, rtol=1e-7, atol=1e-7)
    assert len(denoiser.variances) == min(n - 1, 12)
    torch.testing.assert_close(denoiser.variances.sum(), covariance.trace())
    apart = denoiser.denoise(z, torch.full((4,), sigma))
    torch.testing.assert_close(apart, denoiser.denoise(z, sigma))
    assert denoiser.denoise(z.float(), sigma).dtype == torch.float32


def test_of_gaussian_data_it_is_the_optimum() -> None:
    """The empirical optimum of many points of a Gaussian in one dimension tends to it."""
    x = random(20_000, 1)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    gap = GaussianDenoiser(x).denoise(z, 0.7) - EmpiricalOptimum(x).denoise(z, 0.7)
    assert gap.abs().max() < 0.05  # 5 standard errors of a mean over the few thousand points near z


def test_samples_have_its_mean_and_covariance() -> None:
    scales = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    denoiser = GaussianDenoiser(random(500, 3) * scales + 0.3)
    n = 4000
    samples = heun(denoiser, latents(0, torch.arange(n), 3), steps=40)
    deviations = denoiser.variances.sqrt()
    along = (samples - denoiser.mean) @ denoiser.directions.T / deviations
    # moments of n standard normals, to 5 standard errors and one per cent for the steps
    assert along.mean(0).abs().max() < 5 / math.sqrt(n)
    assert (along.T @ along / n - torch.eye(3)).abs().max() < 5 * math.sqrt(2 / n) + 0.01


def test_it_does_not_copy(tiles: dict[str, Tensor]) -> None:
    """NN ratio below 1/3 in no sample, which are about as far from the set as its pictures are from each other.

    A little farther, since tiles overlap by half.
    """
    images = tiles["train"][:300]
    x = (images.double() / 127.5 - 1).flatten(1)

    def near(points: Tensor) -> Tensor:
        exact = torch.cdist(points, x, compute_mode="donot_use_mm_for_euclid_dist")
        return exact.topk(3, largest=False).values / math.sqrt(x.shape[1])

    samples = ddim(GaussianDenoiser(images), latents(0, torch.arange(24), 3, 32, 32), steps=25)
    nearest = near(samples.flatten(1))
    assert not (nearest[:, 0] < nearest[:, 1] / 3).any()
    left_out = near(x[::5])[:, 1]
    assert 0.9 < nearest[:, 0].mean() / left_out.mean() < 1.3


def test_points_that_are_all_the_same_have_rank_zero() -> None:
    denoiser = GaussianDenoiser(torch.ones(4, 3))
    assert len(denoiser.variances) == 0
    torch.testing.assert_close(denoiser.denoise(random(2, 3), 1.0), torch.ones(2, 3, dtype=torch.float64))


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match="set of one picture"):
        GaussianDenoiser(torch.ones(1, 3))
    denoiser = GaussianDenoiser(random(5, 3))
    with pytest.raises(ValueError, match=r"z of shape \[2, 4\], expected \[N, 3\]"):
        denoiser.denoise(random(2, 4), 1.0)
    with pytest.raises(ValueError, match="expected a number above 0"):
        denoiser.denoise(random(2, 3), 0.0)
