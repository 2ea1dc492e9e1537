"""Mean-only feature matching, the control of Reg-DGM: |E phi(G(z)) - mean of phi over the training set|^2 / F.

Reg-DGM's data-dependent energy is this plus tr Cov(phi(G(z))) / F, which pulls all generated pictures towards one
another. What mean matching gains too was not gained by that. After the feature matching of Salimans et al., "Improved
Techniques for Training GANs", NeurIPS 2016 (arXiv 1606.03498), eq. 8, with a frozen pretrained network in the place of
the discriminator.

Differs from eq. 8 in: the squared distance of the batch mean is an estimate with a share 1/N of the trace; that share
is taken off, so that no pressure on the spread is left, and a batch's value can fall below 0.
"""

from typing import Literal

from torch import Tensor

from pygan.context import Context, Step
from pygan.regularizers.frozen_features import FeatureSpec, FeatureTerm, squared_mean_distance
from pygan.spec import spec


@spec
class Spec(FeatureSpec):
    kind: Literal["mean_matching"] = "mean_matching"

    def build(self, ctx: Context) -> "MeanMatching":
        return MeanMatching(self, ctx)


class MeanMatching(FeatureTerm):
    """`weight` times the squared distance of the means of generated and real features, per feature."""

    def energy(self, x: Tensor, step: Step) -> Tensor:
        return squared_mean_distance(x, self.real_mean) / x.shape[1]
