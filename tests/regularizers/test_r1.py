"""R1 against the closed form of a quadratic discriminator."""

import torch
from torch import nn

from pygan.context import Step
from pygan.discriminators.plain import Plain
from pygan.losses import OBJECTIVES
from pygan.regularizers.r1 import R1


class Quadratic(nn.Module):
    """D(x) = a |x|^2 / 2, whose gradient is a x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(3.0))

    def forward(self, img, c, paired=False):
        return self.a * img.square().sum((1, 2, 3)) / 2


def make_step(img: torch.Tensor) -> Step:
    D = nn.ModuleList([Plain(Quadratic())])
    return Step(
        phase="D",
        step=7,
        nimg=0,
        G=nn.Identity(),
        D=D,
        objective=OBJECTIVES["hinge"],
        index=torch.arange(len(img)),
        seed=0,
        real_img=img,
    )


def test_value_and_gradient_of_a_quadratic():
    img = torch.randn(5, 3, 4, 4)
    step = make_step(img)
    value = R1(gamma=2.0, every=8)(step)
    energy = img.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(value.detach(), 9 * energy)  # gamma / 2 * a^2 E|x|^2
    value.backward()
    torch.testing.assert_close(step.D[0].network.a.grad, 6 * energy)  # d/da of a^2 E|x|^2
    assert img.grad is None
