"""What goes and what stays: counts, scopes, nesting, ties."""

import pytest
import torch

from pygan.errors import DataError
from pygan.pruning.masks import sparsity
from pygan.pruning.ranking import remove_count, remove_lowest


def scores() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(4, 3, 3, 3, generator=generator).abs(),
        "b": 10 * torch.randn(2, 4, 3, 3, generator=generator).abs(),
    }


def gone_and_kept(masks: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    s = scores()
    return torch.cat([s[n][~m] for n, m in masks.items()]), torch.cat([s[n][m] for n, m in masks.items()])


@pytest.mark.parametrize("scope", ["global", "layer", "scale_free"])
def test_rounds_of_a_fifth_leave_the_published_sparsities_within_a_weight_a_round(scope):
    """1 - 0.8^k: the paper's 20, 36, 48.8, 59.04, 67.23, 73.79, 79.03, 83.22, 86.58, 89.26 %."""
    w = {"a": torch.rand(50, 40, 5, 5), "b": torch.rand(500)}
    total, masks = 50_500, {}
    published = (0.2, 0.36, 0.488, 0.5904, 0.6723, 0.7379, 0.7903, 0.8322, 0.8658, 0.8926)
    for k, expected in enumerate(published, start=1):
        masks = remove_lowest(w, masks, 0.2, scope)
        living = sum(int(m.sum()) for m in masks.values())
        assert abs(living - total * 0.8**k) <= k * len(w)
        assert sparsity(masks) == pytest.approx(expected, abs=6e-5)


def test_a_global_ranking_has_one_threshold():
    masks = remove_lowest(scores(), {}, 0.3)
    gone, kept = gone_and_kept(masks)
    assert gone.max() <= kept.min()
    assert len(gone) == round(0.3 * (4 * 27 + 2 * 36))
    assert sparsity({"a": masks["a"]}) > sparsity({"b": masks["b"]})  # b is ten times larger


def test_a_ranking_by_layer_takes_the_same_share_of_each():
    masks = remove_lowest(scores(), {}, 0.25, "layer")
    assert [int((~masks[n]).sum()) for n in ("a", "b")] == [27, 18]
    for name, mask in masks.items():
        assert scores()[name][~mask].max() <= scores()[name][mask].min()


def test_a_scale_free_ranking_ignores_the_scale_of_a_layer():
    s = scores()
    masks = remove_lowest(s, {}, 0.3, "scale_free")
    again = remove_lowest({"a": 1000 * s["a"], "b": s["b"]}, {}, 0.3, "scale_free")
    assert all(torch.equal(masks[n], again[n]) for n in s)
    assert not torch.equal(remove_lowest(s, {}, 0.3)["b"], masks["b"])
    # The scale is that of the living: dividing by hand and ranking globally is the same.
    by_hand = {n: w.double() / (w.double() ** 2).mean().sqrt() for n, w in s.items()}
    expected = remove_lowest(by_hand, {}, 0.3)
    assert all(torch.equal(masks[n], expected[n]) for n in s)


@pytest.mark.parametrize("scope", ["global", "layer", "scale_free"])
def test_what_is_gone_never_comes_back(scope):
    first = remove_lowest(scores(), {}, 0.4, scope)
    regrown = {n: 1 / (s + 1e-3) for n, s in scores().items()}  # the smallest are now the largest
    second = remove_lowest(regrown, first, 0.4, scope)
    assert all((second[n] <= first[n]).all() for n in first)
    assert sparsity(second) > sparsity(first)


def test_ties_are_settled_the_same_everywhere():
    masks = remove_lowest({"a": torch.ones(2, 5, 1, 1)}, {}, 0.3)
    assert masks["a"].flatten().tolist() == [False] * 3 + [True] * 7


def test_a_count_over_tensors_takes_the_lowest_of_all():
    s = {"b": torch.tensor([3.0, 1.0]), "a": torch.tensor([2.0, 4.0])}
    alive = {n: torch.ones(2, dtype=torch.bool) for n in s}
    masks = remove_count(s, alive, 2)
    assert {n: m.tolist() for n, m in masks.items()} == {"a": [False, True], "b": [True, False]}
    assert all(m.all() for m in alive.values())  # those given are not touched


def test_a_tensor_that_would_lose_everything_is_refused():
    with pytest.raises(DataError, match="pruning leaves nothing of a: prune less, or rank with `scope: layer`"):
        remove_lowest({"a": torch.rand(10), "b": 5 + torch.rand(10)}, {}, 0.6)


def test_nothing_to_prune_is_refused():
    with pytest.raises(ValueError, match="no weights"):
        remove_lowest({}, {}, 0.2)
