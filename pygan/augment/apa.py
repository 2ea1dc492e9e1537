"""APA, adaptive pseudo-augmentation: Jiang, Dai, Wu and Loy, "Deceive D: Adaptive Pseudo Augmentation for GAN Training
with Limited Data", NeurIPS 2021 (arXiv 2111.06849).

With probability p each real picture that the discriminator is shown is replaced by a generated one, which it must then
call real. p follows the discriminator as in ADA: up where the mean sign of the logits of (augmented and deceived) real
pictures exceeds the target. No gradient reaches the generator through the deceit, and its own step has none. R1 sees
what the discriminator is deceived with, drawn anew, as in the authors' code.

With a `family`, ADA's transforms of that family are applied to all pictures with the same p (`--with-dataaug` of the
authors and of Reg-ADA-APA: Zhong et al., ICLR 2023, arXiv 2208.14133).

Differs from the official code in: the generated pictures are those of the discriminator's own step, not those of the
generator step before it (the same distribution, and nothing to keep for a resumed run); a generated picture brings its
own label, where the official code leaves it the label of the picture that it replaces.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.augment.ada import ADA, FAMILIES, check_family
from pygan.context import Context
from pygan.draws import Draws
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["apa"] = "apa"
    family: Literal[tuple(FAMILIES)] | None = None
    """ADA's transforms, applied with the same p; null: none (the paper), bgc: as Reg-ADA-APA."""
    p: float = Field(default=0.0, ge=0, le=1)
    """Probability of replacing a real picture, at the start if there is a target."""
    target: float | None = Field(default=0.6, ge=-1, le=1)
    """Mean sign of the real logits that p is adjusted to; null: p stays. The paper's threshold t."""
    interval: int = Field(default=4, ge=1)
    """Training steps between two adjustments of p."""
    speed_kimg: float = Field(default=500.0, gt=0)
    """Thousands of real pictures in which p can move by 1."""

    def build(self, ctx: Context) -> "APA":
        """Raise ValueError where the family cannot work on the pictures of `ctx`."""
        transforms = () if self.family is None else check_family(self.family, ctx)
        return APA(
            dict.fromkeys(transforms, 1.0),
            p=self.p,
            target=self.target,
            interval=self.interval,
            speed_kimg=self.speed_kimg,
        )


class APA(ADA):
    """ADA whose p is also the probability that a real picture is replaced; without transforms it shows pictures as
    they are. Its state is ADA's.
    """

    def forward(self, img: Tensor, draws: Draws) -> Tensor:
        """Return augmented pictures; see `ADA.forward`."""
        return super().forward(img, draws) if self.multipliers else img

    def deceive(
        self, real_img: Tensor, real_c: Tensor | None, gen_img: Tensor, gen_c: Tensor | None, draws: Draws
    ) -> tuple[Tensor, Tensor | None]:
        """Return the pictures `[N, C, H, W]` and labels `[N]` that pass as real.

        Args:
            real_img: `[N, C, H, W]` in [-1, 1].
            real_c: their labels `[N]`, or None.
            gen_img: as many generated pictures; their graph is left behind.
            gen_c: their labels `[N]`, or None.
            draws: random numbers for those N samples.
        """
        replaced = draws.uniform() < self.p
        img = torch.where(replaced[:, None, None, None], gen_img.detach(), real_img)
        return img, None if real_c is None else torch.where(replaced, gen_c, real_c)
