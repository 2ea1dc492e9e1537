"""SNGAN: published sizes at 32, 64 and 128 pixels, and the details of the two releases."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from pygan.checkpoint import read_tensors, write_tensors
from pygan.context import Context
from pygan.networks.layers import ConditionalBatchNorm, ConvAct, DownBlock
from pygan.networks.sngan import RELEASES, Spec

PYRAMID = {"widths": "pyramid", "g_channels": 64, "d_channels": 64}
PUBLISHED = [
    (32, {}, [256] * 4, [128] * 4, 2),
    (64, PYRAMID, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 4),
    (128, PYRAMID, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 5),
]


def build(resolution: int = 32, num_classes: int = 0, **fields):
    ctx = Context(resolution=resolution, num_classes=num_classes)
    spec = Spec(**({"g_channels": 8, "d_channels": 8, "z_dim": 12} | fields))
    torch.manual_seed(0)
    return spec.generator(ctx), spec.discriminator(ctx)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def conv(a: int, b: int, side: int) -> int:
    return a * b * side**2 + b


def size_of_G(widths: list[int], z_dim: int, classes: int) -> int:
    tables = max(classes, 1)  # an ordinary layer has one gain and one bias
    blocks = sum(conv(a, b, 3) + conv(b, b, 3) + conv(a, b, 1) + 2 * tables * (a + b) for a, b in pairwise(widths))
    return (z_dim + 1) * widths[0] * 16 + blocks + 2 * widths[-1] + conv(widths[-1], 3, 3)


def size_of_D(widths: list[int], halvings: int, classes: int, *, thin: bool, last_bias: bool) -> int:
    total = 0
    for i, (a, b) in enumerate(pairwise([3, *widths])):
        hidden = a if thin and i else b
        shortcut = conv(a, b, 1) if i < halvings or a != b else 0
        total += conv(a, hidden, 3) + conv(hidden, b, 3) + shortcut
    return total + widths[-1] * (1 + classes) + last_bias


@pytest.mark.parametrize(("resolution", "fields", "g", "d", "halvings"), PUBLISHED)
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("classes", [0, 10])
def test_published_sizes(resolution, fields, g, d, halvings, release, classes):
    ctx = Context(resolution=resolution, num_classes=classes)
    spec = Spec(release=release, **fields)
    with torch.device("meta"):
        sizes = count(spec.generator(ctx)), count(spec.discriminator(ctx))
    lottery = release == "lottery"
    assert sizes == (size_of_G(g, 128, classes), size_of_D(d, halvings, classes, thin=lottery, last_bias=not lottery))


def test_the_generator_of_the_lottery_release_has_as_many_weights_as_it_counts():
    """3,742,464 prunable convolution weights beside 524,288 of the linear layer."""
    with torch.device("meta"):
        G = Spec().generator(Context(resolution=32))
    assert sum(p.numel() for p in G.parameters() if p.dim() == 4) == 3_742_464
    assert G.linear.weight.numel() == 524_288


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("widths", ["constant", "pyramid"])
@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_shapes_in_every_size(resolution, widths, release):
    G, D = build(resolution, 3, widths=widths, release=release, g_channels=2, d_channels=2)
    c = torch.tensor([0, 2])
    img = G(torch.randn(2, 12), c)
    assert img.shape == (2, 3, resolution, resolution)
    assert D(img, c).shape == (2,)
    assert len(G.class_affines()) == 2 * len(G.blocks)


@pytest.mark.parametrize(("widths", "side"), [("constant", 8), ("pyramid", 4)])
def test_d_ends_at_the_published_side(widths, side):
    _, D = build(64, widths=widths)
    assert D.blocks(torch.rand(1, 3, 64, 64)).shape[2:] == (side, side)


def test_names_of_the_state_are_those_of_earlier_snapshots():
    G, D = build(num_classes=2)
    assert {name.partition(".")[0] for name in G.state_dict()} == {"linear", "blocks", "norm", "to_img"}
    block = {name.removeprefix("blocks.0.") for name in G.state_dict() if name.startswith("blocks.0.norm1")}
    assert block == {f"norm1.{n}" for n in ("gain.weight", "bias.weight", "norm.running_mean", "norm.running_var")} | {
        "norm1.norm.num_batches_tracked"
    }
    assert {"blocks.0.conv1.conv.weight", "blocks.2.shortcut.bias", "norm.norm.weight"} <= G.state_dict().keys()
    assert {
        "blocks.0.conv1.conv.parametrizations.weight.original",
        "blocks.1.shortcut.conv.parametrizations.weight.0.u",
        "logit.embed.parametrizations.weight.original",
    } <= D.state_dict().keys()


def test_state_goes_through_a_checkpoint(tmp_path):
    networks = build(num_classes=3, release="gsr")
    z, c = torch.randn(4, 12), torch.tensor([0, 1, 2, 0])
    networks[1](networks[0](z, c), c)
    others = build(num_classes=3, release="gsr")
    for i, (network, other) in enumerate(zip(networks, others, strict=True)):
        write_tensors(tmp_path / f"{i}.safetensors", network.state_dict())
        other.load_state_dict(read_tensors(tmp_path / f"{i}.safetensors")[0])
    (G, D), (G2, D2) = networks, others
    img = G.eval()(z, c)
    assert torch.equal(img, G2.eval()(z, c))
    assert torch.equal(D.eval()(img, c), D2.eval()(img, c))


# Details of the releases


def test_the_gsr_release_starts_orthogonal():
    G, D = build(num_classes=3, release="gsr")
    for network in (G, D):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                parametrized = hasattr(module, "parametrizations")
                matrix = (module.parametrizations.weight.original if parametrized else module.weight).flatten(1)
                short = matrix if len(matrix) <= matrix.shape[1] else matrix.T
                torch.testing.assert_close(short @ short.T, torch.eye(len(short)), atol=1e-5, rtol=0)
    for gain, bias in G.class_affines():
        for table in (gain - 1, bias):
            torch.testing.assert_close(table @ table.T, torch.eye(3), atol=1e-5, rtol=0)
    assert (G.norm.norm.weight == 1).all()


def test_the_lottery_release_starts_near_identity():
    G, _ = build(num_classes=3, g_channels=64)
    gains = torch.cat([gain.flatten() for gain, _ in G.class_affines()])
    assert gains.mean().item() == pytest.approx(1, abs=0.005)
    assert gains.std().item() == pytest.approx(0.02, abs=0.005)
    assert not any(bias.any() for _, bias in G.class_affines())
    bound = (6 / (64 * 9 + 64 * 9)) ** 0.5  # Xavier-uniform
    weight = G.blocks[0].conv1.conv.weight
    assert 0.98 * bound < weight.abs().max() <= bound


def test_epsilons_and_last_bias_follow_the_release():
    for release, eps, has_bias in (("lottery", 1e-5, False), ("gsr", 1e-4, True)):
        G, D = build(num_classes=2, release=release)
        assert {m.eps for m in G.modules() if isinstance(m, nn.BatchNorm2d)} == {eps}
        assert (D.logit.linear.bias is not None) == has_bias


def test_initial_spectral_norm_of_a_class_is_that_of_the_gsr_release():
    """Gains minus 1, cut into 16 groups of 16 channels: 0.463 on average in the release."""
    torch.manual_seed(0)
    norms = [ConditionalBatchNorm(256, 10, init=nn.init.orthogonal_) for _ in range(6)]
    gains = torch.cat([norm.affine(torch.arange(10))[0] for norm in norms])
    assert torch.linalg.matrix_norm((gains - 1).view(-1, 16, 16), 2).mean().item() == pytest.approx(0.463, abs=0.01)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("relu_shortcut", [False, True])
def test_what_the_shortcut_reads(first, relu_shortcut):
    block = DownBlock(4, 4, ConvAct, down=False, first=first, relu_shortcut=relu_shortcut)
    nn.init.zeros_(block.conv2.conv.weight)
    x = torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(block(x), relu(x) if relu_shortcut and not first else x)


def test_class_gains_of_an_unconditional_network_are_none():
    assert build()[0].class_affines() == []
