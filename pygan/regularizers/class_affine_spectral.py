"""A control for gSR: the spectral norm of a layer's whole table of gains, or of biases, one row for each class.

An ablation of the gSR release (`pygan.regularizers.group_spectral`; there the switch is misnamed `fro_regularize`):
`weight * sum_l (sigma([gain_y^l - 1]_y) + sigma([bias_y^l]_y))`, each `[num_classes, C]` table taken as one matrix,
sigma not squared, classes not weighted. It restrains what the classes have in common, so a rare one hardly counts.

Differs from the official code in: the power iteration goes on from the vectors of the last step.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pygan.context import Context, Step
from pygan.regularizers.class_tables import SingularVectors, class_tables, class_weights, quiet_tables
from pygan.spec import spec


@spec
class Spec:
    needs_classes: ClassVar[bool] = True
    kind: Literal["class_affine_spectral"] = "class_affine_spectral"
    weight: float = Field(default=0.5, gt=0)
    """Factor of the term (0.5 in the release)."""
    iterations: int = Field(default=4, ge=1)
    """Of the power iteration, per step; ten times as many in the first one."""

    def build(self, ctx: Context) -> "ClassAffineSpectral":
        class_weights(ctx, "uniform", 0.0)  # refuses a run without classes
        return ClassAffineSpectral(self.weight, self.iterations, ctx.seed).to(ctx.device)


class ClassAffineSpectral(nn.Module):
    """Sum of the spectral norms of all tables; the state is the vectors of the power iteration."""

    phases = ("G",)
    every = 1

    def __init__(self, weight: float, iterations: int, seed: int) -> None:
        super().__init__()
        self.weight = weight
        self.iterations = iterations
        self.seed = seed
        self.vectors: SingularVectors | None = None

    def attach(self, G: nn.Module) -> None:
        """Give the state the shapes of the generator's tables; raise `ConfigError` where it has none."""
        tables = quiet_tables(G)
        vectors = SingularVectors([tuple(table.shape) for table in tables], 1, self.iterations, self.seed)
        self.vectors = vectors.to(tables[0].device)

    def forward(self, step: Step) -> Tensor:
        if self.vectors is None:
            self.attach(step.G)
        sigmas = self.vectors([table.unsqueeze(0) for table in class_tables(step.G)])
        return self.weight * torch.cat(sigmas).sum()
