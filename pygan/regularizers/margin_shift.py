"""Margin shift: what AdvAug does to D where D's head is affine, without features or extra forwards.

Steps of size gamma along the sign of an affine head's weight w move every logit by c = gamma steps |w|_1, so AdvAug's D
loss (see `feature_adversary`) is the objective with its margins moved: `as_released`, a hinge with margin 1 - c for
real and 1 + c for generated pictures; `adversarial`, with 1 + c for both. The weight is that of the present step, class
by class where D is conditional, and its gradient is AdvAug's too. `shift` makes c a constant instead.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pygan.context import Context, Step
from pygan.regularizers.perturbed_features import still_buffers
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["margin_shift"] = "margin_shift"
    gamma: float = Field(default=0.01, ge=0)
    """AdvAug's step."""
    steps: int = Field(default=1, ge=1)
    """AdvAug's number of steps."""
    shift: float | None = Field(default=None, ge=0)
    """The shift c itself, in units of the logit; null: gamma steps |w|_1."""
    weight: float = Field(default=1.0, gt=0)
    """Factor of the loss on shifted logits."""
    mixing: Literal["sum", "mean"] = "sum"
    """As in `feature_adversary`."""
    direction: Literal["adversarial", "as_released"] = "adversarial"
    """Real logits down and generated ones up, or both up."""

    def build(self, ctx: Context) -> "MarginShift":
        return MarginShift(
            self.gamma * self.steps,
            self.shift,
            -1.0 if self.direction == "adversarial" else 1.0,
            self.weight,
            self.mixing,
        )


class MarginShift:
    """`weight` times D's objective on logits moved by c.

    Args:
        epsilon: largest change of a feature, from which c follows.
        shift: c itself; None: it follows from `epsilon`.
        real_sign: of the shift of real logits; generated ones go up.
    """

    phases = ("D",)
    every = 1

    def __init__(self, epsilon: float, shift: float | None, real_sign: float, weight: float, mixing: str) -> None:
        self.epsilon = epsilon
        self.shift = shift
        self.real_sign = real_sign
        self.weight = weight
        self.mixing = mixing

    def __call__(self, step: Step) -> Tensor:
        real, gen = step.real_logits[0], step.gen_logits[0]
        real_c = step.D[0].real(step, step.draws("deceive/0"))[1]
        shifted = step.objective.D(
            real + self.real_sign * self._shift(step, real_c, real), gen + self._shift(step, step.gen_c, gen)
        )
        if self.mixing == "sum":
            return self.weight * shifted
        return self.weight / (1 + self.weight) * (shifted - step.objective.D(real, gen))

    def _shift(self, step: Step, c: Tensor | None, logits: Tensor) -> Tensor:
        """Return c for each sample, `[N]`."""
        if self.shift is not None:
            return torch.full_like(logits, self.shift)
        return self.epsilon * head_weights(step.D[0].network, step.real_img[:1], c, len(logits)).abs().sum(1)


def head_weights(network: nn.Module, img: Tensor, c: Tensor | None, n: int) -> Tensor:
    """Return the weight with which D's affine head reads the features of each sample, `[N, F]`; differentiable.

    Args:
        img: one picture, for the size of its features.
        c: labels `[N]` or None.
    """
    with still_buffers(network), torch.autocast(img.device.type, enabled=False):
        with torch.no_grad():
            size = network.features(img).shape[1]
        h = img.new_zeros(n, size).requires_grad_(True)
        (weights,) = torch.autograd.grad(network.head(h, c).sum(), h, create_graph=True)
    return weights
