"""The device of a stage: what the workflow granted it, and the processes of a training on several GPUs."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pygan.devices import choose, described
from pygan.gpu_claims import LAUNCHED, is_launched

if TYPE_CHECKING:
    import torch


_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Go on as torchrun, which starts the stage again in `processes` processes; return where there is nothing to start.

    Args:
        arguments: of this program.
    """
    if is_launched():
        return
    if processes == 1:
        for name in _TORCHRUN:  # of a torchrun around this program, which has nothing to do with the stage
            os.environ.pop(name, None)
        return
    os.environ[LAUNCHED] = "1"
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
