"""The trainable heads of vision-aided discriminators: the published ones and this package's own.

Kumari, Zhang, Shechtman and Zhu, CVPR 2022 (arXiv 2112.09130), in the three topologies of the official code. Which one
a network gets follows from its taps: several a multi-level head (CLIP, DINO), one map `SimpleD`, one vector `MLPD`.

Layers are those of the official StyleGAN2 branch (equalized learning rate, leaky ReLU with gain) or of its pip package
(spectral norm on ordinary layers). Both blur with [1, 3, 3, 1] before a stride, so that sides go 14, 7, 3 or 8, 4.

A head maps the taps of N pictures to logits `[T, N]`, whose rows come in levels: `sizes` says how many rows each has.
Differs from the official code in: maps of any side get a head, those above 7 pixels with a stride in its first
convolution, which reproduces the published sizes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pygan.errors import ConfigError
from pygan.networks.stylegan2_layers import Conv2dLayer, FullyConnected
from pygan.ops import setup_filter, spectral_norm, upfirdn2d

Shape = tuple[int, ...]
"""Of one picture's tap: `(C, h, w)` or `(C,)`."""
Layers = Literal["equalized", "spectral"]
Activation = Literal["lrelu", "relu"]
Init = Literal["layers", "normal"]

LARGEST_UNSTRIDED = 7
"""Side of a map, pixels, up to which the first convolution of a spatial branch keeps it: CLIP has 7, DINO 14."""


class Head(nn.Module):
    """What a head is to a discriminator: taps and labels to logits `[sum(sizes), N]`."""

    sizes: tuple[int, ...]
    """Rows of each level; a level's loss is the mean over its rows."""
    compares: bool = False
    """Whether a logit depends on all samples of the batch."""


class OwnHead(Head):
    """One level with a logit per tap: batch-standardized features, three spectrally normalized convolutions, a mean."""

    compares = True

    def __init__(self, shapes: Sequence[Shape], width: int) -> None:
        super().__init__()
        self.taps = nn.ModuleList(_OwnBranch(shape[0], width) for shape in shapes)
        self.sizes = (len(self.taps),)

    def forward(self, taps: Sequence[Tensor], c: Tensor | None) -> Tensor:
        return torch.stack([branch(tap) for branch, tap in zip(self.taps, taps, strict=True)])


class _OwnBranch(nn.Module):
    """Map `[N, C, h, w]` or vector `[N, C]` to logits `[N]`.

    Features are standardized by the statistics of the batch: in a step of D by those of real and generated pictures
    together, in a step of G by those of generated pictures.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
        self.conv1, self.conv2, self.conv3 = (
            spectral_norm(nn.Conv2d(a, b, k, padding=k // 2))
            for a, b, k in ((channels, width, 1), (width, width, 3), (width, 1, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.dim() == 4 else x[:, :, None, None]
        x = leaky_relu(self.conv1(self.norm(x)), 0.2)
        x = leaky_relu(self.conv2(x), 0.2)
        return self.conv3(x).mean((1, 2, 3))


def published_head(
    shapes: Sequence[Shape],
    *,
    layers: Layers,
    width: int | None = None,
    activation: Activation = "lrelu",
    init: Init = "layers",
    num_classes: int = 0,
) -> Head:
    """Return the published head for taps of these shapes.

    Args:
        shapes: of one picture, in the order of the taps.
        layers: whose layers.
        width: channels inside; None: the published 256, or 128 in a multi-level head with a strided branch.
        activation: of the spectral layers; the equalized ones have StyleGAN2's leaky ReLU.
        init: of the spectral layers' weights and the embedding: PyTorch's, or normal with deviation 0.02.
        num_classes: 0: labels are ignored; else the logit of the last level gains a projection of the class.

    Raises:
        ConfigError: a map is too small, or `activation`, `init` or `num_classes` with equalized layers.
    """
    if layers == "equalized" and (activation != "lrelu" or init != "layers" or num_classes):
        raise ConfigError(
            "heads: equalized has leaky ReLU, its own initialization and no classes; spectral takes all three"
        )
    for shape in shapes:
        if min(shape[1:], default=2) < 2:
            raise ConfigError(
                f"heads: {layers} needs maps of at least 2x2 pixels, got {shape[1]}x{shape[2]}: "
                "raise the resolution of the network in the bank, or name earlier taps"
            )
    make = _Equalized() if layers == "equalized" else _Spectral(activation, init)
    if len(shapes) > 1:
        return MultiLevel(shapes, make, width, num_classes)
    return Single(shapes[0], make, width or 256, num_classes)


class MultiLevel(Head):
    """A branch and a level per tap; of a map, every position of the result has a logit."""

    def __init__(self, shapes: Sequence[Shape], make: "_Layers", width: int | None, num_classes: int) -> None:
        super().__init__()
        strides = [2 if max(shape[1:], default=0) > LARGEST_UNSTRIDED else 1 for shape in shapes]
        width = width or (128 if 2 in strides else 256)
        last = len(shapes) - 1
        self.branches = nn.ModuleList(
            _Spatial(shape, width, stride, make)
            if len(shape) == 3
            else _Dense([make.dense(shape[0], width)], width, make, num_classes if i == last else 0)
            for i, (shape, stride) in enumerate(zip(shapes, strides, strict=True))
        )
        self.sizes = tuple(branch.size for branch in self.branches)

    def forward(self, taps: Sequence[Tensor], c: Tensor | None) -> Tensor:
        return torch.cat([branch(tap, c) for branch, tap in zip(self.branches, taps, strict=True)])


class Single(Head):
    """One level with one logit: a map through a strided convolution and dense layers, or a vector through those."""

    sizes = (1,)

    def __init__(self, shape: Shape, make: "_Layers", width: int, num_classes: int) -> None:
        super().__init__()
        if len(shape) == 3:
            flat = width * (shape[1] // 2) * (shape[2] // 2)
            layers = [make.conv3(shape[0], width, 2), nn.Flatten(), make.dense(flat, width)]
        else:
            layers = [make.dense(shape[0], width)]
        self.branch = _Dense(layers, width, make, num_classes)

    def forward(self, taps: Sequence[Tensor], c: Tensor | None) -> Tensor:
        return self.branch(taps[0], c)


class _Spatial(nn.Module):
    """Map `[N, C, h, w]` to logits `[positions, N]`, a quarter of the positions, of a strided branch a sixteenth."""

    def __init__(self, shape: Shape, width: int, stride: int, make: "_Layers") -> None:
        super().__init__()
        self.layers = nn.Sequential(make.conv3(shape[0], width, stride), make.conv1(width))
        height, width_out = (side // stride // 2 for side in shape[1:])
        self.size = height * width_out

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        return self.layers(x).flatten(1).T


class _Dense(nn.Module):
    """Whatever `layers` take to logits `[1, N]`: a linear layer on h, `[N, width]`, plus <embedding(c), h>."""

    size = 1

    def __init__(self, layers: Sequence[nn.Module], width: int, make: "_Layers", num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.out = make.linear(width)
        self.embed = make.embedding(num_classes, width) if num_classes else None

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        h = self.layers(x)
        out = self.out(h)[:, 0]
        if self.embed is not None:
            out = out + (self.embed(c) * h).sum(1)
        return out[None]


class _Equalized:
    """Layers of the StyleGAN2 branch."""

    def conv3(self, c_in: int, c_out: int, stride: int) -> nn.Module:
        return Conv2dLayer(c_in, c_out, 3, act="lrelu", down=stride)

    def conv1(self, c_in: int) -> nn.Module:
        return Conv2dLayer(c_in, 1, 1, down=2)

    def dense(self, c_in: int, c_out: int) -> nn.Module:
        return FullyConnected(c_in, c_out, act="lrelu")

    def linear(self, c_in: int) -> nn.Module:
        return FullyConnected(c_in, 1)


class _Spectral:
    """Layers of the pip package, or those of the BigGAN branch, which draws weights like its networks do."""

    def __init__(self, activation: Activation, init: Init) -> None:
        self.activation = activation
        self.init = init

    def _drawn(self, layer: nn.Module) -> nn.Module:
        if self.init == "normal":
            nn.init.normal_(layer.weight, std=0.02)
        return layer

    def _normalized(self, layer: nn.Module) -> nn.Module:
        return spectral_norm(self._drawn(layer))

    def _act(self) -> nn.Module:
        return nn.LeakyReLU(0.2) if self.activation == "lrelu" else nn.ReLU()

    def conv3(self, c_in: int, c_out: int, stride: int) -> nn.Module:
        if stride == 1:
            return nn.Sequential(self._normalized(nn.Conv2d(c_in, c_out, 3, padding=1)), self._act())
        return nn.Sequential(_Blur(padding=2), self._normalized(nn.Conv2d(c_in, c_out, 3, stride)), self._act())

    def conv1(self, c_in: int) -> nn.Module:
        return nn.Sequential(_Blur(padding=1), self._normalized(nn.Conv2d(c_in, 1, 1, 2)))

    def dense(self, c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(self._normalized(nn.Linear(c_in, c_out)), self._act())

    def linear(self, c_in: int) -> nn.Module:
        return self._normalized(nn.Linear(c_in, 1))

    def embedding(self, classes: int, width: int) -> nn.Module:
        return self._drawn(nn.Embedding(classes, width))


_Layers = _Equalized | _Spectral


class _Blur(nn.Module):
    """Filter every channel with [1, 3, 3, 1] along both axes after adding `padding` zeros on each side."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.register_buffer("taps", setup_filter([1, 3, 3, 1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return upfirdn2d(x, self.taps, padding=self.padding)
