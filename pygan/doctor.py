"""What `pygan doctor` prints: versions, compiler, CUDA, the operators in use and why, and the assets that are there."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import warnings

import torch

import pygan
from pygan import assets, ops

_PACKAGES = ("torch", "torchvision", "numpy", "pydantic", "safetensors", "lmdb", "pillow", "scipy", "scikit-learn")
_OPTIONAL_PACKAGES = ("snakemake", "matplotlib", "jinja2", "h5py", "onnx", "onnxscript", "onnxruntime", "av")


def report() -> dict[str, object]:
    """Return the facts by topic, ready for JSON; what is not there is None.

    Raises:
        ConfigError: PYGAN_OPS has an unknown value, or asks for an extension that is not there.
    """
    return {
        "versions": _versions(),
        "platform": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
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
            lines += [f"  {name}: {'-' if value is None else value}" for name, value in values.items()]
        else:
            assert isinstance(values, list)  # the assets
            lines += [f"  {entry['file']}: {entry['state']}" for entry in values]
    return "\n".join(lines)


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
    available = torch.cuda.is_available()
    return {
        "torch built for": torch.version.cuda,
        "nvcc": _first_line("nvcc", "--version", pattern="release [0-9.]+"),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if available else [],
    }


def _ops() -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the reason is part of the report
        active = ops.backend()
    return {"backend": active, "reason": ops.backend_reason(), "build": ops.build_info() or None}
