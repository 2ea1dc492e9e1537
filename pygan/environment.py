"""What a result was computed with: versions, machine and the operators that ran."""

import importlib.metadata
import platform
from typing import Any

import torch

from pygan import __version__, ops
from pygan.devices import choose, described

_PACKAGES = ("numpy", "torch", "torchvision", "pillow", "scikit-learn", "safetensors", "lmdb")


def environment(device: torch.device | None = None, why: str | None = None) -> dict[str, Any]:
    """Return versions, device, threads and the backend of the operators, ready for JSON.

    Args:
        device: what computed; None: the device that a program takes by itself.
        why: it did; None: nobody said.
    """
    return {
        "versions": {"pygan": __version__, "python": platform.python_version()} | _versions(),
        "device": described(device or choose()[0], why),
        "threads": torch.get_num_threads(),
        "ops": {"backend": ops.backend(), "reason": ops.backend_reason()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
