"""The folder that `pygan generate` fills: numbered PNG files beside `generated.json`, which says what they are.

The record tells generated pictures from all others: a folder that holds anything else is never written to, and so no
generated picture gets among pictures to train on.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from pygan import __version__
from pygan.checkpoint import atomic_path, write_json
from pygan.errors import ConfigError, DataError
from pygan.sampling import Model, picture

RECORD = "generated.json"
_OURS = re.compile(rf"(\d{{6,}}\.png|{re.escape(RECORD)})(\.tmp-\d+)?")
"""Names that this module writes, and those of a write that was interrupted."""
_FREE = {"n", "snapshot", "pygan"}
"""Entries of the record that may differ between two calls for one folder."""


def describe(
    model: Model, n: int, *, seed: int, label: int | str | None, truncation: float, steps: int | None
) -> dict[str, Any]:
    """Return the record of `n` pictures, ready for JSON; arguments are those of `Model.samples`."""
    with model.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    chosen = model.class_of(label)
    return {
        "snapshot": str(model.path.resolve()),
        "sha256": digest,
        "nimg": model.metadata["nimg"],
        "n": n,
        "seed": seed,
        "label": chosen,
        "class": model.class_names[chosen] if chosen is not None and model.class_names else None,
        "truncation": truncation,
        "steps": steps,
        "pygan": __version__,
    }


def check_folder(folder: Path) -> None:
    """Raise unless a folder is missing, empty, or holds what `write` wrote and nothing else.

    Raises:
        ConfigError: it holds anything else, or it is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: got a file, expected a folder that is empty or not there")
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if not _OURS.fullmatch(name)]
    if others or (names and RECORD not in names):
        shown = ", ".join((others or names)[:3])
        raise ConfigError(
            f"{folder}: holds files that `pygan generate` did not write ({shown}): name a folder that is empty or not "
            "there, for example generated/"
        )


def write(folder: Path, record: dict[str, Any], batches: Iterable[Tensor]) -> None:
    """Write the record, then pictures as `000000.png`, `000001.png`, ...; the memory holds one batch.

    A folder that was filled with the same settings is filled further: its pictures are written again, and those with
    higher numbers stay.

    Args:
        record: from `describe`.
        batches: uint8 `[B, C, H, W]`.

    Raises:
        ConfigError: the folder holds anything else, or pictures with other settings (the message names the first).
        DataError: the record of the folder cannot be read.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    check_folder(folder)
    before = _read(folder / RECORD)
    for name in sorted(before.keys() - _FREE):
        if before[name] != record.get(name):
            raise ConfigError(
                f"{folder}: holds pictures with {name} {before[name]}, got {record.get(name)}: name another folder"
            )
    write_json(folder / RECORD, record | {"n": max(record["n"], before.get("n", 0))})
    number = 0
    for img in batches:
        for one in img:
            with atomic_path(folder / f"{number:06d}.png") as temporary:
                picture(one, 1).save(temporary, "PNG")
            number += 1


def _read(path: Path) -> dict[str, Any]:
    """Return the record of a folder; empty: there is none."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("n"), int):
        raise DataError(f"{path}: got other content than `pygan generate` writes; delete it or name another folder")
    return record
