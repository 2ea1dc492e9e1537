"""What all frozen networks share: pictures in [-1, 1] go in, feature maps come out, and nothing inside ever changes.

The weights are buffers that stay out of the state dict: no optimizer finds them, no `requires_grad_` of a surrounding
module reaches them, and no checkpoint repeats a file that every installation has. Batch norm is folded into the
convolution before it, so there are no running statistics either.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrozenNetwork(nn.Module, ABC):
    """A pretrained feature extractor that resizes and normalizes its input itself and cannot be trained.

    The resize is bilinear (half-pixel centers, antialiased where it shrinks) to a square of `resolution` pixels.

    Args:
        name: the network's name in records and reports.
        resolution: side of the square that the network sees, pixels.
        channels: channels of each feature map that `forward` returns.
        mean: per RGB channel, on the 0..255 scale.
        std: per RGB channel, on the 0..255 scale.
        sha256: of the weight file; None for weights that come from no file.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        name: str,
        *,
        resolution: int,
        channels: tuple[int, ...],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        sha256: str | None,
    ) -> None:
        super().__init__()
        self.name = name
        self.resolution = resolution
        self.channels = channels
        self.sha256 = sha256
        mean_rgb, std_rgb = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        self.register_buffer("scale", 127.5 / std_rgb, persistent=False)
        self.register_buffer("shift", (127.5 - mean_rgb) / std_rgb, persistent=False)

    @abstractmethod
    def _maps(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of the prepared pictures `x` `[N, 3, resolution, resolution]`."""

    @abstractmethod
    def _vector(self, x: Tensor) -> Tensor:
        """Return one feature vector per prepared picture, `[N, D]`."""

    def _prepare(self, img: Tensor) -> Tensor:
        """Resize and normalize pictures as the network saw them when it was trained."""
        if img.shape[1] == 1:
            img = img.expand(-1, 3, -1, -1)
        side = (self.resolution, self.resolution)
        if img.shape[2:] != side:
            shrinks = min(img.shape[2:]) > self.resolution
            img = F.interpolate(img, size=side, mode="bilinear", align_corners=False, antialias=shrinks)
        return (img * self.scale + self.shift).contiguous(memory_format=torch.channels_last)

    def forward(self, img: Tensor) -> list[Tensor]:
        """Return the feature maps `[N, channels[i], h, w]` of `img`, float32 `[N, 1 or 3, H, W]` in [-1, 1]."""
        return self._maps(self._prepare(img))

    def pooled(self, img: Tensor) -> Tensor:
        """Return one feature vector per picture, float32 `[N, D]`; `img` as in `forward`."""
        return self._vector(self._prepare(img))

    def train(self, mode: bool = True) -> "FrozenNetwork":
        """Stay in evaluation mode, whatever a surrounding module is set to."""
        return super().train(False)

    def freeze(self) -> "FrozenNetwork":
        """Turn every weight into a buffer outside the state dict; the last thing a `build` does."""
        self.to(memory_format=torch.channels_last)
        for module in self.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach(), persistent=False)
        return self.train(False)


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
