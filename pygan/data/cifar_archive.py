"""Reading the "python version" archives of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) without trusting them.

The batches are pickles. They are read with an unpickler that knows how to rebuild NumPy arrays and nothing else, so a
file cannot run code; members of the archive are read in memory, nothing is extracted.
"""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pygan.data.pictures import ArrayPicture, Collection, Item, deal
from pygan.errors import ConfigError, DataError, MissingInput

_SIDE = 32
_MAX_MEMBER = 256 * 2**20
_VALIDATION = 0.1


def read_cifar(
    path: Path, *, resolution: int, train: tuple[str, ...], test: str, meta: tuple[str, bytes], label_key: bytes
) -> Collection:
    """Read an archive (tar, compressed or not) or the folder it was extracted to.

    The published test batch is the test split. Of the training batches, pictures are dealt to validation (10 %) and
    train by the sha256 of their pixels.

    Args:
        path: archive or folder.
        resolution: asked for by the data set; only 32 is possible.
        train: names of the training batches.
        test: name of the test batch.
        meta: name of the file with the class names, and its key.
        label_key: key of the labels in a batch.

    Raises:
        MissingInput: `path` or a batch is not there.
        DataError: a batch is damaged, is no CIFAR batch, or its labels don't match.
        ConfigError: another resolution than 32.
    """
    if resolution != _SIDE:
        raise ConfigError(f"resolution: got {resolution}, expected {_SIDE} for CIFAR")
    read = _reader(path)
    meta_name, meta_key = meta
    names = _entry(read(meta_name), meta_key, f"{path}: {meta_name}")
    class_names = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)
    splits: dict[str, list[Item]] = {"train": [], "validation": [], "test": []}
    for batch_name in (*train, test):
        for item in _items(read(batch_name), label_key, len(class_names), f"{path}: {batch_name}"):
            digest = hashlib.sha256(item[0].load()).digest()
            splits["test" if batch_name == test else deal(digest, _VALIDATION, 0)].append(item)
    return Collection(class_names=class_names, splits=splits)


def _reader(path: Path) -> Callable[[str], dict[bytes, Any]]:
    """Return a function that unpickles the file of a given name, wherever it lies in the archive or folder."""
    if not path.exists():
        raise MissingInput(f"{path}: there is no such archive or folder (source.path)")
    if path.is_dir():
        contents = {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file() and file.suffix == ""}
        contents |= {file.name: file.read_bytes() for file in path.rglob("batches.meta")}
    else:
        contents = _members(path)

    def read(name: str) -> dict[bytes, Any]:
        if name not in contents:
            raise MissingInput(f"{path}: the archive has no file {name}")
        return _unpickle(contents[name], f"{path}: {name}")

    return read


def _members(path: Path) -> dict[str, bytes]:
    contents = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                if member.size > _MAX_MEMBER:
                    raise DataError(f"{path}: {member.name} has {member.size} bytes, expected at most {_MAX_MEMBER}")
                file = archive.extractfile(member)
                assert file is not None
                contents[Path(member.name).name] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a readable tar archive ({error})") from error
    return contents


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds NumPy arrays and plain containers; refuses every other global."""

    def find_class(self, module: str, name: str) -> Any:
        match module.removeprefix("numpy.").replace("_core", "core"), name:
            case "core.multiarray", "_reconstruct":
                return _reconstruct
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return _plain_dtype
            case "_codecs", "encode":  # how Python 3 writes bytes in protocol 2
                return _latin1
        raise pickle.UnpicklingError(f"the global {module}.{name} is not allowed")


def _reconstruct(subtype: type, shape: tuple[int, ...], typecode: bytes) -> np.ndarray:
    if subtype is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array of an unexpected kind")
    return np.ndarray(shape, np.dtype("b"))


def _plain_dtype(code: str | bytes, *_: Any) -> np.dtype:
    dtype = np.dtype(code.decode() if isinstance(code, bytes) else code)
    if dtype.kind not in "iu":
        raise pickle.UnpicklingError(f"the array type {dtype} is not allowed")
    return dtype


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding} is not allowed")
    return text.encode("latin1")


def _unpickle(content: bytes, where: str) -> dict[bytes, Any]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{where}: not a CIFAR batch ({error or type(error).__name__})") from error
    if not isinstance(batch, dict):
        raise DataError(f"{where}: not a CIFAR batch (a {type(batch).__name__}, expected a mapping)")
    return {key.encode() if isinstance(key, str) else key: value for key, value in batch.items()}


def _entry(batch: dict[bytes, Any], key: bytes, where: str) -> Any:
    if key not in batch:
        raise DataError(f"{where}: not a CIFAR batch (no key {key.decode()!r})")
    return batch[key]


def _items(batch: dict[bytes, Any], label_key: bytes, num_classes: int, where: str) -> list[Item]:
    pixels = _entry(batch, b"data", where)
    labels = _entry(batch, label_key, where)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * _SIDE**2,):
        raise DataError(f"{where}: the pictures have another form than uint8 [N, {3 * _SIDE**2}]")
    if len(labels) != len(pixels):
        raise DataError(f"{where}: got {len(labels)} labels for {len(pixels)} pictures")
    bad = [label for label in labels if not isinstance(label, int) or not 0 <= label < num_classes]
    if bad:
        raise DataError(
            f"{where}: {len(bad)} labels are outside 0 to {num_classes - 1}: {', '.join(map(str, bad[:10]))}"
        )
    pictures = pixels.reshape(-1, 3, _SIDE, _SIDE)
    return [
        (ArrayPicture(f"{where}: picture {i}", picture), label)
        for i, (picture, label) in enumerate(zip(pictures, labels, strict=True))
    ]
