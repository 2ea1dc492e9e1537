"""Masks: which weights, how much of a network they are, overlap, and that they stay exact whatever trains."""

import pytest
import torch
from torch import nn

from pygan.context import Context
from pygan.errors import DataError
from pygan.ops import spectral_norm
from pygan.pruning.masks import (
    Masked,
    as_masks,
    bare_networks,
    check_fit,
    compare,
    intersection_over_union,
    prunable,
    shares,
    sparsity,
)
from pygan.spec import load_spec
from pygan.training.ema import Average

CIFAR = Context(resolution=32)


def bare(**base) -> nn.Module:
    return bare_networks(load_spec("pygan.networks", base), CIFAR)


# Which weights


def test_the_generator_of_the_release_has_as_many_prunable_weights_as_the_paper_counts():
    """3,742,464 convolution weights and 524,288 linear ones; 10 rounds leave 22 % of the whole (spec 1.3)."""
    networks = bare(kind="sngan")
    conv, everything = (prunable(networks, ("G",), layers) for layers in ("conv", "all"))
    count = {n: p.numel() for n, p in networks.named_parameters()}
    assert sum(count[n] for n in conv) == 3_742_464
    assert set(everything) - set(conv) == {"G.linear.weight"}
    assert count["G.linear.weight"] == 524_288
    living = 0.8**10 * 3_742_464 + 524_288
    assert living / (3_742_464 + 524_288) == pytest.approx(0.22, abs=0.005)


def test_networks_and_layers_decide():
    networks = bare(kind="sngan", g_channels=8, d_channels=8)
    both = prunable(networks, ("G", "D"))
    assert both == prunable(networks, ("G",)) + prunable(networks, ("D",))
    assert all(n.endswith("parametrizations.weight.original") for n in prunable(networks, ("D",)))
    heads = set(prunable(networks, ("D",), "all")) - set(both)
    assert heads == {"D.0.network.logit.linear.parametrizations.weight.original"}


@pytest.mark.parametrize("kind", ["dcgan", "sngan", "biggan", "stylegan2"])
def test_embeddings_normalizations_and_biases_are_never_pruned(kind):
    base = load_spec("pygan.networks", {"kind": kind, "conditional": True})
    networks = bare_networks(base, Context(resolution=32, num_classes=5))
    names = prunable(networks, ("G", "D"), "all")
    assert names
    owners = {n: networks.get_submodule(n.split(".parametrizations.")[0].removesuffix(".weight")) for n in names}
    assert not any(isinstance(m, nn.Embedding | nn.BatchNorm2d) for m in owners.values())
    assert not any("bias" in n.rsplit(".", 1)[1] for n in names)
    assert not any(".embed." in n or ".shared." in n for n in names if kind != "stylegan2")


def test_a_network_without_convolutions_is_refused():
    networks = nn.ModuleDict({"D": nn.ModuleList([nn.ModuleDict({"network": nn.Linear(3, 1)})])})
    with pytest.raises(ValueError, match=r"networks: got D, which has no convolution weights \(4-D\) to prune"):
        prunable(networks, ("D",))
    assert prunable(networks, ("D",), "all") == ["D.0.network.weight"]


# How much


def test_shares_tell_the_convolutions_from_the_whole():
    networks = nn.ModuleDict({"G": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 3)), "D": nn.Conv2d(1, 1, 2)})
    mask = torch.ones(2, 1, 3, 3, dtype=torch.bool)
    mask[0] = False
    assert shares(networks, {"G.0.weight": mask}) == {
        "G_conv": {"parameters": 18, "living": 9, "sparsity": 0.5},
        "G": {"parameters": 18 + 2 + 12 + 3, "living": 26, "sparsity": 1 - 26 / 35},
        "D_conv": {"parameters": 4, "living": 4, "sparsity": 0},
        "D": {"parameters": 5, "living": 5, "sparsity": 0},
        "all": {"parameters": 40, "living": 31, "sparsity": 1 - 31 / 40},
    }
    assert sparsity({"G.0.weight": mask}) == 0.5


# Overlap


def test_intersection_over_union():
    a = {"w": torch.tensor([True, True, False, False])}
    b = {"w": torch.tensor([True, False, True, False])}
    assert intersection_over_union(a, b) == 1 / 3
    assert intersection_over_union(a, a) == 1
    # Two random halves of four share one on average: 1 / 3.
    assert compare(a, b) == {"intersection_over_union": 1 / 3, "expected_by_chance": 1 / 3, "tensors": {"w": 1 / 3}}


def test_independent_masks_overlap_as_expected():
    draw = torch.Generator().manual_seed(0)
    a, b = ({"v": torch.rand(40_000, generator=draw) < p, "w": torch.rand(9_000, generator=draw) < q}
            for p, q in ((0.8, 0.3), (0.5, 0.9)))  # fmt: skip
    result = compare(a, b)
    assert result["intersection_over_union"] == pytest.approx(result["expected_by_chance"], abs=0.01)


def test_masks_of_other_tensors_do_not_compare():
    a, b = {"w": torch.ones(2, dtype=torch.bool)}, {"v": torch.ones(2, dtype=torch.bool)}
    with pytest.raises(DataError, match="masks of different networks or layers: v is not the same in both"):
        intersection_over_union(a, b)
    with pytest.raises(DataError, match="w is not the same"):
        intersection_over_union(a, {"w": torch.ones(3, dtype=torch.bool)})


# Exact through training


def half(shape: torch.Size) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.5


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99)),
    "adam without momentum": lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, 0.9)),
    "weight decay": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.5),
    "decoupled weight decay": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masks_stay_exact_under_the_optimizer(name):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3)
    mask = half(net.weight.shape)
    optimizer = OPTIMIZERS[name](net.parameters())
    net(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()  # dense: moments of all weights, as those of a snapshot that is rewound to
    masked = Masked(net, {"weight": mask})
    masked.zero_weights()
    before = net.weight.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 8, 8)).square().mean().backward()
        masked.zero_gradients()
        assert (net.weight.grad[~mask] == 0).all()
        optimizer.step()
        masked.zero_weights()
        assert (net.weight[~mask] == 0).all()
    assert (net.weight[mask] != before[mask]).all()


def test_a_weight_that_is_not_a_number_is_pruned_all_the_same():
    net = nn.Linear(2, 1)
    net.weight.data[0, 0] = torch.nan
    Masked(net, {"weight": torch.tensor([[False, True]])}).zero_weights()
    assert net.weight[0, 0] == 0


def test_the_moving_average_of_zeros_is_zero():
    net = nn.Conv2d(1, 2, 3)
    mask = half(net.weight.shape)
    masked = Masked(net, {"weight": mask})
    masked.zero_weights()
    average = Average(net, halflife_nimg=10, rampup=None)
    for i in range(1, 4):
        net.weight.data.add_(torch.randn_like(net.weight))
        masked.zero_weights()
        average.update(net, 4 * i, 4)
    assert (average.G.weight[~mask] == 0).all() and (average.G.weight[mask] != 0).all()


def test_spectral_normalization_sees_the_masked_weight():
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(6, 5, bias=False))
    name = "parametrizations.weight.original"
    mask = half(torch.Size([5, 6]))
    masked = Masked(layer, {name: mask})
    masked.zero_weights()
    for _ in range(200):  # power iterations towards the norm of the masked matrix
        weight = layer.weight
    original = layer.get_parameter(name).detach()
    assert (original[~mask] == 0).all()
    torch.testing.assert_close(weight, original / torch.linalg.svdvals(original)[0], rtol=1e-4, atol=1e-6)
    layer(torch.randn(3, 6)).square().sum().backward()
    masked.zero_gradients()
    assert (layer.get_parameter(name).grad[~mask] == 0).all()


# Masks of something else


def test_masks_of_another_network_are_refused():
    mask = {"weight": torch.ones(1, 1, 3, 3, dtype=torch.bool)}
    words = r"made for another architecture, weight has shape \[1, 1, 3, 3\], expected \[4, 3, 3, 3\]"
    with pytest.raises(DataError, match=f"the mask: {words}"):
        Masked(nn.Conv2d(3, 4, 3), mask)
    with pytest.raises(DataError, match=r"m\.safetensors: made for another architecture, weight is no parameter"):
        check_fit(nn.ReLU(), mask, "m.safetensors")


def test_a_file_keeps_masks_as_bytes():
    masks = as_masks({"G.w": torch.tensor([0, 1, 1], dtype=torch.uint8)})
    assert masks["G.w"].dtype == torch.bool and masks["G.w"].tolist() == [False, True, True]
    with pytest.raises(
        DataError, match=r"mask: not a mask file, got G_ema\.w, expected names that begin with G\. or D\."
    ):
        as_masks({"G_ema.w": torch.zeros(2)})
