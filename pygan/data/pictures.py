"""What a source hands to the store: named pictures with labels, dealt to train, validation and test.

Decoding has one table of modes: 1, L, P, RGB, CMYK, YCbCr and the like become RGB by Pillow's conversion; alpha (RGBA,
LA, PA, or a transparent color) is composited over white; 16-bit gray is divided by 257 and rounded; modes without a
fixed range (I, F) are refused. The EXIF rotation is applied, and of an animation the first frame counts.

Differs from the official code in: `fit: crop` cuts at half a pixel where the longer side exceeds the shorter one by an
odd number, where the dataset tool of StyleGAN2-ADA rounds the corner down; alpha is composited over white, where that
tool refuses pictures with alpha and clean-fid drops alpha; the tool and clean-fid do not apply the EXIF rotation.
"""

import io
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pygan.data.formats import open_picture
from pygan.errors import DataError

SPLITS = ("train", "validation", "test")
Fit = Literal["crop", "pad", "stretch"]

_MAX_PIXELS = 64 * 2**20
_ORIENTATION = 0x0112


class Picture(Protocol):
    """One picture; it travels to the worker process that loads it."""

    name: str
    """What an error message calls it."""

    def load(self) -> np.ndarray:
        """Return uint8 `[C, H, W]`; raise `DataError` with the reason when it is unreadable."""
        ...


Item = tuple[Picture, int]
"""A picture and its label."""


@dataclass(frozen=True)
class ArrayPicture:
    """A picture that is in memory already."""

    name: str
    array: np.ndarray
    """uint8 `[C, H, W]`."""

    def load(self) -> np.ndarray:
        return self.array


@dataclass(frozen=True, kw_only=True)
class Collection:
    """All pictures of a source, in their final order."""

    class_names: tuple[str, ...]
    splits: dict[str, list[Item]]
    """One list for each of `SPLITS`."""
    skip_bad: bool = False
    """Leave unreadable pictures out and list them, instead of refusing the data set."""
    refuse_shared: bool = False
    """Refuse the data set when two splits hold the same picture; otherwise they are counted."""


def deal(digest: bytes, validation: float, test: float) -> str:
    """Return the split of a picture by its content's sha256, so that exact copies always land in the same split."""
    u = int.from_bytes(digest[:8], "big") / 2**64
    if u < test:
        return "test"
    return "validation" if u < test + validation else "train"


def decode(data: bytes, *, resolution: int, channels: int, fit: Fit, allow_upscale: bool) -> np.ndarray:
    """Decode an encoded picture into uint8 `[C, H, W]` with the side `resolution`.

    Args:
        data: content of a picture file in any format that Pillow reads; HEIF too where pillow-heif is installed.
        resolution: side of the square result, pixels.
        channels: 1 (gray) or 3 (RGB).
        fit: "crop" the largest centered square, "pad" with white to a square, or "stretch".
        allow_upscale: enlarge smaller pictures instead of refusing them.

    Raises:
        DataError: the picture is unreadable, too large to be decoded safely, or too small.
    """
    try:
        image = open_picture(io.BytesIO(data))
        if image.width * image.height > _MAX_PIXELS:
            raise DataError(f"{image.width}x{image.height} is more than the limit of 64 megapixels")
        image.load()
        image = _upright(image)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("not a picture of a known format") from None
    except Exception as error:  # decoders raise nearly anything on a broken file
        raise DataError(f"not a readable picture ({error or type(error).__name__})") from error
    image = _flatten(image, "L" if channels == 1 else "RGB")
    if image.size != (resolution, resolution):
        image = _resize(image, resolution, fit, allow_upscale)
    array = np.asarray(image)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the rotation that the camera noted."""
    return image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    """Convert to `mode` ("L" or "RGB"), see the table above."""
    if image.mode in ("I", "F"):
        raise DataError(f"the mode {image.mode} has no fixed range of values, expected 8 or 16 bits")
    if image.mode.startswith("I;16"):
        image = Image.fromarray(np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = over_white(image)
    return image if image.mode == mode else image.convert(mode)


def over_white(image: Image.Image) -> Image.Image:
    """Return the picture composited over white, mode RGB."""
    image = image.convert("RGBA")
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image)
    return background.convert("RGB")


def _resize(image: Image.Image, side: int, fit: Fit, allow_upscale: bool) -> Image.Image:
    width, height = image.size
    smallest = max(width, height) if fit == "pad" else min(width, height)
    if smallest < side and not allow_upscale:
        raise DataError(
            f"{width}x{height} is smaller than the resolution {side} (--allow-upscale, in a study allow_upscale: true, "
            "enlarges it)"
        )
    if fit == "pad":
        return ImageOps.pad(image, (side, side), Image.Resampling.LANCZOS, color="white")
    square = min(width, height)
    left, top = (width - square) / 2, (height - square) / 2
    box = (left, top, left + square, top + square) if fit == "crop" else None
    return image.resize((side, side), Image.Resampling.LANCZOS, box=box)
