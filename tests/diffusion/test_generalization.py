"""What the measures say of a copy, of a held-out picture, and of nothing at all."""

import math

import pytest
import torch
from torch import Tensor

from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.generalization import (
    PrincipalComponents,
    RealPictures,
    choose_bandwidth,
    information,
    kde_log_density,
    membership,
    noised,
    profile,
    reverse_path,
    two_model_test,
)
from pygan.diffusion.sampler import heun, latents

SIGMAS = (0.05, 0.3, 1.0)


def normal(n: int, *shape: int, seed: int) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def real() -> RealPictures:
    """Points of one law in 12 dimensions, of which the first ones vary most."""
    x = normal(400, 12, seed=0) * torch.linspace(1.0, 0.1, 12, dtype=torch.float64)
    train, other, calibration, held_out = x.split(100)
    return RealPictures(train=train, other=other, calibration=calibration, held_out=held_out)


class Copycat:
    """A network set to copy: whatever is asked, it answers with the nearest of the pictures that it knows."""

    def __init__(self, known: Tensor) -> None:
        self.known = known

    def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        return self.known[torch.cdist(z, self.known).argmin(1)]


# Information


def test_components_are_those_of_the_covariance() -> None:
    x = normal(50, 6, seed=1)
    few, many = PrincipalComponents.fit(x[:5], 3), PrincipalComponents.fit(x, 3)
    for fitted, rows in ((few, x[:5]), (many, x)):
        assert torch.allclose(fitted.directions.T @ fitted.directions, torch.eye(3, dtype=torch.float64), atol=1e-10)
        largest = torch.linalg.svdvals(rows - rows.mean(0))[:3].square()
        assert torch.allclose(fitted(rows).square().sum(0).sort(descending=True).values, largest)


def test_density_is_the_mean_of_the_kernels() -> None:
    x, centers, h = normal(4, 3, seed=2), normal(5, 3, seed=3), 0.7
    squares = (x[:, None] - centers[None]).square().sum(2)
    kernels = (-squares / (2 * h**2)).exp() / (2 * math.pi * h**2) ** (3 / 2)
    assert torch.allclose(kde_log_density(x, centers, h), kernels.mean(1).log())


def test_the_bandwidth_is_near_the_likeliest(real: RealPictures) -> None:
    chosen = choose_bandwidth(real.calibration, real.train, real.other)

    def likelihood(h: float) -> float:
        return sum(float(kde_log_density(real.calibration, x, h).mean()) for x in (real.train, real.other))

    step = 10 ** (2.5 / 40)
    assert likelihood(chosen) >= max(likelihood(chosen * step), likelihood(chosen / step))


def test_information_is_seen_in_copies_of_training_pictures_alone(real: RealPictures) -> None:
    copies = information(real.train[:40], real, components=8)
    fresh = normal(200, 12, seed=5) * torch.linspace(1.0, 0.1, 12, dtype=torch.float64)
    # copies of pictures that nobody trained on, which are no less copies
    held_out_copies = information(fresh[:20].repeat(2, 1), real, components=8)
    assert copies["proxy"] > 5 * copies["standard_error"] > 0
    assert abs(held_out_copies["proxy"]) < 3 * held_out_copies["standard_error"]
    same = information(real.held_out, real, components=8)
    assert same["proxy"] == 0 and same["generated"] == same["held_out"]
    # what is copied from S' is as far on the other side
    assert information(real.other[:40], real, components=8)["proxy"] < -5 * copies["standard_error"]


def test_two_models_agree_where_the_set_does_not_matter() -> None:
    x, y = normal(30, 5, seed=6), normal(30, 5, seed=7)
    assert two_model_test(x, x)["ratio"] == 0
    assert two_model_test(x, y)["ratio"] == pytest.approx(1, abs=0.15)  # independent: paired or not, all the same
    found = two_model_test(x[:2], y[:2])
    expected = [[(x[i] - y[j]).square().mean().sqrt() for j in (0, 1)] for i in (0, 1)]
    assert found["paired"] == pytest.approx(float(expected[0][0] + expected[1][1]) / 2)
    assert found["unpaired"] == pytest.approx(float(expected[0][1] + expected[1][0]) / 2)


# Denoisers


def test_the_optimum_is_at_no_distance_and_knows_its_members(real: RealPictures) -> None:
    optimum = EmpiricalOptimum(real.train)
    found = profile(optimum, optimum, train=real.train, held_out=real.held_out, sigmas=SIGMAS, seed=0)
    assert [point["sigma"] for point in found] == list(SIGMAS)
    for point in found:
        assert point["from_optimum"] == point["from_optimum_held_out"] == point["excess"] == 0
        assert point["train_error"] == point["least_error"]
        assert point["gap"] == pytest.approx(point["held_out_error"] - point["train_error"])
    assert found[0]["gap"] > 10 * found[0]["gap_standard_error"] and found[0]["membership"] > 0.99
    # the nearest picture decides at low noise, and many at high noise
    assert found[0]["max_weight"] > 0.99 and found[0]["effective_count"] == pytest.approx(1, abs=0.02)
    assert found[2]["max_weight"] < 0.5 and found[2]["effective_count"] > 5


def test_errors_are_mean_squares_of_the_noised_pictures(real: RealPictures) -> None:
    class Identity:
        def denoise(self, z: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
            return z

    optimum, sigma = EmpiricalOptimum(real.train), 0.3
    (found,) = profile(Identity(), optimum, train=real.train, held_out=real.held_out, sigmas=[sigma], seed=4, batch=7)
    z = noised(real.train, sigma, 4, "train")
    best = optimum.denoise(z, sigma)
    assert found["train_error"] == pytest.approx(float((z - real.train).square().mean()))
    assert found["train_error"] == pytest.approx(sigma**2, rel=0.1)
    assert found["least_error"] == pytest.approx(float((best - real.train).square().mean()))
    assert found["from_optimum"] == pytest.approx(float((z - best).square().mean()))
    assert found["excess"] > 0 and abs(found["gap"]) < 3 * found["gap_standard_error"]
    assert found["membership"] == pytest.approx(0.5, abs=0.1)


def test_a_copycat_is_caught_and_one_of_other_pictures_is_not(real: RealPictures) -> None:
    """Every measure that has a sigma: the copycat knows S, the other one as many pictures that nobody trained on."""
    optimum = EmpiricalOptimum(real.train)
    sets = {"train": real.train[:40], "held_out": real.held_out[:40], "sigmas": [0.1], "seed": 1}
    (caught,), (innocent,) = (profile(Copycat(x), optimum, **sets) for x in (real.train, real.other))
    assert caught["gap"] > 5 * caught["gap_standard_error"] and caught["membership"] > 0.99
    assert caught["from_optimum"] < 1e-3 and caught["excess"] < 1e-3
    assert abs(innocent["gap"]) < 3 * innocent["gap_standard_error"]
    assert innocent["membership"] == pytest.approx(0.5, abs=0.15)
    assert innocent["from_optimum"] > 0.05 and innocent["excess"] > 0.05
    noise = latents(0, torch.arange(40), 12)
    samples = {name: heun(Copycat(x), noise) for name, x in (("caught", real.train), ("innocent", real.other))}
    assert information(samples["caught"], real, components=8)["proxy"] > 0
    assert information(samples["innocent"], real, components=8)["proxy"] < 0
    assert two_model_test(samples["caught"], samples["innocent"])["ratio"] > 0.3


def test_a_copycat_of_tiles_is_caught_and_one_of_other_tiles_is_not(tiles: dict[str, Tensor]) -> None:
    """The same on satellite pictures: S of the training split, the innocent copycat knows tiles of the test split."""

    def some(split: str, n: int) -> Tensor:
        order = torch.randperm(len(tiles[split]), generator=torch.Generator().manual_seed(0))
        small = torch.nn.functional.avg_pool2d(tiles[split][order[:n]].double() / 127.5 - 1, 2)
        return small.flatten(1)

    (train, calibration), (other, held_out) = some("train", 200).chunk(2), some("test", 200).chunk(2)
    real = RealPictures(train=train, other=other, calibration=calibration, held_out=held_out)
    optimum, noise = EmpiricalOptimum(train), latents(0, torch.arange(40), train.shape[1])
    sets = {"train": train, "held_out": held_out, "sigmas": [0.3], "seed": 1}
    found = {}
    for name, known in (("caught", train), ("innocent", other)):
        (at_sigma,) = profile(Copycat(known), optimum, **sets)
        samples, path = reverse_path(lambda model: heun(model, noise, steps=8), Copycat(known), optimum)
        found[name] = at_sigma | {"information": information(samples, real, components=16), "path": path[-1]}
    caught, innocent = found["caught"], found["innocent"]
    assert caught["gap"] > 5 * caught["gap_standard_error"] and caught["membership"] > 0.99
    assert abs(innocent["gap"]) < 3 * innocent["gap_standard_error"]
    assert innocent["membership"] == pytest.approx(0.5, abs=0.15)
    assert caught["path"]["from_optimum"] < 1e-6 < 0.01 < innocent["path"]["from_optimum"]
    assert caught["information"]["proxy"] > 3 * caught["information"]["standard_error"]
    assert innocent["information"]["proxy"] < 0


def test_the_reverse_path_is_seen_where_the_sampler_asks(real: RealPictures) -> None:
    optimum, other = EmpiricalOptimum(real.train), EmpiricalOptimum(real.other)
    noise = latents(0, torch.arange(8), 12)

    def sampler(denoiser: EmpiricalOptimum) -> Tensor:
        return heun(denoiser, noise, steps=6)

    samples, path = reverse_path(sampler, other, optimum)
    assert torch.equal(samples, sampler(other))
    assert len(path) == 6 and path[0]["sigma"] == pytest.approx(80) and path[-1]["sigma"] == pytest.approx(0.002)
    # ends on pictures of the other set, which are not of this one
    assert path[0]["from_optimum"] < 0.1 < path[-1]["from_optimum"]
    assert all(point["from_optimum"] == 0 for point in reverse_path(sampler, optimum, optimum)[1])


def test_noise_depends_on_the_picture_and_not_on_the_others() -> None:
    x = torch.zeros(10, 3)
    z = noised(x, 2.0, 0, "train")
    assert torch.equal(z[:4], noised(x[:4], 2.0, 0, "train"))
    for other in (noised(x, 2.0, 1, "train"), noised(x, 2.0, 0, "held_out")):
        assert not torch.equal(z, other)


def test_membership_counts_pairs() -> None:
    assert membership(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])) == (1 + 1 + 0.5 + 1) / 4


# Bad input


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_a_level_that_is_none_is_refused(real: RealPictures, sigma: float) -> None:
    optimum = EmpiricalOptimum(real.train)
    with pytest.raises(ValueError, match=r"^sigma: got .*, expected a positive number$"):
        profile(optimum, optimum, train=real.train, held_out=real.held_out, sigmas=[sigma], seed=0)
    with pytest.raises(ValueError, match="bandwidth: got"):
        kde_log_density(real.train, real.train, sigma)


def test_sets_that_cannot_be_used_are_named(real: RealPictures) -> None:
    optimum, empty = EmpiricalOptimum(real.train), real.train[:0]
    with pytest.raises(ValueError, match="got 0 training and 100 held-out pictures, expected at least one each"):
        profile(optimum, optimum, train=empty, held_out=real.held_out, sigmas=[1.0], seed=0)
    with pytest.raises(ValueError, match=r"got pictures \[11\], expected \[12\]"):
        profile(optimum, optimum, train=real.train, held_out=real.held_out[:, 1:], sigmas=[1.0], seed=0)
    with pytest.raises(ValueError, match="held_out: got no pictures"):
        RealPictures(train=real.train, other=real.other, calibration=real.calibration, held_out=empty)
    with pytest.raises(ValueError, match=r"other: got pictures \[11\], expected \[12\]"):
        RealPictures(train=real.train, other=real.other[:, 1:], calibration=real.calibration, held_out=real.held_out)
    with pytest.raises(ValueError, match="components: got 12 for 12 pictures of 12 values"):
        PrincipalComponents.fit(real.train[:12], 12)
    with pytest.raises(ValueError, match="got no pictures"):
        information(empty, real)
    with pytest.raises(ValueError, match=r"got pictures \[11\], expected \[12\] as in the training set"):
        information(real.train[:, 1:], real)
    with pytest.raises(ValueError, match="got pictures of 11 values, expected 12"):
        PrincipalComponents.fit(real.train, 3)(real.train[:, 1:])
    with pytest.raises(ValueError, match="at least one center"):
        kde_log_density(real.train, empty, 1.0)
    with pytest.raises(ValueError, match="expected at least one each"):
        membership(torch.ones(0), torch.ones(3))
    for first, second in ((real.train[:1], real.train[:1]), (real.train, real.train[:5])):
        with pytest.raises(ValueError, match="two sets of at least two pictures alike"):
            two_model_test(first, second)
