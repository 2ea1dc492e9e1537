"""The theory against values derived by hand and against Monte Carlo."""

import math

import pytest
import torch
from torch import Tensor

from pygan.errors import ConfigError, DataError
from pygan.regularizers.reg_dgm_theory import (
    DIVERGENCES,
    FiniteSpec,
    GaussianSpec,
    ImageSpec,
    TheorySpec,
    Tradeoff,
    descent,
    distance,
    finite_study,
    fitted_variance,
    gaussian_study,
    image_study,
    minimizer,
)
from pygan.spec import parse

WEIGHTS = TheorySpec().weights()


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("offset", "optimum", "least", "interval"),
    [
        (0.1, 10, 0.00909, (4.5, math.inf)),
        (0.3, 1.111, 0.04737, (0.0556, math.inf)),
        (1.0, 0.1, 0.09091, (0, 0.2222)),
    ],
)
def test_ten_samples_of_a_unit_gaussian(offset, optimum, least, interval) -> None:
    """lambda* = sigma^2 / (m b), ab / (a + b), and the interval that beats both; measured within 2 %."""
    theory = Tradeoff(1 / 10, offset**2)
    assert theory.optimum == pytest.approx(optimum, rel=1e-3)
    assert theory.least == pytest.approx(least, rel=1e-3)
    assert theory.interval == pytest.approx(interval, rel=1e-3)
    assert theory.error(double(theory.optimum)).item() == pytest.approx(theory.least)
    settings = GaussianSpec(samples=(10,), offsets=(offset,), trials=60_000)
    (fit,) = gaussian_study(settings, double(theory.optimum), seed=0)["fits"]
    assert fit["error_measured"][0] == pytest.approx(least, rel=0.02)
    assert fit["risk_measured"][0] == pytest.approx(0.5 * math.log(2 * math.pi * math.e) + least / 2, rel=0.02)


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.01), (0.1, 0.1), (0.1, 0.7)])
def test_the_interval_is_where_both_are_beaten(a: float, b: float) -> None:
    theory = Tradeoff(a, b)
    low, high = theory.interval
    assert low < theory.optimum < high
    around = [end * factor for end in (low, high) if 0 < end < math.inf for factor in (0.99, 1.01)]
    for weight in (*around, theory.optimum, 1e-3, 1e3):
        assert (theory.error(double(weight)).item() < min(a, b)) == (low < weight < high), weight


def test_a_prior_that_is_the_truth_deserves_all_weight() -> None:
    theory = Tradeoff(0.1, 0.0)
    assert theory.optimum == math.inf and theory.least == 0
    study = gaussian_study(GaussianSpec(samples=(10,), offsets=(0.0,), trials=10), WEIGHTS, seed=0)
    assert study["fits"][0]["optimum"] is None


def test_measured_errors_follow_the_formula_in_the_whole_study() -> None:
    study = gaussian_study(GaussianSpec(sigma=2.0, samples=(3, 30), trials=20_000), WEIGHTS, seed=1)
    assert len(study["fits"]) == 6
    for fit in study["fits"]:
        assert fit["error_measured"] == pytest.approx(fit["error"], rel=0.03)
        assert fit["variance"] == pytest.approx(4 / fit["samples"])
        assert fit["error_measured"][0] == pytest.approx(fit["variance"], rel=0.03)


def test_a_fitted_variance_shrinks() -> None:
    """(lambda / sigma0^2) v^2 + v = s^2: at s^2 = sigma0^2 = 1 and lambda = 1/2, v = sqrt(3) - 1."""
    assert fitted_variance(double(1.0), 1.0, double(0.5)).item() == pytest.approx(math.sqrt(3) - 1)
    v, weight = fitted_variance(double(2.0), 0.7, WEIGHTS), WEIGHTS
    torch.testing.assert_close(weight / 0.7 * v**2 + v, torch.full_like(v, 2.0))
    assert (v < 2).all() and fitted_variance(double(2.0), 0.7, double(0.0)).item() == 2


def test_minimizers_of_two_atoms_by_hand() -> None:
    """p = (1/2, 1/2), f = (0, 1), lambda = 1/2: for KL, 1/alpha + 1/(alpha + 1/2) = 2 gives alpha = (1 + sqrt 5) / 4.

    For 2 JSD with t = exp(alpha), 1/(t - 1) + 1/(rt - 1) = 2 with r = exp(lambda): 2rt^2 - 3(1 + r)t + 4 = 0.
    """
    p, f, weight = double(0.5, 0.5), double(0.0, 1.0), torch.tensor(0.5, dtype=torch.float64)
    q, alpha = minimizer(p, f, weight, "kl")
    assert alpha.item() == pytest.approx((1 + math.sqrt(5)) / 4)
    torch.testing.assert_close(q, p / (alpha + weight * f))
    r = math.exp(0.5)
    t = (3 * (1 + r) + math.sqrt(9 * (1 + r) ** 2 - 32 * r)) / (4 * r)
    q, alpha = minimizer(p, f, weight, "jsd")
    assert alpha.item() == pytest.approx(math.log(t))
    torch.testing.assert_close(q, p / ((alpha + weight * f).exp() - 1))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_minimizers_are_found_by_descent_and_no_neighbor_is_better(divergence) -> None:
    p, f = double(0.4, 0.3, 0.2, 0.1), double(0.7, 0.2, 1.5, 0.9)
    noise = torch.Generator().manual_seed(0)
    for weight in (0.0, 0.3, 2.0):
        lam = torch.tensor(weight, dtype=torch.float64)
        q, alpha = minimizer(p, f, lam, divergence)
        assert q.sum().item() == pytest.approx(1)
        assert (descent(p, f, weight, divergence) - q).abs().max() < 1e-4
        best = distance(p, q, divergence) + weight * q @ f
        for _ in range(20):
            other = q * (0.1 * torch.randn(4, dtype=torch.float64, generator=noise)).exp()
            other /= other.sum()
            assert distance(p, other, divergence) + weight * other @ f > best
        if weight == 0:
            torch.testing.assert_close(q, p)
            assert alpha.item() == pytest.approx(1 if divergence == "kl" else math.log(2))
        else:
            ratio = (q / p)[f.argsort()]
            assert (ratio.diff() < 0).all()


def test_divergences_by_hand() -> None:
    """A fair coin against (1/4, 3/4): KL is (log 2 + log 2/3) / 2; 2 JSD goes by way of (3/8, 5/8)."""
    p, q = double(0.5, 0.5), double(0.25, 0.75)
    assert distance(p, q, "kl").item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    atoms = ((0.5, 0.25, 0.375), (0.5, 0.75, 0.625))
    expected = sum(a * math.log(a / middle) + b * math.log(b / middle) for a, b, middle in atoms)
    assert distance(p, q, "jsd").item() == pytest.approx(expected)


def test_energy_helps_few_samples_and_ever_less_with_more() -> None:
    study = finite_study(FiniteSpec(samples=(10, 100, 1000), trials=40, shown=(0.1, 1.0)), WEIGHTS, seed=0)
    for entry in study["divergences"].values():
        assert all(minimizer["largest_difference"] < 1e-4 for minimizer in entry["minimizers"])
        best = [fit["best"] for fit in entry["fits"]]
        assert best == sorted(best, reverse=True) and best[0] > 3 * best[-1]
        gains = [1 - min(fit["risk"]) / fit["unregularized"] for fit in entry["fits"]]
        assert gains == sorted(gains, reverse=True) and gains[0] > 0.05
        assert all(fit["risk"][-1] > fit["unregularized"] for fit in entry["fits"])  # the other end of the U


def two_classes(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of noise around two brightnesses."""
    noise = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    img = 100 + 20 * labels[:, None, None, None] + 30 * torch.randn(n, 1, 4, 4, generator=noise)
    return img.round().clamp(0, 255).to(torch.uint8), labels


def test_real_pictures_follow_the_gaussian_rule() -> None:
    """The population is the training pictures, so the measured likelihoods are those of the formula."""
    settings = ImageSpec(dataset="two", components=3, samples=(4, 40), trials=2000)
    study = image_study(
        settings, WEIGHTS, 0, train=two_classes(200, 0), held_out=two_classes(200, 1), class_names=("dark", "bright")
    )
    for entry in study["classes"]:
        assert entry["population"] == entry["held_out"] == 100
        optima = [size["optimum"] for size in entry["sizes"]]
        assert optima[0] == pytest.approx(10 * optima[1])
        for size in entry["sizes"]:
            n = size["samples"]
            floor = size["theory"][0] - entry["spread"] / (2 * n)  # the likelihood at the true mean
            excess = [value - floor for value in size["population"]]
            assert excess == pytest.approx([value - floor for value in size["theory"]], rel=0.1)
            assert size["population_unregularized"] == pytest.approx(size["theory"][0], rel=0.01)
            assert size["population_gain"] > 0


def test_likelihoods_are_those_of_the_density() -> None:
    """With every component kept and one class's weight at 0: the mean log-density of the fitted Gaussian."""
    img, labels = two_classes(120, 2)
    settings = ImageSpec(dataset="two", components=2, samples=(7,), trials=2)
    study = image_study(
        settings, double(1.0), 0, train=(img, labels), held_out=(img, labels), class_names=("dark", "bright")
    )
    x = img.flatten(1).double() / 127.5 - 1
    _, _, axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    x = (x - x.mean(0)) @ axes[:2].T
    groups = [x[labels == c] for c in (0, 1)]
    pooled = sum((g - g.mean(0)).T @ (g - g.mean(0)) for g in groups) / (len(x) - 2)
    for c, entry in enumerate(study["classes"]):
        own, prior = groups[c], groups[1 - c].mean(0)
        spread = (own - own.mean(0)) @ torch.linalg.inv(pooled)
        assert entry["spread"] == pytest.approx((spread * (own - own.mean(0))).sum(1).mean().item())
        gap = own.mean(0) - prior
        assert entry["bias"] == pytest.approx((gap @ torch.linalg.inv(pooled) @ gap).item())
        half = torch.distributions.MultivariateNormal((own.mean(0) + prior) / 2, pooled)
        exact = -half.log_prob(own).mean().item()  # at weight 1 and the true mean
        (size,) = entry["sizes"]
        assert size["theory"][0] == pytest.approx(exact + entry["spread"] / 7 / 8, rel=1e-6)


def test_one_class_is_refused() -> None:
    img, labels = two_classes(40, 0)
    one = (img, torch.zeros_like(labels))
    with pytest.raises(DataError, match="40 pictures of 1 classes"):
        image_study(ImageSpec(dataset="one", components=2), WEIGHTS, 0, train=one, held_out=one, class_names=("a", "b"))


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"theory\.gaussian\.sigma"):
        parse(TheorySpec, {"gaussian": {"sigma": -1.0}}, "theory")
    assert TheorySpec(decades=(-1, 1), per_decade=1).weights().tolist() == pytest.approx([0.1, 1, 10])
