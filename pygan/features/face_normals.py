"""The encoder of a U-Net that predicts the surface normals of faces: a ResNet-18.

Abrevaya, Boukhayma, Torr and Boyer, "Cross-modal Deep Face Normals with Deactivable Skip Connections", CVPR 2020, arXiv
2003.09691. The architecture is torchvision's (optional dependency); weights are fetched by the user. Batch norms are
folded into the convolutions.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from pygan import weights
from pygan.features.frozen import FrozenSpec
from pygan.features.resnet import ResNet
from pygan.optional import optional_module
from pygan.spec import spec

FILE = "normal_model.pth"

_NAMES = {"layer0.0": "conv1", "layer0.1": "bn1", "layer1.1": "layer1"}


class FaceNormals(ResNet):
    """Taps `layer1` to `layer4` (256 pixels: 512x8x8) and `pooled`, 512-d; pictures are mapped to [0, 1]."""

    usual_taps = ("layer4",)


@spec
class Spec(FrozenSpec):
    """Face normals."""

    kind: Literal["face_normals"] = "face_normals"
    resolution: int = Field(default=256, ge=32, le=512)
    """Side that the network sees, pixels."""

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> FaceNormals:
        model = optional_module("torchvision.models", "the network face_normals").resnet18()
        model.fc = None
        options = {"mean": (0.0,) * 3, "std": (255.0,) * 3, "taps": self.taps, "resize": "area"}
        return FaceNormals(self.name, model, resolution=self.resolution, **options)

    def _load(self, network: FaceNormals) -> str:
        state, digest = weights.read(self.weight_file)
        network.model.load_state_dict(_encoder(state))
        return digest


def _encoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the picture's encoder by torchvision's names."""
    encoder = {}
    for name, tensor in state.items():
        head = ".".join(name.split(".")[:2])
        if head in _NAMES:
            encoder[_NAMES[head] + name.removeprefix(head)] = tensor
        elif name.startswith(("layer2.", "layer3.", "layer4.")):
            encoder[name] = tensor
    return encoder
