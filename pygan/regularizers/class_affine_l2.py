"""A control for gSR: the squared length of the same vectors, without groups and singular values.

Group spectral regularization (`pygan.regularizers.group_spectral`) also makes the gains and biases of a class smaller.
This term does only that: `weight * scale * mean_l mean_y lambda_y (|gain_y^l - 1|^2 + |bias_y^l|^2)`, with the same
class weights. `scale` makes both penalties equal at the start, because a squared length is larger than a squared
singular value. It is not in the paper or its code.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pygan.context import Context, Step
from pygan.regularizers.class_tables import Weighting, class_tables, class_weights, quiet_tables
from pygan.regularizers.group_spectral import exact_sigma, number_of_groups
from pygan.spec import spec


@spec
class Spec:
    needs_classes: ClassVar[bool] = True
    kind: Literal["class_affine_l2"] = "class_affine_l2"
    weight: float = Field(default=0.5, gt=0)
    """Factor of the term, that of gSR in the arm it controls."""
    class_weights: Weighting = "effective_number"
    """How much a class counts: by the effective number of its pictures, or all alike."""
    beta: float = Field(default=0.99, ge=0, lt=1)
    """Of the effective number."""
    scale: float | None = Field(default=None, gt=0)
    """Second factor; null: the one with which the term begins with the value of gSR."""

    def build(self, ctx: Context) -> "ClassAffineL2":
        weights = class_weights(ctx, self.class_weights, self.beta)
        return ClassAffineL2(self.weight, weights, self.scale).to(ctx.device)


class ClassAffineL2(nn.Module):
    """Mean squared length; the state is the scale.

    Args:
        weight: factor.
        weights: of the classes, float32 `[num_classes]`.
        scale: None: found when the generator is attached.
    """

    phases = ("G",)
    every = 1

    def __init__(self, weight: float, weights: Tensor, scale: float | None) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("scale", torch.tensor(scale or 0.0))
        self._attached = scale is not None

    def attach(self, G: nn.Module) -> None:
        """Find the scale from the generator as it is; raise `ConfigError` where it has no gains and biases by class."""
        tables = quiet_tables(G)
        if not self._attached:
            matrices = [table.unflatten(1, (number_of_groups(table.shape[1]), -1)) for table in tables]
            spectral = torch.stack(exact_sigma(matrices)).square()
            self.scale.copy_((self.weights * spectral).sum() / (self.weights * _squares(tables)).sum())
        self._attached = True

    def forward(self, step: Step) -> Tensor:
        if not self._attached:
            self.attach(step.G)
        squares = _squares(class_tables(step.G))
        mean = (self.weights * squares).sum() / (squares.numel() / 2)  # gains and biases of a layer count together
        return self.weight * self.scale * mean


def _squares(tables: list[Tensor]) -> Tensor:
    """Return the squared lengths, `[tables, num_classes]`."""
    return torch.stack([table.square().sum(1) for table in tables])
