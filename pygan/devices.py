"""The GPUs that a process may use, counted without PyTorch, and the device that a program computes on.

Only the standard library is imported at the top, because the workflow counts GPUs whenever it is parsed.
"""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from pygan.errors import ConfigError
from pygan.wording import number_of

if TYPE_CHECKING:
    import torch


_PATIENCE = 60
"""Seconds that nvidia-smi may take: without a daemon it starts the driver anew."""


@dataclass(frozen=True)
class Gpus:
    """The GPUs that a process may use."""

    ids: tuple[str, ...]
    """Values for CUDA_VISIBLE_DEVICES, one per GPU."""
    why: str
    """How many there are and what decided it, as the part of a sentence."""
    cards: tuple[str, ...] = ()
    """The UUID of each of them where it is known, else a number: it does not depend on CUDA_VISIBLE_DEVICES."""


def visible_gpus() -> Gpus:
    """Return the GPUs that the PyTorch of this environment can use, without importing it.

    `nvidia-smi` lists the GPUs, or the device files do where it is missing. CUDA_VISIBLE_DEVICES selects among them as
    PyTorch reads it: the first entry says whether numbers or UUIDs are meant, entries count up to the first that names
    no GPU, and none counts where a GPU is named twice.
    """
    if not _torch_has_cuda():
        return Gpus((), "the installed PyTorch is built without CUDA")
    listed, why_none = _listed()
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not listed:
        return Gpus((), why_none)
    number = number_of(len(listed), "GPU")
    if asked is None:
        return Gpus(tuple(listed), number, tuple(listed))
    chosen = _selected([entry.strip() for entry in asked.split(",")], listed)
    why = f"CUDA_VISIBLE_DEVICES={asked} leaves {len(chosen)} of {number}"
    return Gpus(tuple(chosen.values()), why, tuple(chosen))


def _selected(entries: list[str], listed: list[str]) -> dict[str, str]:
    """Return card -> entry of the GPUs that CUDA_VISIBLE_DEVICES names."""
    named = _by_uuid if entries[0].startswith(("GPU-", "MIG-")) else _by_number
    cards = list(takewhile(bool, (named(entry, listed) for entry in entries)))
    return dict(zip(cards, entries, strict=False)) if len({*cards}) == len(cards) else {}


def _by_number(entry: str, listed: list[str]) -> str | None:
    """Return the GPU of an entry that begins with a number; None where there is none."""
    number = re.match(r"\+?(\d+)", entry, re.ASCII)
    return listed[int(number[1])] if number and int(number[1]) < len(listed) else None


def _by_uuid(entry: str, listed: list[str]) -> str | None:
    """Return the one GPU whose UUID begins with an entry; None where there is none or more than one."""
    found = [gpu for gpu in listed if gpu.startswith(entry)]
    return found[0] if len(found) == 1 else None


def _listed() -> tuple[list[str], str]:
    """Return what names every GPU, and why there is none where the list is empty.

    A GPU is named by its UUID, its MIG instances by theirs where it is divided, or by a number where no UUID is known.
    """
    none = "no GPU is visible"
    program = shutil.which("nvidia-smi")
    if program is None:
        return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))], none
    try:
        printed = subprocess.run([program, "-L"], capture_output=True, text=True, errors="replace", timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi does not answer in {_PATIENCE} seconds"
    except OSError as error:
        return [], f"nvidia-smi cannot be run ({error.strerror})"
    gpus: list[str] = []
    for gpu in re.findall(r"^(?:GPU|\s+MIG).*\(UUID: ((?:GPU|MIG)-[^)]+)\)", printed.stdout, re.MULTILINE):
        if gpu.startswith("MIG") and gpus and gpus[-1].startswith("GPU"):
            gpus.pop()  # its instances, which follow it, take its place
        gpus.append(gpu)
    if printed.returncode and not gpus:
        none = f"nvidia-smi fails ({' '.join(printed.stdout.split()) or f'exit code {printed.returncode}'})"
    return gpus, none


def _torch_has_cuda() -> bool:
    """Return whether the installed PyTorch is built for CUDA. The file that its build writes says so."""
    torch = find_spec("torch")
    if torch is None or not torch.submodule_search_locations:
        return False
    version = Path(torch.submodule_search_locations[0]) / "version.py"
    return bool(re.search(r"^cuda\b[^=]*= '", version.read_text(encoding="utf-8"), re.MULTILINE))


def study_sentence(gpus: int, processes: int = 1) -> str:
    """Return the sentence that says which device the trainings of a study compute on, and why.

    Args:
        gpus: how many the study may use.
        processes: of each training.

    Raises:
        ConfigError: a training has more processes than the study has GPUs, or no GPU is visible.
    """
    visible = visible_gpus()
    if gpus and not visible.ids:
        raise ConfigError(f"gpu: got {gpus}, expected 0, because {visible.why}")
    if gpus and min(gpus, len(visible.ids)) < processes:
        raise ConfigError(
            f"processes: got {processes} with {number_of(min(gpus, len(visible.ids)), 'GPU')}, expected at most one "
            "process per GPU, or `--resources gpu=0`, which computes on the CPU"
        )
    if gpus > len(visible.ids):
        return f"Up to {gpus} trainings at once share {number_of(len(visible.ids), 'GPU')}."
    if gpus:
        on, each = number_of(gpus, "GPU"), number_of(processes, "GPU")
        return f"Trainings compute on {on}, {each} each (visible: {visible.why})."
    if visible.ids:
        return f"Trainings compute on the CPU, because the study may use 0 of {number_of(len(visible.ids), 'GPU')}."
    return f"Trainings compute on the CPU, because {visible.why}."


def choose(asked: str | None = None) -> tuple["torch.device", str]:
    """Return the device to compute on and why.

    Args:
        asked: `cpu`, `cuda` or `cuda:N`; None: the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device, or PyTorch cannot use it.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked is None and gpus:
        return torch.device("cuda", 0), visible_gpus().why
    if asked is None:
        visible = visible_gpus()
        return torch.device("cpu"), f"PyTorch cannot use {visible.why}" if visible.ids else visible.why
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", asked)
    if match is None:
        raise ConfigError(f"device: got {asked!r}, expected cpu, cuda or cuda:N")
    if asked == "cpu":
        return torch.device("cpu"), "as asked for"
    number = int(match[1] or 0)
    if number >= gpus:
        raise ConfigError(f"device: got {asked}, but PyTorch can use {number_of(gpus, 'GPU')} ({visible_gpus().why})")
    return torch.device("cuda", number), "as asked for"


def described(device: "torch.device", why: str | None = None) -> dict[str, str]:
    """Return kind and name of the device that computed a result, and why it was that one, ready for JSON."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {"type": device.type, "name": name, "machine": platform.machine()} | ({"why": why} if why else {})


def _cpu_name() -> str:
    """Return the processor's model name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
