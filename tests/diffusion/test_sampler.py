"""Samplers on a Gaussian, whose probability flow is solved on paper."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pygan.context import Context
from pygan.diffusion.precond import Preconditioned
from pygan.diffusion.sampler import ancestral, ddim, heun, latents
from pygan.diffusion.schedule import karras_sigmas, vp_sigmas
from pygan.draws import Draws
from pygan.spec import load_spec

MEAN = 0.3
VARIANCES = torch.tensor([0.0, 0.04, 0.25, 1.0, 2.0], dtype=torch.float64)
"""Of five independent directions; the first is constant."""


class Diagonal:
    """The denoiser of N(MEAN, VARIANCES)."""

    def __init__(self) -> None:
        self.calls = 0

    def denoise(self, z: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        return MEAN + VARIANCES / (VARIANCES + sigma**2) * (z - MEAN)

    def flow(self, z: Tensor, sigma: float, following: float) -> Tensor:
        """dz/dsigma = sigma (z - MEAN) / (VARIANCES + sigma^2), solved."""
        return MEAN + ((VARIANCES + following**2) / (VARIANCES + sigma**2)).sqrt() * (z - MEAN)


def start(n: int = 64) -> Tensor:
    return latents(0, torch.arange(n), 5)


def draws(index: Tensor) -> Draws:
    return Draws(0, "test", index)


def order(solve: Callable[[int], Tensor], exact: Tensor) -> float:
    """Slope of the error between 64 and 128 steps."""
    few, many = ((solve(steps) - exact).abs().max() for steps in (64, 128))
    return math.log2(few / many)


def test_heun_is_of_second_order() -> None:
    exact = Diagonal().flow(80 * start(), 80.0, 0.0)
    # a smallest level so small that the step of first order to 0 does not count
    error = order(lambda steps: heun(Diagonal(), start(), steps=steps, sigma_min=1e-5), exact)
    assert 1.8 < error < 2.4


def test_ddim_is_of_first_order() -> None:
    exact = Diagonal().flow(80 * start(), 80.0, 0.0)
    error = order(lambda steps: ddim(Diagonal(), start(), sigmas=karras_sigmas(steps, 1e-5)), exact)
    assert 0.8 < error < 1.2


def test_evaluations() -> None:
    counted = Diagonal()
    heun(counted, start(2), steps=18)
    assert counted.calls == 35
    counted = Diagonal()
    ddim(counted, start(2), steps=20)
    assert counted.calls == 20


def test_ddim_is_the_formula_of_the_paper() -> None:
    """Equation 12, in DDPM's form, with its own coefficients."""
    sigmas, eta, xi = torch.tensor([3.0, 1.2], dtype=torch.float64), 0.6, draws(torch.arange(64)).normal(5).double()
    before, after = 1 / (1 + sigmas.square())
    x_t = before.sqrt() * sigmas[0] * start()
    x0 = Diagonal().denoise(x_t / before.sqrt(), 3.0)
    eps = (x_t - before.sqrt() * x0) / (1 - before).sqrt()
    deviation = eta * ((1 - after) / (1 - before)).sqrt() * (1 - before / after).sqrt()
    expected = after.sqrt() * x0 + (1 - after - deviation**2).sqrt() * eps + deviation * xi
    found = ddim(Diagonal(), start(), sigmas=sigmas, eta=eta, draws=draws(torch.arange(64)))
    torch.testing.assert_close(found * after.sqrt(), expected)


@pytest.mark.parametrize("name", ["heun", "churn", "ddim", "eta", "ancestral"])
def test_samples_follow_the_law(name: str) -> None:
    """Mean and variances, to what 5,000 samples can tell (5 deviations) and the steps allow."""
    n = 5_000
    z, noise = start(n), draws(torch.arange(n))
    samples = {
        "heun": lambda: heun(Diagonal(), z, steps=40),
        "churn": lambda: heun(Diagonal(), z, steps=60, churn=20, draws=noise),
        "ddim": lambda: ddim(Diagonal(), z, sigmas=karras_sigmas(200)),
        "eta": lambda: ddim(Diagonal(), z, sigmas=karras_sigmas(200), eta=0.5, draws=noise),
        "ancestral": lambda: ancestral(Diagonal(), z, steps=500, draws=noise),
    }[name]()
    torch.testing.assert_close(samples.mean(0), torch.full((5,), MEAN).double(), rtol=0, atol=5 * (2 / n) ** 0.5)
    bias = {"heun": 0.01, "churn": 0.02, "ddim": 0.05, "eta": 0.08, "ancestral": 0.06}[name]
    tolerance = bias + 5 * (2 / n) ** 0.5
    assert ((samples.var(0) - VARIANCES).abs() <= tolerance * VARIANCES + 1e-5).all()


@pytest.mark.parametrize("sampler", [heun, ddim, ancestral])
def test_a_network_is_sampled_like_any_denoiser(sampler: Callable[..., Tensor]) -> None:
    """Untrained, it predicts c_skip z, as does the Gaussian of variance sigma_data^2, to a thousandth."""

    class Skip:
        def denoise(self, z: Tensor, sigma: Any, labels: Tensor | None = None) -> Tensor:
            return z * 0.25 / (0.25 + torch.as_tensor(sigma).double() ** 2)

    network = load_spec("pygan.networks", {"kind": "unet", "channels": 4, "multipliers": [1], "blocks": 1})
    torch.manual_seed(0)
    model = Preconditioned(network.network(Context(resolution=8)), sigma_data=0.5)
    z = latents(0, torch.arange(4), 3, 8, 8)

    def sample(denoiser: Any) -> Tensor:
        return sampler(denoiser, z, steps=10, **({"draws": draws(torch.arange(4))} if sampler is ancestral else {}))

    with torch.no_grad():
        made, expected = sample(model), sample(Skip())
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-2)
    assert expected.std() > 0.1


@pytest.mark.parametrize("sampler", ["heun", "ddim", "ancestral"])
def test_a_sample_does_not_depend_on_its_batch(sampler: str) -> None:
    def sample(index: Tensor) -> Tensor:
        z = latents(7, index, 5)
        if sampler == "heun":
            return heun(Diagonal(), z, churn=10, draws=draws(index))
        if sampler == "ddim":
            return ddim(Diagonal(), z, eta=0.5, draws=draws(index))
        return ancestral(Diagonal(), z, steps=50, draws=draws(index))

    together = sample(torch.arange(64))
    for start in (0, 17, 63):
        assert torch.equal(sample(torch.tensor([start])), together[start : start + 1])


def test_churn_keeps_to_its_interval() -> None:
    class Levels(Diagonal):
        def denoise(self, z: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
            seen.append(sigma)
            return super().denoise(z, sigma, labels)

    seen: list[float] = []
    heun(Levels(), start(2), churn=9, churn_min=0.1, churn_max=10, draws=draws(torch.arange(2)))
    expected = [
        s * (1 + min(9 / 18, math.sqrt(2) - 1)) if 0.1 <= s <= 10 else s for s in karras_sigmas(18)[:-1].tolist()
    ]
    assert seen[::2] == pytest.approx(expected)


def test_labels_reach_the_denoiser_and_its_dtype_does_not_reach_the_state() -> None:
    class Single:
        def denoise(self, z: Tensor, sigma: float, labels: Tensor) -> Tensor:
            assert z.dtype == torch.float64
            return labels[:, None].to(z) + 0 * z

    labels = torch.tensor([3, 5])
    for samples in (heun(Single(), start(2), labels=labels), ddim(Single(), start(2), labels=labels)):
        torch.testing.assert_close(samples, labels[:, None].double().expand(2, 5))


def test_stopping_early_leaves_noise() -> None:
    """A single picture at 0, stopped at t = 20: what remains is the latent at that level."""
    sigmas = vp_sigmas(30, last_step=20)

    class Zero:
        def denoise(self, z: Tensor, sigma: float, labels: Tensor | None = None) -> Tensor:
            return torch.zeros_like(z)

    torch.testing.assert_close(ddim(Zero(), start(), sigmas=sigmas), sigmas[-1] * start())


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match=r"eta 0\.5 without draws"):
        ddim(Diagonal(), start(2), eta=0.5)
    with pytest.raises(ValueError, match="churn 3 without draws"):
        heun(Diagonal(), start(2), churn=3)
    with pytest.raises(ValueError, match=r"got eta 1\.5, expected a number from 0 to 1"):
        ddim(Diagonal(), start(2), eta=1.5, draws=draws(torch.arange(2)))
    with pytest.raises(ValueError, match="do not fall"):
        ddim(Diagonal(), start(2), sigmas=torch.tensor([1.0, 2.0]))
