"""The other control of a ticket: a dense generator with as many parameters as the ticket has living ones.

A study writes the width found here as `g_channels` of a run of its own; `prune.json` of every round and `pygan masks
FILE` name it. Fewer channels change the initialization and the shape of every layer, which a ticket keeps.
"""

import dataclasses
from typing import Any

import torch

from pygan.context import Context


def g_channels(base: Any, ctx: Context, living: int) -> tuple[int, int] | None:
    """Return the width of the dense generator whose size is nearest to `living` parameters, and its size.

    Args:
        base: `Spec` of a network; None is returned for one without `g_channels` (stylegan2, whose `channel_base` G and
            D share).
        ctx: of the ticket's run.
        living: parameters of the ticket that are not pruned, those of linear layers and normalizations included.
    """
    if not hasattr(base, "g_channels"):
        return None

    def size(width: int) -> int:
        with torch.device("meta"):
            G = dataclasses.replace(base, g_channels=width).generator(ctx)
        return sum(p.numel() for p in G.parameters())

    low, high = 1, base.g_channels
    while high - low > 1:  # the size grows with the width
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= living else (low, middle)
    width = min((low, high), key=lambda w: abs(size(w) - living))
    return width, size(width)
