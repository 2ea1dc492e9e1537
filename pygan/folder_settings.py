"""What the command line of `pygan train` says: the settings of a run, and where it computes."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch

from pygan import devices
from pygan.data.pictures import Fit
from pygan.errors import ConfigError

MAY_CHANGE = ("device", "processes", "threads")
"""Settings that say how a run computes, not what."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line says; a run keeps the settings it was started with."""

    pictures: Path
    """Folder or zip, one class per sub-folder or none."""
    out: Path
    """Folder of the run."""
    fit: Fit = "crop"
    """How a picture becomes square."""
    resolution: int | None = None
    """Side of the pictures, pixels; None: by their sizes."""
    recipe: str | None = None
    """One of `pygan.recipes.RECIPES`; None: by their number."""
    kimg: float | None = None
    """Real pictures shown in all, thousands; None: the recipe's."""
    seed: int = 0
    """Of the initialization and everything after."""
    device: str | None = None
    """`cpu`, `cuda` or `cuda:N`; None: the first GPU where there is one."""
    processes: int = 1
    """Processes that train together, one per GPU where there are GPUs."""
    threads: int | None = None
    """Of the processor, in each process; None: as many as PyTorch takes, shared among the processes."""
    batch: int | None = None
    """Real pictures per step, of all processes together; None: the recipe's."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Of the forward passes; None: the recipe's."""
    mirror: bool = False
    """Show every other training picture flipped from left to right, drawn anew each time."""
    skip_bad: bool = False
    """Leave unreadable pictures out instead of stopping."""
    allow_upscale: bool = False
    """Enlarge pictures that are smaller than the resolution."""
    init_from: Path | None = None
    """Snapshot, or folder of a training, whose networks this one begins with as far as they fit; None: as drawn."""

    def plain(self) -> dict[str, Any]:
        """Return the settings ready for JSON, without `out`, by the names of the command line."""
        values = asdict(self) | {"pictures": str(self.pictures.resolve())}
        values["init_from"] = None if self.init_from is None else str(self.init_from.resolve())
        return {name.replace("_", "-"): value for name, value in values.items() if name != "out"}


DEFAULTS = {field.name.replace("_", "-"): field.default for field in fields(Settings)}
"""Name of an option -> its default."""


@dataclass(frozen=True)
class Place:
    """Where a run computes."""

    device: torch.device
    why: str
    """The reason, as the part of a sentence."""
    processes: int

    def __str__(self) -> str:
        where = {"cpu": "the CPU", "cuda": "the GPU"}[self.device.type]
        if self.device.type == "cuda":
            where += f" {torch.cuda.get_device_name(self.device)}"
        many = "" if self.processes == 1 else f", {self.processes} processes"
        if many and self.device.type == "cuda":
            many += " with one GPU each"
        return f"device: {where} trains ({self.why}){many}"


def place(settings: Settings) -> Place:
    """Return where a run of these settings computes.

    Raises:
        ConfigError: no such device, fewer GPUs than processes, or settings that the device does not have.
    """
    device, why = devices.choose(settings.device)
    count = settings.processes
    if count > 1 and device.type == "cuda":
        gpus = torch.cuda.device_count()
        if settings.device not in (None, "cuda"):
            raise ConfigError(f"--device: got {settings.device}, but {count} processes have a GPU each: expected cuda")
        if gpus < count:
            raise ConfigError(
                f"--processes: got {count}, expected at most {gpus}, because a process has a GPU of its own "
                f"({devices.visible_gpus().why}); --device cpu trains on the CPU"
            )
    if settings.precision == "fp16" and device.type == "cpu":
        raise ConfigError(f"--precision: got fp16, expected fp32 or bf16 on the CPU, which trains ({why})")
    if settings.batch is not None and settings.batch % count:
        raise ConfigError(f"--batch: got {settings.batch}, expected a multiple of the {count} processes")
    return Place(device, why, count)
