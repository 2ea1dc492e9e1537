"""BigGAN: published sizes, initialization, attention, hierarchical latents, projection, class gains and biases."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d, relu

from pygan.checkpoint import read_tensors, write_tensors
from pygan.context import Context
from pygan.networks.biggan import RELEASES, SelfAttention, Spec
from pygan.networks.layers import ConditionalBatchNorm, ModulatedBatchNorm

CLASSES = 3
TINY = {"g_channels": 2, "d_channels": 2, "z_dim": 60, "shared_dim": 6}
VISION_AIDED_CIFAR = {
    "release": "brock",
    "z_dim": 128,
    "g_channels": 64,
    "d_channels": 64,
    "shared_dim": 0,
    "hierarchical": False,
    "g_attention": 0,
    "d_attention": 0,
    "init": "normal",
}


def build(resolution: int = 32, num_classes: int = CLASSES, **fields):
    ctx = Context(resolution=resolution, num_classes=num_classes)
    spec = Spec(**(TINY | fields))
    torch.manual_seed(0)
    return spec.generator(ctx), spec.discriminator(ctx)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def published(resolution: int, num_classes: int, **fields) -> tuple[int, int]:
    """Parameters of G and D, built without their memory."""
    ctx = Context(resolution=resolution, num_classes=num_classes)
    with torch.device("meta"):
        return count(Spec(**fields).generator(ctx)), count(Spec(**fields).discriminator(ctx))


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Every weight matrix as its layer uses it, by name."""
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    return {name: m.weight.flatten(1) for name, m in network.named_modules() if isinstance(m, kinds)}


# Sizes


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("num_classes", [0, CLASSES])
def test_shapes_in_every_size(release, resolution, num_classes):
    G, D = build(resolution, num_classes, release=release)
    z, c = torch.randn(2, 60), torch.tensor([0, 2]) if num_classes else None
    h, codes = G.stem(z, c)
    assert h.shape == (2, G.linear.out_features // 16, 4, 4)
    assert len(codes[0]) == math.log2(resolution / 4)
    img = G(z, c)
    assert img.shape == (2, 3, resolution, resolution)
    assert img.abs().max() <= 1
    features = D.features(img)
    assert features.shape == (2, D.logit.linear.in_features)
    assert D.head(features, c).shape == (2,)


def test_the_authors_network_for_128_pixels_has_the_size_their_code_prints():
    assert published(128, 1000, release="brock", z_dim=120) == (70_433_988, 87_982_370)


def test_size_of_the_gsr_release_for_cifar():
    def conv(a, b, side):
        return a * b * side**2 + b

    def attention(channels):
        return 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1

    chunk, shared, w, d = 80 // 4, 128, 4 * 96, 2 * 96
    block = 2 * conv(w, w, 3) + conv(w, w, 1) + 4 * (shared + chunk) * w
    G = (chunk + 1) * w * 16 + 10 * shared + 3 * block + attention(w) + 2 * w + conv(w, 3, 3)
    first = conv(3, d, 3) + conv(d, d, 3) + conv(3, d, 1)
    D = first + (2 * conv(d, d, 3) + conv(d, d, 1)) + 2 * 2 * conv(d, d, 3) + attention(d) + d + 1 + 10 * d
    assert published(32, 10, z_dim=80) == (G, D)
    assert w == 384 and d == 192


def test_size_of_the_vision_aided_release_for_cifar():
    def conv(a, b, side):
        return a * b * side**2 + b

    w, classes = 256, 10
    block = 2 * conv(w, w, 3) + conv(w, w, 1)
    G = 129 * w * 16 + 3 * (block + 4 * classes * w) + 2 * w + conv(w, 3, 3)
    D = conv(3, w, 3) + conv(w, w, 3) + conv(3, w, 1) + block + 4 * conv(w, w, 3) + w + 1 + classes * w
    assert published(32, classes, **VISION_AIDED_CIFAR) == (G, D)
    assert round(G / 1e6, 1) == 4.3  # as users of the authors' code report it


@pytest.mark.parametrize(
    ("release", "resolution", "g", "d"),
    [
        ("brock", 64, (16, 16, 8, 4, 2), (1, 2, 4, 8, 16)),
        ("lottery", 64, (16, 16, 8, 4, 2), (2, 4, 8, 16, 16)),
        ("gsr", 64, (16, 8, 4, 2, 1), (1, 2, 4, 8, 16)),
        ("gsr", 128, (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16)),
    ],
)
def test_widths_follow_the_release(release, resolution, g, d):
    G, D = build(resolution, release=release)
    assert [block.conv1.conv.in_channels for block in G.blocks] == [2 * i for i in g[:-1]]
    assert [block.conv2.conv.out_channels for block in G.blocks] == [2 * i for i in g[1:]]
    assert [block.conv2.conv.out_channels for block in D.blocks] == [2 * i for i in d]


# Initialization and spectral normalization


def test_every_weight_starts_orthogonal():
    for network in build():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                stored = module.parametrizations.weight.original if name != "shared" else module.weight
                matrix = stored.flatten(1)
                short = matrix if len(matrix) <= matrix.shape[1] else matrix.T
                torch.testing.assert_close(short @ short.T, torch.eye(len(short)), atol=1e-5, rtol=0)


def test_biases_start_at_zero_and_gains_at_one():
    G, D = build(init="normal")
    for network in (G, D):
        assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))
    assert (G.norm.weight == 1).all()
    assert all(network.attention.gamma == 0 for network in (G, D))


def test_spectral_norms_are_one_once_the_iteration_has_converged():
    G, D = build(init="normal", g_channels=4, d_channels=4)
    for _ in range(60):
        weights(G), weights(D)  # each access in training mode is one iteration
    for network in (G.eval(), D.eval()):
        for name, weight in weights(network).items():
            if name != "shared":  # the embedding is not normalized
                assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=0.02), name


# Attention


def test_attention_equals_its_formula():
    torch.manual_seed(0)
    layer = SelfAttention(16, sn_eps=1e-6, init=nn.init.orthogonal_).eval()
    nn.init.constant_(layer.gamma, 0.7)
    x = torch.randn(2, 16, 4, 6)
    theta, phi, g, o = (m.weight[:, :, 0, 0] for m in (layer.theta, layer.phi, layer.g, layer.o))
    for sample, out in zip(x, layer(x), strict=True):
        flat = sample.flatten(1)
        keys = max_pool2d((phi @ flat).view(2, 4, 6), 2).flatten(1)
        values = max_pool2d((g @ flat).view(8, 4, 6), 2).flatten(1)
        expected = torch.empty_like(flat)
        for position in range(24):
            weight = (theta @ flat[:, position] @ keys).softmax(0)
            expected[:, position] = flat[:, position] + 0.7 * (o @ (values @ weight))
        torch.testing.assert_close(out.flatten(1), expected)


@pytest.mark.parametrize(
    ("resolution", "fields", "g_channels", "d_channels"),
    [
        (32, {}, 8, 4),  # 16 pixels in both
        (64, {}, 4, 2),  # 32 pixels
        (128, {}, 4, 2),  # 64 pixels
        (128, {"g_attention": 32}, 8, 2),  # as the gSR release
        (32, {"d_attention": 8}, 8, 4),  # the first of three blocks at 8 pixels
    ],
)
def test_attention_sits_at_its_resolution(resolution, fields, g_channels, d_channels):
    seen = {}
    G, D = build(resolution, **fields)
    for name, network in (("G", G), ("D", D)):
        network.attention.register_forward_hook(lambda module, args, out, name=name: seen.update({name: args[0].shape}))
    c = torch.tensor([0])
    D(G.eval()(torch.randn(1, 60), c), c)
    half = resolution // 2
    assert seen["G"][1:] == (g_channels, fields.get("g_attention", half), fields.get("g_attention", half))
    assert seen["D"][1:] == (d_channels, fields.get("d_attention", half), fields.get("d_attention", half))


def test_no_attention():
    for network in build(g_attention=0, d_attention=0):
        assert not [m for m in network.modules() if isinstance(m, SelfAttention)]


# What the normalizations read


def parts_of_z(G: nn.Module, z: torch.Tensor, c: torch.Tensor | None) -> list[set[int]]:
    """Which entries of z the gains and biases of each block depend on."""
    conditions = []
    for block in G.blocks:
        block.register_forward_pre_hook(lambda module, args: conditions.append(args[1]))
    z.requires_grad_(True)
    G(z, c)
    found = []
    for block, y in zip(G.blocks, conditions, strict=True):
        affines = [*block.norm1.affine(y), *block.norm2.affine(y)]
        (gradient,) = torch.autograd.grad(sum(t.sum() for t in affines), z, allow_unused=True, retain_graph=True)
        found.append(set() if gradient is None else set(gradient.abs().sum(0).nonzero().flatten().tolist()))
    return found


def test_each_block_reads_its_own_chunk():
    G, _ = build(z_dim=20)
    z, c = torch.randn(2, 20), torch.tensor([0, 1])
    assert parts_of_z(G, z, c) == [set(range(5 * i, 5 * i + 5)) for i in (1, 2, 3)]
    (gradient,) = torch.autograd.grad(G.stem(z, c)[0].square().sum(), z)
    assert set(gradient.abs().sum(0).nonzero().flatten().tolist()) == set(range(5))


def test_without_hierarchy_the_blocks_read_the_class_alone():
    G, _ = build(hierarchical=False, z_dim=7)
    assert parts_of_z(G, torch.randn(2, 7), torch.tensor([0, 1])) == [set()] * 3
    assert G.linear.in_features == 7
    assert G.blocks[0].norm1.gain.in_features == 6


def test_without_a_shared_embedding_each_normalization_has_its_own_table():
    G, _ = build(hierarchical=False, shared_dim=0)
    norms = [norm for block in G.blocks for norm in (block.norm1, block.norm2)]
    assert all(type(norm) is ConditionalBatchNorm for norm in norms)
    assert G.shared is None


def test_without_classes_the_blocks_read_the_whole_z():
    G, D = build(num_classes=0, z_dim=7, conditional=False)
    assert parts_of_z(G, torch.randn(2, 7), None) == [set(range(7))] * 3
    assert all(type(block.norm1) is ModulatedBatchNorm for block in G.blocks)
    assert D.logit.embed is None
    assert G.class_affines() == []


def test_the_modulation_formula():
    torch.manual_seed(0)
    norm = ModulatedBatchNorm(4, 3, eps=1e-4, sn_eps=1e-6, init=nn.init.orthogonal_)
    x, y = torch.randn(5, 4, 2, 2), torch.randn(5, 3)
    out = norm(x, y)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    standard = (x - mean[:, None, None]) / (var[:, None, None] + 1e-4).sqrt()
    norm.eval()
    gain, bias = 1 + y @ norm.gain.weight.T, y @ norm.bias.weight.T
    torch.testing.assert_close(out, standard * gain[:, :, None, None] + bias[:, :, None, None])


# Class gains and biases


@pytest.mark.parametrize("fields", [{}, {"hierarchical": False}, {"hierarchical": False, "shared_dim": 0}])
def test_class_gains_are_those_of_a_class_whose_chunks_are_zero(fields):
    G, _ = build(**fields)
    affines = G.eval().class_affines()
    assert [gain.shape for gain, _ in affines] == [(CLASSES, 8)] * 6
    seen = []
    for block in G.blocks:
        for norm in (block.norm1, block.norm2):
            norm.register_forward_pre_hook(lambda module, args: seen.append(module.affine(args[1])))
    G(torch.zeros(CLASSES, 60), torch.arange(CLASSES))
    for listed, used in zip(affines, seen, strict=True):
        torch.testing.assert_close(listed, used)


def test_gradients_of_class_gains_reach_the_maps_and_the_embedding():
    G, _ = build()
    sum(gain.square().sum() + bias.square().sum() for gain, bias in G.class_affines()).backward()
    assert G.shared.weight.grad.abs().sum() > 0
    for block in G.blocks:
        for norm in (block.norm1, block.norm2):
            assert norm.gain.parametrizations.weight.original.grad.abs().sum() > 0
            assert norm.bias.parametrizations.weight.original.grad.abs().sum() > 0
    assert G.linear.parametrizations.weight.original.grad is None


def test_initial_spectral_norm_of_a_class_is_that_of_the_gsr_release():
    """Gains minus 1, cut into 16 groups of 24 channels: 0.426 on average in the release."""
    torch.manual_seed(0)
    spec = Spec(z_dim=80, g_attention=0)
    norms = [ModulatedBatchNorm(384, 148, eps=1e-4, sn_eps=1e-6, init=nn.init.orthogonal_) for _ in range(2)]
    y = torch.zeros(10, 148)
    nn.init.orthogonal_(y[:, : spec.shared_dim])
    gains = torch.cat([norm.affine(y)[0] for norm in norms])
    sigma = torch.linalg.matrix_norm((gains - 1).view(-1, 16, 24), 2).mean().item()
    assert sigma == pytest.approx(0.426, abs=0.01)


# Discriminator


def test_projection_logit():
    _, D = build()
    img, c = torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([0, 2, 1, 2])
    D.eval()
    h = D.features(img)
    expected = h @ D.logit.linear.weight[0] + D.logit.linear.bias + (D.logit.embed.weight[c] * h).sum(1)
    torch.testing.assert_close(D(img, c), expected)


def test_features_are_summed_over_positions():
    _, D = build(d_attention=0)
    img = torch.rand(2, 3, 32, 32)
    h = img
    for block in D.eval().blocks:
        h = block(h)
    assert h.shape == (2, 4, 8, 8)
    torch.testing.assert_close(D.features(img), relu(h).sum((2, 3)))


@pytest.mark.parametrize(("release", "rectified"), [("brock", False), ("lottery", True), ("gsr", True)])
def test_shortcuts_of_d_read_what_the_release_has_them_read(release, rectified):
    _, D = build(release=release)
    block = D.blocks[2]
    assert block.shortcut is None
    block.conv2.forward = torch.zeros_like
    x = torch.randn(2, block.conv1.conv.in_channels, 8, 8)
    torch.testing.assert_close(block(x), relu(x) if rectified else x)


# State


def test_state_goes_through_a_checkpoint(tmp_path):
    G, D = build()
    z, c = torch.randn(4, 60), torch.tensor([0, 1, 2, 0])
    D(G(z, c), c).sum().backward()  # moves the power iteration and the running statistics
    for network, name in ((G, "G"), (D, "D")):
        write_tensors(tmp_path / f"{name}.safetensors", network.state_dict())
    others = build(init="normal")
    for network, name in zip(others, "GD", strict=True):
        network.load_state_dict(read_tensors(tmp_path / f"{name}.safetensors")[0])
    img = G.eval()(z, c)
    assert torch.equal(img, others[0].eval()(z, c))
    assert torch.equal(D.eval()(img, c), others[1].eval()(img, c))


def test_evaluation_leaves_every_buffer_alone_and_training_moves_them():
    G, D = build(init="normal")
    z, c = torch.randn(4, 60), torch.tensor([0, 1, 2, 0])

    def buffers():
        return {f"{i}.{name}": b.clone() for i, n in enumerate((G, D)) for name, b in n.named_buffers()}

    G.eval(), D.eval()
    before = buffers()
    first = D(G(z, c), c)
    assert torch.equal(first, D(G(z, c), c))
    assert all(torch.equal(before[name], b) for name, b in buffers().items())
    G.train(), D.train()
    D(G(z, c), c)
    still = [name for name, b in buffers().items() if torch.equal(before[name], b)]
    assert not [name for name in still if "running" in name]
    assert not {"0.linear.parametrizations.weight.0.u", "1.blocks.1.conv1.conv.parametrizations.weight.0.u"} & {*still}


# Errors


@pytest.mark.parametrize(
    ("resolution", "fields", "message"),
    [
        (48, {}, "resolution: got 48, expected 32, 64, 128 for biggan"),
        (64, {"z_dim": 128}, "z_dim: got 128, expected a multiple of 5 at 64 pixels"),
        (32, {"g_attention": 12}, r"g_attention: got 12, expected 0 \(none\) or one of 8, 16, 32 at 32 pixels"),
        (32, {"d_attention": 4}, r"d_attention: got 4, expected 0 \(none\) or one of 8, 16 at 32 pixels"),
        (32, {"shared_dim": 0}, "hierarchical: got true with shared_dim 0"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_key(resolution, fields, message):
    with pytest.raises(ValueError, match=message):
        build(resolution, **fields)
