"""A run out of its configuration: networks, methods, data and masks, put together for the loop.

The pipeline's training stage and `pygan train` both start here. The seed draws the subset and the initialization.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan.context import Attached, Context
from pygan.data.loader import SAMPLING, mirrored
from pygan.data.store import Store
from pygan.data.subset import parse_subset, select
from pygan.draws import Draws
from pygan.errors import DataError
from pygan.losses import OBJECTIVES
from pygan.pruning.masks import Masks
from pygan.sampling import describe
from pygan.spec import load_spec
from pygan.training.game import Batch, Run

_log = logging.getLogger(__name__)


def assemble(
    config: dict[str, Any],
    *,
    store: Store,
    held_out: Store,
    class_names: Sequence[str],
    frozen: tuple[nn.Module, ...] = (),
    init: dict[str, Tensor] | None = None,
    init_nimg: int = 0,
    masks: Masks | None = None,
    reset: Sequence[str] = (),
    device: torch.device | None = None,
) -> tuple[Run, np.ndarray]:
    """Return the run that a configuration describes, and the indices of its training pictures in `store`.

    Args:
        config: a run of a study file as plain values (`base`, `loss`, `augment`, `discriminators`, `regularizers`,
            `subset`, `mirror`, `sampling`, `gen_labels`), with its `seed`.
        store: training pictures.
        held_out: validation pictures, for the statistics alone.
        class_names: of the data set.
        frozen: pretrained networks for the heads, in the order of the probe's choice.
        init: state to start from; None: the initialization.
        init_nimg: pictures that `init` has seen.
        masks: living weights by their names in a snapshot; None: dense.
        reset: what of `init` is not taken over: "optimizers", "augment", "discriminators".
        device: where the networks compute, pictures staying where the stores are; None: the CPU.

    Raises:
        ConfigError: a method cannot be built as configured.
        DataError: the subset asks for more than the store has, or a class of a conditional run has no picture.
    """
    seed, device = config["seed"], device or torch.device("cpu")
    base = load_spec("pygan.networks", config["base"], "base")
    indices = select(store.labels, None if config["subset"] is None else parse_subset(config["subset"]), seed)
    labels = torch.as_tensor(store.labels[indices], device=device)
    num_classes = len(class_names) if base.conditional else 0
    class_counts = count_classes(labels, class_names) if num_classes else ()

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

    ctx = Context(
        resolution=store.resolution,
        channels=store.channels,
        num_classes=num_classes,
        class_counts=class_counts,
        pictures=pictures,
        seed=seed,
        device=device,
        frozen=tuple(network.to(device) for network in frozen),
    )
    torch.manual_seed(seed)
    G = base.generator(ctx)
    network = base.discriminator(ctx)
    augment = None if config["augment"] is None else load_spec("pygan.augment", config["augment"], "augment")
    D = nn.ModuleList(
        player
        for i, values in enumerate(config["discriminators"])
        for player in load_spec("pygan.discriminators", values, f"discriminators.{i}").players(
            ctx, network, lambda: None if augment is None else augment.build(ctx)
        )
    )
    regularizers = [
        load_spec("pygan.regularizers", values, f"regularizers.{i}").build(ctx)
        for i, values in enumerate(config["regularizers"])
    ]
    for regularizer in regularizers:
        if isinstance(regularizer, Attached):
            regularizer.attach(G.to(device))
    run = Run(
        seed=seed,
        G=G.to(device, memory_format=torch.channels_last),
        D=D.to(device, memory_format=torch.channels_last),
        objective=OBJECTIVES[config["loss"]],
        regularizers=regularizers,
        batch=batches(store, indices, config["sampling"], config["mirror"]),
        held_out=batches(held_out, select(held_out.labels, None, seed), "natural"),
        gen_labels=gen_labels,
        masks={name: mask.to(device) for name, mask in (masks or {}).items()},
        init=init if init is None else _without(init, reset, D),
        init_nimg=init_nimg,
        metadata=lambda nimg: describe(config["base"], ctx, nimg),
    )
    return run, indices


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


def _without(init: dict[str, Tensor], reset: Sequence[str], D: nn.ModuleList) -> dict[str, Tensor]:
    """Return a state without the parts that begin anew; those of augmentations are what `D` has."""
    dropped = {"optimizers": ("opt_G.", "opt_D."), "discriminators": ("D.", "opt_D.")}
    prefixes = tuple(prefix for name in reset for prefix in dropped.get(name, ()))
    kept = {name: tensor for name, tensor in init.items() if not (prefixes and name.startswith(prefixes))}
    if "augment" in reset:
        fresh = {f"D.{name}": tensor for name, tensor in D.state_dict().items()}
        kept |= {name: fresh[name] for name in kept.keys() & fresh.keys() if name.split(".")[2] == "augment"}
    return kept


def methods(config: dict[str, Any]) -> list[str]:
    """Return the kinds of the methods that a run adds to its base network; a term of weight 0 adds nothing."""
    slots = [config["augment"], *config["discriminators"], *config["regularizers"], config["ticket"]]
    slots = [slot for slot in slots if slot is not None and slot.get("weight") != 0]
    return [slot["kind"] for slot in slots if slot["kind"] != "plain"]
