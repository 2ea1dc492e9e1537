"""LeCam: Tseng, Jiang, Liu, Yang and Yang, "Regularizing Generative Adversarial Networks under Limited Data", CVPR 2021
(arXiv 2104.03310).

Logits D(x) of real and D(G(z)) of generated pictures are held near anchors alpha_F and alpha_R, the moving averages of
the *other* side's logits. Before the term is computed, the anchors move by `alpha <- decay alpha + (1 - decay) mean`.
Three forms are in circulation (means over the batch, [t]+ = max(t, 0)):

- `paper`: E (D(x) - alpha_F)^2 + E (D(G(z)) - alpha_R)^2
- `official`, the authors' code: E [D(x) - alpha_F]+^2 + E [alpha_R - D(G(z))]+^2, the same while real logits are above
  alpha_F and generated ones below alpha_R, nothing beyond
- `gsr`, the release of gSR (Rangwani et al., ECCV 2022): E [D(x) - alpha_F]+^2 + E [D(G(z)) - alpha_R]+^2, whose second
  half is nothing until generated pictures score above alpha_R

Published settings: paper, decay 0.99; `official` on CIFAR, weight 0.3, decay 0.9, start_step 1000; `gsr`, weight 0.01
to 1, decay 0.99, start_step 1.

The anchors are those of the base discriminator, the first one: the paper regularizes a discriminator that can memorize
its few pictures, and heads on frozen features are trained without it. It also makes their shape independent of the
run's heads.

Differs from the official codes in: until `start_step` the anchors are the batch's means (`official`: likewise, the term
then starting one step later; `gsr`: 0), so that they begin where the logits are; `gsr` keeps an anchor for every
position in the batch, whose mean follows the recursion of the one here, and forgets its anchors when a run is resumed.
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu

from pygan.context import Context, Step
from pygan.spec import spec

Form = Literal["paper", "official", "gsr"]


@spec
class Spec:
    kind: Literal["lecam"] = "lecam"
    weight: float = Field(default=0.3, gt=0)
    """Factor of the term (the paper's lambda)."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Of the anchors, per discriminator step (the paper's gamma)."""
    start_step: int = Field(default=1000, ge=0)
    """Generator steps before the term is added."""
    form: Form = "official"
    """Which formula; see the module."""

    def build(self, ctx: Context) -> "LeCam":
        return LeCam(self.weight, self.decay, self.start_step, self.form).to(ctx.device)


class LeCam(nn.Module):
    """`weight` times the squared distance of D's logits from the anchors, which are its state."""

    phases = ("D",)
    every = 1

    def __init__(self, weight: float, decay: float, start_step: int, form: Form) -> None:
        super().__init__()
        self.weight = weight
        self.decay = decay
        self.start_step = start_step
        self.distances = DISTANCES[form]
        self.register_buffer("real_anchor", torch.zeros([]))
        self.register_buffer("gen_anchor", torch.zeros([]))

    def forward(self, step: Step) -> Tensor:
        real, gen = step.real_logits[0], step.gen_logits[0]
        started = step.step >= self.start_step
        self._move(self.real_anchor, real, started)
        self._move(self.gen_anchor, gen, started)
        if not started:
            return real.new_zeros([])
        above, below = self.distances(real, gen, self.real_anchor, self.gen_anchor)
        return self.weight * (above.square().mean() + below.square().mean())

    @torch.no_grad()
    def _move(self, anchor: Tensor, logits: Tensor, started: bool) -> None:
        """Move towards the mean of `logits`; all the way before the start."""
        anchor.lerp_(logits.mean().to(anchor.dtype), 1 - self.decay if started else 1.0)


DISTANCES: dict[Form, Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "paper": lambda real, gen, real_anchor, gen_anchor: (real - gen_anchor, gen - real_anchor),
    "official": lambda real, gen, real_anchor, gen_anchor: (relu(real - gen_anchor), relu(real_anchor - gen)),
    "gsr": lambda real, gen, real_anchor, gen_anchor: (relu(real - gen_anchor), relu(gen - real_anchor)),
}
"""Real logits, generated logits and their anchors to the two distances that are squared."""
