"""Moving pictures: GIF and WebP by Pillow, MP4 by PyAV (the optional package av)."""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from pygan.checkpoint import atomic_path
from pygan.optional import require_packages
from pygan.sampling import picture

_PILLOW = {".gif": ("GIF", {}), ".webp": ("WEBP", {"lossless": True})}
_SUFFIXES = (*_PILLOW, ".mp4")


def check_suffix(path: Path) -> None:
    """Raise what `save_animation` would, before any picture is computed.

    Raises:
        ValueError: the suffix is none of .gif, .webp and .mp4.
        MissingInput: the package that writes .mp4 is not installed.
    """
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path}: got the suffix {path.suffix!r}, expected {', '.join(_SUFFIXES)}")
    if path.suffix == ".mp4":
        require_packages(f"{path}: the suffix .mp4", "av")


def save_animation(path: Path, img: Tensor, fps: int = 15, scale: int = 2) -> None:
    """Write uint8 pictures `[F, C, H, W]` as an endless GIF or WebP or as an MP4, by the suffix of `path`.

    Args:
        fps: pictures per second.
        scale: enlargement, without smoothing.

    Raises:
        ValueError: another suffix.
        MissingInput: the package that writes .mp4 is not installed.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    check_suffix(path)
    with atomic_path(path) as temporary:
        if path.suffix == ".mp4":
            _write_mp4(temporary, img, fps, scale)
            return
        kind, options = _PILLOW[path.suffix]
        frames = [picture(one, scale) for one in img]
        frames[0].save(
            temporary, kind, save_all=True, append_images=frames[1:], duration=1000 // fps, loop=0, **options
        )


def _write_mp4(path: Path, img: Tensor, fps: int, scale: int) -> None:
    """Encode H.264 with halved color resolution, which every player knows, but for even sides only."""
    import av

    img = img.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    height, width = img.shape[2:]
    if height % 2 or width % 2:
        # The last row and column twice: no border appears, and no pixel is lost.
        img = F.pad(img.float(), (0, width % 2, 0, height % 2), mode="replicate").to(img.dtype)
    img = img.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous()  # RGB, channels last
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.height, stream.width, stream.pix_fmt = img.shape[1], img.shape[2], "yuv420p"
        for one in img:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(one.numpy(), format="rgb24")))
        file.mux(stream.encode(None))
