"""The frame of the frozen networks, on a small network made here, and its helpers against PyTorch's own layers."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan.features.frozen import FrozenNetwork, folded_convolutions, load_convolutions, same_padding


class _Tiny(FrozenNetwork):
    """One convolution on 8x8 pictures."""

    usual_taps = ("conv",)

    def __init__(self) -> None:
        super().__init__("tiny", resolution=8, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))
        self.conv = nn.Conv2d(3, 5, 3, padding=1)

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = self.conv(x)
        yield "conv", x
        yield "pooled", x.mean((2, 3))


def test_normalization_undoes_the_range_and_applies_mean_and_std() -> None:
    img = torch.rand(2, 3, 8, 8) * 2 - 1
    network = _Tiny().freeze()
    mean, std = torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1), torch.tensor([2.0, 4, 8]).view(1, 3, 1, 1)
    expected = F.conv2d(((img + 1) * 127.5 - mean) / std, network.conv.weight, network.conv.bias, padding=1)
    torch.testing.assert_close(network(img)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [4, 8, 20])
def test_any_side_is_resized_to_the_resolution(side: int) -> None:
    network = _Tiny().freeze()
    assert network(torch.zeros(1, 3, side, side))[0].shape == (1, 5, 8, 8)
    flat = network.pooled(torch.full((1, 3, side, side), 0.25))
    torch.testing.assert_close(flat, network.pooled(torch.full((1, 3, 8, 8), 0.25)))


def test_gray_pictures_are_seen_as_three_equal_channels() -> None:
    gray = torch.rand(2, 1, 8, 8)
    network = _Tiny().freeze()
    torch.testing.assert_close(network.pooled(gray), network.pooled(gray.repeat(1, 3, 1, 1)))


def test_nothing_inside_can_be_trained_or_saved() -> None:
    network = _Tiny().freeze()
    model = nn.Sequential(network).train().requires_grad_(True)
    assert not network.training and not network.conv.training
    assert not any(True for _ in model.parameters()) and not model.state_dict()
    before = [buffer.clone() for buffer in network.buffers()]
    img = torch.zeros(2, 3, 8, 8, requires_grad=True)
    model(img)[0].sum().backward()
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, network.buffers(), strict=True))
    assert img.grad is not None and img.grad.isfinite().all() and img.grad.abs().sum() > 0


def test_weights_move_with_the_module() -> None:
    network = nn.Sequential(_Tiny().freeze()).double()
    assert {buffer.dtype for buffer in network.buffers()} == {torch.float64}


@pytest.mark.parametrize(("side", "kernel", "stride"), [(48, 3, 2), (6, 5, 2), (3, 5, 2), (7, 3, 2), (9, 3, 1)])
def test_same_padding_keeps_the_grid(side: int, kernel: int, stride: int) -> None:
    low, high = same_padding(side, kernel, stride)
    assert high - low in (0, 1)
    assert (side + low + high - kernel) // stride + 1 == -(-side // stride)


def test_folded_batch_norm_computes_what_the_two_layers_compute() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, eps=1e-3))
    with torch.no_grad():
        for tensor in (layers[1].weight, layers[1].bias, layers[1].running_mean):
            tensor.normal_()
        layers[1].running_var.uniform_(0.5, 2)
    layers.eval()
    folded = nn.Conv2d(3, 6, 3)
    load_convolutions(folded, folded_convolutions(layers.state_dict(), eps=1e-3))
    x = torch.randn(2, 3, 7, 7)
    torch.testing.assert_close(folded(x), layers(x), rtol=1e-5, atol=1e-5)


def test_missing_or_surplus_weights_are_refused() -> None:
    pair = (torch.zeros(6, 3, 3, 3), torch.zeros(6))
    for pairs in ([], [pair, pair]):
        with pytest.raises(ValueError):
            load_convolutions(nn.Conv2d(3, 6, 3), pairs)
