"""Subsets: sizes, the published long-tail counts, and that the seed decides."""

import numpy as np
import pytest

from pygan.data.subset import Fraction, LongTailed, NShot, parse_subset, select
from pygan.errors import ConfigError

LABELS = np.arange(6000) % 10


def test_none_is_everything():
    assert select(LABELS, None, 0).tolist() == list(range(6000))


@pytest.mark.parametrize(
    ("subset", "size"), [(NShot(n=100), 100), (Fraction(fraction=0.1), 600), (Fraction(fraction=1e-9), 1)]
)
def test_sizes(subset, size):
    chosen = select(LABELS, subset, 0)
    assert chosen.dtype == np.int64 and len(set(chosen)) == size and (np.diff(chosen) > 0).all()


def test_per_class():
    chosen = select(LABELS, NShot(n=7, per_class=True), 0)
    assert np.bincount(LABELS[chosen]).tolist() == [7] * 10


@pytest.mark.parametrize("make", [lambda n: NShot(n=n), lambda n: NShot(n=n, per_class=True)])
def test_the_seed_decides_and_smaller_subsets_are_nested(make):
    first = select(LABELS, make(100), 3)
    np.testing.assert_array_equal(first, select(LABELS, make(100), 3))
    assert set(first) != set(select(LABELS, make(100), 4))
    assert set(select(LABELS, make(20), 3)) < set(first)


def test_draws_are_uniform():
    share = np.mean([select(LABELS, NShot(n=600), seed).mean() for seed in range(20)])
    # mean of 12000 uniform draws from 0..5999: standard error 1732 / sqrt(12000) = 16
    assert abs(share - 2999.5) < 5 * 16


@pytest.mark.parametrize("imbalance_factor", [1, 10, 100, 1000])
def test_exponential_counts(imbalance_factor):
    labels = np.arange(50_000) % 10
    spec = LongTailed(imbalance_factor=imbalance_factor)
    counts = spec.counts(labels)
    exact = 5000 * imbalance_factor ** (-np.arange(10) / 9)
    assert np.all(np.abs(counts - (exact - 0.5)) <= 0.5 + 1e-6)
    assert (counts[0], counts[-1]) == (5000, 5000 // imbalance_factor)
    np.testing.assert_array_equal(np.bincount(labels[select(labels, spec, 0)], minlength=10), counts)


@pytest.mark.parametrize(
    ("imbalance_factor", "expected", "total"),
    [
        (100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50], 12406),
        (1000, [5000, 2320, 1077, 500, 232, 107, 50, 23, 10, 5], 9324),
    ],
)
def test_the_published_long_tails_of_cifar_10(imbalance_factor, expected, total):
    """The counts of the gSR release (Rangwani et al., ECCV 2022)."""
    counts = LongTailed(imbalance_factor=imbalance_factor).counts(np.arange(50_000) % 10)
    assert counts == expected and sum(counts) == total


@pytest.mark.parametrize(
    ("imbalance_factor", "expected"),
    [(100, [50000, 15811, 5000, 1581, 500]), (1000, [50000, 8891, 1581, 281, 50])],
)
def test_the_published_long_tails_of_lsun(imbalance_factor, expected):
    assert LongTailed(imbalance_factor=imbalance_factor, n_max=50_000).counts(np.arange(5)) == expected


def test_step_counts():
    spec = LongTailed(imbalance_factor=50, n_max=100, profile="step")
    assert spec.counts(np.arange(100) % 5) == [100, 100, 2, 2, 2]


def test_one_class_has_no_tail():
    assert LongTailed(imbalance_factor=10).counts(np.zeros(8, np.int64)) == [8]


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (NShot(n=6001), "n = 6001, expected at most the 6000 pictures of the training split"),
        (NShot(n=601, per_class=True), "n = 601, expected at most the 600 pictures of class 0"),
        (LongTailed(imbalance_factor=10, n_max=601), "n = 601, expected at most the 600 pictures of class 0"),
    ],
)
def test_too_many(subset, message):
    with pytest.raises(ConfigError, match=message):
        select(LABELS, subset, 0)


def test_parse():
    assert parse_subset({"kind": "n_shot", "n": 5}) == NShot(n=5)
    assert parse_subset({"kind": "fraction", "fraction": 0.5}) == Fraction(fraction=0.5)
    with pytest.raises(ConfigError, match=r"runs\.base\.subset.*n"):
        parse_subset({"kind": "n_shot", "n": 0}, "runs.base.subset")
    with pytest.raises(ConfigError, match="subset"):
        parse_subset({"kind": "all"})
