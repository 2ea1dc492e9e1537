"""A run out of its configuration: networks, methods, data and masks, put together for the loop.

The pipeline's training stage and `pygan train` both start here. The seed draws the subset and the initialization.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan.context import Attached
from pygan.data.store import Store
from pygan.losses import OBJECTIVES
from pygan.pruning.masks import Masks
from pygan.sampling import describe
from pygan.spec import load_spec
from pygan.training.game import Run
from pygan.training.material import gather


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
    material = gather(config, base.conditional, store, held_out, class_names, device, frozen)
    ctx = material.ctx
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
        batch=material.batch,
        held_out=material.held_out,
        gen_labels=material.gen_labels,
        masks={name: mask.to(device) for name, mask in (masks or {}).items()},
        init=init if init is None else _without(init, reset, D),
        init_nimg=init_nimg,
        metadata=lambda nimg: describe(config["base"], ctx, nimg, class_names=class_names),
    )
    return run, material.indices


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
