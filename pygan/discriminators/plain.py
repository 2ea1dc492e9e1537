"""The base network's own discriminator, trained from scratch."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from pygan.context import Context
from pygan.draws import Draws
from pygan.spec import spec

Augment = Callable[[Tensor, Draws], Tensor]


@spec
class Spec:
    kind: Literal["plain"] = "plain"

    def build(self, ctx: Context, network: nn.Module, augment: Augment | None) -> "Plain":
        return Plain(network, augment)


class Plain(nn.Module):
    """One head: `network` behind `augment`.

    Args:
        network: `D(img, c)`, pictures `[N, C, H, W]` in [-1, 1] and labels to logits `[N]`.
        augment: None shows it the pictures as they are.
    """

    heads = ("D",)

    def __init__(self, network: nn.Module, augment: Augment | None = None) -> None:
        super().__init__()
        self.network = network
        self.augment = augment

    def forward(self, img: Tensor, c: Tensor | None, draws: Draws | None) -> list[Tensor]:
        """Return `[logits]`; `draws` None: no augmentation."""
        if self.augment is not None and draws is not None:
            img = self.augment(img, draws)
        return [self.network(img, c)]
