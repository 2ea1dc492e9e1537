"""Anti-aliased VGG-16, trained on ImageNet-1k: maximum pooling without stride, then a blur that strides.

Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556; Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML
2019, arXiv 1904.11486, with a filter of four taps. Weights (CC-BY-NC-SA-4.0) are fetched by the user.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pygan import weights
from pygan.features.frozen import IMAGENET_MEAN, IMAGENET_STD, FrozenNetwork, FrozenSpec, load_convolutions, on_bytes
from pygan.spec import spec

FILE = "vgg16_lpf4-de9267ac.pth"

_BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))


class Vgg16(FrozenNetwork):
    """VGG-16 without its classifier: `pool1` to `pool5` (224 pixels: 512x7x7) and `pooled`, 512-d."""

    usual_taps = ("pool5",)

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        mean, std = on_bytes(IMAGENET_MEAN), on_bytes(IMAGENET_STD)
        super().__init__(name, resolution=resolution, mean=mean, std=std, taps=taps, resize="area")
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Conv2d(c_in, c_out, 3, padding=1) for c_in, c_out in pairwise(widths))
            for widths in _BLOCKS
        )
        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("blur", (row[:, None] * row / 64)[None, None], persistent=False)

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for i, block in enumerate(self.blocks, 1):
            for convolution in block:
                x = F.relu(convolution(x), inplace=True)
            x = F.pad(F.max_pool2d(x, 2, 1), (1, 2, 1, 2), mode="reflect")
            x = F.conv2d(x, self.blur.expand(x.shape[1], -1, -1, -1), stride=2, groups=x.shape[1])
            yield f"pool{i}", x
        yield "pooled", x.mean((2, 3))


@spec
class Spec(FrozenSpec):
    """Anti-aliased VGG-16."""

    kind: Literal["vgg16"] = "vgg16"
    resolution: int = Field(default=224, ge=64, le=512)
    """Side that the network sees, pixels (224 in its training)."""

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> Vgg16:
        return Vgg16(self.name, self.resolution, self.taps)

    def _load(self, network: Vgg16) -> str:
        state, digest = weights.read(self.weight_file)
        tensors = [
            t for name, t in state["state_dict"].items() if name.startswith("features.") and not name.endswith("filt")
        ]
        load_convolutions(network, zip(tensors[::2], tensors[1::2], strict=True))
        return digest
