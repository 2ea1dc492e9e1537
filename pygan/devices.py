"""Where a program computes: the GPUs that a process may use, counted without PyTorch, and the device that it takes.

Only the standard library is imported at the top, because the workflow counts GPUs whenever it is parsed.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count, takewhile
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


def visible_gpus() -> Gpus:
    """Return the GPUs that the PyTorch of this environment can use, without importing it.

    `nvidia-smi` lists the GPUs, or the device files do where it is missing. CUDA_VISIBLE_DEVICES selects among them as
    CUDA reads it: up to the first entry that names no GPU; where an entry comes twice, no GPU is left.
    """
    if not _torch_has_cuda():
        return Gpus((), "the installed PyTorch is built without CUDA")
    try:
        listed = _listed()
    except subprocess.CalledProcessError as error:
        return Gpus((), f"nvidia-smi fails ({' '.join(error.stdout.split()) or f'exit code {error.returncode}'})")
    except subprocess.TimeoutExpired:
        return Gpus((), f"nvidia-smi does not answer in {_PATIENCE} seconds")
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not listed:
        return Gpus((), "no GPU is visible")
    if asked is None:
        return Gpus(tuple(listed), number_of(len(listed), "GPU"))
    entries = [entry.strip() for entry in asked.split(",")]
    chosen = list(takewhile(lambda entry: _names_one(entry, listed), entries))
    if len({*chosen}) < len(chosen):
        chosen = []
    return Gpus(tuple(chosen), f"CUDA_VISIBLE_DEVICES={asked} leaves {len(chosen)} of {number_of(len(listed), 'GPU')}")


def _names_one(entry: str, listed: list[str]) -> bool:
    """Whether an entry of CUDA_VISIBLE_DEVICES names one GPU: by its number, or by the beginning of its UUID."""
    if entry.isdecimal():
        return int(entry) < len(listed)
    return bool(entry) and sum(gpu.startswith(entry) for gpu in listed) == 1


def _listed() -> list[str]:
    """Return the UUID of every GPU, of its MIG instances where it is divided; numbers where no UUID is known."""
    if shutil.which("nvidia-smi") is None:
        return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
    command = ["nvidia-smi", "-L"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    found = re.findall(r"^(?:GPU|\s+MIG).*\(UUID: ((?:GPU|MIG)-[^)]+)\)", printed.stdout, re.MULTILINE)
    gpus: list[str] = []
    for gpu in found:
        if gpu.startswith("MIG") and gpus and gpus[-1].startswith("GPU"):
            gpus.pop()  # its instances, which follow it, take its place
        gpus.append(gpu)
    return gpus


def _torch_has_cuda() -> bool:
    """Whether the installed PyTorch is built for CUDA, by the file that its build writes."""
    torch = find_spec("torch")
    if torch is None or not torch.submodule_search_locations:
        return False
    version = Path(torch.submodule_search_locations[0]) / "version.py"
    return bool(re.search(r"^cuda\b[^=]*= '", version.read_text(encoding="utf-8"), re.MULTILINE))


def claim(n: int, gpus: Gpus, folder: Path | None = None) -> tuple[str, ...]:
    """Take `n` GPUs for this process and all that it starts, those first that the fewest programs have taken.

    CUDA_VISIBLE_DEVICES names them from then on, so this comes before CUDA starts. A locked file stands for a GPU that
    is taken. The kernel drops the lock when the last process that inherited it ends, however it ends.

    Args:
        n: how many, at least 1.
        gpus: among which.
        folder: of the locked files; None: the system's folder for temporary files.

    Raises:
        ConfigError: there are fewer.
    """
    if n > len(gpus.ids):
        raise ConfigError(f"gpus: got {n}, expected at most {len(gpus.ids)} ({gpus.why})")
    folder = folder or Path(tempfile.gettempdir())
    taken: list[str] = []
    for turn in count():
        for gpu in gpus.ids:
            if len(taken) < n and gpu not in taken and _lock(gpu, turn, folder):
                taken.append(gpu)
        if len(taken) == n:
            break
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    return tuple(taken)


def _lock(gpu: str, turn: int, folder: Path) -> bool:
    """Whether this process is the one that has taken `gpu` in turn `turn`; the file stays open as long as it runs."""
    path = folder / f"pygan-{os.getuid()}-{gpu}-{turn}.lock"
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    os.set_inheritable(file, True)
    return True


def take(gpus: int, processes: int = 1) -> dict[str, str]:
    """Take GPUs for this process and all that it starts, or hide them all; return the `type` of device and `why`.

    Args:
        gpus: how many the program may use.
        processes: of a training; each one has a GPU of its own where the program may use any.

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
        if not is_launched():  # torchrun's processes see what the job has taken
            claim(gpus, visible)
        return {"type": "cuda", "why": f"{number_of(gpus, 'GPU')} granted"}
    if processes == 1 or is_launched():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return {"type": "cpu", "why": f"no GPU granted, of {visible.why}" if visible.ids else visible.why}


def is_launched() -> bool:
    """Return whether torchrun started this process."""
    return "RANK" in os.environ


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
    if 0 < gpus < processes:
        raise ConfigError(
            f"processes: got {processes} with {number_of(gpus, 'GPU')}, expected at most one process per GPU, or "
            "`--resources gpu=0`, which computes on the CPU"
        )
    if gpus:
        return f"Trainings compute on {number_of(gpus, 'GPU')}, {number_of(processes, 'GPU')} each ({visible.why})."
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
    if asked is None:
        return torch.device("cuda", 0) if gpus else torch.device("cpu"), visible_gpus().why
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
