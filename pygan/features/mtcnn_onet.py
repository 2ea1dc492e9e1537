"""O-Net, the last stage of the MTCNN face detector: is this 48x48 picture a face, and where are eyes, nose and mouth?

Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", IEEE SPL 2016,
arXiv 1604.02878. Weights: package facenet-pytorch 2.6.0 (MIT).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan import assets
from pygan.context import Context
from pygan.features.frozen import FrozenNetwork
from pygan.spec import spec

FILE = "onet.pt"


class MtcnnONet(FrozenNetwork):
    """O-Net with the maps after its third and fourth convolution (64x8x8, 128x3x3); the vector is its 256-d layer."""

    def __init__(self, name: str, sha256: str) -> None:
        super().__init__(
            name,
            resolution=48,
            channels=(64, 128),
            mean=(127.5, 127.5, 127.5),
            std=(128.0, 128.0, 128.0),
            sha256=sha256,
        )
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)

    def _maps(self, x: Tensor) -> list[Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        third = self.prelu3(self.conv3(x))
        fourth = self.prelu4(self.conv4(F.max_pool2d(third, 2, 2, ceil_mode=True)))
        return [third, fourth]

    def _vector(self, x: Tensor) -> Tensor:
        fourth = self._maps(x)[-1]
        return self.dense5(fourth.permute(0, 3, 2, 1).flatten(1))  # the weights expect width, height, channel


@spec
class Spec:
    """The face detector's last network; its last layer is dense, so it sees 48 pixels and no other size."""

    kind: Literal["mtcnn_onet"] = "mtcnn_onet"
    resolution: Literal[48] = 48
    """Side that the network sees, pixels."""

    def build(self, ctx: Context) -> FrozenNetwork:
        """Return the frozen network on `ctx.device`; raise `MissingInput` where its file is not installed."""
        network = MtcnnONet(self.kind, assets.sha256_of(FILE))
        state = torch.load(assets.find(FILE), map_location="cpu", weights_only=True)
        used = dict(network.named_parameters())
        network.load_state_dict({name: weight for name, weight in state.items() if name in used}, strict=True)
        return network.freeze().to(ctx.device)
