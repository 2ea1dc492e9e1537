"""The store: one LMDB file per split, read at random without opening a file per picture.

A record is the crc32 of its payload (started at the record's index, so a record in another's place is noticed) and the
payload: raw uint8 `[C, H, W]`, or a PNG or JPEG file. Labels and metadata are records of their own. Keys of pictures
are 4-byte big-endian indices. The crc32 is checked at the first read of each record and remembered, so later epochs
read at full speed; `pygan.data.lmdb_file` covers what lies around the records.
"""

import hashlib
import io
import json
import os
import signal
import weakref
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import lmdb
import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from tqdm import tqdm

from pygan.data.atomic import replacing
from pygan.data.lmdb_file import check_seal, seal
from pygan.data.pictures import Item, Picture
from pygan.errors import DataError, TryAgain

Codec = Literal["raw", "png", "jpeg"]

_FORMAT = 1
_LABELS, _METADATA = b"labels", b"metadata"
_CRC_BYTES = 4
_INITIAL_MAP = 1 << 20
_CHUNK_BYTES = 1 << 20
_JPEG_QUALITY = 95


class Store:
    """A finished store, open for reading; it may be pickled, forked and spawned, each process opens the file anew.

    Args:
        path: the file that `write_store` made.

    Raises:
        MissingInput: there is no such file.
        DataError: the file is truncated or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._environment: lmdb.Environment | None = None
        self._pid = 0
        with self._open().begin(buffers=True) as transaction:
            metadata = json.loads(self._small_record(transaction, _METADATA))
            labels = self._small_record(transaction, _LABELS)
        if metadata["format"] != _FORMAT:
            raise DataError(f"{self.path}: the store has format {metadata['format']}, expected {_FORMAT}: rebuild it")
        self.codec: Codec = metadata["codec"]
        self.resolution: int = metadata["resolution"]
        """Side of the pictures, pixels."""
        self.channels: int = metadata["channels"]
        self.labels: np.ndarray = np.frombuffer(labels, "<i8").astype(np.int64)
        """int64 `[N]`."""
        self._checked = np.zeros(len(self.labels), bool)

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None, "_checked": np.zeros(len(self), bool)}

    def read(self, indices: ArrayLike) -> np.ndarray:
        """Return the pictures at `indices` (int `[N]`, any order, repeats allowed), uint8 `[N, C, H, W]`.

        Raises:
            IndexError: an index is negative or not below `len(self)`.
            DataError: a record does not match its crc32.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"got indices from {indices.min()} to {indices.max()}, expected 0 to {len(self) - 1}")
        keys = indices.astype(">u4").view("V4").tolist()
        with self._open().begin(buffers=True) as transaction:
            records = [record for _, record in transaction.cursor().getmulti(keys)]
            if len(records) != len(keys):
                raise DataError(f"{self.path}: {len(keys) - len(records)} pictures are not in the store: rebuild it")
            if not self._checked[indices].all():
                self._check(indices, records)
            return self._decode(records)

    def damaged(self) -> list[int]:
        """Return the indices of all records that do not match their crc32."""
        bad = []
        for index in range(len(self)):
            try:
                self.read([index])
            except DataError:
                bad.append(index)
        return bad

    def _open(self) -> lmdb.Environment:
        if self._environment is None or self._pid != os.getpid():
            self._environment, self._pid = _environment(self.path), os.getpid()
        return self._environment

    def _small_record(self, transaction: lmdb.Transaction, key: bytes) -> bytes:
        record = transaction.get(key)
        if record is None or not _intact(record, 0):
            raise DataError(f"{self.path}: the {key.decode()} of the store are damaged: rebuild it")
        return bytes(record[_CRC_BYTES:])

    def _check(self, indices: np.ndarray, records: list[memoryview]) -> None:
        for index, record in zip(indices.tolist(), records, strict=True):
            if not _intact(record, index):
                raise DataError(f"{self.path}: the picture {index} does not match its checksum: rebuild the store")
        self._checked[indices] = True

    def _decode(self, records: list[memoryview]) -> np.ndarray:
        shape = (len(records), self.channels, self.resolution, self.resolution)
        if self.codec == "raw":
            rows = np.frombuffer(b"".join(records), np.uint8).reshape(-1, _CRC_BYTES + int(np.prod(shape[1:])))
            return rows[:, _CRC_BYTES:].copy().reshape(shape)
        pictures = np.empty(shape, np.uint8)
        for picture, record in zip(pictures, records, strict=True):
            picture[:] = _from_file(bytes(record[_CRC_BYTES:]))
        return pictures


# LMDB refuses to open a file twice in one process, so the stores of one file share an environment. A forked child drops
# the environments of its parent and opens its own.
_environments: weakref.WeakValueDictionary[tuple[int, int], lmdb.Environment] = weakref.WeakValueDictionary()


def _drop_environments() -> None:
    for environment in list(_environments.values()):
        environment.close()
    _environments.clear()


os.register_at_fork(after_in_child=_drop_environments)


def _environment(path: Path) -> lmdb.Environment:
    check_seal(path)
    stat = path.stat()
    key = (stat.st_dev, stat.st_ino)
    environment = _environments.get(key)
    if environment is None:
        try:
            environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=True)
        except lmdb.Error as error:
            raise DataError(f"{path}: not a readable store ({error}): rebuild it") from error
        _environments[key] = environment
    return environment


def _intact(record: memoryview, index: int) -> bool:
    return zlib.crc32(record[_CRC_BYTES:], index) == int.from_bytes(record[:_CRC_BYTES], "little")


def _record(payload: bytes, index: int) -> bytes:
    return zlib.crc32(payload, index).to_bytes(_CRC_BYTES, "little") + payload


@dataclass(frozen=True, kw_only=True)
class Written:
    """What `write_store` put into a file."""

    labels: np.ndarray
    """int64 `[N]`."""
    digests: list[bytes]
    """sha256 of each picture as it is read back."""
    rejected: list[tuple[str, str]]
    """Name and reason of each picture that was left out."""

    @property
    def sha256(self) -> str:
        """sha256 over the labels and pictures, in order."""
        total = hashlib.sha256()
        for label, digest in zip(self.labels.tolist(), self.digests, strict=True):
            total.update(label.to_bytes(8, "little") + digest)
        return total.hexdigest()


def write_store(
    path: Path | str,
    items: Sequence[Item],
    *,
    resolution: int,
    channels: int = 3,
    codec: Codec = "raw",
    workers: int = 1,
    skip_bad: bool = False,
) -> Written:
    """Write pictures into a new store; the file appears under its name when it is complete.

    The content, byte for byte, does not depend on the number of workers.

    Args:
        path: file to write; an existing one is replaced.
        items: pictures and labels, in the order of their indices.
        resolution: side of the pictures, pixels.
        channels: channels of the pictures.
        codec: "raw", "png" or "jpeg" (quality 95).
        workers: processes that decode and encode; 1 does everything in this process.
        skip_bad: leave unreadable pictures out instead of refusing them all.

    Raises:
        DataError: pictures are unreadable and `skip_bad` is False.
        ValueError: a picture has another shape.
        CannotWrite: the disk is full or the folder can't be written.
        TryAgain: a worker process was killed.
    """
    path = Path(path)
    try:
        with replacing(path) as scratch:
            written = _write(scratch, items, (channels, resolution, resolution), codec, workers, desc=path.stem)
            if written.rejected and not skip_bad:
                name, reason = written.rejected[0]
                bad = f"{len(written.rejected)} of {len(items)} pictures can't be used"
                raise DataError(f"{bad}, the first is {name}: {reason}")
    except BrokenProcessPool as error:
        raise TryAgain(f"{path}: a worker process was killed while pictures were being decoded") from error
    return written


def _write(
    path: Path, items: Sequence[Item], shape: tuple[int, int, int], codec: Codec, workers: int, desc: str
) -> Written:
    labels: list[int] = []
    digests: list[bytes] = []
    rejected: list[tuple[str, str]] = []
    progress = tqdm(total=len(items), desc=desc, unit="img", disable=None, leave=False)
    environment = lmdb.open(str(path), subdir=False, map_size=_INITIAL_MAP, lock=False, sync=False)
    with environment, progress:
        for chunk in _encoded_chunks(items, shape, codec, workers):
            progress.update(len(chunk))
            pairs = []
            for picture in chunk:
                if isinstance(picture, _Rejected):
                    rejected.append((picture.name, picture.reason))
                    continue
                index = len(labels)
                pairs.append((index.to_bytes(4, "big"), _record(picture.payload, index)))
                labels.append(picture.label)
                digests.append(picture.digest)
            _put(environment, pairs)
        metadata = {"format": _FORMAT, "codec": codec, "resolution": shape[1], "channels": shape[0]}
        label_array = np.array(labels, "<i8")
        _put(environment, [(_LABELS, _record(label_array.tobytes(), 0))])
        _put(environment, [(_METADATA, _record(json.dumps(metadata, sort_keys=True).encode(), 0))])
        page_size, pages = environment.stat()["psize"], environment.info()["last_pgno"] + 1
    seal(path, page_size, pages)
    return Written(labels=label_array.astype(np.int64), digests=digests, rejected=rejected)


def _put(environment: lmdb.Environment, pairs: list[tuple[bytes, bytes]]) -> None:
    """Append sorted pairs in one transaction; a full map is doubled."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                transaction.cursor().putmulti(pairs, append=True)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


@dataclass(frozen=True, slots=True)
class _Encoded:
    label: int
    payload: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Rejected:
    name: str
    reason: str


_Chunk = list[_Encoded | _Rejected]


def _encoded_chunks(items: Sequence[Item], shape: tuple[int, int, int], codec: Codec, workers: int) -> Iterator[_Chunk]:
    """Yield the encoded items in order, a chunk at a time; a few chunks per worker are under way at once."""
    size = max(1, min(256, _CHUNK_BYTES // int(np.prod(shape))))
    chunks = (items[start : start + size] for start in range(0, len(items), size))
    if workers <= 1:
        yield from (_encode(chunk, shape, codec) for chunk in chunks)
        return
    with ProcessPoolExecutor(workers, initializer=_leave_interrupts_to_parent) as pool:
        waiting: deque[Future[_Chunk]] = deque()
        try:
            for chunk in islice(chunks, 4 * workers):
                waiting.append(pool.submit(_encode, chunk, shape, codec))
            while waiting:
                yield waiting.popleft().result()
                for chunk in islice(chunks, 1):
                    waiting.append(pool.submit(_encode, chunk, shape, codec))
        finally:
            for future in waiting:
                future.cancel()


def _leave_interrupts_to_parent() -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _encode(chunk: Sequence[Item], shape: tuple[int, int, int], codec: Codec) -> _Chunk:
    return [_encode_one(*item, shape, codec) for item in chunk]


def _encode_one(picture: Picture, label: int, shape: tuple[int, int, int], codec: Codec) -> _Encoded | _Rejected:
    try:
        pixels = picture.load()
    except DataError as error:
        return _Rejected(picture.name, str(error))
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"{picture.name}: got {pixels.dtype} {pixels.shape}, expected uint8 {shape}")
    payload = pixels.tobytes() if codec == "raw" else _to_file(pixels, codec)
    read_back = payload if codec == "raw" else _from_file(payload).tobytes()
    return _Encoded(label, payload, hashlib.sha256(read_back).digest())


def _to_file(pixels: np.ndarray, codec: Codec) -> bytes:
    """Encode uint8 `[C, H, W]` as a picture file."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    file = io.BytesIO()
    image.save(file, codec, **({"quality": _JPEG_QUALITY} if codec == "jpeg" else {}))
    return file.getvalue()


def _from_file(payload: bytes) -> np.ndarray:
    """Decode a picture file of the store into uint8 `[C, H, W]`."""
    array = np.asarray(Image.open(io.BytesIO(payload)))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
