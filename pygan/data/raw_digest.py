"""A digest of a data set's raw files, cheap enough to compute whenever the workflow is parsed.

Only the standard library: the workflow loads this file by its path.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ASSETS = Path(__file__).resolve().parents[1] / "assets.json"


def raw_digest(source: dict[str, Any]) -> str:
    """Return a sha256 that changes when the raw data of a source change.

    Packaged files count by the sha256 that assets.json states for them; a user's files (the keys `path` and `labels`)
    by relative name, size and time of last change. A path that does not exist counts as absent: the stage that needs
    it says so.

    Args:
        source: the `source` mapping of a data set, `kind` included.
    """
    lines = [entry["sha256"] for entry in json.loads(_ASSETS.read_text()) if source["kind"] in entry["used_by"]]
    for key in ("path", "labels"):
        if source.get(key):
            lines += [f"{key} {line}" for line in _stat_lines(Path(source[key]))]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _stat_lines(path: Path) -> Iterator[str]:
    """One line per file under `path`, or one for `path` itself where it is a file."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            stat = file.stat()
            yield f"{file.relative_to(path).as_posix()} {stat.st_size} {stat.st_mtime_ns}"
