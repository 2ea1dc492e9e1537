"""SNGAN of 32 pixels in plain PyTorch, the layout contiguous: layers of `torch.nn` one after the other.

As in the public codes: the picture is upsampled before it is convolved, in the shortcut too, and
`torch.nn.utils.spectral_norm` normalizes the weights. `load` copies the state of `pygan.networks.sngan`.
"""

import re

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu
from torch.nn.utils import spectral_norm

from pygan.networks import sngan


class UpBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(in_channels), nn.BatchNorm2d(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(interpolate(relu(self.norm1(x)), scale_factor=2))
        h = self.conv2(relu(self.norm2(h)))
        return h + self.shortcut(interpolate(x, scale_factor=2))


class Generator(nn.Module):
    def __init__(self, spec: sngan.Spec) -> None:
        super().__init__()
        self.z_dim, width = spec.z_dim, spec.g_channels
        self.linear = nn.Linear(spec.z_dim, width * 16)
        self.blocks = nn.Sequential(*(UpBlock(width, width) for _ in range(3)))
        self.norm = nn.BatchNorm2d(width)
        self.to_img = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z: Tensor, c: None = None, draws: object = None) -> Tensor:
        h = self.blocks(self.linear(z).unflatten(1, (-1, 4, 4)))
        return torch.tanh(self.to_img(relu(self.norm(h))))


class DownBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, *, down: bool, first: bool) -> None:
        super().__init__()
        self.conv1 = spectral_norm(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(in_channels, out_channels, 1)) if down else None
        self.down, self.first = down, first

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        if self.down:
            h = avg_pool2d(h, 2)
            x = self.shortcut(avg_pool2d(x, 2)) if self.first else avg_pool2d(self.shortcut(x), 2)
        return h + x


class Discriminator(nn.Module):
    def __init__(self, spec: sngan.Spec) -> None:
        super().__init__()
        width = spec.d_channels
        self.blocks = nn.Sequential(*(DownBlock(width if i else 3, width, down=i < 2, first=i == 0) for i in range(4)))
        self.logit = spectral_norm(nn.Linear(width, 1, bias=False))

    def forward(self, img: Tensor, c: None = None) -> Tensor:
        return self.logit(relu(self.blocks(img)).sum((2, 3))).squeeze(1)


def load(network: nn.Module, ours: nn.Module) -> nn.Module:
    """Give `network` the weights and singular vectors of pygan's network, and return it."""
    network.load_state_dict({_renamed(name): tensor for name, tensor in ours.state_dict().items()})
    return network


def _renamed(name: str) -> str:
    name = name.replace(".parametrizations.weight.original", ".weight_orig")
    name = name.replace(".parametrizations.weight.0.", ".weight_")
    name = re.sub(r"(norm\d?)\.norm\.", r"\1.", name)
    return name.replace(".conv.", ".").replace("logit.linear", "logit")
