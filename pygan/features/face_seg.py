"""The encoder of a face parsing U-Net: which part of a face is where?

Lee et al., "MaskGAN", CVPR 2020, arXiv 1907.11922 (CelebAMask-HQ). Weights (for research only) are fetched by the user.
Batch norms are folded into the convolutions.
"""

from collections.abc import Iterator
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pygan import weights
from pygan.features.frozen import FrozenNetwork, FrozenSpec
from pygan.spec import spec

FILE = "celeba_parsing_model.pth"

_STAGES = ("conv1", "conv2", "conv3", "conv4", "center")


class FaceSeg(FrozenNetwork):
    """Taps `conv1` to `conv4`, `center` (256 pixels: 256x16x16), `halved` (256x8x8, its means) and `pooled`, 256-d.

    Pictures stay in [-1, 1].
    """

    usual_taps = ("halved",)

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        super().__init__(name, resolution=resolution, mean=(127.5,) * 3, std=(127.5,) * 3, taps=taps, resize="area")
        c_in = 3
        for stage, c_out in zip(_STAGES, (16, 32, 64, 128, 256), strict=True):
            self.add_module(stage, _Stage(c_in, c_out))
            c_in = c_out

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for stage in _STAGES:
            x = getattr(self, stage)(x if stage == "conv1" else F.max_pool2d(x, 2))
            yield stage, x
        yield "halved", F.avg_pool2d(x, 2)
        yield "pooled", x.mean((2, 3))


class _Stage(nn.Module):
    """Twice a convolution, a batch norm and a ReLU; named as in the file."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        for name, channels in (("conv1", c_in), ("conv2", c_out)):
            convolution = nn.Conv2d(channels, c_out, 3, padding=1)
            self.add_module(name, nn.Sequential(convolution, nn.BatchNorm2d(c_out), nn.ReLU(inplace=True)))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


@spec
class Spec(FrozenSpec):
    """Face parsing."""

    kind: Literal["face_seg"] = "face_seg"
    resolution: int = Field(default=256, ge=32, le=512)
    """Side that the network sees, pixels."""

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> FaceSeg:
        return FaceSeg(self.name, self.resolution, self.taps)

    def _load(self, network: FaceSeg) -> str:
        state, digest = weights.read(self.weight_file)
        network.load_state_dict({name: tensor for name, tensor in state.items() if name.startswith(_STAGES)})
        return digest
