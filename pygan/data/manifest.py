"""The manifest: what a prepared data set holds, small and compared by content, so equal data rerun nothing."""

import json
from pathlib import Path
from typing import Any

from pygan.data.store import Store
from pygan.errors import DataError, MissingInput

FORMAT = 1


def read_manifest(path: Path | str) -> dict[str, Any]:
    """Return the content of a manifest.json.

    Raises:
        MissingInput: there is no such file.
        DataError: it is damaged or of another format.
    """
    path = Path(path)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingInput(f"{path}: there is no such manifest; the stage prepare_data makes it") from None
    except ValueError as error:
        raise DataError(f"{path}: not a readable manifest ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not a manifest of format {FORMAT}: rebuild the data set")
    return manifest


def open_split(manifest_path: Path | str, split: str) -> Store:
    """Open the store of a split, after checking that it holds what the manifest says.

    Raises:
        MissingInput: the manifest or the store is not there.
        DataError: one is damaged, or they belong to different data sets.
    """
    manifest = read_manifest(manifest_path)
    expected = manifest["splits"][split]
    store = Store(Path(manifest_path).parent / expected["file"])
    if len(store) != expected["n"] or store.resolution != manifest["resolution"]:
        raise DataError(
            f"{store.path}: {expected['n']} pictures of {manifest['resolution']} px expected, "
            f"{len(store)} of {store.resolution} px found: rebuild the data set"
        )
    return store
