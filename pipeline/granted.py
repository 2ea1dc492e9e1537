"""The device of a stage: what the workflow granted it, and the processes of a training on several GPUs."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pygan.devices import choose, described, is_launched

if TYPE_CHECKING:
    import torch


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Go on as torchrun, which starts the stage again in `processes` processes; return where there is nothing to start.

    Args:
        arguments: of this program.
    """
    if processes == 1 or is_launched():
        return
    stage = sys.modules["__main__"].__spec__.name
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", stage]
    os.execv(sys.executable, [sys.executable, *torchrun, *arguments])


def device_of(spec: dict[str, Any]) -> "torch.device":
    """Return the device that a stage computes on: the first GPU it was granted, or the CPU.

    Raises:
        ConfigError: PyTorch cannot use the GPU that was granted.
    """
    return choose(spec.get("device", {"type": "cpu"})["type"])[0]


def computed_on(spec: dict[str, Any]) -> dict[str, str]:
    """Return the device of a stage and why it was that one, for its record."""
    return described(device_of(spec), spec.get("device", {}).get("why"))
