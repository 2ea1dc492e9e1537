"""The U-Net: shapes and sizes, what it is told changes what it says, dropout by sample."""

import pytest
import torch
from torch.nn.functional import interpolate

from pygan.context import Context
from pygan.draws import Draws
from pygan.networks.unet import Attention, Block, Fourier, UNet
from pygan.spec import load_spec

SMALL = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [8]}


def build(resolution: int = 16, num_classes: int = 0, seed: int = 0, **fields) -> UNet:
    torch.manual_seed(seed)
    spec = load_spec("pygan.networks", {"kind": "unet", **SMALL, **fields})
    return spec.network(Context(resolution=resolution, num_classes=num_classes)).requires_grad_(False)


def awake(network: UNet) -> UNet:
    """The network with ordinary weights where they start near zero."""
    for module in network.modules():
        if isinstance(module, Block):
            torch.nn.init.xavier_uniform_(module.conv1.weight)
        if isinstance(module, Attention):
            torch.nn.init.xavier_uniform_(module.out.weight)
    torch.nn.init.xavier_uniform_(network.last.weight)
    return network


@pytest.mark.parametrize(
    ("resolution", "multipliers", "blocks"), [(16, [1, 2], 1), (32, [1, 2, 2], 2), (64, [1, 1, 2, 2], 1), (8, [1], 1)]
)
def test_the_output_has_the_shape_of_the_input_and_starts_near_zero(resolution, multipliers, blocks):
    network = build(resolution, multipliers=multipliers, blocks=blocks)
    x = torch.randn(2, 3, resolution, resolution)
    out = network(x, torch.tensor([-1.0, 1.0]))
    assert out.shape == x.shape and out.abs().max() < 1e-3
    assert awake(network)(x, torch.zeros(2)).std() > 0.05


def edm_size(side: int, channels: int, multipliers: list[int], blocks: int, attention: list[int], labels: int) -> int:
    """Return how many parameters EDM's SongUNet (DDPM++, pictures of 3 channels, no classes) has, block by block."""
    embedding = 4 * channels

    def conv(into: int, out: int, kernel: int) -> int:
        return out * into * kernel**2 + out

    def linear(into: int, out: int) -> int:
        return out * into + out

    def norm(width: int) -> int:
        return 2 * width

    def block(into: int, out: int, *, resampled: bool = False, attends: bool = False) -> int:
        count = norm(into) + conv(into, out, 3) + linear(embedding, out) + norm(out) + conv(out, out, 3)
        if resampled or into != out:
            count += conv(into, out, 1)
        return count + (norm(out) + conv(out, 3 * out, 1) + conv(out, out, 1) if attends else 0)

    total = labels * channels + linear(channels, embedding) + linear(embedding, embedding) + conv(3, channels, 3)
    width, skips = channels, [channels]
    for level, factor in enumerate(multipliers):
        if level > 0:
            total += block(width, width, resampled=True)
            skips.append(width)
        for _ in range(blocks):
            total += block(width, factor * channels, attends=side >> level in attention)
            width = factor * channels
            skips.append(width)
    total += block(width, width, attends=True) + block(width, width)
    for level, factor in reversed(list(enumerate(multipliers))):
        if level < len(multipliers) - 1:
            total += block(width, width, resampled=True)
        for i in range(blocks + 1):
            attends = i == blocks and side >> level in attention
            total += block(width + skips.pop(), factor * channels, attends=attends)
            width = factor * channels
    return total + norm(width) + conv(width, 3, 3)


@pytest.mark.parametrize(
    ("channels", "multipliers", "blocks", "attention", "labels", "published"),
    [
        (32, [1, 2, 2], 2, [16], 6, 1_754_339),  # counted in the official code
        (64, [1, 2, 2], 2, [16], 6, None),
        (16, [1, 2], 1, [], 6, None),
        (32, [2, 1, 3], 1, [32, 8], 0, None),
        (128, [2, 2, 2], 4, [16], 9, 55_733_891),  # counted in the official code, CIFAR-10
    ],
)
def test_sizes_are_those_of_edm(channels, multipliers, blocks, attention, labels, published):
    sizes = {"channels": channels, "multipliers": multipliers, "blocks": blocks, "attention": attention}
    with torch.device("meta"):
        network = build(32, augment_labels=labels, **sizes)
    size = edm_size(32, labels=labels, **sizes)
    assert published in (None, size)
    assert sum(p.numel() for p in network.parameters()) == size


@pytest.mark.parametrize("resample", ["down", "up"])
def test_the_shortcut_of_a_resampling_block_is_resampled_and_goes_through_a_1x1_convolution(resample):
    """EDM's Conv2d with kernel 1 and the filter [1, 1]: resampling, weight, bias; the branch beside it is zero here."""
    torch.manual_seed(0)
    block = Block(8, 8, 4, resample=resample).requires_grad_(False)
    block.conv1.weight.zero_()
    block.shortcut.bias.normal_()
    x = torch.randn(2, 8, 4, 4)
    if resample == "down":
        pixels = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    else:
        pixels = interpolate(x, scale_factor=2)
    expected = torch.einsum("oc,nchw->nohw", block.shortcut.weight[:, :, 0, 0], pixels)
    expected = (expected + block.shortcut.bias[:, None, None]) / 2**0.5
    torch.testing.assert_close(block(x, torch.randn(2, 4)), expected)


def test_a_bias_before_the_embedding_is_added_in_both_kinds_of_convolution():
    torch.manual_seed(0)
    for resample in ("", "up"):
        block = Block(8, 8, 4, resample=resample).requires_grad_(False)
        x, y, bias = torch.randn(1, 8, 4, 4), torch.randn(1, 4), torch.randn(8)
        block.affine.bias.copy_(bias)
        torch.nn.init.xavier_uniform_(block.conv1.weight)
        expected = block(x, y)
        block.affine.bias.zero_()
        block.conv0.bias.copy_(bias)
        torch.testing.assert_close(block(x, y), expected)


def test_attention_follows_the_blocks_that_edm_has_it_after():
    """All on the way down at the listed sides, the last one of each on the way up, the first one in the middle."""
    network = build(32, multipliers=[1, 2], blocks=2, attention=[32])
    attends = [[block.attention is not None for block in part] for part in (network.down, network.middle, network.up)]
    #       32    32    down   16     16          middle         16 three times       up     32 three times
    assert attends == [[True, True, False, False, False], [True, False], [*[False] * 4, False, False, True]]


def test_level_class_and_augmentation_are_heard_and_zeros_are_no_augmentation():
    network = awake(build(num_classes=3))
    x, level, c = torch.randn(2, 3, 16, 16), torch.zeros(2), torch.tensor([0, 1])
    said = network(x, level, c)
    assert not torch.allclose(said, network(x, level + 1, c))
    assert not torch.allclose(said[1:], network(x, level, torch.tensor([0, 2]))[1:])
    assert not torch.allclose(said, network(x, level))
    assert torch.equal(said, network(x, level, c, torch.zeros(2, 6)))
    assert not torch.allclose(said, network(x, level, c, torch.ones(2, 6)))


def test_dropout_is_drawn_for_every_sample_and_only_where_asked():
    network = awake(build(dropout=0.5))
    x, level = torch.randn(1, 3, 16, 16).expand(4, -1, -1, -1), torch.zeros(4)
    plain = network(x, level)
    index = torch.tensor([5, 6, 7, 5])
    one = network(x, level, draws=Draws(0, "dropout", index))
    assert torch.equal(plain, network(x, level))
    torch.testing.assert_close(one[0], one[3])
    assert not torch.allclose(one[0], one[1]) and not torch.allclose(one[0], plain[0])
    torch.testing.assert_close(one[2:3], network(x[:1], level[:1], draws=Draws(0, "dropout", index[2:3])))


def test_the_embedding_is_sines_then_cosines_of_falling_frequencies():
    y = Fourier(8)(torch.tensor([2.0]))
    frequencies = torch.tensor([1, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4]) * 2
    torch.testing.assert_close(y[0], torch.cat([frequencies.sin(), frequencies.cos()]))


def test_a_doubling_repeats_pixels_before_its_convolution():
    torch.manual_seed(0)
    up, same = Block(8, 8, 4, resample="up"), Block(8, 8, 4)
    same.shortcut = up.shortcut
    same.load_state_dict(up.state_dict())
    x, y = torch.randn(1, 8, 4, 4), torch.randn(1, 4)
    # group norm does not see a repetition, so a doubled input is the same map
    torch.testing.assert_close(up(x, y), same(interpolate(x, scale_factor=2), y))


def test_attention_mixes_pixels_by_their_likeness():
    layer = Attention(4).requires_grad_(False)
    x = torch.randn(1, 4, 2, 2)
    h = layer.norm(x)
    q, k, v = layer.qkv(h)[0].flatten(1).split(4)
    weights = torch.tensor([[float(q[:, i] @ k[:, j]) / 2 for j in range(4)] for i in range(4)]).softmax(1)
    mixed = (v @ weights.T).view(1, 4, 2, 2)
    torch.testing.assert_close(layer(x), (x + layer.out(mixed)) * 0.5**0.5)


def test_a_side_that_cannot_be_halved_is_refused():
    with pytest.raises(ValueError, match="resolution: got 18, expected a multiple of 4 for 3 multipliers"):
        build(18, multipliers=[1, 2, 2])
