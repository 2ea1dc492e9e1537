"""Adversarial objectives: hinge, non-saturating logistic and Wasserstein, each a pair of functions of logits.

Hinge: Lim and Ye, "Geometric GAN", 2017 (arXiv 1705.02894). Non-saturating: Goodfellow et al., "Generative
Adversarial Nets", NeurIPS 2014 (arXiv 1406.2661), in the softplus form of StyleGAN2. Wasserstein: Arjovsky et al.,
ICML 2017 (arXiv 1701.07875), without its gradient constraint, which is a regularizer.
"""

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
