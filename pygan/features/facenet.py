"""FaceNet: an Inception-ResNet-v1 that tells 8,631 people apart (VGGFace2), a network of Reg-DGM.

Schroff, Kalenichenko and Philbin, CVPR 2015, arXiv 1503.03832; Szegedy et al., AAAI 2017, arXiv 1602.07261. The
architecture is that of facenet-pytorch (MIT), one of the packages of `pygan assets install`; its VGGFace2 weights are
fetched by the user.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from torch import Tensor

from pygan import weights
from pygan.features.frozen import FrozenNetwork, FrozenSpec
from pygan.optional import optional_module
from pygan.spec import spec

FILE = "20180402-114759-vggface2.pt"

_LAYERS = (
    ("conv4", ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "conv2d_4b")),
    ("block35", ("repeat_1",)),
    ("block17", ("mixed_6a", "repeat_2")),
    ("block8", ("mixed_7a", "repeat_3", "block8")),
)


class FaceNet(FrozenNetwork):
    """Taps `conv4`, `block35`, `block17`, `block8` (160 pixels: 17, 17, 8, 3), `pooled` (512) and `logits`."""

    usual_taps = ("block35", "block17", "block8")

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        super().__init__(name, resolution=resolution, mean=(127.5,) * 3, std=(128.0,) * 3, taps=taps)
        package = optional_module("facenet_pytorch", "the network facenet")
        self.model = package.InceptionResnetV1(pretrained=None, classify=True, num_classes=8631)

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, layers in _LAYERS:
            for layer in layers:
                x = getattr(self.model, layer)(x)
            yield name, x
        x = self.model.last_bn(self.model.last_linear(x.mean((2, 3))))
        yield "pooled", x
        yield "logits", self.model.logits(x)


@spec
class Spec(FrozenSpec):
    """InceptionResnetV1 trained on VGGFace2; the final output is the logits of the identities."""

    kind: Literal["facenet"] = "facenet"
    resolution: int = Field(default=160, ge=80, le=512)
    """Side that the network sees, pixels (160 in its training)."""

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> FaceNet:
        return FaceNet(self.name, self.resolution, self.taps)

    def _load(self, network: FaceNet) -> str:
        state, digest = weights.read(self.weight_file)
        network.model.load_state_dict(state)
        return digest
