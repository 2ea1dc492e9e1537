"""The block of MobileNetV2 and EfficientNet-lite: expand by 1x1, filter each channel by itself, project by 1x1.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, arXiv 1801.04381. Batch norm is
folded into the convolutions.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from pygan.features.frozen import same_padding


class Convolution(nn.Conv2d):
    """A convolution with bias, followed by ReLU6 unless it is linear.

    Args:
        c_in: input channels.
        c_out: output channels.
        kernel: side of the filter, pixels.
        stride: pixels.
        groups: 1, or `c_in` for a depthwise convolution.
        linear: no ReLU6.
        tf_padding: pad as TensorFlow's "same" does (uneven where the stride is 2) instead of evenly.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        linear: bool = False,
        tf_padding: bool = False,
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, groups=groups)
        self.linear = linear
        self.tf_padding = tf_padding

    def convolve(self, x: Tensor) -> Tensor:
        """Return the convolution of `x` `[N, c_in, side, side]` before ReLU6."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        low, high = same_padding(x.shape[-1], kernel, stride) if self.tf_padding else (kernel // 2, kernel // 2)
        if low != high:
            x = F.pad(x, (low, high, low, high))
            low = 0
        return F.conv2d(x, self.weight, self.bias, stride, low, groups=self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[N, c_out, h, w]` of `x` `[N, c_in, side, side]`."""
        x = self.convolve(x)
        return x if self.linear else F.relu6(x, inplace=True)


class InvertedResidual(nn.Module):
    """Expand, filter, project; added to its input where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, expand: int, kernel: int, stride: int, tf_padding: bool) -> None:
        super().__init__()
        width = c_in * expand
        self.expand = Convolution(c_in, width) if expand > 1 else nn.Identity()
        self.filter = Convolution(width, width, kernel, stride, groups=width, tf_padding=tf_padding)
        self.project = Convolution(width, c_out, linear=True)
        self.residual = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Return `[N, c_out, h, w]` of `x` `[N, c_in, side, side]`."""
        y = self.project(self.filter(self.expand(x)))
        return x + y if self.residual else y


def inverted_residuals(
    c_in: int, stages: tuple[tuple[int, int, int, int, int], ...], *, tf_padding: bool
) -> nn.ModuleList:
    """Return the blocks of `stages`, each a tuple (expansion, kernel, stride of its first block, channels, blocks)."""
    blocks = nn.ModuleList()
    for expand, kernel, stride, c_out, count in stages:
        for i in range(count):
            blocks.append(InvertedResidual(c_in, c_out, expand, kernel, stride if i == 0 else 1, tf_padding))
            c_in = c_out
    return blocks
