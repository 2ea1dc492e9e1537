"""AdvAug: Chen, Cheng, Gan, Liu and Wang, "Data-Efficient GAN Training Beyond (Just) Augmentations: A Lottery Ticket
Perspective", NeurIPS 2021, section 3.3: adversarial perturbations of features as an augmentation.

The loss is L + weight L_adv, where L_adv is the same objective on features moved by `steps` gradient steps of size
gamma times the sign (PGD), without random start and without projection, so that max |delta| = gamma steps. D is
perturbed at the input of its last layer, real and generated pictures alike, and G at the output of its first layer.
Paper: weight 1, one step, gamma 0.01 on CIFAR-10 and CIFAR-100, 0.001 on ImageNet; 0.05 and more, or 5 steps, harm.

Which way features move is where paper and code part (f: the hinge; s: sign of the step in the logit):

| branch | works against the player | paper, as printed | released code |
|---|---|---|---|
| D, real | s = -1 | +1 (eq. 5) | +1 |
| D, generated | s = +1 | -1 (eq. 5) | +1 |
| G | s = -1 | -1 (eq. 3) | +1 |

`direction: adversarial` is the first column, what the text intends; `as_released` raises every logit.

Wherever the head is affine, as in all base networks here, the D side is no more than another margin: for a weight w a
step is gamma sign(w) for every sample, and its logit moves by gamma steps |w|_1 exactly. `margin_shift` is that
control.

Differs from the official code in: the perturbed branch moves no running statistics and no spectral norms (there it
does: `update_buffers: as_released`); a perturbed picture of G is augmented like the clean one (BigGAN there: not,
`augment_adversarial_g: false`); BigGAN's code perturbs D only where the hinge is active. The halves of the released
losses are `mixing: mean`. Its BigGAN commands take no step at all (`--steps` 0); its D-only script steps 0.1 on reals.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.context import Context
from pygan.draws import Draws
from pygan.regularizers.perturbed_features import Logits, PerturbedFeatures
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["feature_adversary"] = "feature_adversary"
    gamma: float = Field(default=0.01, ge=0)
    """Size of a step, in units of the feature; 0: the clean loss once more."""
    steps: int = Field(default=1, ge=1)
    """Gradient steps (PGD-1 in the paper)."""
    weight: float = Field(default=1.0, gt=0)
    """Factor of the adversarial loss (the paper's lambda, 1 on both sides)."""
    mixing: Literal["sum", "mean"] = "sum"
    """L + weight L_adv (paper), or that divided by 1 + weight (released code: a half of each), which matters beside
    other terms only."""
    sides: tuple[Literal["D", "G"], ...] = Field(default=("D", "G"), min_length=1)
    """Whose features are perturbed, in whose phase."""
    direction: Literal["adversarial", "as_released"] = "adversarial"
    """Against the player that is trained (the text), or up in every branch (the code)."""
    update_buffers: Literal["never", "as_released"] = "never"
    """Whether the additional forwards move running statistics and spectral norms."""
    augment_adversarial_g: bool = True
    """Augment the perturbed pictures of G's phase too; false: as the BigGAN release, whose D sees them as they are."""

    def build(self, ctx: Context) -> "FeatureAdversary":
        return FeatureAdversary(
            self.gamma,
            self.steps,
            self.direction,
            sides=self.sides,
            weight=self.weight,
            mixing=self.mixing,
            update_buffers=self.update_buffers,
            augment_g=self.augment_adversarial_g,
        )


class FeatureAdversary(PerturbedFeatures):
    """The objective on features that `steps` signed gradient steps have moved."""

    def __init__(self, gamma: float, steps: int, direction: str, **branch: object) -> None:
        super().__init__(**branch)
        self.gamma = gamma
        self.steps = steps
        self.direction = direction

    def perturbation(self, h: Tensor, logits: Logits, harm: Tensor, draws: Draws) -> Tensor:
        sign = harm if self.direction == "adversarial" else torch.ones_like(harm)
        return signed_steps(h, lambda h: (sign * logits(h)).sum(), self.gamma, self.steps)


def signed_steps(h: Tensor, score: Logits, gamma: float, steps: int) -> Tensor:
    """Return the sum of `steps` steps of `gamma sign(d score / d h)`, from `h`, without gradient.

    Args:
        score: features to a scalar.
    """
    delta = torch.zeros_like(h)
    for _ in range(steps):
        moved = (h + delta).requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(moved), moved)
        delta = delta + gamma * gradient.sign()
    return delta
