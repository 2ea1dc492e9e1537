"""BigGAN: Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019
(arXiv 1809.11096), appendix B, in the sizes for 32, 64 and 128 pixels.

Residual blocks with spectral normalization (one power iteration a forward) in G and D; self-attention in both (Zhang et
al., ICML 2019, arXiv 1805.08318); sum pooling and a projection discriminator with a spectrally normalized embedding. z
is cut into one chunk for the first layer and one for every block; a block's normalizations read the class embedding,
which all of them share, and the block's chunk. The embedding itself is not spectrally normalized.

Three releases train it on little data, and `release` follows one of them in its details. Widths in units of
`g_channels` and `d_channels`, from 4x4 pixels on in G and block by block in D:

| | `brock` | `lottery` | `gsr` |
|---|---|---|---|
| who | the authors' PyTorch code, vision-aided GAN, LeCam | Chen et al., NeurIPS 2021 | Rangwani et al., ECCV 2022 |
| G, 32 pixels | 4 4 4 4 | 4 4 4 4 | 4 4 4 4 |
| G, 64 pixels | 16 16 8 4 2 | 16 16 8 4 2 | 16 8 4 2 1 |
| G, 128 pixels | 16 16 8 4 2 1 | 16 16 8 4 2 1 | 16 16 8 4 2 1 |
| D, 32 pixels | 4 4 4 4 | 2 2 2 2 | 2 2 2 2 |
| D, 64 pixels | 1 2 4 8 16 | 2 4 8 16 16 | 1 2 4 8 16 |
| D, 128 pixels | 1 2 4 8 16 16 | 1 2 4 8 16 16 | 1 2 4 8 16 16 |
| epsilon of batch and spectral normalization | 1e-5, 1e-8 | 1e-4, 1e-6 | 1e-4, 1e-6 |
| shortcuts of D read | the input | the rectified input | the rectified input |

The last row is StudioGAN's in-place ReLU; `lottery` and `gsr` are forks of it. The momentum of batch normalization is
0.1 in all three. D halves the side in its first two blocks at 32 pixels and in all but the last one otherwise, and is
wide (`D_wide`): both convolutions of a block have its output's channels. Published settings:

| | pixels | `g_channels`, `d_channels` | `z_dim` | others |
|---|---|---|---|---|
| authors, ImageNet | 128 | 96, 96 | 120 | |
| vision-aided, LeCam: CIFAR | 32 | 64, 64 | 128 | `release: brock`, no attention, `shared_dim: 0`, |
| | | | | `hierarchical: false`, `init: normal` |
| lottery, gSR: CIFAR | 32 | 96, 96 | 80 | |
| lottery: Tiny-ImageNet; gSR: iNaturalist | 64 | 80, 80 | 100 | |
| gSR: LSUN | 64 | 80, 80 | 120 | |
| gSR: LSUN | 128 | 80, 80 | 120 | `g_attention: 32` |

Without classes every block's normalizations read the whole z (self-modulation: Chen et al., ICLR 2019, arXiv
1810.01365) and D has no projection, as in the vision-aided release; `shared_dim` and `hierarchical` then have no
effect.

Differs from the official codes in: biases start at 0 whatever the initialization; power iteration starts from converged
vectors; sampling uses the batch statistics of training or standing statistics (`brock` has both; StudioGAN normalizes
with the batch it samples); statistics are never shared by processes (`cross_replica` off); StudioGAN's unused class
embedding inside D is left out. Orthogonal regularization is off in every release above and not implemented; neither is
`skip_init`. The epsilon of Adam belongs to the training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu, relu_

from pygan.context import Context
from pygan.draws import Draws
from pygan.networks.layers import (
    ConditionalBatchNorm,
    ConditionalNorm,
    ConvAct,
    DownBlock,
    Init,
    ModulatedBatchNorm,
    Projection,
    UpBlock,
    class_affines,
    first_map,
    linear,
    sum_pool,
)
from pygan.ops import spectral_norm
from pygan.spec import spec

INITS: Mapping[str, Init] = {"orthogonal": nn.init.orthogonal_, "normal": partial(nn.init.normal_, std=0.02)}


@dataclass(frozen=True, kw_only=True)
class Release:
    """Details in which published codes differ; widths by resolution, in units of the channel multiplier."""

    g_widths: dict[int, tuple[int, ...]]
    d_widths: dict[int, tuple[int, ...]]
    bn_eps: float
    sn_eps: float
    relu_shortcut: bool
    """The shortcuts of D read the rectified input."""


_G_WIDTHS = {32: (4, 4, 4, 4), 64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1)}
_D_WIDTHS = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
_studiogan = partial(Release, bn_eps=1e-4, sn_eps=1e-6, relu_shortcut=True)

RELEASES = {
    "brock": Release(
        g_widths=_G_WIDTHS,
        d_widths=_D_WIDTHS | {32: (4, 4, 4, 4)},
        bn_eps=1e-5,
        sn_eps=1e-8,
        relu_shortcut=False,
    ),
    "lottery": _studiogan(g_widths=_G_WIDTHS, d_widths=_D_WIDTHS | {64: (2, 4, 8, 16, 16)}),
    "gsr": _studiogan(g_widths=_G_WIDTHS | {64: (16, 8, 4, 2, 1)}, d_widths=_D_WIDTHS),
}


@spec
class Spec:
    kind: Literal["biggan"] = "biggan"
    release: Literal["brock", "lottery", "gsr"] = "gsr"
    """Whose widths and details: the authors' PyTorch code, the lottery-ticket paper's release or gSR's."""
    z_dim: int = Field(default=120, ge=1)
    """Dimension of the latent vector; with `hierarchical` a multiple of the number of G's blocks + 1."""
    g_channels: int = Field(default=96, ge=1)
    """Channel multiplier of the generator."""
    d_channels: int = Field(default=96, ge=1)
    """Channel multiplier of the discriminator."""
    shared_dim: int = Field(default=128, ge=0)
    """Dimension of the class embedding that all normalizations share; 0: each has its own gains and biases by class."""
    hierarchical: bool = True
    """Every block reads its own chunk of z; false: only the first layer reads z."""
    g_attention: int | None = Field(default=None, ge=0)
    """Side of G's feature map that attends to itself, pixels; 0: no attention; null: half the side of the picture."""
    d_attention: int | None = Field(default=None, ge=0)
    """The same in D."""
    init: Literal["orthogonal", "normal"] = "orthogonal"
    """Initialization of all weights and embeddings; normal has deviation 0.02."""
    conditional: bool = True
    """Class-conditional batch normalization in G and projection in D; false: self-modulation, no projection."""

    @model_validator(mode="after")
    def _chunks_need_the_embedding(self) -> "Spec":
        if self.conditional and self.hierarchical and not self.shared_dim:
            raise ValueError("hierarchical: got true with shared_dim 0, expected false or a shared_dim above 0")
        return self

    def generator(self, ctx: Context) -> "Generator":
        release = RELEASES[self.release]
        widths = [self.g_channels * factor for factor in _of_resolution(release.g_widths, ctx.resolution)]
        slots = len(widths)
        if self.conditional and self.hierarchical and self.z_dim % slots:
            raise ValueError(
                f"z_dim: got {self.z_dim}, expected a multiple of {slots} at {ctx.resolution} pixels (`hierarchical` "
                f"gives the first layer and each of {slots - 1} blocks a chunk)"
            )
        return Generator(
            widths,
            ctx.channels,
            ctx.num_classes,
            z_dim=self.z_dim,
            shared_dim=self.shared_dim,
            hierarchical=self.hierarchical,
            attention=_attention("g_attention", self.g_attention, [8 << i for i in range(slots - 1)], ctx.resolution),
            init=INITS[self.init],
            release=release,
        )

    def discriminator(self, ctx: Context) -> "Discriminator":
        release = RELEASES[self.release]
        widths = [self.d_channels * factor for factor in _of_resolution(release.d_widths, ctx.resolution)]
        halvings = 2 if ctx.resolution == 32 else len(widths) - 1
        sides = [ctx.resolution >> min(i + 1, halvings) for i in range(len(widths))]
        return Discriminator(
            widths,
            halvings,
            ctx.channels,
            ctx.num_classes,
            attention=_attention("d_attention", self.d_attention, sides, ctx.resolution),
            init=INITS[self.init],
            release=release,
        )


def _of_resolution(widths: Mapping[int, tuple[int, ...]], resolution: int) -> tuple[int, ...]:
    if resolution not in widths:
        raise ValueError(f"resolution: got {resolution}, expected {', '.join(map(str, widths))} for biggan")
    return widths[resolution]


def _attention(key: str, side: int | None, sides: list[int], resolution: int) -> int | None:
    """Return the block after which a network attends, or None; `sides` are those of the blocks' outputs, pixels."""
    if side == 0:
        return None
    side = resolution // 2 if side is None else side
    if side not in sides:
        known = ", ".join(map(str, sorted(set(sides))))
        raise ValueError(f"{key}: got {side}, expected 0 (none) or one of {known} at {resolution} pixels")
    return sides.index(side)


class SelfAttention(nn.Module):
    """`x + gamma * W_o (softmax(theta^T phi) g)` over positions, gamma starting at 0: `[N, C, H, W]` to the same.

    Queries theta have C / 8 channels; keys phi (C / 8) and values g (C / 2) are max-pooled by 2. The maps are
    spectrally normalized 1x1 convolutions without bias. As in the authors' code; the formula that Zhang et al. print
    has neither the pooling nor the halved values.
    """

    def __init__(self, channels: int, *, sn_eps: float, init: Init) -> None:
        super().__init__()
        narrow, half = max(channels // 8, 1), max(channels // 2, 1)
        shapes = ((channels, narrow), (channels, narrow), (channels, half), (half, channels))
        self.theta, self.phi, self.g, self.o = (nn.Conv2d(a, b, 1, bias=False) for a, b in shapes)
        for conv in (self.theta, self.phi, self.g, self.o):
            init(conv.weight)
            spectral_norm(conv, eps=sn_eps)
        self.gamma = nn.Parameter(torch.zeros([]))

    def forward(self, x: Tensor) -> Tensor:
        queries = self.theta(x).flatten(2)  # [N, C / 8, H W]
        keys = max_pool2d(self.phi(x), 2).flatten(2)  # [N, C / 8, H W / 4]
        values = max_pool2d(self.g(x), 2).flatten(2)  # [N, C / 2, H W / 4]
        weights = (queries.transpose(1, 2) @ keys).softmax(2)  # [N, H W, H W / 4]
        attended = (weights @ values.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.gamma * self.o(attended)


class Generator(nn.Module):
    """`G(z, c) = body(stem(z, c), c)`: z `[N, z_dim]` to pictures `[N, channels, side, side]` in [-1, 1].

    What the normalizations of block i read:

    - with classes, the shared embedding of c and chunk i of z; without `hierarchical` the embedding alone;
    - with classes and `shared_dim` 0, c itself: each looks it up in its own tables;
    - without classes, z.

    Args:
        widths: channels at 4x4 pixels, then after every block; each block doubles the side.
        attention: the block after which the feature map attends to itself; None: none does.
    """

    def __init__(
        self,
        widths: list[int],
        channels: int,
        num_classes: int,
        *,
        z_dim: int,
        shared_dim: int,
        hierarchical: bool,
        attention: int | None,
        init: Init,
        release: Release,
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.num_classes = num_classes
        chunked = hierarchical and num_classes > 0
        self.chunk = z_dim // len(widths) if chunked else 0
        self.self_modulated = num_classes == 0
        self.shared = nn.Embedding(num_classes, shared_dim) if num_classes and shared_dim else None
        if self.shared is not None:
            init(self.shared.weight)
        self.linear = linear(self.chunk or z_dim, widths[0] * 16, sn=True, sn_eps=release.sn_eps, init=init)
        norm = self._norm(z_dim if self.self_modulated else shared_dim + self.chunk, init, release)
        conv = partial(ConvAct, sn=True, sn_eps=release.sn_eps, init=init)
        self.blocks = nn.ModuleList(UpBlock(a, b, norm, conv) for a, b in pairwise(widths))
        self.attention_after = attention
        if attention is not None:
            self.attention = SelfAttention(widths[attention + 1], sn_eps=release.sn_eps, init=init)
        self.norm = nn.BatchNorm2d(widths[-1], eps=release.bn_eps)
        self.to_img = conv(widths[-1], channels, 3, act="tanh", pictures=True)

    def _norm(self, features: int, init: Init, release: Release) -> "partial[ConditionalNorm]":
        """Return the blocks' normalization; `features`: size of the vector that it reads, 0: it reads the class."""
        if features:
            return partial(ModulatedBatchNorm, features=features, eps=release.bn_eps, sn_eps=release.sn_eps, init=init)
        return partial(ConditionalBatchNorm, num_classes=self.num_classes, eps=release.bn_eps, init=init)

    def stem(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """Return the first feature map `[N, widths[0], 4, 4]`, and what the blocks read of z, `[N, blocks, K]`.

        K is the size of a chunk, 0 without `hierarchical`, `z_dim` without classes.
        """
        blocks = len(self.blocks)
        if self.chunk:
            chunks = z.unflatten(1, (blocks + 1, self.chunk))
            first, codes = chunks[:, 0], chunks[:, 1:]
        else:
            first, codes = z, z[:, None, : self.z_dim if self.self_modulated else 0].expand(-1, blocks, -1)
        return first_map(self.linear(first), self.to_img.channels_last), codes

    def body(self, stem: tuple[Tensor, Tensor], c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        h, codes = stem
        for i, (block, y) in enumerate(zip(self.blocks, self._conditions(codes, c), strict=True)):
            h = block(h, y)
            if i == self.attention_after:
                h = self.attention(h)
        return self.to_img(relu_(self.norm(h)))

    def _conditions(self, codes: Tensor, c: Tensor | None) -> list[Tensor | None]:
        """Return what the normalizations of each block read."""
        if self.self_modulated:
            return list(codes.unbind(1))
        if self.shared is None:
            return [c] * len(self.blocks)
        shared = self.shared(c)
        return [torch.cat([shared, code], 1) for code in codes.unbind(1)]

    def forward(self, z: Tensor, c: Tensor | None = None, draws: Draws | None = None) -> Tensor:
        return self.body(self.stem(z, c), c)

    def class_affines(self) -> list[tuple[Tensor, Tensor]]:
        """See `pygan.networks.layers.class_affines`; chunks of z are 0, empty without classes.

        Gradients reach the linear maps and the shared embedding; in training mode each call is one more power iteration
        of the maps, as in the gSR release.
        """
        if self.self_modulated:
            return []
        if self.shared is None:
            return class_affines(self)
        return class_affines(self, pad(self.shared.weight, (0, self.chunk)))


class Discriminator(nn.Module):
    """`D(img, c) = head(features(img), c)`: pictures `[N, channels, resolution, resolution]` to logits `[N]`.

    Args:
        widths: channels after every block.
        halvings: how many blocks, the first ones, halve the side.
        attention: the block after which the feature map attends to itself; None: none does.
    """

    def __init__(
        self,
        widths: list[int],
        halvings: int,
        channels: int,
        num_classes: int,
        *,
        attention: int | None,
        init: Init,
        release: Release,
    ) -> None:
        super().__init__()
        conv = partial(ConvAct, sn=True, sn_eps=release.sn_eps, init=init)
        self.blocks = nn.ModuleList(
            DownBlock(a, b, conv, down=i < halvings, first=i == 0, relu_shortcut=release.relu_shortcut)
            for i, (a, b) in enumerate(pairwise([channels, *widths]))
        )
        self.attention_after = attention
        if attention is not None:
            self.attention = SelfAttention(widths[attention], sn_eps=release.sn_eps, init=init)
        self.logit = Projection(widths[-1], num_classes, sn=True, sn_eps=release.sn_eps, init=init)

    def features(self, img: Tensor, *, paired: bool = False) -> Tensor:
        """Return the sum-pooled feature `[N, widths[-1]]`."""
        for i, block in enumerate(self.blocks):
            img = block(img)
            if i == self.attention_after:
                img = self.attention(img)
        return sum_pool(relu(img))

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        return self.logit(h, c)

    def forward(self, img: Tensor, c: Tensor | None = None, *, paired: bool = False) -> Tensor:
        return self.head(self.features(img), c)
