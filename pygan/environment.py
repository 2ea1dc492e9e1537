"""What a result was computed with: versions, machine and the operators that ran."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from pygan import __version__, ops

_PACKAGES = ("numpy", "torch", "torchvision", "pillow", "scikit-learn", "safetensors", "lmdb")


def environment(device: torch.device | None = None, why: str | None = None) -> dict[str, Any]:
    """Return versions, device, threads and the backend of the operators, ready for JSON.

    Args:
        device: what computed; None: the GPU where PyTorch can use one, else the CPU.
        why: reason for that device; None: it is not recorded.
    """
    return {
        "versions": {"pygan": __version__, "python": platform.python_version()} | _versions(),
        "device": _device(device) | ({} if why is None else {"why": why}),
        "threads": torch.get_num_threads(),
        "ops": {"backend": ops.backend(), "reason": ops.backend_reason()},
    }


def _device(device: torch.device | None) -> dict[str, str]:
    """Return the kind and the name of what computes."""
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "machine": platform.machine()}
    return {"type": "cpu", "name": _cpu_name(), "machine": platform.machine()}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    """Return the processor's model name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
