"""The chain objective: the identity that makes its minimizer the ordinary one, and its optimum on stored points."""

import math

import pytest
import torch
from torch import Tensor

from pygan.diffusion.chain_optimum import ChainOptimum, squared_kappa
from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.sampler import ddim, latents
from pygan.diffusion.schedule import alpha_bar_of, karras_sigmas, linear_alpha_bars, sigma_of, vp_sigmas


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def levels(seed: int) -> tuple[float, float]:
    sigma, share = torch.rand(2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
    return 0.01 + 20 * sigma, (0.01 + 20 * sigma) * share


@pytest.mark.parametrize("seed", range(5))
def test_the_step_s_noise_is_kappa_eps_given_the_picture(seed: int) -> None:
    """Gaussian conditioning in DDPM's form: E[xi | x_t, x0] = Cov(xi, x_t) / Var(x_t) (x_t - sqrt(abar_t) x0)."""
    sigma, earlier = levels(seed)
    alpha_bar, ratio = alpha_bar_of(sigma), alpha_bar_of(sigma) / alpha_bar_of(earlier)
    x0, x_t = random(4, 3), random(4, 3, seed=1)
    # x_t = sqrt(ratio) x_s + sqrt(1 - ratio) xi, and x_s = sqrt(abar_s) x0 + sqrt(1 - abar_s) e
    variance = ratio * (1 - alpha_bar_of(earlier)) + (1 - ratio)
    expected = (1 - ratio).sqrt() / variance * (x_t - alpha_bar.sqrt() * x0)
    eps = (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
    kappa = squared_kappa(sigma, earlier).sqrt()
    torch.testing.assert_close(kappa * eps, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(kappa.square(), (1 - ratio) / (1 - alpha_bar), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_minimizer_is_that_of_the_ordinary_loss(seed: int) -> None:
    """Under the empirical law, with fresh noise: E[xi | z] = sum_i w_i E[xi | z, x_i] = kappa eps*(z), to rounding."""
    sigma, earlier = levels(seed)
    points, z = random(20, 3), random(6, 3, seed=1) * sigma
    weights = (-(z[:, None] - points).square().sum(2) / (2 * sigma**2)).softmax(1)
    # E[x_u | z, x_i] lies between x_i and z, and xi = (z - x_u) / sqrt(sigma^2 - u^2)
    between = points + (earlier / sigma) ** 2 * (z[:, None] - points)
    xi = torch.einsum("ni,nid->nd", weights, z[:, None] - between) / math.sqrt(sigma**2 - earlier**2)
    eps = (z - EmpiricalOptimum(points).denoise(z, sigma)) / sigma
    torch.testing.assert_close(xi, squared_kappa(sigma, earlier).sqrt() * eps, rtol=1e-12, atol=1e-12)


def test_kappa_of_the_linear_schedule() -> None:
    """A gap of one step: beta_t / (1 - abar_t)."""
    alpha_bars = linear_alpha_bars()
    for t in (100, 1000):
        beta = 1e-4 + (t - 1) / 999 * (0.02 - 1e-4)
        found = squared_kappa(sigma_of(alpha_bars[t]), sigma_of(alpha_bars[t - 1])).item()
        assert found == pytest.approx(beta / (1 - alpha_bars[t].item()), rel=1e-9)


def test_stored_points_give_the_formula() -> None:
    """One point, whose stored copy is found from the estimate and then explains all other estimates."""
    chain = ChainOptimum(torch.full((1, 2), 0.5), [3.0, 1.0])
    z = random(4, 2)
    kappa = 1 - 1 / 9
    stored = z + kappa * (chain.denoise(z, 3.0) - z)
    torch.testing.assert_close(stored, stored[:1].expand(4, 2))
    assert 0 < (stored[0] - 0.5).norm() < 5  # noise of deviation 1


def test_many_copies_are_the_ordinary_optimum() -> None:
    """The difference is a mean over the copies: it falls like 1 / sqrt(copies)."""
    points, z, sigmas = random(30, 2), random(50, 2, seed=1), [1.0, 0.7]
    optimum = EmpiricalOptimum(points).denoise(z, 1.0)

    def gap(copies: int) -> float:
        chains = [ChainOptimum(points, sigmas, copies=copies, seed=seed) for seed in range(4)]
        return math.sqrt(sum((c.denoise(z, 1.0) - optimum).square().mean().item() for c in chains) / 4)

    few, many = gap(4), gap(1024)
    assert 8 < few / many < 32  # 16 expected
    assert many < 0.05


@pytest.mark.parametrize("last_step", [0, 50])
def test_where_the_chain_ends(tiles: dict[str, Tensor], last_step: int) -> None:
    """At u = 0 in training pictures; stopped before, in what is left of the noise around them, as the ordinary one."""
    images, sigmas = tiles["train"][:100], vp_sigmas(20, last_step=last_step)
    x = (images.double() / 127.5 - 1).flatten(1)
    z = latents(0, torch.arange(8), 3, 32, 32)

    def nearest(denoiser: ChainOptimum | EmpiricalOptimum) -> Tensor:
        samples = ddim(denoiser, z, sigmas=sigmas).flatten(1)
        return torch.cdist(samples, x, compute_mode="donot_use_mm_for_euclid_dist").amin(1) / math.sqrt(x.shape[1])

    chain, ordinary = nearest(ChainOptimum(images, sigmas)), nearest(EmpiricalOptimum(images))
    if last_step == 0:
        assert max(chain.max(), ordinary.max()) < 1e-3
    else:
        left = sigmas[-1].item()
        assert (chain < 1.2 * left).all()
        assert (ordinary < 1.2 * left).all()


def test_the_same_seed_gives_the_same_points_in_any_order() -> None:
    points, z, sigmas = random(10, 2), random(3, 2, seed=1), karras_sigmas(6).tolist()
    first, second = (ChainOptimum(points, sigmas, seed=4) for _ in range(2))
    expected = [first.denoise(z, sigma) for sigma in sigmas[:-1]]
    for sigma, value in reversed(list(zip(sigmas, expected, strict=False))):
        assert torch.equal(second.denoise(z, torch.full((3,), sigma)), value)
    assert not torch.equal(ChainOptimum(points, sigmas, seed=5).denoise(z, sigmas[0]), expected[0])


def test_what_cannot_be_is_said() -> None:
    points, z = random(5, 2), random(2, 2)
    with pytest.raises(ValueError, match="do not fall"):
        ChainOptimum(points, [1.0, 2.0])
    with pytest.raises(ValueError, match="got 0 copies"):
        ChainOptimum(points, [2.0, 1.0], copies=0)
    with pytest.raises(ValueError, match="set without pictures"):
        ChainOptimum(points[:0], [2.0, 1.0])
    chain = ChainOptimum(points, [2.0, 1.0])
    with pytest.raises(ValueError, match="one of the chain's 1 levels"):
        chain.denoise(z, 1.0)
    with pytest.raises(ValueError, match="one of the chain's 1 levels"):
        chain.denoise(z, torch.tensor([2.0, 1.0]))
    with pytest.raises(ValueError, match=r"expected \[N, 2\]"):
        chain.denoise(random(2, 3), 2.0)
    with pytest.raises(ValueError, match="earlier level 3"):
        squared_kappa(2.0, 3.0)
