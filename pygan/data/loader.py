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
        rows = self._rows(index.cpu().numpy())
        return torch.from_numpy(self._store.read(rows)), torch.from_numpy(self._store.labels[rows])

    def _rows(self, index: np.ndarray) -> np.ndarray:
        """Return the pictures of the store at these global sample indices."""
        epochs, positions = np.divmod(index, len(self))
        rows = np.empty(len(epochs), np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._order(int(epoch))[positions[chosen]]
        return rows

    def _draw_order(self, epoch: int) -> np.ndarray:
        return self._indices[permutation(self._seed, f"data/{epoch}", len(self)).numpy()]


def mirrored(loader: Loader, seed: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a loader that flips half of the pictures from left to right, drawn for each global sample index anew."""

    def load(index: Tensor) -> tuple[Tensor, Tensor]:
        img, labels = loader(index)
        flipped = Draws(seed, "data/mirror", index.cpu()).uniform(1, 1, 1) < 0.5
        return torch.where(flipped, img.flip(3), img), labels

    return load


class BalancedLoader(Loader):
    """Gives every class equally often: in each round every class has one turn, in a random order.

    A class walks through its own pictures in random orders of its own, so a small class repeats itself sooner. Classes
    without a picture have no turn.
    """

    def __init__(self, store: Store, indices: np.ndarray, seed: int) -> None:
        super().__init__(store, indices, seed)
        labels = store.labels[self._indices]
        self._of_class = [self._indices[labels == label] for label in np.unique(labels)]
        self._turns = lru_cache(maxsize=64)(self._draw_turns)
        self._class_order = lru_cache(maxsize=4 * len(self._of_class))(self._draw_class_order)

    def _rows(self, index: np.ndarray) -> np.ndarray:
        classes = len(self._of_class)
        rows = [self._row(*divmod(int(i), classes)) for i in index]
        return np.array(rows, np.int64)

    def _row(self, turn: int, place: int) -> int:
        """The picture at a place of a round of turns; the class has had `turn` pictures before."""
        label = int(self._turns(turn)[place])
        epoch, position = divmod(turn, len(self._of_class[label]))
        return int(self._class_order(label, epoch)[position])

    def _draw_turns(self, turn: int) -> np.ndarray:
        return permutation(self._seed, f"data/turns/{turn}", len(self._of_class)).numpy()

    def _draw_class_order(self, label: int, epoch: int) -> np.ndarray:
        own = self._of_class[label]
        return own[permutation(self._seed, f"data/class {label}/{epoch}", len(own)).numpy()]


SAMPLING = {"natural": Loader, "balanced": BalancedLoader}
"""How often a picture is drawn: all alike, or so that all classes are."""
