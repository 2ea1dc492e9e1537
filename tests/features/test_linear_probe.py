"""The linear probe: separates what is separable, guesses where nothing differs, and repeats itself."""

import pytest
import torch

from pygan.errors import NumericalError
from pygan.features.probe import linear_probe, rank


def _features(n: int, shift: float, seed: int, dimensions: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, dimensions, generator=generator)
    x[:, 0] += shift
    return x


def test_separable_features_are_separated() -> None:
    result = linear_probe(_features(60, 20, 0), _features(60, -20, 1), seed=0)
    assert result["accuracy"] == 1 and result["bce"] < 0.05
    low, high = result["accuracy_ci"]
    assert 0.9 < low < 1 and high == 1


def test_equal_distributions_give_chance() -> None:
    result = linear_probe(_features(1000, 0, 2), _features(1000, 0, 3), seed=0)
    assert result["accuracy_ci"][0] < 0.5 < result["accuracy_ci"][1]
    assert result["bce_ci"][0] - 0.01 < torch.log(torch.tensor(2.0)) < result["bce_ci"][1] + 0.01


def test_accuracy_of_two_shifted_gaussians_is_the_normal_distribution_function() -> None:
    # the best threshold between N(-1, 1) and N(1, 1) is 0, right with probability Phi(1)
    best = float(torch.special.ndtr(torch.tensor(1.0)))
    result = linear_probe(_features(2000, 1, 4, 1), _features(2000, -1, 5, 1), seed=0)
    assert result["accuracy_ci"][0] < best < result["accuracy_ci"][1]
    assert result["accuracy_ci"][1] - result["accuracy_ci"][0] < 0.04


def test_the_same_seed_gives_the_same_numbers() -> None:
    real, gen = _features(50, 0.5, 6), _features(40, 0, 7)
    assert linear_probe(real, gen, seed=3) == linear_probe(real, gen, seed=3)
    assert linear_probe(real, gen, seed=3) != linear_probe(real, gen, seed=4)


def test_rank_follows_the_criterion_and_keeps_the_order_of_equals() -> None:
    results = {"a": {"accuracy": 0.9, "bce": 0.5}, "b": {"accuracy": 0.9, "bce": 0.2}, "c": {"accuracy": 1, "bce": 0.3}}
    assert rank(results) == ["c", "a", "b"]
    assert rank(results, "cross_entropy") == ["b", "c", "a"]
    with pytest.raises(ValueError, match="criterion"):
        rank(results, "loss")


def test_bad_features_are_refused() -> None:
    good = _features(10, 0, 8)
    with pytest.raises(ValueError, match="at least 4 rows"):
        linear_probe(good, good[:3], seed=0)
    with pytest.raises(NumericalError):
        linear_probe(good, good.clone().fill_(float("nan")), seed=0)
