"""Generators on disk and pictures out of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pygan.checkpoint import atomic_path, read_tensors, subset
from pygan.context import Context
from pygan.draws import Draws
from pygan.errors import DataError
from pygan.spec import load_spec


def describe(base: dict[str, Any], ctx: Context, nimg: int) -> dict[str, Any]:
    """Return the metadata from which `load_generator` rebuilds a snapshot."""
    fields = {"resolution": ctx.resolution, "channels": ctx.channels, "num_classes": ctx.num_classes}
    return {"base": base, "nimg": nimg, "context": fields}


def load_generator(path: Path) -> nn.Module:
    """Return the averaged generator of a snapshot, in eval mode; `G.num_classes` says whether it takes labels.

    Raises:
        DataError: the file is not a readable snapshot.
        ConfigError: it was made with a base network this version does not have.
    """
    tensors, metadata = read_tensors(path)
    if not {"base", "context"} <= metadata.keys():
        raise DataError(f"{path}: got a safetensors file without a description, expected a training snapshot")
    fields = metadata["context"]
    G = load_spec("pygan.networks", metadata["base"], "base").generator(Context(**fields))
    G.load_state_dict(subset(tensors, "G_ema."))
    G.num_classes = fields["num_classes"]
    return G.eval().requires_grad_(False)


def to_float(img: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return img.float() / 127.5 - 1


def to_uint8(img: Tensor) -> Tensor:
    """float32 [-1, 1] to uint8 [0, 255], rounded and clamped."""
    return ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def sample(G: nn.Module, n: int, *, seed: int, stream: str = "sample", batch: int = 100) -> Tensor:
    """Return `n` pictures, uint8 `[n, C, H, W]`; picture i depends on (seed, stream, i) alone.

    A class-conditional G gets labels drawn uniformly.
    """
    parts = []
    for index in torch.arange(n).split(batch):
        c = None
        if num_classes := getattr(G, "num_classes", 0):
            c = Draws(seed, f"{stream}/c", index).integers(num_classes)
        parts.append(to_uint8(G(Draws(seed, f"{stream}/z", index).normal(G.z_dim), c)))
    return torch.cat(parts)


def save_grid(path: Path, img: Tensor, columns: int = 8, scale: int = 2) -> None:
    """Write uint8 pictures `[N, C, H, W]` as one PNG, `columns` to a row, enlarged `scale` times without smoothing."""
    n, channels, height, width = img.shape
    rows = -(-n // columns)
    sheet = np.full((rows * columns, height, width, channels), 255, np.uint8)
    sheet[:n] = img.permute(0, 2, 3, 1).numpy()
    sheet = sheet.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, columns * width, channels)
    picture = Image.fromarray(sheet.squeeze(2) if channels == 1 else sheet)
    with atomic_path(path) as temporary:
        picture.resize((columns * width * scale, rows * height * scale), Image.Resampling.NEAREST).save(
            temporary, "PNG"
        )
