"""Counter-based draws: distribution, independence of streams, and independence of how samples are batched."""

import math

import torch

from pygan.draws import Draws, permutation

INDEX = torch.arange(100_000)


def test_uniform_has_the_moments_of_the_unit_interval():
    x = Draws(0, "u", INDEX).uniform(2)
    assert x.min() >= 0 and x.max() < 1
    tolerance = 5 / math.sqrt(12 * x.numel())  # five standard errors of the mean
    assert abs(x.mean() - 0.5) < tolerance
    assert abs(x.var() - 1 / 12) < 1e-3


def test_normal_has_unit_moments_and_uncorrelated_columns():
    x = Draws(0, "n", INDEX).normal(3)
    error = 5 / math.sqrt(len(INDEX))
    assert x.mean(0).abs().max() < error
    assert (x.var(0) - 1).abs().max() < 2 * error
    assert (x.pow(4).mean(0) - 3).abs().max() < 0.3
    assert torch.corrcoef(x.T).fill_diagonal_(0).abs().max() < error
    neighbours = torch.corrcoef(torch.stack([x[:-1, 0], x[1:, 0]]))[0, 1]
    assert abs(neighbours) < error


def test_integers_cover_their_range_evenly():
    counts = torch.bincount(Draws(1, "i", INDEX).integers(10), minlength=10)
    assert len(counts) == 10
    assert (counts - 10_000).abs().max() < 5 * math.sqrt(10_000 * 0.9)


def test_a_sample_draws_the_same_in_any_batch():
    whole = Draws(3, "z", torch.arange(16)).normal(4)
    halves = [Draws(3, "z", part).normal(4) for part in torch.arange(16).split(8)]
    assert torch.equal(whole, torch.cat(halves))


def test_seed_stream_and_call_change_the_numbers():
    draws = Draws(0, "a", torch.arange(4))
    first, second = draws.uniform(1), draws.uniform(1)
    others = [Draws(1, "a", torch.arange(4)).uniform(1), Draws(0, "b", torch.arange(4)).uniform(1), second]
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(first, Draws(0, "a", torch.arange(4)).uniform(1))


def test_permutation_is_one_and_depends_on_the_seed():
    order = permutation(0, "order", 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(order, permutation(1, "order", 1000))


def test_a_gpu_makes_the_same_bits():
    """Its arithmetic is that of int64 tensors, which a CPU has too."""
    index = torch.arange(5) + 10**12
    here, there = Draws(0, "a", index), Draws(0, "a", index)
    for shape in ((), (7,), (3, 33, 31)):
        assert torch.equal(torch.from_numpy(here._bits(shape).view("int64")), there._bits_on_gpu(shape))
