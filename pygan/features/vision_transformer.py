"""The plain vision transformer that CLIP, DINO and DINOv2 share; tensors are named as in timm.

Dosovitskiy et al., ICLR 2021, arXiv 2010.11929: a convolution cuts the picture into patches, a class token and a table
of positions are added, and blocks of attention and a two-layer perceptron follow, each after a layer norm.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan.errors import ConfigError
from pygan.features.frozen import FrozenNetwork


class VisionTransformer(FrozenNetwork):
    """Taps `block1`, `block2`, ... (patch tokens as maps), `cls` (normalized class token), perhaps `embedding`.

    Args:
        patch: side of a patch, pixels; `resolution` is a multiple of it.
        width: channels of a token.
        depth: blocks.
        heads: of the attention.
        eps: of the layer norms.
        pre_norm: a layer norm before the first block, and no bias in the patches' convolution (CLIP).
        quick_gelu: x sigmoid(1.702 x) (CLIP) in place of the exact GELU.
        layer_scale: each branch ends in a learned factor per channel (DINOv2).
        normalized_maps: the maps pass through the final layer norm, as DINO's own helper has them.
        embedding: width of the projection of the class token; None: none.
        options: of `FrozenNetwork`.
    """

    pooled_tap = "cls"

    def __init__(
        self,
        name: str,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        eps: float,
        pre_norm: bool = False,
        quick_gelu: bool = False,
        layer_scale: bool = False,
        normalized_maps: bool = False,
        embedding: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        if self.resolution % patch:
            raise ConfigError(
                f"resolution: got {self.resolution}, expected a multiple of {name}'s patch of {patch} pixels"
            )
        self.side = self.resolution // patch
        self.normalized_maps = normalized_maps
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + self.side**2, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch, bias=not pre_norm)
        self.norm_pre = nn.LayerNorm(width, eps) if pre_norm else nn.Identity()
        self.blocks = nn.ModuleList(_Block(width, heads, eps, quick_gelu, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps)
        self.head = nn.Linear(width, embedding) if embedding else None

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        x = self.norm_pre(x)
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            seen = self.norm(x) if self.normalized_maps else x
            yield f"block{i}", seen[:, 1:].transpose(1, 2).unflatten(2, (self.side, self.side))
        x = self.norm(x[:, 0])
        yield "cls", x
        if self.head is not None:
            yield "embedding", self.head(x)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state dict in timm's layout; its table of positions is resampled to this resolution.

        Raises:
            RuntimeError: names or shapes differ.
        """
        state = dict(state)
        if state["pos_embed"].shape != self.pos_embed.shape:
            state["pos_embed"] = _resampled(state["pos_embed"], self.side)
        self.load_state_dict(state)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, eps: float, quick_gelu: bool, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = _Attention(width, heads)
        self.ls1 = _Scale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = _Perceptron(width, quick_gelu)
        self.ls2 = _Scale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [N, heads, tokens, channels]
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class _Perceptron(nn.Module):
    def __init__(self, width: int, quick_gelu: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.quick_gelu = quick_gelu

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x) if self.quick_gelu else F.gelu(x))


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def _resampled(table: Tensor, side: int) -> Tensor:
    """Return a table of positions `[1, 1 + n^2, C]` for `side`^2 patches, bicubic; the class token keeps its own."""
    token, grid = table[:, :1], table[:, 1:]
    n = math.isqrt(grid.shape[1])
    grid = grid.transpose(1, 2).unflatten(2, (n, n))
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", antialias=True)
    return torch.cat([token, grid.flatten(2).transpose(1, 2)], 1)
