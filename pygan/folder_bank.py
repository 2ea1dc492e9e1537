"""The bank of pretrained networks among which a vision-aided run of `pygan train` chooses."""

from typing import Any

from pygan.context import Context
from pygan.errors import MissingInput
from pygan.spec import load_spec

PACKAGED_BANK = (("efficientnet_lite0", 48), ("open_nsfw", 64), ("mtcnn_onet", None))
"""Networks of `pygan assets install` and the side at which they see small pictures; None: they have their own side.
MobileNetV2 is none of them, because it measures the result."""
PUBLISHED_BANK = (
    {"kind": "swin", "mean": "clip"},
    {"kind": "clip_vit"},
    {"kind": "dino_vit", "mean": "clip"},
    {"kind": "vgg16"},
    {"kind": "swin", "training": "ade20k"},
    {"kind": "swin", "training": "coco"},
)
"""The published bank without its two networks for faces."""
_LARGEST_VIEW = 224
"""Side at which packaged networks see large pictures, pixels: that of most published networks."""


def bank_for(resolution: int) -> tuple[tuple[dict[str, Any], ...], str]:
    """Return the bank of a vision-aided run and why: published networks whose weights are here, or packaged ones.

    Raises:
        MissingInput: a packaged network is not installed.
    """
    published = tuple(dict(entry) for entry in PUBLISHED_BANK if _is_here(entry))
    if len(published) >= 3:
        left = len(PUBLISHED_BANK) - len(published)
        return published, f"published networks whose weights are here ({left} are not; none for faces)"
    view = min(resolution, _LARGEST_VIEW)
    packaged = tuple(
        {"kind": kind} | ({} if least is None else {"resolution": max(least, view)}) for kind, least in PACKAGED_BANK
    )
    for entry in packaged:
        load_spec("pygan.features", entry, "bank").build(Context(resolution=resolution))
    kinds = ", ".join(entry["kind"] for entry in packaged)
    return packaged, f"{kinds}, which are packaged; published with Swin, CLIP, DINO and VGG (`pygan weights`)"


def _is_here(entry: dict[str, Any]) -> bool:
    """Whether a network can be built: its weights and the package of its architecture are here."""
    try:
        load_spec("pygan.features", dict(entry), "bank").build(Context(resolution=0))
    except MissingInput:
        return False
    return True
