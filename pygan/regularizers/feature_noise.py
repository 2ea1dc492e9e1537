"""Noise on features: the control that takes the gradient out of AdvAug (Chen et al., NeurIPS 2021, figure 8).

The same second loss at the same cuts with delta ~ N(0, gamma^2) in place of a gradient step. The released control is
another one, `release: true`: uniform noise in [0, gamma), whose mean is not zero, with gamma 0.1, ten times the step it
is compared with, and no gradient into the half before the cut.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from pygan.context import Context
from pygan.draws import Draws
from pygan.regularizers.perturbed_features import Logits, PerturbedFeatures
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["feature_noise"] = "feature_noise"
    gamma: float = Field(default=0.01, ge=0)
    """Standard deviation, in units of the feature."""
    weight: float = Field(default=1.0, gt=0)
    """Factor of the loss on noisy features."""
    mixing: Literal["sum", "mean"] = "sum"
    """As in `feature_adversary`."""
    sides: tuple[Literal["D", "G"], ...] = Field(default=("D", "G"), min_length=1)
    """Whose features are perturbed, in whose phase."""
    update_buffers: Literal["never", "as_released"] = "never"
    """Whether the additional forwards move running statistics and spectral norms."""
    augment_noisy_g: bool = True
    """Augment the perturbed pictures of G's phase too."""
    release: bool = False
    """Uniform in [0, gamma) and detached, as the released control."""

    def build(self, ctx: Context) -> "FeatureNoise":
        return FeatureNoise(
            self.gamma,
            uniform=self.release,
            detached=self.release,
            sides=self.sides,
            weight=self.weight,
            mixing=self.mixing,
            update_buffers=self.update_buffers,
            augment_g=self.augment_noisy_g,
        )


class FeatureNoise(PerturbedFeatures):
    """The objective on features with independent noise."""

    def __init__(self, gamma: float, uniform: bool, **branch: object) -> None:
        super().__init__(**branch)
        self.gamma = gamma
        self.uniform = uniform

    def perturbation(self, h: Tensor, logits: Logits, harm: Tensor, draws: Draws) -> Tensor:
        noise = draws.uniform(*h.shape[1:]) if self.uniform else draws.normal(*h.shape[1:])
        return self.gamma * noise.to(h)
