"""A user's folder of pictures for `pygan train`: resolution, what is held out, and the prepared data set."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pygan.data import formats
from pygan.data.atomic import replacing
from pygan.data.pictures import SPLITS, Fit
from pygan.data.prepare import prepare
from pygan.data.sources import folder
from pygan.errors import DataError
from pygan.wording import number_of

_LARGEST = {"cpu": 64}
"""Side chosen at most where none is asked for, pixels; on other devices 256."""
AT_LEAST = 2
"""Pictures of each split without which nothing can be trained or measured."""


def choose_resolution(sizes: list[tuple[int, int]], *, fit: Fit, asked: int | None, device: str) -> tuple[int, str]:
    """Return the side of the pictures and why: a power of two that nine of ten pictures have.

    Args:
        sizes: width and height of pictures.
        fit: how a picture becomes square.
        asked: the side that was asked for; None: none was.
        device: `cpu`, or a kind of GPU.
    """
    if asked is not None:
        return asked, "as asked for"
    if not sizes:
        return 32, "no picture could be read"
    side = max if fit == "pad" else min
    common = sorted(side(size) for size in sizes)[len(sizes) // 10]
    largest = _LARGEST.get(device, 256)
    why = f"nine of ten pictures have {common} or more"
    if common >= 2 * largest:
        return largest, f"{why}, and more takes long on this device: --resolution asks for it"
    return max(1 << (common.bit_length() - 1), 16), why


def held_out_share(n: int) -> float:
    """Return the share of n pictures to choose by, and as much to measure by: small sets hold out more."""
    return min(0.25, max(0.1, 10 / max(n, 1)))


def too_few(counts: Mapping[str, int], n: int) -> str | None:
    """Return what is missing where a split has too few pictures, as the end of a sentence; None where all have enough.

    Args:
        counts: split -> pictures.
        n: pictures in all, by which they were dealt.
    """
    held_out = held_out_share(n)
    shares = {"train": 1 - 2 * held_out, "validation": held_out, "test": held_out}
    missing = max(math.ceil((AT_LEAST - counts[split]) / shares[split]) for split in SPLITS)
    if missing <= 0:
        return None
    return (
        f"got {counts['train']} to train with, {counts['validation']} to choose by and {counts['test']} to measure by, "
        f"expected at least {AT_LEAST} of each: add {number_of(missing, 'picture')} or more"
    )


def prepared(
    pictures: Path, out: Path, *, resolution: int, fit: Fit, allow_upscale: bool, skip_bad: bool, found: folder.Survey
) -> dict[str, Any]:
    """Write the data set `out/data` and `out/rejected.tsv`; return the manifest.

    Raises:
        DataError: pictures can't be used and `skip_bad` is False, or there are too few of them.
    """
    listed = out / "rejected.tsv"

    def accepting(rejected: list[tuple[str, str]], counts: dict[str, int]) -> None:
        rows = [*rejected, *((name, _left_alone(name)) for name in found.others)]
        with replacing(listed) as scratch:
            scratch.write_text("file\treason\n" + "".join(f"{_field(name)}\t{_field(why)}\n" for name, why in rows))
        if rejected and not skip_bad:
            name, why = rejected[0]
            count = number_of(len(rejected), "picture")
            raise DataError(
                f"{pictures}: {count} can't be used, the first is {name} ({why}); all are in {listed}: repair them, or "
                "leave them out with --skip-bad"
            )
        lacking = too_few(counts, found.n)
        if lacking is not None:
            raise DataError(f"{pictures}: {lacking}")

    held_out = held_out_share(found.n)
    source = folder.Spec(
        path=str(pictures),
        fit=fit,
        allow_upscale=allow_upscale,
        skip_bad=True,  # `accepting` decides, when all of them are known
        validation=held_out,
        test=held_out,
    )
    return prepare(
        out.name,
        source,
        out / "data",
        resolution=resolution,
        workers=os.cpu_count() or 1,
        accepting=accepting,
    )


def _left_alone(name: str) -> str:
    way = formats.way_out(formats.suffix(name))
    return f"left out: {way}" if way else "left alone: its suffix is no picture's"


def _field(text: str) -> str:
    """A name or sentence without what ends a field of the table; undecodable bytes are escaped."""
    return text.replace("\t", " ").replace("\n", " ").encode("utf-8", "backslashreplace").decode()
