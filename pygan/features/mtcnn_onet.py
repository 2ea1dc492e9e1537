"""O-Net, the last stage of the MTCNN face detector: is this 48x48 picture a face, and where are eyes, nose and mouth?

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", IEEE SPL 2016,
arXiv 1604.02878. Weights: package facenet-pytorch 2.6.0 (MIT).
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan import assets
from pygan.features.frozen import FrozenNetwork, FrozenSpec
from pygan.spec import spec

FILE = "onet.pt"


class MtcnnONet(FrozenNetwork):
    """O-Net with the maps `conv3` (64x8x8) and `conv4` (128x3x3), the vector `pooled` (256) and its answers (`face`).

    `face` has 16 numbers: the two class probabilities, four of the box, ten of the five landmarks.
    """

    usual_taps = ("conv3", "conv4")

    def __init__(self, name: str, taps: tuple[str, ...] | None) -> None:
        super().__init__(name, resolution=48, mean=(127.5,) * 3, std=(128.0,) * 3, taps=taps)
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(x))
        yield "conv3", x
        x = self.prelu4(self.conv4(F.max_pool2d(x, 2, 2, ceil_mode=True)))
        yield "conv4", x
        x = self.dense5(x.permute(0, 3, 2, 1).flatten(1))  # the weights expect width, height, channel
        yield "pooled", x
        x = self.prelu5(x)
        yield "face", torch.cat([self.dense6_1(x).softmax(1), self.dense6_2(x), self.dense6_3(x)], 1)


@spec
class Spec(FrozenSpec):
    """The face detector's last network; its last layers are dense, so it sees 48 pixels and no other size."""

    kind: Literal["mtcnn_onet"] = "mtcnn_onet"
    resolution: Literal[48] = 48
    """Side that the network sees, pixels."""

    def _architecture(self) -> FrozenNetwork:
        return MtcnnONet(self.name, self.taps)

    def _load(self, network: MtcnnONet) -> str:
        network.load_state_dict(torch.load(assets.find(FILE), map_location="cpu", weights_only=True), strict=False)
        return assets.sha256_of(FILE)
