"""The picture itself: the control that tells what features add to averages of pixels."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from torch import Tensor

from pygan.features.frozen import FrozenNetwork, FrozenSpec
from pygan.spec import spec


class Pixels(FrozenNetwork):
    """Taps `pixels`, the resized picture in [-1, 1], and `pooled`, its values in a row."""

    usual_taps = ("pixels",)

    def __init__(self, name: str, resolution: int, taps: tuple[str, ...] | None) -> None:
        super().__init__(name, resolution=resolution, mean=(127.5,) * 3, std=(127.5,) * 3, taps=taps, resize="area")

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        yield "pixels", x
        yield "pooled", x.flatten(1)


@spec
class Spec(FrozenSpec):
    """Pixels in place of features."""

    kind: Literal["pixels"] = "pixels"
    resolution: int = Field(default=16, ge=2, le=512)
    """Side of the squares that are averaged to, pixels."""
    random_init: Literal[False] = False
    """There are no weights."""

    def _architecture(self) -> Pixels:
        return Pixels(self.name, self.resolution, self.taps)

    def _load(self, network: Pixels) -> None:
        return None
