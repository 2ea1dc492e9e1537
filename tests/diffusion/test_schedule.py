"""Noise levels: both forms say the same of a picture, and every target gives x0 back."""

import math

import pytest
import torch

import pygan.diffusion
from pygan.diffusion.schedule import (
    Level,
    alpha_bar_of,
    karras_sigmas,
    linear_alpha_bars,
    sigma_of,
    vp_sigmas,
)

TARGETS = ("x0", "eps", "score", "v")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("sigma", [0.002, 0.7, 80.0])
def test_both_forms_have_the_same_eps_and_v(sigma: float) -> None:
    x0, eps = random(3, 2, 4, 4), random(3, 2, 4, 4, seed=1)
    ve, vp = Level.ve(sigma), Level.vp(alpha_bar_of(sigma))
    assert vp.sigma == pytest.approx(sigma, rel=1e-10)
    z, x_t = ve.noisy(x0, eps), vp.noisy(x0, eps)
    torch.testing.assert_close(vp.z(x_t), z, rtol=1e-12, atol=1e-12)
    for target, tolerance in (("eps", 1e-6), ("v", 1e-6)):
        torch.testing.assert_close(ve.from_x0(target, z, x0), vp.from_x0(target, x_t, x0), rtol=0, atol=tolerance)
    torch.testing.assert_close(ve.from_x0("eps", z, x0), eps, rtol=0, atol=1e-9)
    signal = 1 / math.sqrt(1 + sigma**2)
    torch.testing.assert_close(
        vp.from_x0("v", x_t, x0), signal * eps - sigma * signal * x0, rtol=0, atol=1e-9 * (1 + sigma)
    )
    # p(x_t) is p(z) in other units, so the gradient of its logarithm grows by dz / dx_t
    torch.testing.assert_close(vp.from_x0("score", x_t, x0), ve.from_x0("score", z, x0) / signal)


def test_a_score_is_the_gradient_of_a_log_density() -> None:
    """One picture as the whole data: x_t is Gaussian around it."""
    x0, level = random(1, 5), Level.vp(0.3)
    x_t = random(1, 5, seed=2).requires_grad_()
    (-(x_t - math.sqrt(0.3) * x0).square().sum() / (2 * 0.7)).backward()
    torch.testing.assert_close(level.from_x0("score", x_t.detach(), x0), x_t.grad)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", ["ve", "vp"])
def test_every_target_gives_x0_back(target: str, form: str) -> None:
    """With a level of its own for each picture."""
    levels = torch.tensor([0.05, 0.5, 0.99], dtype=torch.float64)
    level = Level.vp(levels) if form == "vp" else Level.ve(levels)
    x0, noisy = random(3, 2, 4, 4), random(3, 2, 4, 4, seed=1)
    value = level.from_x0(target, noisy, x0)
    torch.testing.assert_close(level.to_x0(target, noisy, value), x0, rtol=1e-9, atol=1e-9)
    for row in range(3):
        alone = Level(level.signal[row], level.noise[row])
        torch.testing.assert_close(alone.from_x0(target, noisy[row : row + 1], x0[row : row + 1]), value[row : row + 1])


def test_the_linear_schedule() -> None:
    alpha_bars = linear_alpha_bars()
    assert alpha_bars[0] == 1
    assert len(alpha_bars) == 1001
    expected = 1.0
    for t in range(1, 1001):
        expected *= 1 - (1e-4 + (t - 1) / 999 * (0.02 - 1e-4))
        assert alpha_bars[t].item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(alpha_bar_of(sigma_of(alpha_bars)), alpha_bars, rtol=1e-12, atol=0)
    sigmas = vp_sigmas(4)
    torch.testing.assert_close(sigmas, sigma_of(alpha_bars[[1000, 750, 500, 250, 0]]))
    assert vp_sigmas(4, last_step=20)[-1] == sigma_of(alpha_bars[20])


def test_the_levels_of_edm() -> None:
    sigmas = karras_sigmas(18)
    assert len(sigmas) == 19
    assert sigmas[0].item() == pytest.approx(80)
    assert sigmas[17].item() == pytest.approx(0.002)
    assert sigmas[18] == 0
    assert sigmas[5].item() == pytest.approx((80 ** (1 / 7) + 5 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 0.0]), torch.ones(2, 2)])
def test_a_level_is_above_zero(sigma: object) -> None:
    with pytest.raises(ValueError, match="expected a number above 0"):
        Level.ve(sigma)


def test_what_cannot_be_is_said() -> None:
    for alpha_bar in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            Level.vp(alpha_bar)
    with pytest.raises(ValueError, match="2 noise levels for 3 pictures"):
        Level.ve(torch.ones(2)).noisy(torch.ones(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match="the target 'noise'"):
        Level.ve(1.0).from_x0("noise", torch.ones(1, 4), torch.ones(1, 4))
    with pytest.raises(ValueError, match="sigma_min 2"):
        karras_sigmas(18, 2.0, 1.0)
    with pytest.raises(ValueError, match="got 0 steps"):
        vp_sigmas(0)


def test_the_package_lists_where_its_names_live() -> None:
    for name, module in pygan.diffusion.HOMES:
        assert getattr(pygan.diffusion, name).__module__ == f"pygan.diffusion.{module}"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = pygan.diffusion.Nothing
