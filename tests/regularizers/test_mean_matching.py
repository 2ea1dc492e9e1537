"""Mean matching: it sees the distance of the means and nothing of the spread."""

from itertools import product

import pytest
import torch
from frozen_look import SMALL, Generator, context, make_step, phi, pictures, to_float

from pygan.regularizers.frozen_features import squared_mean_distance
from pygan.regularizers.mean_matching import Spec


def test_the_value_is_the_squared_distance_of_means_per_feature_without_the_share_of_the_trace() -> None:
    img, G = pictures(), Generator()
    term = Spec(network=SMALL, normalization="network", weight=2.0).build(context(img))
    real, gen = phi(to_float(img)), phi(G())
    biased = ((gen.mean(0) - real.mean(0)) ** 2).sum()
    expected = 2 * (biased - torch.cov(gen.T).trace() / len(gen)) / gen.shape[1]
    value = term(make_step(G))
    assert value.item() == pytest.approx(expected.item(), rel=1e-4)
    (gradient,) = torch.autograd.grad(value, G.img)
    assert gradient.abs().sum() > 0
    assert term.numbers().keys() >= {"weight", "gradient_ratio", "mean_distance"}


def test_no_pressure_on_the_spread_in_expectation() -> None:
    """All batches of two from three equally likely features: the mean estimate is |E x - m|^2, whatever the spread."""
    center, mean = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.5])
    shape = torch.tensor([[2.0, 1.0], [-1.0, -3.0], [-1.0, 2.0]])  # sums to 0
    for spread in (0.0, 1.0, 4.0):
        features = center + spread * shape
        estimates = [squared_mean_distance(features[list(batch)], mean) for batch in product(range(3), repeat=2)]
        assert torch.stack(estimates).mean().item() == pytest.approx(0.5**2 + 2.5**2, abs=1e-4)
