"""Whole channels: what turns one off, and that the smaller generator makes the same pictures."""

import pytest
import torch
from torch import nn

from pygan.context import Context
from pygan.pruning.channels import as_weight_masks, channels_of, groups_of, living_channels, magnitudes, slim
from pygan.pruning.lottery import Spec
from pygan.pruning.masks import Masked, Round, bare_networks
from pygan.spec import load_spec

BASES = {
    "dcgan": {"kind": "dcgan", "z_dim": 8, "g_channels": 4},
    "sngan": {"kind": "sngan", "z_dim": 8, "g_channels": 6, "d_channels": 4},
    "sngan pyramid": {"kind": "sngan", "z_dim": 8, "g_channels": 2, "d_channels": 2, "widths": "pyramid"},
}


def generator(base: dict, classes: int = 0) -> nn.Module:
    """A generator with statistics and normalizations that are not those of the start."""
    torch.manual_seed(0)
    ctx = Context(resolution=32, num_classes=classes)
    G = load_spec("pygan.networks", base | {"conditional": classes > 0}).generator(ctx)
    for p in G.parameters():
        nn.init.normal_(p, std=0.3)
    with torch.no_grad():
        for _ in range(3):
            G(torch.randn(8, 8), torch.arange(8) % classes if classes else None)
    return G.requires_grad_(False)


def prune(G: nn.Module, base: dict, fraction: float, scope: str = "layer", classes: int = 0) -> dict[str, torch.Tensor]:
    ctx = Context(resolution=32, num_classes=classes)
    networks = bare_networks(load_spec("pygan.networks", base | {"conditional": classes > 0}), ctx)
    state = {f"G.{n}": p for n, p in G.named_parameters()}
    spec = Spec(found_in="dense", structure="channel", fraction=fraction, scope=scope)
    return spec.next_masks(Round(networks=networks, state=state))


def masked(G: nn.Module, masks: dict[str, torch.Tensor]) -> nn.Module:
    Masked(G, {n.removeprefix("G."): m for n, m in masks.items()}).zero_weights()
    return G


@pytest.mark.parametrize(("classes", "training"), [(0, False), (3, True)])
@pytest.mark.parametrize("base", BASES)
def test_the_smaller_generator_makes_the_same_pictures(base, classes, training):
    G = generator(BASES[base], classes)
    masked(G, prune(G, BASES[base], 0.5, classes=classes)).train(training)
    z, c = torch.randn(5, 8), torch.arange(5) % classes if classes else None
    before, parameters = G(z, c), sum(p.numel() for p in G.parameters())
    slim(G, living_channels(G))
    torch.testing.assert_close(G(z, c), before, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in G.parameters()) < 0.8 * parameters
    assert living_channels(G) == {}


def test_the_channels_with_the_smallest_norm_go():
    G = generator(BASES["dcgan"])
    groups = channels_of(G)
    assert [g.name for g in groups] == ["convs.0.weight", "convs.1.weight", "convs.2.weight"]
    norms = {g.name: G.get_parameter(g.name).abs().sum((1, 2, 3)) for g in groups}
    torch.testing.assert_close(
        magnitudes(groups, dict(G.named_parameters())), {n: v.double() for n, v in norms.items()}
    )
    living = living_channels(masked(G, prune(G, BASES["dcgan"], 0.25)))
    for name, norm in norms.items():
        assert living[name] == sorted(norm.argsort()[round(0.25 * len(norm)) :].tolist())


def test_a_dead_channel_is_zero_in_all_that_writes_and_reads_it():
    networks = bare_networks(load_spec("pygan.networks", BASES["dcgan"]), Context(resolution=32))
    groups, shapes = groups_of(networks), {n: p.shape for n, p in networks.named_parameters()}
    alive = {g.name: torch.ones(shapes[g.name][0], dtype=torch.bool) for g in groups}
    alive["G.convs.0.weight"][1] = False
    masks = as_weight_masks(groups, alive, shapes)
    dead = {n: int((~m).sum()) for n, m in masks.items() if not m.all()}
    # widths 16, 8, 4, 4: written by 16 x 9 weights, a gain and a bias, read by 4 filters of 9.
    assert dead == {
        "G.convs.0.weight": 16 * 9,
        "G.norms.1.norm.weight": 1,
        "G.norms.1.norm.bias": 1,
        "G.convs.1.weight": 4 * 9,
    }


def test_rounds_of_channels_are_nested_and_count_channels():
    G = generator(BASES["sngan"])
    networks = bare_networks(load_spec("pygan.networks", BASES["sngan"]), Context(resolution=32))
    state = {f"G.{n}": p for n, p in G.named_parameters()}
    spec, before = Spec(found_in="dense", structure="channel", rounds=2, fraction=0.3, scope="scale_free"), {}
    for expected in (18 - round(0.3 * 18), 13 - round(0.3 * 13)):
        masks = spec.next_masks(Round(networks=networks, state=state, masks=before))
        assert all((masks[n] <= before[n]).all() for n in before)
        alive = sum(int(masks[f"G.blocks.{i}.conv1.bias"].sum()) for i in range(3))
        assert alive == expected
        before = masks


@pytest.mark.parametrize("base", [{"kind": "biggan", "g_channels": 2, "d_channels": 2}, {"kind": "stylegan2"}])
def test_bases_without_removable_channels_are_refused(base):
    networks = bare_networks(load_spec("pygan.networks", base | {"conditional": False}), Context(resolution=32))
    assert channels_of(networks.G) == []
    with pytest.raises(ValueError, match="has no channels that can go, expected dcgan or sngan"):
        groups_of(networks)


def test_channels_that_a_generator_does_not_have_are_refused():
    G = generator(BASES["dcgan"])
    with pytest.raises(ValueError, match=r"got channels of convs\.7\.weight, expected one of convs\.0\.weight"):
        slim(G, {"convs.7.weight": [0]})
    for kept in ([], [3, 1], [0, 99], [-1, 0]):
        with pytest.raises(ValueError, match="expected increasing numbers below 8"):
            slim(G, {"convs.0.weight": kept})
