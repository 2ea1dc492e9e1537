"""Snapshots of fresh tiny generators, as a training writes them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from pygan.checkpoint import write_tensors
from pygan.context import Context
from pygan.sampling import describe
from pygan.spec import load_spec


def snapshot(
    path: Path, base: dict, *, num_classes: int = 0, nimg: int = 64, class_names: Sequence[str] = ()
) -> nn.Module:
    """Write a snapshot of a fresh generator of 16 pixels and return the generator."""
    ctx = Context(resolution=16, num_classes=num_classes)
    torch.manual_seed(nimg)
    G = load_spec("pygan.networks", base).generator(ctx).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = describe(base, ctx, nimg, class_names=class_names)
    write_tensors(path, {f"G_ema.{k}": v for k, v in G.state_dict().items()}, metadata)
    return G


DCGAN = {"kind": "dcgan", "z_dim": 8, "g_channels": 4, "d_channels": 4}
STYLEGAN2 = {"kind": "stylegan2", "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "mapping_layers": 2}
