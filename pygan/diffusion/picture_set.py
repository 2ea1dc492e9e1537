"""A training set of any size as rows of numbers: read in chunks, from memory or from a store."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pygan.data.store import Store

CHUNK_VALUES = 1 << 22
"""Numbers that are expanded at a time: 1,365 pictures of 32 pixels."""


class PictureSet:
    """Pictures or points, flat, in [-1, 1] where they are uint8.

    Args:
        images: uint8 `[n, C, H, W]`, a `Store` of such pictures, or floating-point `[n, ...]`, taken as they are.
        chunk_values: numbers expanded at a time.

    Raises:
        ValueError: the set is empty, or neither uint8 nor floating-point.
    """

    def __init__(self, images: Tensor | np.ndarray | Store, chunk_values: int = CHUNK_VALUES) -> None:
        self._store = images if isinstance(images, Store) else None
        if self._store is not None:
            self._rows, n = None, len(self._store)
            self.shape: tuple[int, ...] = (self._store.channels, self._store.resolution, self._store.resolution)
        else:
            images = torch.as_tensor(images)
            if images.dtype != torch.uint8 and not images.is_floating_point():
                raise ValueError(f"got images of {images.dtype}, expected uint8 or floating-point numbers")
            if images.dim() < 2:
                raise ValueError(f"got images of shape {list(images.shape)}, expected [n, C, H, W] or [n, D]")
            self._rows, n = images.flatten(1), len(images)
            self.shape = tuple(images.shape[1:])
        if n == 0:
            raise ValueError("got a set without pictures, expected at least one")
        self._n = n
        self.dim = int(np.prod(self.shape))
        """Numbers in a picture."""
        self.device = torch.device("cpu") if self._rows is None else self._rows.device
        self._chunk = max(1, chunk_values // self.dim)

    def __len__(self) -> int:
        return self._n

    def read(self, index: Tensor, dtype: torch.dtype = torch.float64, center: Tensor | None = None) -> Tensor:
        """Return the pictures at `index` (int64 `[k]`) as a new `[k, D]`, less `center` `[D]` where one is given."""
        if self._store is not None:
            return _expanded(torch.from_numpy(self._store.read(index.numpy())).flatten(1), dtype, center)
        return _expanded(self._rows[index], dtype, center)

    def chunks(
        self, members: Tensor | None = None, dtype: torch.dtype = torch.float64, center: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (index `[k]`, pictures `[k, D]`) over all pictures, or over `members` (int64 `[m]`)."""
        index = torch.arange(self._n, device=self.device) if members is None else members
        for part in index.split(self._chunk):
            if members is None and self._rows is not None:
                yield part, _expanded(self._rows[int(part[0]) : int(part[-1]) + 1], dtype, center)
            else:
                yield part, self.read(part, dtype, center)


def _expanded(rows: Tensor, dtype: torch.dtype, center: Tensor | None) -> Tensor:
    """Return rows in `dtype`, less `center`; uint8 0 to 255 becomes -1 to 1."""
    center = torch.zeros((), dtype=torch.float64, device=rows.device) if center is None else center
    x = rows.to(dtype)
    if rows.dtype == torch.uint8:  # in one pass over the new numbers
        return torch.add((-1 - center).to(dtype), x, alpha=1 / 127.5, out=x)
    return x - center.to(dtype)


def check_labels(labels: ArrayLike | Tensor, n: int) -> Tensor:
    """Return the labels of `n` pictures as int64 `[n]`."""
    labels = torch.as_tensor(labels)
    if labels.shape != (n,) or labels.is_floating_point():
        raise ValueError(f"got labels {labels.dtype} {list(labels.shape)}, expected {n} whole numbers")
    return labels.long()
