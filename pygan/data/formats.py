"""Which files are pictures by their suffix, which of them this environment can read, and what helps with the others."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import IO

from PIL import Image, features

from pygan.optional import install_command
from pygan.wording import number_of

_ALWAYS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_AVIF = frozenset({".avif"})
_HEIF = frozenset({".heic", ".heif", ".hif"})
_RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2"}
    | {".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
"""ISO/IEC 23008-12: what stands behind `ftyp` at the beginning of a file."""


def readable() -> frozenset[str]:
    """Return the suffixes of pictures that can be read here, in lower case and with their dot."""
    avif = _AVIF if "avif" in features.modules and features.check("avif") else frozenset()
    heif = _HEIF if find_spec("pillow_heif") else frozenset()
    return _ALWAYS | avif | heif


def suffix(name: str) -> str:
    """Return the suffix of a relative POSIX path, in lower case and with its dot; "" where there is none."""
    return PurePosixPath(name).suffix.lower()


def open_picture(file: IO[bytes]) -> Image.Image:
    """Open a picture as Pillow does, HEIF included where pillow-heif is installed.

    Args:
        file: at its beginning; it stays open until the pixels are loaded.

    Raises:
        PIL.UnidentifiedImageError: the format is unknown here.
    """
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        _register_heif()
    return Image.open(file)


@cache
def _register_heif() -> None:
    with suppress(ImportError):  # without the package Pillow says that it does not know the format
        import_module("pillow_heif").register_heif_opener()


def left_out(names: Iterable[str]) -> list[str]:
    """Return a sentence per suffix of a picture that cannot be read here: how many files, and what helps.

    Args:
        names: files that are left out; those that are no pictures are passed over.
    """
    counts = Counter(map(suffix, names))
    return [
        f"{number_of(counts[each], f'{each} file is', f'{each} files are')} left out: {way}"
        for each in sorted(counts)
        if (way := way_out(each))
    ]


def way_out(each: str) -> str | None:
    """Return what helps with pictures of a suffix that cannot be read here; None where the suffix is no picture's."""
    if each in readable():
        return None
    if each in _HEIF:
        return f"install pillow-heif to read HEIC (`{install_command('pillow-heif')}`)"
    if each in _AVIF:
        return f"install Pillow 11.3 or newer to read AVIF (`{install_command('pillow>=11.3')}`)"
    if each in _RAW:
        return "raw data of a camera, convert to JPEG or PNG"
    return None
