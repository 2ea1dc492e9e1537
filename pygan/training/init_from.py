"""Transfer: networks that begin as those of another training, of which whatever fits by name and shape is taken.

Continuing a training is something else: it takes the whole state or refuses, and the image count goes on. A transfer
begins a training: optimizers, adaptive augmentations, the average and the count of pictures start anew. EDM separates
the two in the same way (`--transfer` and `--resume`; Karras et al., NeurIPS 2022, arXiv 2206.00364).
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pygan.checkpoint import read_tensors, subset
from pygan.errors import ConfigError, MissingInput
from pygan.training.game import Run
from pygan.training.runstate import RunState


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the networks of a snapshot by name, `G.*` and `D.*`, and its metadata.

    A file that has the averaged generator alone gives that as G.

    Raises:
        MissingInput: there is no such file.
        DataError: it is not a readable safetensors file.
    """
    if not path.is_file():
        raise MissingInput(f"{path}: no such file")
    tensors, metadata = read_tensors(path)
    networks = {name: tensor for name, tensor in tensors.items() if name.startswith(("G.", "D."))}
    if not subset(networks, "G."):
        networks |= {f"G.{name}": tensor for name, tensor in subset(tensors, "G_ema.").items()}
    return {name: tensor for name, tensor in networks.items() if ".augment." not in name}, metadata


def transfer(run: Run, path: Path) -> str:
    """Let the networks of a run begin as those of a snapshot as far as these fit; return what was taken, in words.

    Raises:
        MissingInput, DataError: as `read_snapshot`, or a tensor is not finite.
        ConfigError: nothing fits G; the message lists the first differences.
    """
    tensors, _ = read_snapshot(path)
    optimizers = (torch.optim.Adam(network.parameters()) for network in (run.G, run.D))
    state = RunState(run.G, run.D, deepcopy(run.G), *optimizers)
    differences = state.differences("G", subset(tensors, "G."), run.G.state_dict())
    taken = state.load(tensors, str(path), partial=True)
    if not taken["G"]:
        raise ConfigError(f"{path}: nothing of it fits G; first differences: {'; '.join(differences[:3])}")
    parts = [f"{taken[name]} of {len(state.networks[name].state_dict())} tensors of {name}" for name in ("G", "D")]
    left = f"; G differs in {'; '.join(differences[:3])}" if differences else ""
    return f"took {' and '.join(parts)} from {path}{left}"
