"""What went wrong: numbers that are not finite, and a batch that does not fit into memory."""

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from pygan.checkpoint import write_json, write_tensors
from pygan.context import Step
from pygan.errors import ConfigError, NumericalError


def check_terms(terms: Mapping[str, Tensor], nimg: int) -> dict[str, float]:
    """Return the terms of the losses as numbers.

    Raises:
        NumericalError: one of them is not finite; the message names it.
    """
    values = {name: float(value) for name, value in terms.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise NumericalError(f"{name} became {value} at {nimg} images")
    return values


def check_networks(networks: Mapping[str, nn.Module], nimg: int) -> None:
    """Raise `NumericalError` where a weight or a buffer of a network is not finite; the message names the first one."""
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise NumericalError(f"{name}.{key} is not finite at {nimg} images")


@contextmanager
def dumped(folder: Path, networks: Mapping[str, nn.Module], steps: Mapping[str, Step]) -> Iterator[None]:
    """Write what the last step saw into `folder` when a number in it is not finite, and say where it is.

    `tensors.safetensors` holds the latest inputs and outputs of both phases, `norms.json` the norm of every weight and
    of its gradient (null where it is not finite).
    """
    try:
        yield
    except NumericalError as error:
        shutil.rmtree(folder, ignore_errors=True)
        tensors = {
            f"{phase}.{name}": value
            for phase, step in steps.items()
            for name, value in vars(step).items()
            if isinstance(value, Tensor)
        }
        write_tensors(folder / "tensors.safetensors", tensors)
        write_json(folder / "norms.json", {"error": str(error), "norms": _norms(networks)})
        raise NumericalError(
            f"{error}; what led to it is in {folder}, the last checkpoint is kept: lower the learning rate or look at "
            "the last lines of stats.jsonl"
        ) from error


def _norms(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, float | None]]:
    def norm(value: Tensor | None) -> float | None:
        number = math.nan if value is None else float(value.norm())
        return number if math.isfinite(number) else None

    return {
        f"{name}.{key}": {"weight": norm(parameter.detach()), "gradient": norm(parameter.grad)}
        for name, network in networks.items()
        for key, parameter in network.named_parameters()
    }


@contextmanager
def memory_advice(pictures: int) -> Iterator[None]:
    """Turn a full GPU into the setting that helps.

    Args:
        pictures: computed at a time.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"training.batch_gpu: out of memory with {pictures} pictures at a time (the last checkpoint is kept), "
            f"try {max(pictures // 2, 1)}"
        ) from error
