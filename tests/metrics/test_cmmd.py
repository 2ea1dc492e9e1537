"""CLIP maximum mean discrepancy: by its definition, its limit, and an interval that covers."""

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pygan.metrics.cmmd import Spec


def _normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _value(real: Tensor, gen: Tensor, **fields: float) -> float:
    return Spec(**fields).build().compute(real, gen)["cmmd"]["value"]


@pytest.mark.parametrize("sigma", [0.5, 10.0])
def test_it_is_the_sum_over_pairs_of_its_definition(sigma: float) -> None:
    real, gen = _normal(5, 3, 0), 4 * _normal(4, 3, 1)

    def mean(a: Tensor, b: Tensor) -> float:
        unit = [[v / v.norm() for v in rows] for rows in (a, b)]
        values = [float(torch.exp(-(x - y).square().sum() / (2 * sigma**2))) for x, y in product(*unit)]
        return sum(values) / len(values)

    expected = 1000 * (mean(real, real) + mean(gen, gen) - 2 * mean(real, gen))
    assert _value(real, gen, sigma=sigma) == pytest.approx(expected, rel=1e-9)


def test_it_is_ten_times_the_squared_distance_of_the_mean_embeddings() -> None:
    # k = 1 - d / 200 + d^2 / 80000 - ... with d at most 4, and MMD of the linear part is |mean x - mean y|^2 / 100
    real, gen = _normal(200, 8, 2) + 1, _normal(200, 8, 3) - 0.5
    means = (F.normalize(real, dim=1).mean(0) - F.normalize(gen, dim=1).mean(0)).square().sum()
    assert _value(real, gen) == pytest.approx(10 * float(means), rel=0.04)


def test_equal_sets_have_none_and_order_and_length_do_not_matter() -> None:
    real, gen = _normal(40, 6, 4), _normal(30, 6, 5)
    assert _value(real, real.flip(0)) == pytest.approx(0, abs=1e-10)
    assert _value(3 * real.flip(0), gen[torch.randperm(30)]) == pytest.approx(_value(real, gen), rel=1e-9)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    shift = torch.tensor([1.0, 0, 0, 0]).double()
    truth = _value(_normal(3000, 4, 6), _normal(3000, 4, 7) + shift)
    hits = 0
    for i in range(200):
        low, high = Spec().build().compute(_normal(80, 4, 2 * i), _normal(80, 4, 2 * i + 1) + shift)["cmmd"]["interval"]
        hits += low <= truth <= high
    # the estimate is biased upwards by 1000 * E[1 - k] / n * 2, small beside its spread at this distance
    assert np.mean(hits) >= 0.85 * 200
