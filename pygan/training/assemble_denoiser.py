"""A denoiser's run out of its configuration: network, objective, augmentation and data, put together for the loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygan.data.store import Store
from pygan.sampling import describe
from pygan.spec import load_spec
from pygan.training.diffusion import Run
from pygan.training.material import gather


def assemble(
    config: dict[str, Any],
    *,
    store: Store,
    held_out: Store,
    class_names: Sequence[str],
    init: dict[str, Tensor] | None = None,
    init_nimg: int = 0,
    reset: Sequence[str] = (),
    device: torch.device | None = None,
) -> tuple[Run, np.ndarray]:
    """Return the run that a configuration describes, and the indices of its training pictures in `store`.

    Arguments and errors are those of `pygan.training.assemble.assemble`; `loss` is the mapping of an objective.
    """
    device = device or torch.device("cpu")
    base = load_spec("pygan.networks", config["base"], "base")
    loss = load_spec("pygan.diffusion", config["loss"], "loss")
    material = gather(config, base.conditional, store, held_out, class_names, device)
    ctx = material.ctx
    torch.manual_seed(config["seed"])
    G = loss.generator(base, ctx)
    augment = None if config["augment"] is None else load_spec("pygan.augment", config["augment"], "augment")
    run = Run(
        seed=config["seed"],
        G=G.to(device, memory_format=torch.channels_last),
        objective=loss.build(ctx),
        augment=None if augment is None else augment.build(ctx),
        batch=material.batch,
        held_out=material.held_out,
        gen_labels=material.gen_labels,
        init=init if init is None or "optimizers" not in reset else _without_moments(init),
        init_nimg=init_nimg,
        metadata=lambda nimg: describe(config["base"], ctx, nimg, config["loss"], class_names),
    )
    return run, material.indices


def _without_moments(init: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in init.items() if not name.startswith("opt_G.")}


def methods(config: dict[str, Any]) -> list[str]:
    """Return the kinds of what a run adds to a network and its ordinary objective."""
    slots = [config["augment"], config["loss"]]
    return [slot["kind"] for slot in slots if slot is not None and slot["kind"] != "denoising"]
