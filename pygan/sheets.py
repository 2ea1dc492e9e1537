"""Pictures as files: one enlarged picture, and many of them side by side as one PNG."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from torch import Tensor

from pygan.checkpoint import atomic_path


def picture(img: Tensor, scale: int) -> Image.Image:
    """uint8 `[C, H, W]` enlarged `scale` times without smoothing."""
    _, height, width = img.shape
    picture = Image.fromarray(
        img.permute(1, 2, 0).squeeze(2).numpy() if len(img) == 1 else img.permute(1, 2, 0).numpy()
    )
    return picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)


def save_grid(path: Path, img: Tensor, columns: int = 8, scale: int = 2) -> None:
    """Write uint8 pictures `[N, C, H, W]` as one PNG, `columns` to a row, enlarged `scale` times without smoothing."""
    save_sheet(path, [img], -(-len(img) // columns), columns, scale)


def check_png(path: Path) -> None:
    """Raise ValueError unless the suffix is .png, in capitals too: another one would name what the file is not."""
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: got the suffix {path.suffix!r}, expected .png")


def save_sheet(path: Path, batches: Iterable[Tensor], rows: int, columns: int, scale: int) -> None:
    """Write batches of uint8 pictures `[B, C, H, W]` as one PNG of `rows` times `columns`, in reading order.

    The memory holds the sheet and one batch. Places without a picture stay white.

    Raises:
        ValueError: the suffix is not .png.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    check_png(path)
    sheet, place = None, 0
    with atomic_path(path) as temporary:
        for img in batches:
            for one in img:
                shown = picture(one, scale)
                if sheet is None:
                    size = (columns * shown.width, rows * shown.height)
                    sheet = Image.new(shown.mode, size, "white")
                row, column = divmod(place, columns)
                sheet.paste(shown, (column * shown.width, row * shown.height))
                place += 1
        sheet.save(temporary, "PNG")


SHEET_PIXELS = 178_956_970
"""Largest sheet: Pillow refuses to open a picture of more pixels."""


def sheet_scale(resolution: int, rows: int, columns: int) -> int:
    """Return how many times larger a sheet shows pictures of `resolution` pixels: twice, once where that is too large.

    Raises:
        ValueError: the sheet would have more than `SHEET_PIXELS` pixels.
    """
    pixels = rows * columns * resolution**2
    if pixels > SHEET_PIXELS:
        raise ValueError(
            f"got {rows} x {columns} pictures of {resolution} pixels, which make a sheet of {pixels} pixels, "
            f"expected at most {SHEET_PIXELS}"
        )
    return 2 if 4 * pixels <= SHEET_PIXELS else 1
