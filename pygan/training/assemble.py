"""A run out of its configuration: networks, methods, data and masks, put together for the loop.

The pipeline's training stage and `pygan train` both start here. The seed draws the subset and the initialization.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan.context import Context
from pygan.data.loader import Loader
from pygan.data.store import Store
from pygan.data.subset import parse_subset, select
from pygan.draws import Draws
from pygan.losses import OBJECTIVES
from pygan.pruning.masks import Masks
from pygan.sampling import describe
from pygan.spec import load_spec
from pygan.training.gan import Batch, Run


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
) -> tuple[Run, np.ndarray]:
    """Return the run that a configuration describes, and the indices of its training pictures in `store`.

    Args:
        config: a run of a study file as plain values (`base`, `loss`, `augment`, `discriminators`, `regularizers`,
            `subset`), with its `seed`.
        store: training pictures.
        held_out: validation pictures, for the statistics alone.
        class_names: of the data set.
        frozen: pretrained networks for the heads, in the order of the probe's choice.
        init: state to start from; None: the initialization.
        init_nimg: pictures that `init` has seen.
        masks: living weights of G; None: dense.

    Raises:
        ConfigError: a method cannot be built as configured.
        DataError: the subset asks for more than the store has.
    """
    seed = config["seed"]
    base = load_spec("pygan.networks", config["base"], "base")
    indices = select(store.labels, None if config["subset"] is None else parse_subset(config["subset"]), seed)
    labels = torch.as_tensor(store.labels[indices])
    num_classes = len(class_names) if base.conditional else 0

    def pictures(batch: int) -> Iterator[Tensor]:
        for start in range(0, len(indices), batch):
            yield torch.from_numpy(store.read(indices[start : start + batch]))

    def gen_labels(draws: Draws) -> Tensor | None:
        return labels[draws.integers(len(labels))] if num_classes else None

    def batches(of: Store, chosen: np.ndarray) -> Batch:
        loader = Loader(of, chosen, seed)
        return loader if num_classes else lambda index: (loader(index)[0], None)

    ctx = Context(
        resolution=store.resolution,
        channels=store.channels,
        num_classes=num_classes,
        class_counts=tuple(torch.bincount(labels, minlength=num_classes).tolist()) if num_classes else (),
        pictures=pictures,
        seed=seed,
        frozen=frozen,
    )
    torch.manual_seed(seed)
    G = base.generator(ctx)
    network = base.discriminator(ctx)
    augment = None if config["augment"] is None else load_spec("pygan.augment", config["augment"], "augment")
    D = nn.ModuleList(
        load_spec("pygan.discriminators", values, f"discriminators.{i}").build(
            ctx, network, None if augment is None else augment.build(ctx)
        )
        for i, values in enumerate(config["discriminators"])
    )
    regularizers = [
        load_spec("pygan.regularizers", values, f"regularizers.{i}").build(ctx)
        for i, values in enumerate(config["regularizers"])
    ]
    run = Run(
        seed=seed,
        G=G.to(memory_format=torch.channels_last),
        D=D.to(memory_format=torch.channels_last),
        objective=OBJECTIVES[config["loss"]],
        regularizers=regularizers,
        batch=batches(store, indices),
        held_out=batches(held_out, select(held_out.labels, None, seed)),
        gen_labels=gen_labels,
        masks=masks or {},
        init=init,
        init_nimg=init_nimg,
        metadata=lambda nimg: describe(config["base"], ctx, nimg),
    )
    return run, indices


def methods(config: dict[str, Any]) -> list[str]:
    """Return the kinds of the methods that a run adds to its base network."""
    slots = [config["augment"], *config["discriminators"], *config["regularizers"], config["ticket"]]
    return [slot["kind"] for slot in slots if slot is not None and slot["kind"] != "plain"]
