"""Moving pictures, written frame by frame: GIF and WebP by Pillow, MP4 by PyAV (the optional package av)."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image
from torch import Tensor

from pygan.checkpoint import atomic_path
from pygan.optional import require_packages
from pygan.sheets import picture

_SUFFIXES = (".gif", ".webp", ".mp4")


def check_suffix(path: Path) -> None:
    """Raise what `save_animation` would, before any picture is computed.

    Raises:
        ValueError: the suffix is none of .gif, .webp and .mp4.
        MissingInput: the package that writes .mp4 is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{path}: got the suffix {path.suffix!r}, expected {', '.join(_SUFFIXES)}")
    if suffix == ".mp4":
        require_packages(f"{path}: the suffix .mp4", "av")


def save_animation(path: Path, batches: Iterable[Tensor], count: int, fps: int = 15, scale: int = 2) -> None:
    """Write frames as an endless GIF or WebP or as an MP4, by the suffix of `path`, in capitals too.

    The memory holds one batch, and of a WebP also the compressed frames.

    Args:
        batches: uint8 `[B, C, H, W]`, `count` frames in all.
        count: at least 1.
        fps: pictures per second.
        scale: enlargement, without smoothing.

    Raises:
        ValueError: another suffix.
        MissingInput: the package that writes .mp4 is not installed.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    check_suffix(path)
    frames = (picture(one, scale) for img in batches for one in img)
    with atomic_path(path) as temporary:
        match path.suffix.lower():
            case ".gif":
                _write_gif(temporary, frames, fps)
            case ".webp":
                _Frames(frames, count).save(
                    temporary, "WEBP", save_all=True, duration=1000 // fps, loop=0, lossless=True
                )
            case ".mp4":
                _write_mp4(temporary, frames, fps)


def _write_gif(path: Path, frames: Iterator[Image.Image], fps: int) -> None:
    """Write each frame with a palette of its own; Pillow's `save` would collect all frames first."""
    timing = {"duration": 1000 // fps}
    with path.open("wb") as file:
        for i, frame in enumerate(frames):
            shown = frame if frame.mode == "L" else frame.convert("P", palette=Image.Palette.ADAPTIVE)
            if i == 0:
                file.writelines(GifImagePlugin.getheader(shown, info={"loop": 0, **timing})[0])
            file.writelines(GifImagePlugin.getdata(shown, include_color_table=i > 0, **timing))
        file.write(b";")


class _Frames(Image.Image):
    """A picture of several frames, each of which is computed when Pillow seeks it, once and in order."""

    def __init__(self, frames: Iterator[Image.Image], count: int) -> None:
        super().__init__()
        self.n_frames = count
        self._frames, self._at = frames, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Go on to a frame; Pillow's way back to the first, at the end, is left out."""
        if frame > self._at:
            shown = next(self._frames)
            self.im, self._mode, self._size, self._at = shown.im, shown.mode, shown.size, frame

    def tell(self) -> int:
        """Return the number of the frame that is shown, from 0."""
        return self._at


def _write_mp4(path: Path, frames: Iterator[Image.Image], fps: int) -> None:
    """Encode H.264 with halved color resolution, which every player knows, but for even sides only."""
    import av

    first = next(frames)
    odd = (first.height % 2, first.width % 2)
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.height, stream.width, stream.pix_fmt = first.height + odd[0], first.width + odd[1], "yuv420p"
        for frame in chain([first], frames):
            # The last row and column twice: no border appears, and no pixel is lost.
            pixels = np.pad(np.asarray(frame.convert("RGB")), ((0, odd[0]), (0, odd[1]), (0, 0)), mode="edge")
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
