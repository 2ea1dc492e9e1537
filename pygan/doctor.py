"""The facts that `pygan doctor` prints: versions, machine, compiler, GPUs, operators in use and why, and assets."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import torch

import pygan
from pygan import assets, ops

_PACKAGES = ("torch", "torchvision", "numpy", "pydantic", "safetensors", "lmdb", "pillow", "scipy", "scikit-learn")
_OPTIONAL_PACKAGES = (
    *("snakemake", "matplotlib", "jinja2", "h5py", "onnx", "onnxscript", "onnxruntime"),
    *("av", "timm", "tensorboard"),
)
_TESTED = ("Linux", "x86_64")


def report() -> dict[str, object]:
    """Return the facts by topic, ready for JSON; what is not there is None.

    Raises:
        ConfigError: PYGAN_OPS has an unknown value, or asks for an extension that is not there.
    """
    return {
        "versions": _versions(),
        "platform": _platform(),
        "compiler": _compiler(),
        "cuda": _cuda(),
        "ops": _ops(),
        "assets": assets.status(),
    }


def text(facts: dict[str, object]) -> str:
    """Format what `report` returned for a person: a title per topic, a line per fact."""
    lines = []
    for topic, values in facts.items():
        lines.append(topic)
        if isinstance(values, dict):
            lines += [f"  {name}: {_shown(value)}" for name, value in values.items()]
        else:
            assert isinstance(values, list)  # the assets
            lines += [f"  {entry['file']}: {entry['state']}" for entry in values]
    return "\n".join(lines)


def _shown(value: object) -> str:
    if value in (None, ""):
        return "-"
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _platform() -> dict[str, object]:
    here = Path.cwd()
    tested = (platform.system(), platform.machine()) == _TESTED
    return {
        "system": platform.platform(),
        "supported": "yes" if tested else f"untested: the tests run on {' '.join(_TESTED)}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "free disk": f"{shutil.disk_usage(here).free / 1e9:.1f} GB in {here}",
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"pygan": pygan.__version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *_OPTIONAL_PACKAGES):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _first_line(*command: str, pattern: str = ".+") -> str | None:
    """The first match in what a command prints; None where it fails or is not installed."""
    if shutil.which(command[0]) is None:
        return None
    printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(pattern, printed)
    return match[0] if match else None


def _compiler() -> dict[str, str | None]:
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "c++")
    return {
        "c++": _first_line(*compiler.split(), "--version"),
        "cmake": _first_line("cmake", "--version"),
        "ninja": _first_line("ninja", "--version"),
    }


def _cuda() -> dict[str, object]:
    return {
        "torch built for": torch.version.cuda,
        "nvcc": _first_line("nvcc", "--version", pattern="release [0-9.]+"),
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "visible GPUs": _gpus() if torch.cuda.is_available() else [],
    }


def _gpus() -> list[str]:
    """Name, memory and compute capability of every GPU that torch sees."""
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB, {gpu.major}.{gpu.minor})" for gpu in found]


def _ops() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the reason is part of the report
        active = ops.backend()
    return {"backend": active, "reason": ops.backend_reason()} | ops.build_info()
