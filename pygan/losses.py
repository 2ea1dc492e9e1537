"""Adversarial objectives: hinge, non-saturating logistic and Wasserstein, each a pair of functions of logits.

Hinge: Lim and Ye, "Geometric GAN", 2017 (arXiv 1705.02894). Non-saturating: Goodfellow et al., "Generative
Adversarial Nets", NeurIPS 2014 (arXiv 1406.2661), in the softplus form of StyleGAN2. Wasserstein: Arjovsky et al.,
ICML 2017 (arXiv 1701.07875), without its gradient constraint, which is a regularizer. Binary cross-entropy with
one-sided label smoothing: Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016 (arXiv 1606.03498).
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import relu, softplus

from pygan.context import Objective

OBJECTIVES = {
    "hinge": Objective(
        D=lambda real, gen: relu(1 - real).mean() + relu(1 + gen).mean(),
        G=lambda gen: -gen.mean(),
    ),
    "non_saturating": Objective(
        D=lambda real, gen: softplus(-real).mean() + softplus(gen).mean(),
        G=lambda gen: softplus(-gen).mean(),
    ),
    "wasserstein": Objective(
        D=lambda real, gen: gen.mean() - real.mean(),
        G=lambda gen: -gen.mean(),
    ),
}


def binary_cross_entropy(real_target: float) -> Objective:
    """Return the cross-entropy with targets `real_target` for real pictures and 0 for generated ones.

    G's target is `real_target` too, as in the official code of vision-aided GANs (Kumari et al., CVPR 2022): below 1
    its gradient vanishes where sigmoid(logit) = `real_target`. At 1 this is the non-saturating objective.
    """

    def towards(logits: Tensor) -> Tensor:
        return (softplus(-logits) + (1 - real_target) * logits).mean()

    return Objective(D=lambda real, gen: towards(real) + softplus(gen).mean(), G=towards)


def summed_over_levels(objective: Objective, sizes: Sequence[int]) -> Objective:
    """Return the sum of an objective over levels of a head, whose logits are the rows `[sum(sizes), N]` in order."""

    def levels(logits: Tensor) -> tuple[Tensor, ...]:
        return logits.split(list(sizes))

    return Objective(
        D=lambda real, gen: sum(map(objective.D, levels(real), levels(gen))),
        G=lambda gen: sum(map(objective.G, levels(gen))),
    )
