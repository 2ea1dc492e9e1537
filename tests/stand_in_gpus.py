"""GPUs that are not there: a program `nvidia-smi` that lists some, and a PyTorch that is built for CUDA."""

import os
from collections.abc import Sequence
from pathlib import Path

UUIDS = tuple(f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abcdefgh")


def listing(n: int) -> str:
    """Return what `nvidia-smi -L` prints on a machine with `n` GPUs."""
    return "".join(f"GPU {i}: NVIDIA H200 (UUID: {uuid})\n" for i, uuid in enumerate(UUIDS[:n]))


def nvidia_smi(folder: Path, printed: str, exit_code: int = 0) -> dict[str, str]:
    """Write a program `nvidia-smi` that prints `printed`; return the environment in which it is found."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}END\nexit {exit_code}\n")
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return environment | {"PATH": os.pathsep.join([str(folder), *_path()])}


def _path() -> Sequence[str]:
    return os.environ["PATH"].split(os.pathsep)
