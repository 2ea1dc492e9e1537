"""The device of a stage: the GPUs that the workflow granted it, taken before anything can start CUDA."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pygan.devices import choose, claim, described, number_of, visible_gpus
from pygan.errors import ConfigError

if TYPE_CHECKING:
    import torch


def take(gpus: int, processes: int) -> dict[str, str]:
    """Take as many GPUs as were granted, or hide them all, and return the `device` entry of the stage's spec.

    Args:
        gpus: how many the job may use.
        processes: of the training; each one has a GPU of its own where the job may use any.

    Raises:
        ConfigError: there is not one GPU for each process, or fewer GPUs are visible than were granted.
    """
    if gpus not in (0, processes):
        raise ConfigError(
            f"--gpus: got {gpus} for {number_of(processes, 'process', 'processes')}, expected {processes}, one for "
            "each, or 0, which computes on the CPU"
        )
    visible = visible_gpus()
    if gpus:
        if not _is_launched():  # torchrun's processes see what the job has taken
            claim(gpus, visible)
        return {"type": "cuda", "why": f"{number_of(gpus, 'GPU')} granted"}
    if processes == 1 or _is_launched():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return {"type": "cpu", "why": f"no GPU granted, of {visible.why}" if visible.ids else visible.why}


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Go on as torchrun, which starts the stage again in `processes` processes; return where there is nothing to start.

    Args:
        arguments: of this program.
    """
    if processes == 1 or _is_launched():
        return
    stage = sys.modules["__main__"].__spec__.name
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", stage]
    os.execv(sys.executable, [sys.executable, *torchrun, *arguments])


def _is_launched() -> bool:
    return "RANK" in os.environ


def device_of(spec: dict[str, Any]) -> "torch.device":
    """Return the device that a stage computes on: the first GPU it was granted, or the CPU.

    Raises:
        ConfigError: PyTorch cannot use the GPU that was granted.
    """
    return choose(spec.get("device", {"type": "cpu"})["type"])[0]


def computed_on(spec: dict[str, Any]) -> dict[str, str]:
    """Return the device of a stage and why it was that one, for its record."""
    return described(device_of(spec), spec.get("device", {}).get("why"))
