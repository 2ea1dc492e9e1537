"""InceptionV3 of 2015-12-05, TensorFlow's: the network of FID, KID and the Inception score, never a discriminator.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv 1512.00567. The weights
are those of the graph that Heusel et al. (arXiv 1706.08500) measured with, in the layout of pytorch-fid (Apache-2.0),
and are fetched by the user. torchvision's InceptionV3 is another network. Three poolings are the graph's own: averages
leave padding out of the count, and the last block takes maxima in place of averages.

The same numbers are computed faster than in the public codes, to rounding: batch norms are folded into the
convolutions, the 1x1 convolutions that read one map run as one, and since averaging over neighbors and a 1x1
convolution commute, averages are taken of the few channels that come out rather than of the many that go in.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan import weights
from pygan.errors import DataError
from pygan.features.frozen import FrozenNetwork, MetricSpec, folded_convolutions
from pygan.spec import spec

FILE = "pt_inception-2015-12-05-6726825d.pth"
SIDE = 299
CLASSES = 1008

_Kernel = int | tuple[int, int]
_Layer = tuple[int, _Kernel | Literal["fork"]]
"""Output channels and kernel; "fork": a 1x3 and a 3x1 convolution side by side."""
_Branch = tuple[str, tuple[_Layer, ...]]
_Pool = Literal["average", "max"]

_STEM = (  # name, inputs, outputs, kernel, stride, padding
    ("Conv2d_1a_3x3", 3, 32, 3, 2, 0),
    ("Conv2d_2a_3x3", 32, 32, 3, 1, 0),
    ("Conv2d_2b_3x3", 32, 64, 3, 1, 1),
    ("Conv2d_3b_1x1", 64, 80, 1, 1, 0),
    ("Conv2d_4a_3x3", 80, 192, 3, 1, 0),
)


def _a(pooled: int) -> tuple[_Branch, ...]:
    return (
        ("branch1x1", ((64, 1),)),
        ("branch5x5", ((48, 1), (64, 5))),
        ("branch3x3dbl", ((64, 1), (96, 3), (96, 3))),
        ("branch_pool", ((pooled, 1),)),
    )


def _c(inner: int) -> tuple[_Branch, ...]:
    wide, tall = (1, 7), (7, 1)
    return (
        ("branch1x1", ((192, 1),)),
        ("branch7x7", ((inner, 1), (inner, wide), (192, tall))),
        ("branch7x7dbl", ((inner, 1), (inner, tall), (inner, wide), (inner, tall), (192, wide))),
        ("branch_pool", ((192, 1),)),
    )


_E: tuple[_Branch, ...] = (
    ("branch1x1", ((320, 1),)),
    ("branch3x3", ((384, 1), (384, "fork"))),
    ("branch3x3dbl", ((448, 1), (384, 3), (384, "fork"))),
    ("branch_pool", ((192, 1),)),
)
_BLOCKS: dict[str, tuple[int, int, _Pool, tuple[_Branch, ...]]] = {  # inputs, stride, pooling, branches
    "Mixed_5b": (192, 1, "average", _a(32)),
    "Mixed_5c": (256, 1, "average", _a(64)),
    "Mixed_5d": (288, 1, "average", _a(64)),
    "Mixed_6a": (288, 2, "max", (("branch3x3", ((384, 3),)), ("branch3x3dbl", ((64, 1), (96, 3), (96, 3))))),
    "Mixed_6b": (768, 1, "average", _c(128)),
    "Mixed_6c": (768, 1, "average", _c(160)),
    "Mixed_6d": (768, 1, "average", _c(160)),
    "Mixed_6e": (768, 1, "average", _c(192)),
    "Mixed_7a": (
        768,
        2,
        "max",
        (("branch3x3", ((192, 1), (320, 3))), ("branch7x7x3", ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)))),
    ),
    "Mixed_7b": (1280, 1, "average", _E),
    "Mixed_7c": (2048, 1, "max", _E),
}


class _Convolution(nn.Conv2d):
    """A convolution with its batch norm folded in.

    Args:
        names: of the public file's convolutions that this one computes, one after the other.
        inputs: channels.
        outputs: channels of each of them.
        kernel: height and width, or both.
        stride: 1 or 2.
        padded: keep the size (at stride 1).
    """

    def __init__(
        self, names: tuple[str, ...], inputs: int, outputs: tuple[int, ...], kernel: _Kernel, stride: int, padded: bool
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (height // 2, width // 2) if padded else (0, 0)
        super().__init__(inputs, sum(outputs), (height, width), stride, around)
        self.names, self.outputs = names, outputs


class _Fork(nn.Module):
    def __init__(self, name: str, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a = _Convolution((f"{name}a",), inputs, (outputs,), (1, 3), 1, True)
        self.b = _Convolution((f"{name}b",), inputs, (outputs,), (3, 1), 1, True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], 1)


class _Mixed(nn.Module):
    """A block: branches side by side and a pooling, concatenated.

    The branches that begin with a 1x1 convolution share one, `entry`. With averages the pooling is a branch whose
    average comes after its convolution; with maxima it is the block's input, or a convolution of its maxima.
    """

    def __init__(self, name: str, inputs: int, stride: int, pool: _Pool, branches: tuple[_Branch, ...]) -> None:
        super().__init__()
        self.stride, self.pool = stride, pool
        self.entered: list[str] = []
        """Branches that read the common 1x1 convolution, in its order."""
        self.rest = nn.ModuleDict()
        """What follows in each branch; of a branch that the common convolution does not serve, all of it."""
        entries: dict[str, int] = {}
        for branch, layers in branches:
            channels, kernel = layers[0]
            names = [f"{name}.{branch}" + (f"_{i}" if len(layers) > 1 else "") for i in range(1, len(layers) + 1)]
            if kernel == 1 and not (branch == "branch_pool" and pool == "max"):
                entries[names[0]] = channels
                self.entered.append(branch)
                self.rest[branch] = self._chain(names[1:], channels, layers[1:])
            else:
                self.rest[branch] = self._chain(names, inputs, layers)
        self.entry = _Convolution(tuple(entries), inputs, tuple(entries.values()), 1, 1, False)

    def _chain(self, names: list[str], inputs: int, layers: tuple[_Layer, ...]) -> nn.Sequential:
        chain = nn.Sequential()
        for i, (name, (outputs, kernel)) in enumerate(zip(names, layers, strict=True)):
            if kernel == "fork":
                chain.append(_Fork(name, inputs, outputs))
            else:
                last = i == len(names) - 1
                stride = self.stride if last else 1
                chain.append(_Convolution((name,), inputs, (outputs,), kernel, stride, stride == 1))
            chain.append(nn.ReLU(inplace=True))
            inputs = outputs
        return chain

    def forward(self, x: Tensor) -> Tensor:
        entered = dict(zip(self.entered, self.entry(x).split(self.entry.outputs, 1), strict=True))
        results = []
        for branch, chain in self.rest.items():
            if branch not in entered:
                start = F.max_pool2d(x, 3, 1, 1) if branch == "branch_pool" else x
            else:
                start = entered[branch]
                if branch == "branch_pool":
                    start = F.avg_pool2d(start, 3, 1, 1, count_include_pad=False)
                start = F.relu(start)
            results.append(chain(start))
        if self.stride == 2:
            results.append(F.max_pool2d(x, 3, 2))
        return torch.cat(results, 1)


class InceptionV3(FrozenNetwork):
    """Taps `pool1`, `pool2`, every `Mixed_*` block, `pooled` (2048) and `logits_unbiased` (1008 classes).

    As in the public codes of the Inception score, the logits go without the bias of the last layer.

    Args:
        center: byte that becomes 0 in the network, 128 in TensorFlow's graph.
        taps: as in `FrozenNetwork`.
    """

    usual_taps = ("pool2", "Mixed_6e", "Mixed_7c")
    foldable = False

    def __init__(self, name: str, center: float, taps: tuple[str, ...] | None) -> None:
        super().__init__(name, resolution=SIDE, mean=(center,) * 3, std=(center,) * 3, taps=taps)
        self.stem = nn.ModuleList(
            _Convolution((name,), inputs, (outputs,), kernel, stride, bool(padding))
            for name, inputs, outputs, kernel, stride, padding in _STEM
        )
        self.blocks = nn.ModuleDict({name: _Mixed(name, *block) for name, block in _BLOCKS.items()})
        self.classifier = nn.Linear(2048, CLASSES, bias=False)

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for convolution in self.stem[:3]:
            x = F.relu_(convolution(x))
        x = F.max_pool2d(x, 3, 2)
        yield "pool1", x
        for convolution in self.stem[3:]:
            x = F.relu_(convolution(x))
        x = F.max_pool2d(x, 3, 2)
        yield "pool2", x
        for name, block in self.blocks.items():
            x = block(x)
            yield name, x
        x = x.mean((2, 3))
        yield "pooled", x
        yield "logits_unbiased", self.classifier(x)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of pytorch-fid's file, batch norms folded in.

        Raises:
            DataError: a tensor is missing, or there is one that this network does not have.
        """
        left = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
        try:
            for convolution in self.modules():
                if isinstance(convolution, _Convolution):
                    pairs = [_folded(left, name) for name in convolution.names]
                    for own, parts in zip(
                        (convolution.weight, convolution.bias), zip(*pairs, strict=True), strict=True
                    ):
                        own.copy_(torch.cat(parts))
            self.classifier.weight.copy_(left.pop("fc.weight"))
            del left["fc.bias"]
        except KeyError as error:
            raise DataError(f"{FILE}: expected the tensor {error.args[0]}, which is not in it") from error
        if left:
            raise DataError(f"{FILE}: got the tensor {min(left)}, which InceptionV3 does not have")


def _folded(state: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Take a convolution with its batch norm out of the state; return weight and bias of the two as one."""
    parts = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    (pair,) = folded_convolutions({part: state.pop(f"{name}.{part}") for part in parts}, eps=1e-3)
    return pair


@spec
class Spec(MetricSpec):
    """TensorFlow's InceptionV3 of FID, for metrics only; with its own weights the Fréchet distance is called FID."""

    classifies: ClassVar[bool] = True

    kind: Literal["inception_v3"] = "inception_v3"
    resolution: ClassVar[int] = SIDE

    def _weight_file(self) -> str:
        return FILE

    def _architecture(self) -> InceptionV3:
        return InceptionV3(self.name, 127.5 if self.protocol == "legacy_pytorch" else 128.0, self.taps)

    def _load(self, network: InceptionV3) -> str:
        state, digest = weights.read(self.weight_file)
        network.load(state)
        return digest
