"""The order of training pictures: a pure function of the seed and the global sample index."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pygan.data.store import Store
from pygan.draws import Draws, permutation
from pygan.errors import DataError


class Loader:
    """Gives the picture of any global sample index: epoch e walks through the pictures in its own random order.

    Args:
        store: pictures and labels.
        indices: int64 `[n]`, the pictures of the store that training may use.
        seed: the run's seed.

    Raises:
        DataError: `indices` is empty.
    """

    def __init__(self, store: Store, indices: np.ndarray, seed: int) -> None:
        if len(indices) == 0:
            raise DataError(f"{store.path}: no picture is left to train on")
        self._store = store
        self._indices = np.asarray(indices, np.int64)
        self._seed = seed
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def __len__(self) -> int:
        """Number of pictures in an epoch."""
        return len(self._indices)

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pictures and labels of the global sample indices `index`, int64 `[N]`.

        Returns:
            uint8 `[N, C, H, W]` and int64 `[N]`, on the CPU.
        """
        epochs, positions = np.divmod(index.cpu().numpy(), len(self))
        rows = np.empty(len(epochs), np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._order(int(epoch))[positions[chosen]]
        return torch.from_numpy(self._store.read(rows)), torch.from_numpy(self._store.labels[rows])

    def _draw_order(self, epoch: int) -> np.ndarray:
        return self._indices[permutation(self._seed, f"data/{epoch}", len(self)).numpy()]


def mirrored(loader: Loader, seed: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a loader that flips half of the pictures from left to right, drawn for each global sample index anew."""

    def load(index: Tensor) -> tuple[Tensor, Tensor]:
        img, labels = loader(index)
        flipped = Draws(seed, "data/mirror", index.cpu()).uniform(1, 1, 1) < 0.5
        return torch.where(flipped, img.flip(3), img), labels

    return load
