"""From a source to the files of a data set: one store per split, a manifest and a contact sheet."""

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pygan.context import Context
from pygan.data.atomic import replacing
from pygan.data.manifest import FORMAT
from pygan.data.pictures import SPLITS, Collection
from pygan.data.store import Codec, Store, Written, write_store
from pygan.errors import DataError

_log = logging.getLogger(__name__)

_SHEET = 10
_SHEET_SIDE = 64


class Source(Protocol):
    """The spec of any file in `pygan.data.sources`."""

    kind: str

    def build(self, ctx: Context) -> Collection: ...


def prepare(
    name: str,
    source: Source,
    out: Path,
    *,
    resolution: int,
    channels: int = 3,
    codec: Codec = "raw",
    workers: int = 1,
    accepting: Callable[[list[tuple[str, str]], dict[str, int]], None] | None = None,
) -> dict[str, Any]:
    """Write train.lmdb, validation.lmdb, test.lmdb, contact_sheet.png and manifest.json into `out`.

    Args:
        name: what the manifest calls the data set.
        source: where the pictures come from.
        out: folder for the files.
        resolution: side of the pictures, pixels.
        channels: 1 (gray) or 3 (RGB).
        codec: how the stores keep the pictures.
        workers: processes that decode.
        accepting: called before the data set is taken as good, with the file and reason of every picture that is left
            out and the number of pictures of every split; it may raise.

    Returns:
        The manifest.

    Raises:
        DataError: pictures or labels can't be used, a split is empty, or two splits of the user share a picture.
        MissingInput: the raw files are not there.
        CannotWrite: the disk is full or `out` can't be written.
    """
    collection = source.build(Context(resolution=resolution, channels=channels))
    written: dict[str, Written] = {}
    for split in SPLITS:
        written[split] = write_store(
            out / f"{split}.lmdb",
            collection.splits[split],
            resolution=resolution,
            channels=channels,
            codec=codec,
            workers=workers,
            skip_bad=collection.skip_bad,
        )
    rejected = [pair for split in SPLITS for pair in written[split].rejected]
    if accepting is not None:
        accepting(rejected, {split: len(written[split].labels) for split in SPLITS})
    for split in SPLITS:
        if not len(written[split].labels):
            raise DataError(f"{name}: the split {split} has no picture")
    shared = _shared(written)
    if shared and collection.refuse_shared:
        raise DataError(f"{name}: {shared} pictures are in more than one of train, validation and test")
    duplicates = sum(len(w.digests) - len(set(w.digests)) for w in written.values())
    if duplicates or shared:
        _log.warning("%s: %d pictures are copies of others in their split, %d are in several", name, duplicates, shared)
    classes = len(collection.class_names)
    manifest = {
        "format": FORMAT,
        "name": name,
        "source": asdict(source),
        "resolution": resolution,
        "channels": channels,
        "codec": codec,
        "class_names": list(collection.class_names),
        "splits": {split: _split_entry(split, written[split], classes) for split in SPLITS},
        "rejected": [{"file": file, "reason": reason} for file, reason in rejected],
        "duplicates": duplicates,
        "shared_between_splits": shared,
    }
    contact_sheet(Store(out / "train.lmdb"), out / "contact_sheet.png")
    with replacing(out / "manifest.json") as scratch:
        scratch.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def contact_sheet(store: Store, path: Path) -> None:
    """Write a grid of 10x10 pictures in the order of the classes, each class with as many cells as any other."""
    chosen = []
    labels = np.unique(store.labels)
    for label, cells in zip(labels, np.array_split(np.arange(_SHEET**2), len(labels)), strict=True):
        members = np.flatnonzero(store.labels == label)
        chosen += [members[i * len(members) // len(cells)] for i in range(len(cells))]
    pictures = store.read(chosen)
    pictures = pictures.repeat(max(1, _SHEET_SIDE // store.resolution), axis=2)
    pictures = pictures.repeat(max(1, _SHEET_SIDE // store.resolution), axis=3)
    rows = pictures.reshape(_SHEET, _SHEET, *pictures.shape[1:])  # [row, column, C, H, W]
    side = _SHEET * pictures.shape[-1]
    grid = rows.transpose(0, 3, 1, 4, 2).reshape(side, side, store.channels)
    with replacing(path) as scratch:
        Image.fromarray(grid.squeeze(-1) if store.channels == 1 else grid).save(scratch, "png")


def _split_entry(split: str, written: Written, classes: int) -> dict[str, Any]:
    return {
        "file": f"{split}.lmdb",
        "n": len(written.labels),
        "counts": np.bincount(written.labels, minlength=classes).tolist(),
        "sha256": written.sha256,
    }


def _shared(written: dict[str, Written]) -> int:
    """Number of different pictures that are in more than one split."""
    splits_of = Counter(digest for w in written.values() for digest in set(w.digests))
    return sum(count > 1 for count in splits_of.values())
