"""Magnitude pruning: counts, ranking, nesting of rounds, and masks that stay exact through Adam."""

import pytest
import torch
from torch import nn

from pygan.pruning.lottery import Spec, prune_by_magnitude
from pygan.pruning.masks import Masked, intersection_over_union, prunable, sparsity


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.randn(4, 3, 3, 3, generator=generator), "b": 10 * torch.randn(2, 4, 3, 3, generator=generator)}


def test_rounds_of_a_fifth_leave_the_published_sparsities():
    w = {"a": torch.randn(40, 50, 5, 5)}
    masks = {}
    for expected in (0.2, 0.36, 0.488):
        masks = prune_by_magnitude(w, masks, 0.2)
        assert sparsity(masks) == pytest.approx(expected, abs=1e-4)


def test_the_ranking_is_global():
    masks = prune_by_magnitude(weights(), {}, 0.3)
    kept = torch.cat([weights()[n].abs()[m] for n, m in masks.items()])
    gone = torch.cat([weights()[n].abs()[~m] for n, m in masks.items()])
    assert gone.max() <= kept.min()
    total = 4 * 27 + 2 * 36
    assert len(gone) == round(0.3 * total)
    assert sparsity({"a": masks["a"]}) > sparsity({"b": masks["b"]})  # b is ten times larger


def test_a_pruned_weight_never_comes_back():
    first = prune_by_magnitude(weights(), {}, 0.4)
    regrown = {n: 1 / (w.abs() + 1e-3) for n, w in weights().items()}  # the smallest are now the largest
    second = prune_by_magnitude(regrown, first, 0.4)
    assert all((second[n] <= first[n]).all() for n in first)


def test_ties_are_settled_the_same_everywhere():
    w = {"a": torch.ones(2, 5, 1, 1)}
    masks = prune_by_magnitude(w, {}, 0.3)
    assert masks["a"].flatten().tolist() == [False] * 3 + [True] * 7


def test_only_convolutions_are_prunable():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1))
    assert set(prunable(net.state_dict())) == {"0.weight"}
    masks = Spec(found_in="dense").next_masks(net.state_dict(), {})
    assert sparsity(masks) == pytest.approx(4 / 18)  # round(0.2 * 18)


def test_masks_stay_exact_under_adam():
    net = nn.Conv2d(3, 4, 3)
    masks = prune_by_magnitude({"weight": net.weight.detach()}, {}, 0.5)
    masked = Masked(net, masks)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    masked.zero_weights()
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 8, 8)).square().mean().backward()
        masked.zero_gradients()
        optimizer.step()
        masked.zero_weights()
        assert (net.weight[~masks["weight"]] == 0).all()
    assert (net.weight[masks["weight"]] != 0).all()


def test_masks_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"mask weight: got shape \(1, 1, 3, 3\), the network has \(4, 3, 3, 3\)"):
        Masked(nn.Conv2d(3, 4, 3), {"weight": torch.ones(1, 1, 3, 3, dtype=torch.bool)})


def test_intersection_over_union():
    a = {"w": torch.tensor([True, True, False, False])}
    b = {"w": torch.tensor([True, False, True, False])}
    assert intersection_over_union(a, b) == 1 / 3
