"""R1: Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018 (arXiv 1801.04406), eq. 9.

Evaluated lazily as in StyleGAN2 (Karras et al., CVPR 2020, arXiv 1912.04958): on every `every`-th step, weighted by
`every`. The gradient is taken with respect to the real pictures before augmentation (with pseudo-augmentation, to what
passes as real), and of the trainable discriminator alone: vision-aided heads have no R1.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.context import Context, Step
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["r1"] = "r1"
    gamma: float = Field(default=10.0, gt=0)
    """Weight; the penalty is `gamma / 2` times the mean squared gradient norm."""
    every: int = Field(default=16, ge=1)
    """Steps between two evaluations."""

    def build(self, ctx: Context) -> "R1":
        return R1(self.gamma, self.every)


class R1:
    """`gamma / 2 * E[|grad_x D(x)|^2]` over the real pictures of the step."""

    phases = ("D",)

    def __init__(self, gamma: float, every: int) -> None:
        self.gamma = gamma
        self.every = every

    def __call__(self, step: Step) -> Tensor:
        img, c = step.D[0].real(step, step.draws("deceive/r1"))
        img = img.detach().requires_grad_(True)
        (logits,) = step.D[0](img, c, step.draws("augment/r1"))
        step.D[0].observe([logits])
        (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
        return self.gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
