"""Provenance that every record carries: versions, machine, revision and the op implementation that ran."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "torch", "torchvision", "pillow", "scikit-learn", "safetensors", "lmdb")


def record(spec: dict[str, Any]) -> dict[str, Any]:
    """Return versions, device, threads, revision, op backend and the digests of the stage's `spec`."""
    import torch

    from pygan import __version__, ops

    return {
        "versions": {"pygan": __version__, "python": platform.python_version()} | _versions(),
        "device": _device(),
        "threads": torch.get_num_threads(),
        "git": _revision(),
        "ops": {"backend": ops.backend(), "reason": ops.backend_reason()},
        "digests": {key: spec.get(key) for key in ("code", "csrc", "raw")},
    }


def _device() -> dict[str, str]:
    """Return the kind and the name of what computes."""
    import torch

    if torch.cuda.is_available():
        return {"type": "cuda", "name": torch.cuda.get_device_name(), "machine": platform.machine()}
    return {"type": "cpu", "name": _cpu_name(), "machine": platform.machine()}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
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


def _revision() -> str | None:
    """Return the git revision of the working tree, with `-dirty` after uncommitted edits; None outside a clone."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
