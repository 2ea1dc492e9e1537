"""Levels, weights and the objectives: what they are on average, and how they relate to each other."""

from statistics import NormalDist

import pytest
import torch

from pygan.context import Context
from pygan.diffusion.loss import ddpm_sigmas, shares
from pygan.diffusion.schedule import linear_alpha_bars
from pygan.draws import Draws
from pygan.spec import load_spec

CTX = Context(resolution=8)
INDEX = torch.arange(512)
UNET = {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1, "attention": []}


def objective(**fields):
    return load_spec("pygan.diffusion", {"kind": "denoising", **fields}).build(CTX)


def data(deviation: float = 0.5) -> torch.Tensor:
    return deviation * Draws(0, "data", INDEX).normal(3, 8, 8)


@pytest.mark.parametrize(
    ("fields", "deviation"),
    [
        ({}, 0.5),
        ({"sigma_data": 0.25}, 0.25),
        ({"levels": "ddpm", "target": "eps"}, 0.5),
        ({"target": "v"}, 1.0),
        ({"kind": "chain"}, 0.5),
        ({"kind": "chain", "levels": "ddpm"}, 0.5),
        ({"kind": "chain", "levels": "ddpm", "target": "eps"}, 0.5),
        ({"kind": "chain", "gap": [0.01, 0.1]}, 0.5),
    ],
)
def test_the_expected_loss_of_an_untrained_network_is_one_per_value(fields, deviation):
    """512 pictures of 192 values: the standard error of the mean is below 2 / sqrt(512 * 192) + 1 %."""
    of = objective(**fields)
    torch.manual_seed(0)
    G = of.spec.generator(load_spec("pygan.networks", UNET), CTX)
    img = data(deviation)
    noised = of(img, Draws(0, "noise", INDEX))
    with torch.no_grad():
        losses = noised.loss(G.denoiser(noised.z, noised.sigma))
    assert losses.shape == (512,)
    assert losses.mean().item() == pytest.approx(1, abs=0.025)


def test_half_of_the_lognormal_levels_lie_below_exp_of_the_mean():
    spec = objective().spec
    u = torch.tensor([0.5, 0.1, 0.975])
    expected = [pytest.approx(NormalDist(-1.2, 1.2).inv_cdf(float(value)), rel=1e-5) for value in u]
    assert spec.sigma(u).log().tolist() == expected
    drawn = spec.sigma(shares(Draws(0, "u", torch.arange(20_000)))).log()
    assert drawn.isfinite().all()
    assert drawn.mean().item() == pytest.approx(-1.2, abs=4 * 1.2 / 20_000**0.5)
    assert drawn.std().item() == pytest.approx(1.2, rel=0.02)


def test_ddpm_levels_are_the_thousand_steps_alike():
    spec = objective(levels="ddpm").spec
    levels = spec.sigma((torch.arange(1000) + 0.5) / 1000)
    bars = linear_alpha_bars()[1:]
    torch.testing.assert_close(levels, ((1 - bars) / bars).sqrt())
    u = shares(Draws(0, "u", torch.arange(5000)))
    assert u.min() > 0 and u.max() < 1


@pytest.mark.parametrize("target", ["edm", "eps", "v", "x0"])
def test_the_weight_is_that_of_the_squared_error_of_the_target(target):
    """eps = (z - x0) / sigma, v = (eps - sigma x0) / sqrt(1 + sigma^2): an error e of x0 is this large in them."""
    sigma = torch.tensor([0.05, 0.5, 1.0, 20.0], dtype=torch.float64)
    error = {
        "edm": (sigma**2 + 0.25).sqrt() / (sigma * 0.5),
        "eps": 1 / sigma,
        "v": (1 / sigma + sigma) / (1 + sigma**2).sqrt(),
        "x0": torch.ones(4),
    }
    for weight, expected in (("target", error[target]), ("edm", error["edm"])):
        spec = objective(target=target, weight=weight).spec
        torch.testing.assert_close(spec.weight_of(sigma), expected.square().float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("balance", ["inverse_variance", "kappa"])
def test_the_chain_without_a_previous_point_is_the_ordinary_loss_exactly(balance):
    img = data()
    plain, chained = (
        of(img, Draws(0, "noise", INDEX)) for of in (objective(), objective(kind="chain", gap=[1, 1], balance=balance))
    )
    for name, value in vars(plain).items():
        assert torch.equal(value, getattr(chained, name)), name


def test_a_chain_of_steps_that_all_reach_the_picture_is_the_ordinary_loss_exactly():
    fields = {"levels": "ddpm", "target": "eps"}
    img = data()
    plain, chained = (
        of(img, Draws(0, "noise", INDEX))
        for of in (objective(**fields), objective(kind="chain", gap_steps=[1000, 1000], **fields))
    )
    for name, value in vars(plain).items():
        assert torch.equal(value, getattr(chained, name)), name


def test_the_target_of_the_chain_has_the_mean_of_the_picture_and_the_derived_variance():
    """Gaussian data with deviation s: E[x0 | z] = z s^2 / (s^2 + sigma^2), and the chain's target has the same."""
    n, gap, s = 200_000, 0.3, 0.5
    index = torch.arange(n)
    of = objective(kind="chain", gap=[gap, gap], log_sigma=[0.0, 0.0])  # sigma = 1 always
    x0 = s * Draws(0, "data", index).normal(1)
    noised = of(x0, Draws(0, "noise", index))
    kappa2 = 1 - (1 - gap) ** 2
    assert noised.z.var().item() == pytest.approx(s**2 + 1, rel=0.02)
    slope = (noised.z * noised.target).mean() / noised.z.square().mean()
    assert slope.item() == pytest.approx(s**2 / (s**2 + 1), abs=0.02)
    assert (noised.target - x0).var().item() == pytest.approx(1 / kappa2 - 1, rel=0.02)
    plain = (1 + s**2) / s**2
    expected = 1 / (1 / plain + 1 / kappa2 - 1)
    torch.testing.assert_close(noised.weight, torch.full([n], expected), rtol=1e-5, atol=0)


def test_the_chain_in_the_form_of_ddpm():
    """kappa^2 = (1 - abar_t / abar_s) / (1 - abar_t), and with the weight kappa the error is that of xi itself."""
    of = objective(kind="chain", levels="ddpm", target="eps", balance="kappa", gap_steps=[50, 50])
    noised = of(torch.zeros(512, 4), Draws(0, "noise", INDEX))
    bars, sigmas = linear_alpha_bars(), ddpm_sigmas()
    t = torch.searchsorted(sigmas, noised.sigma)
    s = (t - 50).clamp(min=0)
    kappa2 = (1 - bars[t] / bars[s]) / (1 - bars[t])
    torch.testing.assert_close(noised.weight * noised.sigma.square(), kappa2, rtol=1e-4, atol=0)
    # the loss of the estimate x0 = z - sigma eps_hat is (xi - kappa eps_hat)^2, so that of eps_hat = 0 is xi^2
    xi2 = noised.loss(noised.z)
    assert xi2.mean().item() == pytest.approx(1, abs=4 * (2 / 2048) ** 0.5)


def test_the_chain_is_the_ordinary_loss_and_a_constant():
    """E|xi - kappa eps_hat|^2 = kappa^2 E|eps - eps_hat|^2 + (1 - kappa^2) per value, of any estimate."""
    of = objective(kind="chain", levels="ddpm", target="eps", balance="kappa", gap_steps=[50, 50])
    img = data()
    noised = of(img, Draws(0, "noise", INDEX))
    sigma = noised.sigma[:, None, None, None]
    estimate = 0.3 * noised.z + 0.1
    kappa2 = noised.weight * noised.sigma.square()
    errors = ((noised.z - img) / sigma - (noised.z - estimate) / sigma).square().mean((1, 2, 3))
    expected = (kappa2 * errors + 1 - kappa2).mean().item()
    # a product of two normals per value on top: four standard errors of the mean over 512 * 192 of them
    deviation = 2 * ((kappa2 * (1 - kappa2) * errors).mean() + (1 - kappa2).square().mean() / 2).sqrt().item()
    assert noised.loss(estimate).mean().item() == pytest.approx(expected, abs=4 * deviation / (512 * 192) ** 0.5)
    assert abs(expected - errors.mean().item()) > 0.1  # it is not the ordinary loss itself


def test_chains_that_cannot_be_drawn_are_refused():
    from pygan.errors import ConfigError

    for fields, sentence in (
        ({"gap": [0.0, 0.0]}, r"gap: got \[0.0, 0.0\], expected"),
        ({"gap": [0.5, 0.2]}, r"gap: got \[0.5, 0.2\], expected"),
        ({"gap_steps": [0, 10]}, r"gap_steps: got \[0, 10\], expected"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            objective(kind="chain", **fields)
