"""The ordinary objective: E weight(sigma) ||D(x0 + sigma eps, sigma) - x0||^2.

Vincent, Neural Computation 2011; Ho et al., NeurIPS 2020, arXiv 2006.11239 (target eps with the levels ddpm); Karras
et al., NeurIPS 2022, arXiv 2206.00364 (the defaults). On a finite set of pictures its minimizer, whatever target and
weight, is the posterior mean over those pictures.
"""

from typing import Literal

from torch import Tensor

from pygan.context import Context
from pygan.diffusion.loss import LossSpec, Noised, shares
from pygan.draws import Draws
from pygan.spec import spec


@spec
class Spec(LossSpec):
    kind: Literal["denoising"] = "denoising"

    def build(self, ctx: Context) -> "Denoising":
        return Denoising(self)


class Denoising:
    """Callable objective: pictures `[N, ...]` and `Draws` of the samples to `Noised`."""

    def __init__(self, spec: LossSpec) -> None:
        self.spec = spec

    def __call__(self, img: Tensor, draws: Draws) -> Noised:
        return self.spec.noised(img, self.spec.sigma(shares(draws)), draws)
