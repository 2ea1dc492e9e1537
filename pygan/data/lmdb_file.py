"""A seal on an LMDB file: LMDB itself detects neither a truncated file nor a flipped byte.

Reading a truncated LMDB file kills the process (SIGBUS), and a damaged index page can send LMDB anywhere. So a
finished file gets a trailer behind its last page, where LMDB does not look: the ranges of its index pages, their
crc32, and a footer of fixed size at the very end. A file whose seal is intact is safe to map. Value pages are not
covered: the store checks each record at its first read.
"""

import os
import struct
import zlib
from pathlib import Path

import numpy as np

from pygan.errors import ConfigError, DataError, MissingInput

_MAGIC = b"pygan-lmdb-seal\x01"
_FOOTER = struct.Struct("<QQII16s")
"""End of the LMDB pages (bytes), number of ranges, crc32 of the index pages, crc32 of the trailer so far, magic."""
_PAGE_HEADER = struct.Struct("<QHHI")
"""LMDB 0.9: page number, padding, flags, number of pages of a large value (lmdb.h calls it mp_pages)."""
_LARGE_VALUE = 0x04
_META = struct.Struct("<16xII")
"""The first page: behind the page header, LMDB's magic number and the version of its data format."""
_LMDB_MAGIC, _LMDB_FORMAT = 0xBEEFC0DE, 1


def seal(path: Path, page_size: int, pages: int) -> None:
    """Append the trailer to a closed LMDB file of `pages` pages of `page_size` bytes, and flush it to the disk.

    Raises:
        ConfigError: the installed LMDB writes another data format than that of LMDB 0.9, whose page headers are read.
    """
    with path.open("r+b") as file:
        magic, version = _META.unpack(os.pread(file.fileno(), _META.size, 0))
        if (magic, version) != (_LMDB_MAGIC, _LMDB_FORMAT):
            raise ConfigError(
                f"{path}: got an LMDB file of magic number {magic:#x} and data format {version}, expected "
                f"{_LMDB_MAGIC:#x} and {_LMDB_FORMAT}: install a version of the package lmdb that contains LMDB 0.9"
            )
        end = page_size * pages
        file.truncate(end)
        ranges = _index_ranges(file.fileno(), page_size, pages)
        table = ranges.tobytes()
        index_crc = _crc_of_ranges(file.fileno(), ranges)
        head = _FOOTER.pack(end, len(ranges), index_crc, 0, _MAGIC)
        footer = _FOOTER.pack(end, len(ranges), index_crc, zlib.crc32(table + head), _MAGIC)
        file.seek(end)
        file.write(table + footer)
        file.flush()
        os.fsync(file.fileno())


def check_seal(path: Path) -> None:
    """Check that a file is complete and that its index pages are as they were written.

    Raises:
        MissingInput: there is no such file.
        DataError: the file is no store, is truncated, or its index is damaged.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise MissingInput(f"{path}: there is no such store") from None
    with file:
        size = file.seek(0, os.SEEK_END)
        footer = os.pread(file.fileno(), _FOOTER.size, max(0, size - _FOOTER.size))
        if len(footer) < _FOOTER.size or not footer.endswith(_MAGIC):
            raise DataError(f"{path}: the file is truncated or no store of pygan ({size} bytes): rebuild it")
        end, count, index_crc, trailer_crc, _ = _FOOTER.unpack(footer)
        table_size = size - _FOOTER.size - end
        table = os.pread(file.fileno(), table_size, end) if table_size == 16 * count else b""
        head = _FOOTER.pack(end, count, index_crc, 0, _MAGIC)
        if zlib.crc32(table + head) != trailer_crc:
            raise DataError(f"{path}: the end of the store is damaged: rebuild it")
        if _crc_of_ranges(file.fileno(), np.frombuffer(table, "<u8").reshape(-1, 2)) != index_crc:
            raise DataError(f"{path}: the index of the store is damaged: rebuild it")


def _index_ranges(descriptor: int, page_size: int, pages: int) -> np.ndarray:
    """Byte ranges (start, stop) of all pages that hold no large value, uint64 `[R, 2]`."""
    ranges: list[list[int]] = []
    page = 0
    while page < pages:
        _, _, flags, run = _PAGE_HEADER.unpack(os.pread(descriptor, _PAGE_HEADER.size, page * page_size))
        if flags & _LARGE_VALUE:
            page += run
            continue
        if ranges and ranges[-1][1] == page * page_size:
            ranges[-1][1] += page_size
        else:
            ranges.append([page * page_size, (page + 1) * page_size])
        page += 1
    return np.array(ranges, "<u8").reshape(-1, 2)


def _crc_of_ranges(descriptor: int, ranges: np.ndarray) -> int:
    crc = 0
    for start, stop in ranges.tolist():
        for offset in range(start, stop, 1 << 22):
            crc = zlib.crc32(os.pread(descriptor, min(1 << 22, stop - offset), offset), crc)
    return crc
