"""Reg-DGM: Zhong, Liu, Liu, Bao, Shen and Li, "Deep Generative Modeling on Limited Data with Regularization by
Nontransferable Pre-trained Models", ICLR 2023 (arXiv 2208.14133): min D(p_d || p_g) + lambda E_{x ~ p_g} f(x).

The generator's loss gains lambda times an energy f of a frozen pretrained network phi, in every generator step;
discriminators, R1, path length and augmentations stay as they are. A positive lambda trades variance for bias: the
optimum is no longer the data distribution, and what can be gained vanishes as data grow (`reg_dgm_theory`).

Energies, averaged over the batch; x = phi(G(z)) has F features, p(x) = softmax(x):

- `paired`, the official code: |x - phi(x_r)|^2 / F with a real picture x_r per generated one
- `to_mean`: |x - mean of phi over the training set|^2 / F; the same gradient in expectation, because
  E |x - x_r|^2 = E |x - mean|^2 + tr Cov(x_r) for independent pairs, and less noise
- `entropy`: H(p(x)) = -sum_k p_k log p_k, which depends on no data
- `cross_entropy`: -sum_k q_k log p_k(x) with q the mean of p over the training set

The first two are no feature matching: they also shrink the spread of the generator's features, and their only
unconstrained minimizer is a point mass (`mean_matching` is the control without that pressure). The last two follow the
abstract's data-independent energy; the release has no trace of them.

Published settings (lambda; the network's final output, `normalization: training_set`): FFHQ-5k with CLIP RN50:
StyleGAN2 50, ADA 1, APA 0.5; CIFAR-10 with ResNet-18: 1e-5, 5e-6, 0.1.

Differs from the official code in: features of real pictures are computed once, before training, so `paired` draws its
x_r from the training set where the release takes the i-th picture of the discriminator's minibatch: the same
distribution, without a second forward pass; moments of the pixels are summed up batch by batch, where the release
holds all pictures in memory; weight 0 skips the network.
"""

from typing import Literal

from pydantic import model_validator
from torch import Tensor
from torch.nn.functional import log_softmax

from pygan.context import Context, Step
from pygan.regularizers.frozen_features import FeatureSpec, FeatureTerm
from pygan.spec import spec

Energy = Literal["paired", "to_mean", "entropy", "cross_entropy"]


@spec
class Spec(FeatureSpec):
    kind: Literal["reg_dgm"] = "reg_dgm"
    energy: Energy = "to_mean"
    """Which energy; see the module. `paired` is the official code's."""

    @model_validator(mode="after")
    def _logits(self) -> "Spec":
        if self.energy in ("entropy", "cross_entropy") and self.tap is not None:
            raise ValueError(
                f"energy: {self.energy} is of class logits, so it needs the final output (tap: null), got {self.tap!r}"
            )
        return self

    def build(self, ctx: Context) -> "RegDGM":
        return RegDGM(self, ctx)


class RegDGM(FeatureTerm):
    """`weight` times the mean energy of the generated pictures."""

    def remember(self, real: Tensor) -> None:
        """Keep the features themselves for `paired`, outside the state; the mean label for `cross_entropy`."""
        self._real = real if self.settings.energy == "paired" else None
        labels = log_softmax(real, 1).exp().mean(0) if self.settings.energy == "cross_entropy" else None
        self.register_buffer("real_labels", labels)

    def energy(self, x: Tensor, step: Step) -> Tensor:
        match self.settings.energy:
            case "paired":
                partners = step.draws("reg_dgm/pair").integers(len(self._real))
                return (x - self._real[partners]).square().mean()
            case "to_mean":
                return (x - self.real_mean).square().mean()
            case "entropy":
                log_p = log_softmax(x, 1)
                return -(log_p.exp() * log_p).sum(1).mean()
            case "cross_entropy":
                return -(log_softmax(x, 1) @ self.real_labels).mean()
