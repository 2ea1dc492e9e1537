"""Files that survive: atomic tensors, JSON and training checkpoints, without pickle.

A checkpoint is a directory with `tensors.safetensors`, `scalars.json` and a `manifest.json` written last; it is built
under a temporary name, synced and renamed, so it is there whole or not at all. Neither safetensors nor JSON notices a
flipped byte, therefore the manifest carries sizes and SHA-256 digests, checked on every load.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pygan.errors import CannotWrite, ConfigError, DataError

FORMAT = 1
"""Version of the checkpoint directory; a newer one is refused."""

_log = logging.getLogger(__name__)


_CANNOT_WRITE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),  # the disk or the rights
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP),  # the name
)


@contextmanager
def cannot_write(path: Path) -> Iterator[None]:
    """Turn a full disk, a closed folder or an impossible name into one sentence.

    Raises:
        CannotWrite: instead of the error of the operating system.
    """
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        code = getattr(error, "errno", None)
        if code in _CANNOT_WRITE or "No space" in str(error):
            raise CannotWrite(f"{path}: cannot write ({_reason(path, error)})") from error
        raise


def _reason(path: Path, error: Exception) -> str:
    """Return why a path cannot be written: a link that leads nowhere, else the words of the operating system."""
    code = getattr(error, "errno", None)
    if code in (errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
        for place in (path, *path.parents):
            if os.path.islink(place) and not os.path.exists(place):
                return f"{place} is a link to {os.readlink(place)}, which is not there"
    words = os.strerror(code) if code else str(error)
    full = code in (None, errno.ENOSPC, errno.EDQUOT) and os.path.exists(path.parent)
    return f"{words}; {shutil.disk_usage(path.parent).free} bytes free" if full else words


def _sync(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is synced and takes the name `path`, else it is removed.

    Raises:
        CannotWrite: the disk is full, the folder cannot be written, the name is impossible, or `path` is a folder.
    """
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with cannot_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()  # an impossible name is known before anything is computed, whatever writes the file
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # of a name that is impossible too
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; NaN and infinity are refused with ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any] | None = None) -> None:
    """Write a safetensors file, atomically; equal content gives equal bytes.

    The metadata is stored as JSON under one name, because safetensors writes several in random order.
    """
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(contiguous, temporary, {"pygan": json.dumps(metadata or {}, sort_keys=True)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and metadata of a safetensors file; DataError when it cannot be read.

    Nothing that a file holds is ever run: a pickle, which could be, is no safetensors file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("pygan", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path}: got metadata of type {type(metadata).__name__}, expected a mapping")
    return tensors, metadata


def check_finite(tensors: dict[str, Tensor], source: str) -> None:
    """Raise `DataError` with the names of the first tensors that hold NaN or infinity."""
    wrong = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if wrong:
        raise DataError(f"{source}: refused, {len(wrong)} tensors are not finite: {', '.join(wrong[:3])}")


def subset(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose name starts with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


class Checkpoints:
    """The checkpoints of one run, newest last; at most two are kept.

    Args:
        folder: created when missing; left-overs of interrupted writes are removed.
    """

    keep = 2

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with cannot_write(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob("*.tmp-*"):
                _log.warning("%s: removed, an interrupted checkpoint", left)
                shutil.rmtree(left, ignore_errors=True)

    def save(self, name: str, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Write the checkpoint `name` (names sort by age), then drop all but the newest two.

        Raises:
            CannotWrite: the disk is full; earlier checkpoints are untouched.
        """
        final, temporary = self.folder / name, self.folder / f"{name}.tmp-{os.getpid()}"
        if final.exists():
            return
        try:
            with cannot_write(final):
                temporary.mkdir()
                contiguous = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
                safetensors.torch.save_file(contiguous, temporary / "tensors.safetensors")
                (temporary / "scalars.json").write_text(json.dumps(scalars))
                files = {path.name: _fingerprint(path) for path in sorted(temporary.iterdir())}
                (temporary / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}))
                for path in temporary.iterdir():
                    _sync(path)
                os.replace(temporary, final)
                _sync(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for old in self._folders()[: -self.keep]:
            shutil.rmtree(old)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the tensors and scalars of the newest checkpoint that verifies, or None when there is none at all.

        Raises:
            DataError: checkpoints exist but none verifies.
            ConfigError: the newest was written by a newer pygan.
        """
        folders = self._folders()
        for folder in reversed(folders):
            try:
                _verify(folder)
            except ConfigError:
                raise
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s: skipped, %s", folder, error)
                continue
            return read_tensors(folder / "tensors.safetensors")[0], json.loads((folder / "scalars.json").read_text())
        if folders:
            raise DataError(
                f"{self.folder}: got {len(folders)} checkpoints, none is intact; delete the folder to restart"
            )
        return None

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir() and ".tmp-" not in path.name)


def _fingerprint(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _verify(folder: Path) -> None:
    """Raise ValueError with the reason when the files are not those of the manifest; ConfigError for a newer format."""
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["format"] > FORMAT:
        raise ConfigError(
            f"{folder}: got checkpoint format {manifest['format']}, which needs a newer pygan (this one reads {FORMAT})"
        )
    found = {path.name for path in folder.iterdir()} - {"manifest.json"}
    if found != set(manifest["files"]):
        raise ValueError(f"got files {sorted(found)}, expected {sorted(manifest['files'])}")
    for name, expected in manifest["files"].items():
        if _fingerprint(folder / name) != expected:
            raise ValueError(f"{name} differs from its SHA-256 in manifest.json")
