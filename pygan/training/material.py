"""What a training is made from: pictures in the order of the seed, and labels."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan.context import Context
from pygan.data.loader import SAMPLING, mirrored
from pygan.data.store import Store
from pygan.data.subset import parse_subset, select
from pygan.draws import Draws
from pygan.errors import DataError
from pygan.sampling import to_float

_log = logging.getLogger(__name__)

Batch = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""Global sample indices int64 `[N]` to uint8 pictures `[N, C, H, W]` and labels `[N]` or None."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run is trained on."""

    ctx: Context
    indices: np.ndarray
    """Of the training pictures in their store."""
    batch: Batch
    """Training pictures."""
    held_out: Batch
    """Validation pictures, for the statistics alone."""
    gen_labels: Callable[[Draws], Tensor | None]
    """Labels for generated pictures."""


def gather(
    config: dict[str, Any],
    conditional: bool,
    store: Store,
    held_out: Store,
    class_names: Sequence[str],
    device: torch.device,
    frozen: tuple[nn.Module, ...] = (),
) -> Material:
    """Return what the run of a configuration is trained on; arguments and errors are those of `assemble`.

    Args:
        conditional: whether it takes class labels.
    """
    seed = config["seed"]
    indices = select(store.labels, None if config["subset"] is None else parse_subset(config["subset"]), seed)
    batch = config.get("training", {}).get("batch", 0)
    if len(indices) < batch:
        _log.warning(
            "%d training pictures for batches of %d: a batch shows pictures more than once", len(indices), batch
        )
    labels = torch.as_tensor(store.labels[indices], device=device)
    num_classes = len(class_names) if conditional else 0

    def pictures(batch: int) -> Iterator[Tensor]:
        for start in range(0, len(indices), batch):
            yield torch.from_numpy(store.read(indices[start : start + batch]))

    def gen_labels(draws: Draws) -> Tensor | None:
        if config["gen_labels"] == "uniform":
            return draws.integers(num_classes)
        return labels[draws.integers(len(labels))] if num_classes else None

    def batches(of: Store, chosen: np.ndarray, sampling: str, mirror: bool = False) -> Batch:
        loader = SAMPLING[sampling](of, chosen, seed)
        if mirror:
            loader = mirrored(loader, seed)
        return loader if num_classes else lambda index: (loader(index)[0], None)

    return Material(
        ctx=Context(
            resolution=store.resolution,
            channels=store.channels,
            num_classes=num_classes,
            class_counts=count_classes(labels, class_names) if num_classes else (),
            pictures=pictures,
            seed=seed,
            device=device,
            frozen=tuple(network.to(device) for network in frozen),
        ),
        indices=indices,
        batch=batches(store, indices, config["sampling"], config["mirror"]),
        held_out=batches(held_out, select(held_out.labels, None, seed), "natural"),
        gen_labels=gen_labels,
    )


def count_classes(labels: Tensor, class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the training pictures of each class of a conditional run, warning of classes with a single one.

    Raises:
        DataError: there are fewer than two classes, labels without a class, or a class without a picture.
    """
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    if len(class_names) < 2:
        raise DataError(f"base.conditional: the data set has the one class {class_names[0]!r}, expected at least two")
    if len(counts) > len(class_names):
        raise DataError(f"the data set has {len(class_names)} classes, but a picture with the label {len(counts) - 1}")
    for name, count in zip(class_names, counts, strict=True):
        if count == 0:
            raise DataError(f"subset: the class {name!r} has no training picture, a conditional run needs one at least")
        if count == 1:
            _log.warning("the class %r has one training picture, of which G can only learn copies", name)
    return tuple(counts)


def pictures(batch: Batch, index: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return pictures in [-1, 1] and labels of the samples `index`, on its device."""
    img, c = batch(index)
    return channels_last(to_float(img.to(index.device))), None if c is None else c.to(index.device)


def channels_last(img: Tensor) -> Tensor:
    return img.contiguous(memory_format=torch.channels_last)
