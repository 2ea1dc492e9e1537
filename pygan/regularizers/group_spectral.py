"""gSR: Rangwani, Jaswani, Karmali, Jampani and Babu, "Improving GANs for Long-Tailed Data through Group Spectral
Regularization", ECCV 2022 (arXiv 2208.09932).

A class that is about to collapse shows a growing spectral norm of its own gains and biases. Cut the vector that a
class-conditional normalization l has for class y into groups of channels, the rows of a matrix; with sigma its largest
singular value, G pays for

    weight * mean_l mean_y lambda_y (sigma(gain_y^l - 1)^2 + sigma(bias_y^l)^2)

in every step and for all classes, where lambda_y is larger for rarer classes (`pygan.regularizers.class_tables`). An
n-vector has as many groups as the largest divisor of n up to sqrt(n): 256 is 16x16, 384 is 16x24.

The paper's formula sums over layers and classes, the release averages (`reduction`); the paper writes the gain, the
release penalizes the gain without its 1, which is the class's own part and what is done here. The release estimates
sigma of a bias with u = bias v / |bias v| of the gain's v, which is a quarter too low (`bias_branch: as_released`).
Published: SNGAN weight 0.5, beta 0.999; BigGAN weight 0.5, beta 0.99; 4 iterations.

In StyleGAN2 the term reads the class-conditional part of the mapping (`Generator.class_affines`); the authors show
results for StyleGAN2 but released no code, so that choice is ours.

Differs from the official code in: the vectors are part of the checkpoint; all matrices share one operator call; with
uniform class weights the release cannot run.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from pygan.context import Context, Step
from pygan.draws import permutation
from pygan.errors import ConfigError
from pygan.ops import group_spectral_sigma
from pygan.regularizers.class_tables import EPS, SingularVectors, Weighting, class_tables, class_weights, quiet_tables
from pygan.spec import spec

_REPORTED = 20
"""Rarest classes whose singular values are reported."""


@spec
class Spec:
    needs_classes: ClassVar[bool] = True
    kind: Literal["group_spectral"] = "group_spectral"
    weight: float = Field(default=0.5, ge=0)
    """Factor of the term (the paper's lambda_gSR); 0: only report the singular values, the training stays as it is."""
    class_weights: Weighting = "effective_number"
    """How much a class counts: by the effective number of its pictures, or all alike."""
    beta: float = Field(default=0.99, ge=0, lt=1)
    """Of the effective number; published: 0.99 for BigGAN, 0.999 for SNGAN."""
    groups: int | None = Field(default=None, ge=1)
    """Rows of the matrix that a vector is cut into; null: the largest divisor of its length up to the square root;
    1: none, its singular value being the vector's length."""
    sigma: Literal["power", "svd"] = "power"
    """Power iteration, or exactly by a singular value decomposition."""
    iterations: int = Field(default=4, ge=1)
    """Of the power iteration, per step; ten times as many in the first one."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over layers and classes: mean as released, sum as in the paper's formula (then `weight` is divided by their
    number for the same effect)."""
    bias_branch: Literal["correct", "as_released"] = "correct"
    """As released: the power iteration of a bias uses the vector of the gain."""
    shuffle: bool = False
    """Deal the channels to the groups anew in every step (an ablation in the release); vectors of the power iteration
    then start from another order's, so `sigma: svd` is the cleaner choice."""

    def build(self, ctx: Context) -> "GroupSpectral":
        return GroupSpectral(self, class_weights(ctx, self.class_weights, self.beta), ctx).to(ctx.device)


class GroupSpectral(nn.Module):
    """Sum of squared singular values; the state is the vectors of the power iteration.

    Args:
        spec: the settings.
        weights: of the classes, float32 `[num_classes]`.
        ctx: surroundings.
    """

    phases = ("G",)
    every = 1

    def __init__(self, spec: Spec, weights: Tensor, ctx: Context) -> None:
        super().__init__()
        self.spec = spec
        self.seed = ctx.seed
        self.reported = sorted(sorted(range(len(weights)), key=ctx.class_counts.__getitem__)[:_REPORTED])
        self.register_buffer("weights", weights, persistent=False)
        self._generator: tuple[nn.Module, ...] = ()  # in a tuple: not a part of this module

    def attach(self, G: nn.Module) -> None:
        """Take note of the generator; the state gets the shapes of its layers.

        Raises:
            ConfigError: it has no class-conditional normalization, or other classes, or widths that `groups` does not
                divide.
        """
        matrices = self._matrices(quiet_tables(G), step=0)
        if len(matrices[0]) != len(self.weights):
            raise ConfigError(
                f"regularizers: the generator has {len(matrices[0])} classes, expected the data's {len(self.weights)}"
            )
        self._generator = (G,)
        if self.spec.sigma == "power" and self.spec.weight:
            shapes = [tuple(matrix.shape[1:]) for matrix in matrices]
            vectors = SingularVectors(shapes, len(self.weights), self.spec.iterations, self.seed)
            self.vectors = vectors.to(matrices[0].device)

    def forward(self, step: Step) -> Tensor:
        if not self._generator:
            self.attach(step.G)
        if not self.spec.weight:
            return self.weights.new_zeros([])
        matrices = self._matrices(class_tables(step.G), step.step)
        sigma = torch.stack(self._sigma(matrices))
        penalty = (self.weights * sigma.square()).sum()
        if self.spec.reduction == "mean":
            penalty = penalty / (sigma.numel() / 2)  # gains and biases of a layer count together
        return self.spec.weight * penalty

    def numbers(self) -> dict[str, Tensor]:
        """Return exact singular values of the 20 rarest classes, or all where there are fewer.

        `gain/<class>` and `bias/<class>` are means over the layers, `max/<class>` is the largest of all.
        """
        if not self._generator:
            return {}
        sigma = torch.stack(exact_sigma(self._matrices(quiet_tables(self._generator[0]), step=0)))
        gain, bias = sigma.chunk(2)
        rows = {"gain": gain.mean(0), "bias": bias.mean(0), "max": sigma.amax(0)}
        return {f"{name}/{c}": row[c] for name, row in rows.items() for c in self.reported}

    def _matrices(self, tables: list[Tensor], step: int) -> list[Tensor]:
        """Cut each class's vectors `[num_classes, C]` into groups: `[num_classes, groups, C / groups]`."""
        if self.spec.shuffle:
            tables = [
                table[:, permutation(self.seed, f"group_spectral/{step}/{i}", table.shape[1]).to(table.device)]
                for i, table in enumerate(tables)
            ]
        return [table.unflatten(1, (self._groups(table.shape[1]), -1)) for table in tables]

    def _groups(self, channels: int) -> int:
        groups = self.spec.groups or number_of_groups(channels)
        if channels % groups:
            raise ConfigError(f"regularizers: groups is {groups}, expected a divisor of the {channels} channels of G")
        return groups

    def _sigma(self, matrices: list[Tensor]) -> list[Tensor]:
        if self.spec.sigma == "svd":
            return exact_sigma(matrices)
        if self.spec.bias_branch == "correct":
            return self.vectors(matrices)
        return self._sigma_as_released(matrices)

    def _sigma_as_released(self, matrices: list[Tensor]) -> list[Tensor]:
        """In each iteration: v of the bias from its u, but then u of the bias from the new v of the gain."""
        half = len(matrices) // 2
        gains, biases = matrices[:half], matrices[half:]
        us, vs = self.vectors.vectors()
        gain_us, gain_vs, bias_us = us[:half], vs[:half], us[half:]
        iterations = self.vectors.iterations_due()
        with torch.no_grad():
            if iterations > 1:
                _, gain_us, gain_vs = group_spectral_sigma(gains, gain_us, gain_vs, iterations - 1, EPS)
                bias_us = [_times(bias, v) for bias, v in zip(biases, gain_vs, strict=True)]
            bias_vs = [_times(bias.mT, u) for bias, u in zip(biases, bias_us, strict=True)]
            _, gain_us, gain_vs = group_spectral_sigma(gains, gain_us, gain_vs, 1, EPS)
            bias_us = [_times(bias, v) for bias, v in zip(biases, gain_vs, strict=True)]
        us, vs = [*gain_us, *bias_us], [*gain_vs, *bias_vs]
        self.vectors.keep(us, vs)
        return group_spectral_sigma(matrices, us, vs, 0, EPS)[0]


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Multiply `[C, h, w]` by `[C, w]` and make the results `[C, h]` unit vectors."""
    return normalize((matrices * vectors.unsqueeze(1)).sum(2), dim=1, eps=EPS)


def number_of_groups(channels: int) -> int:
    """Return the largest divisor of `channels` that is not above its square root."""
    return max(groups for groups in range(1, int(channels**0.5) + 1) if channels % groups == 0)


def exact_sigma(matrices: list[Tensor]) -> list[Tensor]:
    """Return the largest singular values of each `[C, h, w]` as `[C]`, differentiable, computed in float64."""
    return [torch.linalg.svdvals(matrix.double())[:, 0].float() for matrix in matrices]
