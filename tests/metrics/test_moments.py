"""Streaming moments: those of all rows at once, however they come."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pygan.metrics.moments import Moments


def _rows(n: int, dimensions: int, mean: float = 5.0, std: float = 0.05) -> Tensor:
    """The hard case: a mean of a hundred standard deviations."""
    return mean + std * torch.randn(n, dimensions, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def _streamed(x: Tensor, sizes: list[int]) -> Moments:
    moments = Moments(x.shape[1])
    for part in x.split(sizes):
        moments.add(part)
    return moments


@pytest.mark.parametrize("sizes", [[3000], [1] * 7 + [2993], [1500, 1500], [2999, 1]])
def test_they_are_numpys_whatever_the_batches(sizes: list[int]) -> None:
    x = _rows(3000, 6)
    moments = _streamed(x, sizes)
    assert moments.n == 3000
    np.testing.assert_allclose(moments.mean, x.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(x.numpy(), rowvar=False), rtol=1e-9, atol=1e-15)


def test_the_order_does_not_matter() -> None:
    x = _rows(2000, 5)
    first, second = _streamed(x, [700, 1300]), _streamed(x.flip(0), [100, 1900])
    torch.testing.assert_close(first.mean, second.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(first.covariance, second.covariance, rtol=1e-9, atol=1e-15)


def test_parts_add_up() -> None:
    """Three processes, each with a shift of its own, and one that saw nothing."""
    x = torch.cat([_rows(50, 4), _rows(600, 4, mean=-3.0), _rows(7, 4, mean=0.0)])
    parts = [Moments(4).add(part) for part in x.split([50, 600, 7])]
    merged = Moments(4).merge(parts[0]).merge(parts[1]).merge(Moments(4)).merge(parts[2])
    whole = Moments(4).add(x)
    assert merged.n == whole.n == 657
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-11, atol=1e-13)


def test_merging_leaves_the_other_part_as_it_was() -> None:
    x = _rows(40, 3)
    first, second = Moments(3).add(x[:20]), Moments(3).add(x[20:])
    Moments(3).merge(first).merge(second).add(x)
    torch.testing.assert_close(first.covariance, torch.cov(x[:20].T), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(second.covariance, torch.cov(x[20:].T), rtol=1e-9, atol=1e-15)


def test_single_precision_features_are_summed_in_double() -> None:
    x = _rows(3000, 3).float()
    expected = np.cov(x.double().numpy(), rowvar=False)
    np.testing.assert_allclose(_streamed(x, [1000] * 3).covariance, expected, rtol=1e-9, atol=1e-14)
    raw = (x.T @ x / 3000 - torch.outer(x.mean(0), x.mean(0))).numpy()  # what the shift is for
    assert np.abs(raw - expected).max() > 1e-4 * np.abs(expected).max()
