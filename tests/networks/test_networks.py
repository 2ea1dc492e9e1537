"""Contracts of every base network of a GAN: shapes, range, cut points, class conditioning, initialization by seed."""

import pytest
import torch
from torch.nn.functional import conv2d

from pygan.context import Context
from pygan.networks import KINDS
from pygan.networks.layers import UpsampledConv, upsample
from pygan.spec import load_spec

SMALL = {
    "dcgan": {"g_channels": 8, "d_channels": 8},
    "sngan": {"g_channels": 8, "d_channels": 8},
    "biggan": {"g_channels": 8, "d_channels": 8},
    "stylegan2": {"z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 8, "mapping_layers": 2},
}
"""Every kind that has a generator and a discriminator."""
BOUNDED = ("dcgan", "sngan", "biggan")
"""Kinds whose pictures end in tanh."""


def build(kind: str, *, resolution: int = 32, num_classes: int = 0, seed: int = 0):
    ctx = Context(resolution=resolution, num_classes=num_classes, seed=seed)
    base = load_spec("pygan.networks", {"kind": kind, **SMALL[kind]})
    torch.manual_seed(seed)
    return base.generator(ctx), base.discriminator(ctx)


def test_every_kind_is_either_of_a_gan_or_a_denoiser():
    for kind in KINDS:
        spec = load_spec("pygan.networks", {"kind": kind})
        assert (
            (kind in SMALL) == hasattr(spec, "generator") == hasattr(spec, "discriminator") != hasattr(spec, "network")
        )


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes_range_and_cut_points(kind, resolution, num_classes):
    G, D = build(kind, resolution=resolution, num_classes=num_classes)
    z = torch.randn(4, G.z_dim)
    c = torch.arange(4) % 3 if num_classes else None
    img = G.train()(z, c)
    assert img.shape == (4, 3, resolution, resolution)
    assert kind not in BOUNDED or img.abs().max() <= 1
    assert D(img, c).shape == (4,)
    G.eval(), D.eval()
    torch.testing.assert_close(G(z, c), G.body(G.stem(z, c), c))
    torch.testing.assert_close(D(img, c), D.head(D.features(img), c))


@pytest.mark.parametrize("kind", SMALL)
def test_class_changes_both_networks(kind):
    G, D = build(kind, num_classes=2)
    z, img = torch.randn(2, G.z_dim), torch.rand(2, 3, 32, 32)
    zeros, ones = torch.zeros(2, dtype=torch.long), torch.ones(2, dtype=torch.long)
    assert not torch.allclose(G.eval()(z, zeros), G(z, ones))
    assert not torch.allclose(D.eval()(img, zeros), D(img, ones))


@pytest.mark.parametrize("kind", SMALL)
def test_seed_decides_the_initialization(kind):
    (a, _), (b, _), (c, _) = build(kind, seed=1), build(kind, seed=1), build(kind, seed=2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))


@pytest.mark.parametrize(("kind", "start"), [("dcgan", 4), ("sngan", 4)])
def test_resolution_must_be_a_power_of_two_multiple(kind, start):
    with pytest.raises(ValueError, match=f"resolution: got 48, expected {start} times a power of two"):
        build(kind, resolution=48)


def test_sngan_has_the_published_size():
    """The release's SNGAN at CIFAR width: 3,742,464 prunable convolution weights in G (lottery-ticket paper's unit)."""
    G = load_spec("pygan.networks", {"kind": "sngan"}).generator(Context(resolution=32))
    blocks = 3 * (2 * 256 * 256 * 9 + 256 * 256)
    to_rgb = 256 * 3 * 9
    assert sum(p.numel() for p in G.parameters() if p.dim() == 4) == blocks + to_rgb == 3_742_464


def test_sngan_discriminator_layers_have_unit_spectral_norm():
    _, D = build("sngan")
    D.train()
    for _ in range(50):
        D(torch.randn(2, 3, 32, 32))
    D.eval()
    for module in D.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            sigma = torch.linalg.matrix_norm(module.weight.flatten(1), 2)
            assert abs(sigma - 1) < 0.02


@pytest.mark.parametrize("side", [1, 4, 5])
def test_the_upsampled_convolution_is_upsampling_then_convolution(side):
    layer = UpsampledConv(3, 5).double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(layer(x), conv2d(upsample(x), layer.weight, padding=1))
