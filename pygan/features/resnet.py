"""ResNets trained on ImageNet-1k, torchvision's: the networks of Reg-DGM on CIFAR-10.

He et al., CVPR 2016, arXiv 1512.03385. The architecture is torchvision's own (optional dependency); its first weights
("V1", BSD-3-Clause) are fetched by the user. Batch norms are folded into the convolutions.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn

from pygan import weights
from pygan.features.frozen import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    FrozenNetwork,
    FrozenSpec,
    on_bytes,
)
from pygan.optional import optional_module
from pygan.spec import spec

FILES = {
    18: "resnet18-f37072fd.pth",
    34: "resnet34-b627a593.pth",
    50: "resnet50-0676ba61.pth",
    101: "resnet101-63fe2227.pth",
    152: "resnet152-394f9c45.pth",
}


class ResNet(FrozenNetwork):
    """Taps `layer1` to `layer4` (224 pixels: 56, 28, 14, 7), `pooled` and `logits` (1000 classes).

    Args:
        model: torchvision's; without its layer `fc` there are no logits.
        options: of `FrozenNetwork`.
    """

    usual_taps = ("layer2", "layer3", "layer4")

    def __init__(self, name: str, model: nn.Module, **options: Any) -> None:
        super().__init__(name, **options)
        self.model = model

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        model = self.model
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        for i in range(1, 5):
            x = getattr(model, f"layer{i}")(x)
            yield f"layer{i}", x
        x = x.mean((2, 3))
        yield "pooled", x
        if model.fc is not None:
            yield "logits", model.fc(x)


@spec
class Spec(FrozenSpec):
    """An ImageNet ResNet of torchvision."""

    kind: Literal["resnet"] = "resnet"
    depth: Literal[18, 34, 50, 101, 152] = 18
    """Layers."""
    resolution: int = Field(default=224, ge=32, le=512)
    """Side that the network sees, pixels (224 in its training)."""

    def _base_name(self) -> str:
        return f"resnet{self.depth}"

    def _weight_file(self) -> str:
        return FILES[self.depth]

    def _architecture(self) -> ResNet:
        model = getattr(optional_module("torchvision.models", "the network resnet"), f"resnet{self.depth}")()
        options = {"mean": on_bytes(IMAGENET_MEAN), "std": on_bytes(IMAGENET_STD), "taps": self.taps}
        return ResNet(self.name, model, resolution=self.resolution, **options)

    def _load(self, network: ResNet) -> str:
        state, digest = weights.read(self.weight_file)
        network.model.load_state_dict(state)
        return digest
