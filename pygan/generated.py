"""The folder that `pygan generate` fills: numbered PNG files beside `generated.json`, which says what they are.

The record tells generated pictures from all others: a folder that holds anything else is never written to, and so no
generated picture gets among pictures to train on. Its `n` counts the pictures that are there. Each picture carries a
mark as well, by which those of a call that was killed are known before they were counted.
"""

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pygan import __version__
from pygan.checkpoint import atomic_path, cannot_write, write_json
from pygan.errors import ConfigError, DataError, TryAgain
from pygan.sampling import Model
from pygan.sheets import picture

RECORD = "generated.json"
_OURS = re.compile(rf"(\d{{6,}}\.png|{re.escape(RECORD)})(\.tmp-\d+)?")
"""Names that this module writes, and those of a write that was interrupted."""
_FREE = {"n", "snapshot", "pygan"}
"""Entries of the record that may differ between two calls for one folder."""
_SETTINGS = {"sha256", "nimg", "seed", "label", "class", "truncation", "steps"}
"""Its other entries."""
_MARK = "pygan generate"
"""Name of the text in a PNG file that holds the mark."""


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
        DataError: the record of the folder cannot be read.
        CannotWrite: there can be no such folder.
    """
    with cannot_write(folder):
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: got a file, expected a folder that is empty or not there")
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in names if not _OURS.fullmatch(name)]
    if names and not others:
        others = _not_counted(folder, names) if RECORD in names else names
    if others:
        shown = ", ".join(others[:3])
        raise ConfigError(
            f"{folder}: holds files that `pygan generate` did not write ({shown}): name a folder that is empty or not "
            "there, for example generated/"
        )


def _not_counted(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the pictures that the record does not count and that do not carry its mark either."""
    record = _read(folder / RECORD)
    counted, mark = record["n"], _mark(record)
    numbered = [name for name in names if name.endswith(".png")]
    beyond = [name for name in numbered if name != _name(int(name[:-4])) or int(name[:-4]) >= counted]
    return [name for name in beyond if _mark_of(folder / name) != mark]


def _name(number: int) -> str:
    return f"{number:06d}.png"


def _mark(record: dict[str, Any]) -> str:
    """Return what the pictures of a record carry: a digest of its settings."""
    settings = {name: value for name, value in record.items() if name not in _FREE}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _mark_of(path: Path) -> str | None:
    """Return the mark that a picture carries; None: it has none, or is no PNG file."""
    try:
        with Image.open(path, formats=["PNG"]) as file:
            return file.info.get(_MARK)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made where it is missing, against other processes of this machine, without a lock file.

    Raises:
        TryAgain: another process holds it.
        CannotWrite: the folder cannot be made.
    """
    with cannot_write(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TryAgain(f"{folder}: another `pygan generate` is writing into it, name another folder") from None
        yield
    finally:
        os.close(handle)


def write(folder: Path, record: dict[str, Any], batches: Iterable[Tensor]) -> None:
    """Write pictures as `000000.png`, `000001.png`, ... and their record; the memory holds one batch.

    A folder that was filled with the same settings is filled further: its pictures are written again, and those with
    higher numbers stay. The record is written first and after each batch.

    Args:
        record: from `describe`.
        batches: uint8 `[B, C, H, W]`.

    Raises:
        ConfigError: the folder holds anything else, or pictures with other settings (the message names the first).
        DataError: the record of the folder cannot be read.
        CannotWrite: the disk is full or the folder cannot be written.
        TryAgain: another process of this machine writes into the folder.
    """
    check_folder(folder)
    with _held(folder):
        check_folder(folder)
        _fill(folder, record, batches)


def _fill(folder: Path, record: dict[str, Any], batches: Iterable[Tensor]) -> None:
    """Do what `write` does in a folder that is checked and held."""
    before = _read(folder / RECORD)
    for name in sorted(before.keys() - _FREE):
        if before[name] != record.get(name):
            raise ConfigError(
                f"{folder}: holds pictures with {name} {before[name]}, got {record.get(name)}: name another folder"
            )
    marked = PngInfo()
    marked.add_text(_MARK, _mark(record))
    number, counted = 0, before.get("n", 0)
    write_json(folder / RECORD, record | {"n": counted})
    for img in batches:
        for one in img:
            with atomic_path(folder / _name(number)) as temporary:
                picture(one, 1).save(temporary, "PNG", pnginfo=marked)
            number += 1
        if number > counted:
            counted = number
            write_json(folder / RECORD, record | {"n": counted})


def _read(path: Path) -> dict[str, Any]:
    """Return the record of a folder; empty: there is none."""
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(record, dict) or not record.keys() >= _FREE | _SETTINGS or type(record["n"]) is not int:
        raise DataError(f"{path}: got other content than `pygan generate` writes; delete it or name another folder")
    return record
