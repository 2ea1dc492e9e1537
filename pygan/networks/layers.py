"""Layers that several base networks share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, pad, relu, relu_

from pygan.ops import bias_act, spectral_norm
from pygan.ops.layout import accumulator, is_channels_last, memory_format

Init = Callable[[Tensor], object]
"""Fills a weight in place."""


class ConvAct(nn.Module):
    """Convolution whose bias, activation and gain run in one fused pass (`pygan.ops.bias_act`).

    Args:
        act: activation of `bias_act`; the gain is 1, not the activation's default.
        sn: spectral normalization of the weight (Miyato et al., ICLR 2018, arXiv 1802.05957).
        sn_eps: lower bound of the norms that its power iteration divides by.
        init: fills the weight; the bias starts at 0.
        pictures: what comes out are pictures, float32 also under autocast.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        act: str = "linear",
        sn: bool = False,
        sn_eps: float = 1e-12,
        init: Init = nn.init.xavier_uniform_,
        pictures: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2, bias=False)
        init(self.conv.weight)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.act, self.pictures = act, pictures
        if sn:
            spectral_norm(self.conv, eps=sn_eps)

    @property
    def channels_last(self) -> bool:
        """Whether the weight lies in memory that way, which is how a network is told to compute."""
        (weight,) = self.conv.parameters()
        return is_channels_last(weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.act == "linear":  # a convolution adds its bias in passing
            return conv2d(x, self.conv.weight, self.bias, self.conv.stride, self.conv.padding)
        x = self.conv(x)
        return bias_act(x.to(self.bias.dtype) if self.pictures else x, self.bias, act=self.act, gain=1.0)


class UpsampledConv(nn.Module):
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution, as one transposed convolution.

    Each output pixel sees the 3x3 window of the upsampled picture, whose nine pixels are copies of four: summing the
    weights that fall on one pixel gives a 4x4 kernel at stride 2 with 4/9 of the multiplications and no upsampled copy.

    `[N, in_channels, H, H]` to `[N, out_channels, 2H, 2H]`; the parameters are the 3x3 weight and perhaps a bias, which
    starts at 0.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.xavier_uniform_(self.weight)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        rows = pad(self.weight, (0, 0, 1, 0)) + pad(self.weight, (0, 0, 0, 1))
        kernel = pad(rows, (1, 0)) + pad(rows, (0, 1))
        return conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), self.bias, stride=2, padding=1)


class ConditionalNorm(nn.Module):
    """Batch normalization whose gain and bias are functions of a condition, the common face of all such layers.

    A generator's `class_affines` finds them by this class. Subclasses have `norm` and `affine`.
    """

    norm: nn.BatchNorm2d
    conditional = True

    def affine(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return gain (1: unchanged) and bias, `[N, C]` each, under N conditions."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """`x` `[N, C, H, W]`; `y`: what `affine` takes, ignored where the layer is not conditional."""
        x = self.norm(x)
        if not self.conditional:
            return x
        gain, bias = (t.to(x.dtype)[:, :, None, None] for t in self.affine(y))
        return torch.addcmul(bias, x, gain)


class ConditionalBatchNorm(ConditionalNorm):
    """Each class has its own gain and bias (Dumoulin et al., ICLR 2017, arXiv 1610.07629); the condition is its number.

    Args:
        num_classes: 0 gives the ordinary affine layer.
        init: fills `gain - 1` and `bias` of the classes, the ordinary layer starting as the identity; None: gains are
            normal with mean 1 and deviation 0.02, biases 0.
    """

    def __init__(self, channels: int, num_classes: int = 0, *, eps: float = 1e-5, init: Init | None = None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=num_classes == 0)
        self.conditional = num_classes > 0
        if num_classes:
            self.gain = nn.Embedding(num_classes, channels)
            self.bias = nn.Embedding(num_classes, channels)
            self._initialize(init)
        elif init is None:
            nn.init.normal_(self.norm.weight, 1.0, 0.02)

    @torch.no_grad()
    def _initialize(self, init: Init | None) -> None:
        if init is None:
            nn.init.normal_(self.gain.weight, 1.0, 0.02)
            nn.init.zeros_(self.bias.weight)
        else:
            init(self.gain.weight)
            init(self.bias.weight)
            self.gain.weight += 1

    def affine(self, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """`c` int64 `[N]`; None: every class."""
        return (self.gain.weight, self.bias.weight) if c is None else (self.gain(c), self.bias(c))


class ModulatedBatchNorm(ConditionalNorm):
    """Gain and bias are spectrally normalized linear maps of a vector: `1 + W_gain y` and `W_bias y`.

    The vector is a class embedding with a part of z (BigGAN: Brock et al., ICLR 2019, arXiv 1809.11096) or z alone
    (self-modulation: Chen et al., ICLR 2019, arXiv 1810.01365). In training mode every call of `affine` is one more
    power iteration of both maps.

    Args:
        features: dimension of the vector.
    """

    def __init__(self, channels: int, features: int, *, eps: float, sn_eps: float, init: Init) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.gain, self.bias = (
            linear(features, channels, bias=False, sn=True, sn_eps=sn_eps, init=init) for _ in range(2)
        )

    def affine(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """`y` `[N, features]`."""
        return 1 + self.gain(y), self.bias(y)


def class_affines(network: nn.Module, classes: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """Return gain and bias, `[num_classes, C]` each, of every conditional normalization of a network, in its order.

    They are differentiable. Group spectral regularization (Rangwani et al., ECCV 2022) penalizes `gain - 1` and `bias`.

    Args:
        classes: the condition of each class, as the layers' `affine` takes it; None: the layers have a table of them.
    """
    norms = (module for module in network.modules() if isinstance(module, ConditionalNorm))
    return [norm.affine(classes) for norm in norms if norm.conditional]


class UpBlock(nn.Module):
    """Norm-ReLU-upsample-conv-norm-ReLU-conv beside an upsampled 1x1 shortcut.

    `[N, in_channels, H, H]` to `[N, out_channels, 2H, 2H]`, residual block of the ResNet of Miyato et al. (ICLR 2018,
    arXiv 1802.05957) and of BigGAN.

    Args:
        norm: channels to a normalization.
        conv: as `ConvAct`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Callable[[int], ConditionalNorm],
        conv: Callable[..., ConvAct] = ConvAct,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = conv(in_channels, out_channels, 3)
        self.conv2 = conv(out_channels, out_channels, 3)
        self.shortcut = conv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """`y`: the condition that both normalizations read."""
        h = self.conv1(upsample(relu_(self.norm1(x, y))))
        h = self.conv2(relu_(self.norm2(h, y)))
        return h + upsample(self.shortcut(x))  # a 1x1 convolution commutes with nearest upsampling


class DownBlock(nn.Module):
    """Two convolutions beside a shortcut, as in the discriminators of the same papers; `down` halves the side.

    `[N, in_channels, H, H]` to `[N, out_channels, H, H]`, or H / 2 by average pooling. The shortcut is a 1x1
    convolution where the side or the channels change.

    Args:
        conv: as `ConvAct`.
        hidden: channels between the convolutions; None: `out_channels`.
        first: the block that sees pictures: no ReLU before its first convolution.
        relu_shortcut: the shortcut starts from the rectified input too.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        conv: Callable[..., ConvAct],
        *,
        hidden: int | None = None,
        down: bool,
        first: bool = False,
        relu_shortcut: bool = False,
    ) -> None:
        super().__init__()
        hidden = hidden or out_channels
        self.conv1 = conv(in_channels, hidden, 3, act="relu")
        self.conv2 = conv(hidden, out_channels, 3)
        self.shortcut = conv(in_channels, out_channels, 1) if down or in_channels != out_channels else None
        self.down = down
        self.first = first
        self.relu_shortcut = relu_shortcut

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.first else relu(x)
        if self.relu_shortcut:
            x = h
        h = self.conv2(self.conv1(h))
        if self.down:
            h, x = avg_pool2d(h, 2), avg_pool2d(x, 2)  # pooling commutes with the 1x1 shortcut
        return h + (x if self.shortcut is None else self.shortcut(x))


def linear(
    in_features: int, out_features: int, *, bias: bool = True, sn: bool = False, sn_eps: float = 1e-12, init: Init
) -> nn.Linear:
    """Return a linear layer with the weight filled by `init`, its bias 0; `sn` and `sn_eps` as in `ConvAct`."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    init(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer, eps=sn_eps) if sn else layer


class Projection(nn.Module):
    """Logit of a feature vector, plus its inner product with the class embedding.

    Source: Miyato and Koyama, "cGANs with Projection Discriminator", ICLR 2018 (arXiv 1802.05637), eq. 4.

    Args:
        sn: spectral normalization of the weight and of the embeddings, `[num_classes, features]` read as a matrix.
        sn_eps: as in `ConvAct`.
        init: fills weight and embeddings, the bias starting at 0; None: PyTorch's initialization.
    """

    def __init__(
        self,
        features: int,
        num_classes: int = 0,
        *,
        bias: bool = True,
        sn: bool = False,
        sn_eps: float = 1e-12,
        init: Init | None = None,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1, bias=bias)
        self.embed = nn.Embedding(num_classes, features) if num_classes else None
        layers = [self.linear] if self.embed is None else [self.linear, self.embed]
        if init is not None:
            for layer in layers:
                init(layer.weight)
            if bias:
                nn.init.zeros_(self.linear.bias)
        if sn:
            for layer in layers:
                spectral_norm(layer, eps=sn_eps)

    def forward(self, h: Tensor, c: Tensor | None) -> Tensor:
        """`h` `[N, features]`, `c` int64 `[N]` or None; returns logits `[N]`, which autocast does not round."""
        with torch.autocast(h.device.type, enabled=False):
            h = h.to(accumulator(h.dtype))
            logit = self.linear(h).squeeze(1)
            return logit if self.embed is None else logit + (self.embed(c) * h).sum(1)


def first_map(x: Tensor, channels_last: bool) -> Tensor:
    """Return `[N, C * 16]` as the feature map `[N, C, 4, 4]`, in the memory format in which all others follow."""
    return x.unflatten(1, (-1, 4, 4)).contiguous(memory_format=memory_format(channels_last))


def sum_pool(x: Tensor) -> Tensor:
    """Return the sums over the positions of `[N, C, H, W]`, in float32 at least: they are what logits are made of."""
    return x.sum((2, 3), dtype=accumulator(x.dtype))


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling by 2."""
    return interpolate(x, scale_factor=2, mode="nearest")


def doublings(resolution: int, start: int) -> int:
    """Number of doublings from `start` to `resolution`; ValueError when it is not a power-of-two multiple."""
    count = (resolution // start).bit_length() - 1
    if resolution != start << count or count < 1:
        raise ValueError(f"resolution: got {resolution}, expected {start} times a power of two")
    return count
