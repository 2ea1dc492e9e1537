"""A user's own pictures: a folder or a zip, one class per sub-folder or labels in a csv or json file.

Files are taken in the bytewise order of their relative path. If the top level has the folders "train", "validation" or
"test", these are the splits; a split that has no folder is dealt from "train" (or from all pictures) by the sha256 of
each file, so exact copies of a file never land in two splits.
"""

import csv
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pygan.data import formats
from pygan.data.pictures import SPLITS, Collection, Fit, Item, deal, decode
from pygan.errors import DataError, MissingInput
from pygan.spec import spec

if TYPE_CHECKING:
    from pygan.context import Context

_MAX_FILE = 256 * 2**20
_SHOWN = 10


@spec
class Spec:
    """A folder or zip of pictures."""

    kind: Literal["folder"] = "folder"
    path: str
    """Folder, or file that ends in .zip."""
    labels: str | None = None
    """csv with the columns file and label, or json {"file": label}; None: one class per sub-folder."""
    fit: Fit = "crop"
    """How a picture becomes square: crop the center, pad with white, or stretch."""
    allow_upscale: bool = False
    """Enlarge pictures that are smaller than the resolution; otherwise they are refused."""
    skip_bad: bool = False
    """Leave unreadable pictures out and list them in the manifest; otherwise they are refused."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the pictures dealt to validation where there is no folder of that name."""
    test: float = Field(default=0.2, ge=0, lt=1)
    """Share of the pictures dealt to test where there is no folder of that name."""

    def build(self, ctx: "Context") -> Collection:
        root = _Root(self.path, is_zip=Path(self.path).is_file())
        names = root.names()
        if not names:
            others = "; ".join(formats.left_out(root.others()))
            raise DataError(
                f"{self.path}: no picture was found ({others or 'looked for ' + ', '.join(sorted(formats.readable()))})"
            )
        own_splits = _own_splits(self.path, names)
        if self.labels:
            class_names, labels = _labels_from_file(Path(self.labels), names)
        else:
            class_names, labels = _labels_from_folders(self.path, names, bool(own_splits))
        splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for name in names:
            picture = _File(name, root, ctx.resolution, ctx.channels, self.fit, self.allow_upscale)
            splits[self._split(picture, own_splits)].append((picture, labels[name]))
        return Collection(
            class_names=class_names, splits=splits, skip_bad=self.skip_bad, refuse_shared=bool(own_splits)
        )

    def _split(self, picture: "_File", own_splits: frozenset[str]) -> str:
        top = _top(picture.name)
        if top in own_splits and top != "train":
            return top
        validation = 0.0 if "validation" in own_splits else self.validation
        test = 0.0 if "test" in own_splits else self.test
        if validation + test == 0:
            return "train"
        return deal(picture.sha256(), validation, test)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a folder or zip holds, by names and headers alone."""

    n: int
    """Pictures, by their suffix."""
    sizes: list[tuple[int, int]]
    """Width and height of some of them."""
    others: list[str]
    """Relative paths of the files that are no pictures by their suffix or cannot be read here, hidden ones left out."""


def survey(path: str, at_most: int = 1000) -> Survey:
    """Look at a folder or zip before it is prepared.

    Args:
        at_most: pictures whose header is read, spread evenly over all of them; unreadable ones are left out.

    Raises:
        MissingInput: there is no such folder or zip.
        DataError: the zip cannot be read.
    """
    root = _Root(path, is_zip=Path(path).is_file())
    names = root.names()
    sizes = []
    for name in names[:: -(-len(names) // at_most) or 1]:
        # what is wrong with a file is said where it is decoded
        with suppress(Exception), root.opened(name) as source, formats.open_picture(source) as image:
            sizes.append(image.size)
    return Survey(n=len(names), sizes=sizes, others=root.others())


def contents(path: str, at_most: int) -> Iterator[tuple[str, bytes | DataError]]:
    """Yield relative path and content of picture files, spread evenly over all of them, or why it cannot be read.

    Raises:
        MissingInput: there is no such folder or zip.
        DataError: the zip cannot be read.
    """
    root = _Root(path, is_zip=Path(path).is_file())
    names = root.names()
    for name in names[:: -(-len(names) // at_most) or 1]:
        try:
            yield name, root.read(name)
        except DataError as error:
            yield name, error


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


@dataclass(frozen=True)
class _Root:
    """The folder or zip; files are only ever read in memory."""

    path: str
    is_zip: bool

    def names(self) -> list[str]:
        """Relative POSIX paths of all picture files, sorted bytewise."""
        readable = formats.readable()
        return sorted((name for name in self.files() if self._is_picture(name, readable)), key=os.fsencode)

    def others(self) -> list[str]:
        """Relative POSIX paths of the other files, sorted, hidden ones left out."""
        readable = formats.readable()
        return sorted(name for name in self.files() if not (self._is_picture(name, readable) or _is_hidden(name)))

    def files(self) -> list[str]:
        """Relative POSIX paths of all files, in no order."""
        path = Path(self.path)
        if path.is_dir():
            found = []
            for folder, _, files in os.walk(path):
                inside = Path(folder).relative_to(path)
                found += [(inside / name).as_posix() for name in files]
            return found
        if path.exists():
            members = dict.fromkeys(_archive(self.path, os.getpid()).namelist())
            return [name for name in members if not name.endswith("/")]
        raise MissingInput(f"{self.path}: there is no such folder or zip (source.path)")

    def _is_picture(self, name: str, readable: frozenset[str]) -> bool:
        parts = PurePosixPath(name).parts
        if not parts or formats.suffix(name) not in readable:
            return False
        if ".." in parts or name.startswith("/"):
            raise DataError(f"{self.path}: the member {name!r} points outside of the archive")
        return not _is_hidden(name)

    def opened(self, name: str) -> IO[bytes]:
        """Return a file, open at its beginning; one of an archive is unpacked in memory."""
        return io.BytesIO(self.read(name)) if self.is_zip else open(f"{self.path}/{name}", "rb")

    def read(self, name: str) -> bytes:
        """Return the content of a file; raise `DataError` with the reason when it can't be read."""
        try:
            if not self.is_zip:
                with open(f"{self.path}/{name}", "rb") as file:  # pathlib would take a tenth of the decoding time
                    return file.read()
            archive = _archive(self.path, os.getpid())
            size = archive.getinfo(name).file_size
            if size > _MAX_FILE:
                raise DataError(f"{size} bytes unpacked, expected at most {_MAX_FILE}")
            return archive.read(name)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
            raise DataError(f"cannot be read ({error})") from error


@lru_cache(maxsize=4)
def _archive(path: str, pid: int) -> zipfile.ZipFile:
    """The open zip of this process: a forked child must not share the file position of its parent."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: neither a folder nor a readable zip ({error})") from error


@dataclass(frozen=True)
class _File:
    """A picture file below the root."""

    name: str
    root: _Root
    resolution: int
    channels: int
    fit: Fit
    allow_upscale: bool

    def load(self) -> np.ndarray:
        return decode(
            self.root.read(self.name),
            resolution=self.resolution,
            channels=self.channels,
            fit=self.fit,
            allow_upscale=self.allow_upscale,
        )

    def sha256(self) -> bytes:
        """Digest of the file; of an unreadable one, that of nothing: loading it states the reason later."""
        try:
            return hashlib.sha256(self.root.read(self.name)).digest()
        except DataError:
            return hashlib.sha256().digest()


def _top(name: str) -> str:
    """The first folder of a relative path, "" where it has none."""
    return name.partition("/")[0] if "/" in name else ""


def _own_splits(path: str, names: list[str]) -> frozenset[str]:
    """The splits that have folders of their own; none without a folder "train"."""
    own = frozenset(map(_top, names)) & frozenset(SPLITS)
    if "train" not in own:
        return frozenset()
    outside = [name for name in names if _top(name) not in own]
    if outside:
        raise DataError(f"{path}: {_some(outside)} lie outside of the folders {', '.join(sorted(own))}")
    return own


def _labels_from_folders(path: str, names: list[str], own_splits: bool) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names and the label of each file: its first folder, below the folder of its split."""
    class_of = {name: _top(name.partition("/")[2] if own_splits else name) for name in names}
    classes = sorted(set(class_of.values()), key=os.fsencode)
    if len(classes) > 1 and "" in classes:
        beside = [name for name in names if not class_of[name]]
        raise DataError(f"{path}: {_some(beside)} lie beside the class folders")
    if own_splits:
        trained = {class_of[name] for name in names if _top(name) == "train"}
        unseen = [name for name in classes if name not in trained]
        if unseen:
            raise DataError(f"{path}: {_some(unseen)} are classes without a picture in train")
    labels = {name: classes.index(class_of[name]) for name in names}
    return tuple(name or "pictures" for name in classes), labels


def _labels_from_file(path: Path, names: list[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names and the label of each file, from a csv or json file."""
    rows = _label_rows(path)
    counts = Counter(name for name, _ in rows)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{path}: {_some(twice)} are listed more than once")
    given = dict(rows)
    missing = [name for name in names if name not in given]
    if missing:
        raise DataError(f"{path}: {len(missing)} of {len(names)} pictures have no label: {_some(missing)}")
    unknown = sorted(given.keys() - set(names))
    if unknown:
        raise DataError(f"{path}: {len(unknown)} of {len(given)} labels name no picture: {_some(unknown)}")
    values = _integers(list(given.values()))
    if all(isinstance(value, int) for value in values):
        return _numbered_classes(path, dict(zip(given, values, strict=True)))
    bad = [f"{name}: {value!r}" for name, value in zip(given, values, strict=True) if not isinstance(value, str)]
    if bad:
        raise DataError(f"{path}: {len(bad)} labels are neither all whole numbers nor all names: {_some(bad)}")
    classes = tuple(sorted(set(values)))
    return classes, {name: classes.index(value) for name, value in zip(given, values, strict=True)}


def _integers(values: list[object]) -> list[object]:
    """Read text as whole numbers where every value is one (csv knows only text)."""
    texts = all(isinstance(value, str) and value.removeprefix("-").isdecimal() for value in values)
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    return [int(str(value)) for value in values] if texts or whole else values


def _numbered_classes(path: Path, labels: dict[str, int]) -> tuple[tuple[str, ...], dict[str, int]]:
    negative = [f"{name}: {label}" for name, label in labels.items() if label < 0]
    if negative:
        raise DataError(f"{path}: {len(negative)} labels are negative: {_some(negative)}")
    used = set(labels.values())
    empty = [str(label) for label in range(min(max(used), len(labels) + _SHOWN)) if label not in used]
    if empty:
        raise DataError(f"{path}: labels go up to {max(used)}, but no picture has the label {_some(empty)}")
    return tuple(map(str, range(max(used) + 1))), labels


def _label_rows(path: Path) -> list[tuple[str, object]]:
    """Pairs of file and label: csv with a header, or json, a mapping or a list of pairs (also under "labels")."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingInput(f"{path}: there is no such file (source.labels)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if path.suffix == ".json":
        try:
            content = json.loads(text)
            if isinstance(content, dict) and "labels" in content:
                content = content["labels"]
            pairs = content.items() if isinstance(content, dict) else content
            return [(str(name), label) for name, label in pairs]
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: expected json of the form {{file: label}} ({error})") from error
    reader = csv.DictReader(io.StringIO(text))
    if not {"file", "label"} <= set(reader.fieldnames or ()):
        raise DataError(f"{path}: got the columns {reader.fieldnames}, expected file and label")
    return [(row["file"], row["label"]) for row in reader]


def _some(names: list[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
