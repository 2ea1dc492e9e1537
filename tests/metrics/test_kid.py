"""Kernel distance: by its definition, unbiased, with an interval that covers, and equal to other implementations."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from pygan.metrics.kid import Spec

KID = Spec(resamples=200).build()


def _normal(n: int, dimensions: int, seed: int) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_the_sum_over_pairs_of_its_definition() -> None:
    real, gen = _normal(5, 3, 0), _normal(4, 3, 1)

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    def within(x: Tensor) -> float:
        return sum(kernel(x[i], x[j]) for i, j in product(range(len(x)), repeat=2) if i != j) / (len(x) * (len(x) - 1))

    across = sum(kernel(x, y) for x, y in product(real, gen)) / 20
    value = KID.compute(real, gen)["kid"]["value"]
    assert value == pytest.approx(within(real) + within(gen) - 2 * across, rel=1e-10)


def test_it_is_unbiased() -> None:
    # x ~ N(0, 1) and y ~ N(m, 1) in one dimension: with k = (xy + 1)^3 and independent pairs
    # E k(x, y) = 1 + 3 E[x] E[y] + 3 E[x^2] E[y^2] + E[x^3] E[y^3], so that the squares of the differences remain
    m = 0.5
    moments_x, moments_y = (0.0, 1.0, 0.0), (m, m**2 + 1, m**3 + 3 * m)
    expected = sum(w * (y - x) ** 2 for w, x, y in zip((3, 3, 1), moments_x, moments_y, strict=True))
    values = [KID.compute(_normal(10, 1, 2 * i), _normal(8, 1, 2 * i + 1) + m)["kid"]["value"] for i in range(300)]
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / len(values) ** 0.5


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    m = 1.0
    expected = 3 * m**2 + 3 * (m**2) ** 2 + (m**3 + 3 * m) ** 2
    hits = 0
    for i in range(200):
        low, high = KID.compute(_normal(60, 1, 2 * i + 7), _normal(60, 1, 2 * i + 8) + m)["kid"]["interval"]
        hits += low <= expected <= high
    assert hits >= 0.85 * 200


def test_it_equals_clean_fid_and_torch_fidelity_on_full_sets() -> None:
    real, gen = _normal(80, 12, 3), 1.2 * _normal(80, 12, 4) + 0.1
    value = KID.compute(real, gen)["kid"]["value"]
    cleanfid = pytest.importorskip("cleanfid.fid")
    other = cleanfid.kernel_distance(real.numpy(), gen.numpy(), num_subsets=1, max_subset_size=80)
    assert value == pytest.approx(other, rel=1e-6)
    fidelity = pytest.importorskip("torch_fidelity.metric_kid")
    other = fidelity.kid_features_to_metric(real, gen, kid_subsets=1, kid_subset_size=80, verbose=False)
    assert value == pytest.approx(other["kernel_inception_distance_mean"], rel=1e-6)


def test_order_and_seed() -> None:
    real, gen = _normal(30, 8, 5), _normal(20, 8, 6)
    result = KID.compute(real, gen)
    assert result == KID.compute(real.flip(0), gen[torch.randperm(20)])
    other = Spec(resamples=200, seed=1).build().compute(real, gen)
    assert other["kid"]["value"] == result["kid"]["value"] and other["kid"]["interval"] != result["kid"]["interval"]
    assert "raw value" in result["kid"]["protocol"] and "\n" not in result["kid"]["protocol"]


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_pictures_have_an_interval(n):
    """A resample that holds one picture alone has no pairs; the others decide."""
    low, high = KID.compute(_normal(n, 5, 0), _normal(20, 5, 1))["kid"]["interval"]
    assert math.isfinite(low) and math.isfinite(high) and low < high
