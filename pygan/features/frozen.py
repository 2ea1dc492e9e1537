"""What all frozen networks share: pictures in [-1, 1] go in, feature maps come out, and nothing inside ever changes.

The weights are buffers that stay out of the state dict: no optimizer finds them, no `requires_grad_` of a surrounding
module reaches them, and no checkpoint repeats a file that every installation has. Batch norm is folded into the
convolution before it, so there are no running statistics either.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from pygan import weights
from pygan.context import Context
from pygan.errors import ConfigError, DataError, PyganError
from pygan.features.random_init import randomize
from pygan.spec import load_spec, spec

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Per RGB channel, on the 0..1 scale."""

RGB = tuple[float, float, float]
Protocol = Literal["clean", "legacy_pytorch", "legacy_tensorflow"]
"""Of a metric: clean-fid's, pytorch-fid's, or that of TensorFlow's graph, which torch-fidelity follows."""


def on_bytes(values: RGB) -> RGB:
    """Return a mean or standard deviation on the 0..1 scale on that of bytes, 0..255."""
    red, green, blue = (255 * value for value in values)
    return red, green, blue


class FrozenNetwork(nn.Module, ABC):
    """A pretrained feature extractor that resizes and normalizes its input itself and cannot be trained.

    A network is a walk past named tensors, its taps: maps `[N, C, h, w]` or vectors `[N, C]`, the last of them being
    the final output. Nothing is computed beyond the last tap that is asked for.

    Args:
        name: the network's name in records and reports.
        resolution: side of the square that the network sees, pixels.
        mean: per RGB channel, on the 0..255 scale.
        std: per RGB channel, on the 0..255 scale.
        taps: what `forward` returns, in the order of the walk; None: the usual ones.
        resize: "bilinear" (half-pixel centers, antialiased where it shrinks) or "area" (mean over the pixels that an
            output pixel covers; where it enlarges, pixels are repeated).
    """

    usual_taps: ClassVar[tuple[str, ...]]
    """What the heads of a discriminator see unless told otherwise."""
    pooled_tap: ClassVar[str] = "pooled"
    """The vector that `pooled` returns; a map is averaged over its positions."""
    foldable: ClassVar[bool] = True
    """Whether a batch norm that is registered right after a convolution reads its output."""

    scale: Tensor
    shift: Tensor
    channels: tuple[int, ...]
    """Channels of each tap that `forward` returns; known from `freeze` on, as is `shapes`."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each tap that `forward` returns, of one picture: `(C, h, w)` or `(C,)`."""

    def __init__(
        self,
        name: str,
        *,
        resolution: int,
        mean: RGB,
        std: RGB,
        taps: tuple[str, ...] | None = None,
        resize: Literal["bilinear", "area"] = "bilinear",
    ) -> None:
        super().__init__()
        self.name = name
        self.resolution = resolution
        self.resize = resize
        self.taps = self.usual_taps if taps is None else taps
        self.sha256: str | None = None
        """Of the weight file; None for weights that come from no file."""
        self.protocol: Protocol = "clean"
        """How metrics resize pictures before the network sees them (`pygan.metrics.resize`)."""
        self.separable: bool | None = None
        """Whether a linear probe on `pooled` told real from generated pictures almost always; None: not probed."""
        mean_rgb, std_rgb = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 127.5 / std_rgb, persistent=False)
        self.register_buffer("shift", (127.5 - mean_rgb) / std_rgb, persistent=False)

    @abstractmethod
    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield every tap of the prepared pictures `x` `[N, 3, resolution, resolution]` by name, as it is computed."""

    def _prepare(self, img: Tensor) -> Tensor:
        """Resize and normalize pictures as the network saw them when it was trained."""
        if img.shape[1] == 1:
            img = img.expand(-1, 3, -1, -1)
        side = (self.resolution, self.resolution)
        if img.shape[2:] != side:
            if self.resize == "area":
                img = F.interpolate(img, size=side, mode="area")
            else:
                shrinks = min(img.shape[2:]) > self.resolution
                img = F.interpolate(img, size=side, mode="bilinear", align_corners=False, antialias=shrinks)
        return (img * self.scale + self.shift).contiguous(memory_format=torch.channels_last)

    def at(self, x: Tensor, names: tuple[str, ...]) -> list[Tensor]:
        """Return the taps `names` of pictures that are prepared already, `[N, 3, h, w]`, in the order of `names`.

        Raises:
            ConfigError: there is no such tap.
        """
        found: dict[str, Tensor] = {}
        missing, seen = set(names), []
        for name, tensor in self._walk(x):
            seen.append(name)
            if name in missing:
                found[name] = tensor
                missing.remove(name)
                if not missing:
                    return [found[name] for name in names]
        raise ConfigError(f"taps: {self.name} has no {sorted(missing)[0]!r}, expected some of {', '.join(seen)}")

    def forward(self, img: Tensor) -> list[Tensor]:
        """Return the taps of `img`, float32 `[N, 1 or 3, H, W]` in [-1, 1]: maps `[N, C, h, w]`, vectors `[N, C]`."""
        return self.at(self._prepare(img), self.taps)

    def pooled(self, img: Tensor) -> Tensor:
        """Return one feature vector per picture, float32 `[N, D]`; `img` as in `forward`."""
        return self.final(img, self.pooled_tap)

    def final(self, img: Tensor, tap: str | None = None) -> Tensor:
        """Return the final output of the whole network, `[N, F]`, or that of a tap; maps are averaged over positions.

        Raises:
            ConfigError: there is no such tap.
        """
        x = self._prepare(img)
        if tap is None:
            *_, (_, last) = self._walk(x)
        else:
            (last,) = self.at(x, (tap,))
        return last.mean((2, 3)) if last.dim() == 4 else last

    @torch.no_grad()
    def tap_names(self) -> tuple[str, ...]:
        """Return the names of all taps, in the order of the walk."""
        return tuple(name for name, _ in self._walk(self._blank()))

    def _blank(self) -> Tensor:
        return torch.zeros_like(self.scale).expand(1, 3, self.resolution, self.resolution).contiguous()

    def train(self, mode: bool = True) -> "FrozenNetwork":
        """Stay in evaluation mode, whatever a surrounding module is set to."""
        return super().train(False)

    @torch.no_grad()
    def freeze(self) -> "FrozenNetwork":
        """Turn every weight into a buffer outside the state dict; the last thing a `build` does.

        Raises:
            ConfigError: a tap that the network does not have, or a resolution that is too small for it.
        """
        self.to(memory_format=torch.channels_last)
        for module in self.train(False).modules():
            for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                delattr(module, name)
                module.register_buffer(name, tensor.detach(), persistent=False)
        try:
            shapes = [tuple(tap.shape[1:]) for tap in self.at(self._blank(), self.taps)]
        except (RuntimeError, AssertionError) as error:  # what convolutions and poolings say where nothing is left
            raise ConfigError(f"resolution: {self.resolution} pixels are too few for {self.name} ({error})") from error
        if empty := [tap for tap, shape in zip(self.taps, shapes, strict=True) if 0 in shape]:
            raise ConfigError(f"resolution: {self.resolution} pixels are too few for {empty[0]} of {self.name}")
        self.shapes = tuple(shapes)
        self.channels = tuple(shape[0] for shape in shapes)
        return self


@spec
class FrozenSpec:
    """What the specs of all frozen networks have in common."""

    metric_only: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    """Whether the network has a `classifier` that turns its pooled features into logits."""

    # A description that is passed on has to be an argument: the string under a field counts in its own class only.
    taps: tuple[str, ...] | None = Field(
        default=None,
        description="What the heads see, in the order of the network's walk; null: the usual taps of the network.",
    )
    random_init: bool = Field(
        default=False,
        description="Control: the same architecture with random weights drawn by the run's seed, calibrated on random "
        "pictures.",
    )

    @property
    def name(self) -> str:
        """The network's name in records: what tells it from other entries of a bank."""
        return f"{self._base_name()}_random" if self.random_init else self._base_name()

    def _base_name(self) -> str:
        return self.kind

    @property
    def weight_file(self) -> str | None:
        """The file of `pygan weights` that is read; None where the weights are an asset or random."""
        return None if self.random_init else self._weight_file()

    def _weight_file(self) -> str | None:
        return None

    def _architecture(self) -> FrozenNetwork:
        """Return the network with any weights."""
        raise NotImplementedError

    def _load(self, network: FrozenNetwork) -> str | None:
        """Give the network its weights; return the sha256 of their file, if any, or raise `MissingInput`."""
        raise NotImplementedError

    def problems(self) -> Iterator[PyganError]:
        """Yield what keeps the network from being built: packages, files and taps that are missing, damaged files.

        Where the architecture cannot be built for want of a package, the weight file is opened all the same.
        """
        try:
            network = self._architecture()
        except PyganError as error:
            yield error
            if self.weight_file is not None:
                yield from _problems_of(self.weight_file)
            return
        try:
            if not self.random_init:
                self._loaded(network)
            network.freeze()
        except PyganError as error:
            yield error

    def build(self, ctx: Context) -> FrozenNetwork:
        """Return the frozen network on `ctx.device`.

        Raises:
            MissingInput: a package or the file with the weights is not there.
            DataError: the file is damaged, or does not hold the weights of this network.
            ConfigError: the network has no such tap, or is too small for it.
        """
        network = self._architecture()
        if not self.random_init:
            network.sha256 = self._loaded(network)
        if network.foldable:
            fold_batch_norms(network)
        if self.random_init:
            randomize(network, ctx.seed)
        return network.freeze().to(ctx.device)

    def _loaded(self, network: FrozenNetwork) -> str | None:
        """Do what `_load` does; say in a sentence where tensors are missing or of other shapes."""
        try:
            return self._load(network)
        except PyganError:
            raise
        except Exception as error:  # what a reader says of a file that it does not expect can be nearly anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            source = self.weight_file or "the packaged file"
            raise DataError(f"{source}: does not hold the weights of {self.name} ({reason})") from error


def _problems_of(weight_file: str) -> Iterator[PyganError]:
    """Yield why a weight file cannot be read."""
    try:
        weights.check(weight_file)
    except PyganError as error:
        yield error


@spec
class MetricSpec(FrozenSpec):
    """What the specs of networks that only measure have in common."""

    metric_only: ClassVar[bool] = True

    protocol: Protocol = Field(
        default="clean",
        description="How pictures are resized: clean (PIL's bicubic filter on floats, antialiased), legacy_pytorch "
        "(bilinear, half-pixel centers, no antialiasing: pytorch-fid) or legacy_tensorflow (bilinear from the corner, "
        "no antialiasing: TensorFlow 1, torch-fidelity). Values of different protocols cannot be compared.",
    )

    @property
    def name(self) -> str:
        """The network's name in records, which is another one for every protocol."""
        return FrozenSpec.name.fget(self) + ("" if self.protocol == "clean" else f"_{self.protocol}")

    def build(self, ctx: Context) -> FrozenNetwork:
        """Return the frozen network on `ctx.device`; errors are those of every frozen network."""
        network = FrozenSpec.build(self, ctx)
        network.protocol = self.protocol
        return network


def as_chosen(choice: Mapping[str, Any], seed: int) -> FrozenNetwork:
    """Return a network as the probe chose it (an item of the list "frozen" of `probe.json`), on the CPU.

    Args:
        seed: of random weights, where the choice is a control.

    Raises:
        MissingInput: its weights are not there.
    """
    network = load_spec("pygan.features", choice["entry"], "bank").build(Context(resolution=0, seed=seed))
    network.separable = choice["separable"]
    return network


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm that is registered right after a convolution into it."""
    for parent in network.modules():
        for (_, convolution), (name, norm) in pairwise([*parent.named_children()]):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                folded = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
                convolution.weight, convolution.bias = folded
                setattr(parent, name, nn.Identity())


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after a side of `side` pixels for TensorFlow's "same" convolution or pooling."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def folded_convolutions(state: Mapping[str, Tensor], eps: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (weight, bias) of each convolution of a state dict with the batch norm that follows it folded in.

    Args:
        state: each 4-d weight is followed by its batch norm's gain, offset, running mean and running variance.
        eps: what the batch norm adds to the variance.
    """
    tensors = list(state.values())
    for i, weight in enumerate(tensors):
        if weight.dim() == 4:
            gain, offset, mean, variance = (tensor.double() for tensor in tensors[i + 1 : i + 5])
            factor = gain * torch.rsqrt(variance + eps)
            yield (weight.double() * factor.view(-1, 1, 1, 1)).float(), (offset - mean * factor).float()


def load_convolutions(module: nn.Module, weights: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give the convolutions of `module`, in the order of its attributes, the (weight, bias) pairs of `weights`."""
    convolutions = [child for child in module.modules() if isinstance(child, nn.Conv2d)]
    for convolution, (weight, bias) in zip(convolutions, weights, strict=True):
        assert convolution.weight.shape == weight.shape and bias.shape == weight.shape[:1]
        convolution.weight.data = weight
        convolution.bias.data = bias
