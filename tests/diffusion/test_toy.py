"""The ring: its law, its networks, and what the study of them says."""

import math

import pytest
import torch

from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.generalization import profile
from pygan.diffusion.toy import OBJECTIVES, SIGMA_DATA, ToySpec, energy_distance, ring, toy_study, train_network
from pygan.draws import Draws

SMALL = ToySpec(points=8, hidden=16, steps=30, batch=32, samples=16, sampler_steps=4, ddim_steps=5, sigmas=(0.1, 1.0))


def points(n: int, seed: int = 0) -> torch.Tensor:
    return ring(0.05, Draws(seed, "test", torch.arange(n)))


def test_the_ring_has_the_radius_and_deviation_it_says() -> None:
    x = points(20_000)
    radius = x.norm(dim=1)
    assert float(radius.mean()) == pytest.approx(1, abs=0.002) and float(radius.std()) == pytest.approx(0.05, rel=0.03)
    assert x.mean(0).abs().max() < 0.02
    assert float(x.square().mean()) == pytest.approx(SIGMA_DATA**2, rel=0.01)  # E r^2 / 2, up to 0.05^2 / 2
    assert torch.equal(points(5), x[:5])


def test_energy_distance_is_that_of_its_pairs() -> None:
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    # between: 1, 5, 1, 3; within: 2 and 4
    assert energy_distance(x, y) == pytest.approx(2 * 10 / 4 - 2 - 4)
    assert energy_distance(points(400), points(400, seed=1)) == pytest.approx(0, abs=0.02)
    assert energy_distance(points(400), 0.5 * points(400, seed=1)) > 0.1
    with pytest.raises(ValueError, match="expected at least two points in each set, got 1 and 2"):
        energy_distance(x[:1], y)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_comes_nearer_to_the_optimum(objective: str) -> None:
    x = points(8)
    optimum = EmpiricalOptimum(x)

    def distance(steps: int) -> float:
        settings = ToySpec(points=8, hidden=32, steps=steps, batch=64, learning_rate=5e-3, ema=0.9)
        network = train_network(x, objective, settings, seed=0)
        found = profile(network, optimum, train=x, held_out=x, sigmas=(0.3, 0.7), seed=0)
        return sum(point["from_optimum"] for point in found)

    assert distance(200) < 0.8 * distance(1)


def test_both_objectives_start_alike_and_repeat() -> None:
    x = points(8)
    at_start = [train_network(x, objective, ToySpec(hidden=8, steps=1, ema=0.999999), 0) for objective in OBJECTIVES]
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    first, second = (network.denoise(z, 1.0) for network in at_start)
    assert torch.allclose(first, second, atol=1e-4)
    again = train_network(x, "denoising", ToySpec(hidden=8, steps=1, ema=0.999999), 0)
    assert torch.equal(first, again.denoise(z, 1.0))
    assert not torch.allclose(first, train_network(x, "denoising", ToySpec(hidden=8, steps=1), 1).denoise(z, 1.0))


def test_the_study_measures_every_system() -> None:
    record, samples = toy_study(SMALL, 0)
    assert samples.keys() == {"train", *record["systems"]}
    assert all(len(x) == 16 for name, x in samples.items() if name != "train")
    assert record["profiles"].keys() == record["reverse"].keys() == set(OBJECTIVES)
    assert all(math.isfinite(value) for system in record["systems"].values() for value in system.values())
    # samples of the optimum are training points, those of fresh points are not
    distance = torch.cdist(samples["optimum"], samples["train"]).min(1).values
    assert float(distance.median()) < 0.01
    assert float(torch.cdist(samples["held_out"], samples["train"]).min(1).values.median()) > 0.05


@pytest.mark.slow
def test_trained_networks_are_near_the_optimum_and_do_not_return_the_points() -> None:
    record, samples = toy_study(ToySpec(steps=800, samples=200), 0)

    def nearest(name: str) -> float:
        return float(torch.cdist(samples[name], samples["train"]).min(1).values.median())

    held_out = nearest("held_out")
    assert nearest("optimum") < 0.01 * held_out
    for objective in OBJECTIVES:
        assert max(point["from_optimum"] for point in record["profiles"][objective]) < 0.02 * SIGMA_DATA**2
        assert nearest(objective) > 0.5 * held_out
        assert record["systems"][objective]["radius_error"] < 0.08
