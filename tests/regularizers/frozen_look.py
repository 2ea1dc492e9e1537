"""A game small enough to compute by hand, seen through the smallest frozen network with random weights."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor, nn

from pygan.context import Context, Step
from pygan.discriminators.plain import Plain
from pygan.losses import OBJECTIVES
from pygan.spec import load_spec

SIDE = 8
SMALL = {"kind": "mtcnn_onet", "random_init": True}
"""The smallest network of the bank, without its file; it sees 48 pixels."""


def pictures(n: int = 6, side: int = SIDE, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def context(img: Tensor) -> Context:
    def batches(size: int) -> Iterator[Tensor]:
        yield from img.split(size)

    return Context(resolution=img.shape[-1], channels=img.shape[1], pictures=batches)


def to_float(img: Tensor) -> Tensor:
    return img.float() / 127.5 - 1


class Generator(nn.Module):
    """Pictures that are its parameters."""

    def __init__(self, n: int = 4, side: int = SIDE) -> None:
        super().__init__()
        noise = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(5))
        self.img = nn.Parameter(noise.clamp(-1, 1))

    def forward(self) -> Tensor:
        return self.img


class Brightness(nn.Module):
    """A discriminator: the weighted mean of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(3.0))

    def forward(self, img: Tensor, c: Tensor | None, *, paired: bool = False) -> Tensor:
        return self.gain * img.mean((1, 2, 3))


def make_step(G: Generator, number: int = 0, objective: str = "hinge") -> Step:
    D = nn.ModuleList([Plain(Brightness())]).requires_grad_(False)
    index = torch.arange(len(G.img))
    step = Step(
        phase="G", step=number, nimg=4, G=G, D=D, objective=OBJECTIVES[objective], index=index + 100 * number, seed=0
    )
    step.gen_img = G()
    step.gen_logits = D[0](step.gen_img, None, None)
    return step


def phi(img: Tensor, tap: str | None = None) -> Tensor:
    """The network itself."""
    return small_network().final(img, tap)


@cache
def small_network() -> nn.Module:
    return load_spec("pygan.features", SMALL).build(Context(resolution=SIDE))
