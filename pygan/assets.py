"""Model files and pictures that ride in packages of the Python package index, found by path and never imported.

`assets.json` lists every file that pygan reads, with its size, sha256 and license; `assets.lock` pins the packages by
hash. They are installed without dependencies, because several of the packages ask for versions of years ago.
"""

import hashlib
import json
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from pygan.errors import DataError, MissingInput

_FOLDER = Path(__file__).parent


@cache
def _listed() -> dict[str, dict[str, Any]]:
    """The entries of assets.json, by their path inside site-packages and by their bare file name."""
    entries = json.loads((_FOLDER / "assets.json").read_text())
    return {name: entry for entry in entries for name in (entry["file"], Path(entry["file"]).name)}


def _entries() -> list[dict[str, Any]]:
    return [entry for name, entry in _listed().items() if name == entry["file"]]


def _entry(file_name: str) -> dict[str, Any]:
    try:
        return _listed()[file_name]
    except KeyError:
        raise ValueError(f"got {file_name!r}, expected a file listed in pygan/assets.json") from None


def _locate(entry: dict[str, Any]) -> Path | None:
    """Where the file or folder lies, or None; the environment's own site-packages is looked at first."""
    folders = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path])
    return next((path for folder in folders if folder and (path := Path(folder, entry["file"])).exists()), None)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def _digest(path: Path) -> str:
    """The sha256 of a file; of a folder, the sha256 over its sorted lines "sha256  name"."""
    if path.is_dir():
        lines = "".join(f"{_digest(file)}  {file.name}\n" for file in sorted(path.iterdir()))
        return hashlib.sha256(lines.encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _state(entry: dict[str, Any]) -> str:
    path = _locate(entry)
    if path is None:
        return "missing"
    return "present" if _size(path) == entry["bytes"] else "wrong size"


def find(file_name: str) -> Path:
    """Return the path of a packaged file (or folder) by its name or its path inside site-packages.

    Raises:
        ValueError: assets.json does not list the file.
        MissingInput: the file is not installed, or its size is wrong.
    """
    entry = _entry(file_name)
    state = _state(entry)
    if state != "present":
        raise MissingInput(
            f"{entry['file']} of the package {entry['package']}=={entry['version']} is {state}: "
            "run `pygan assets install`"
        )
    path = _locate(entry)
    assert path is not None
    return path


def sha256_of(file_name: str) -> str:
    """Return the sha256 that the file must have, from assets.json (nothing is read from the file)."""
    return _entry(file_name)["sha256"]


def status() -> list[dict[str, Any]]:
    """Return the entries of assets.json, each with "state" ("present", "missing", "wrong size") and "path" or None.

    Only sizes are looked at; `verify` reads the contents.
    """
    return [
        {**entry, "state": _state(entry), "path": str(path) if (path := _locate(entry)) else None}
        for entry in _entries()
    ]


def verify() -> None:
    """Check the sha256 of every packaged file.

    Raises:
        MissingInput: a file is not installed or has the wrong size.
        DataError: a file's content is not the expected one.
    """
    for entry in _entries():
        path = find(entry["file"])
        digest = _digest(path)
        if digest != entry["sha256"]:
            raise DataError(
                f"{path}: sha256 is {digest}, expected {entry['sha256']}: delete it and run `pygan assets install`"
            )


def install() -> list[str]:
    """Install the packages of which a file is missing or has the wrong size; return their requirements.

    Raises:
        MissingInput: pip could not install them; the message ends with pip's last line.
    """
    wanted = {entry["package"] for entry in _entries() if _state(entry) != "present"}
    lock = (_FOLDER / "assets.lock").read_text().splitlines()
    lines = [line for line in lock if line.split("==")[0] in wanted]
    if not lines:
        return []
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "assets.lock")
        requirements.write_text("\n".join(lines) + "\n")
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--force-reinstall", "--no-compile"]
        quiet = ["--quiet", "--disable-pip-version-check", "--no-warn-script-location"]
        command = [sys.executable, "-m", "pip", "install", *options, *quiet, "-r", str(requirements)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingInput(f"pip could not install {', '.join(sorted(wanted))}: {last}")
    return [line.split()[0] for line in lines]
