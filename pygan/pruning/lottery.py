"""Lottery tickets: iterative magnitude pruning with rewinding on the small data set itself.

Chen et al., "Data-Efficient GAN Training Beyond (Just) Augmentations: A Lottery Ticket Perspective", NeurIPS 2021,
Algorithm 1; Frankle and Carbin, ICLR 2019 (arXiv 1803.03635). A round is an ordinary training followed by this file,
which only makes the next mask; the next training starts again from the snapshot at `rewind_nimg` with that mask.

As in the released code, the convolution weights of G alone are pruned, globally (one threshold for all of them) and by
the raw weights rather than their moving average; the paper's algorithm prunes D too.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pygan.pruning.masks import Masks, prunable
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["lottery"] = "lottery"
    found_in: str
    """Name of the run whose dense training is round zero."""
    rounds: int = Field(default=1, ge=1)
    """Prunings; after k rounds 1 - (1 - fraction)^k of the prunable weights are gone."""
    fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the remaining weights that a round removes (the paper's rho)."""
    rewind_nimg: int = Field(default=0, ge=0)
    """Images seen at the snapshot that training rewinds to; 0: the initialization, as published."""

    def next_masks(self, state: dict[str, Tensor], masks: Masks) -> Masks:
        """Return the masks of the next round.

        Args:
            state: state dict of the trained generator.
            masks: those it was trained with; empty in round one.
        """
        return prune_by_magnitude(prunable(state), masks, self.fraction)


def prune_by_magnitude(weights: dict[str, Tensor], masks: Masks, fraction: float) -> Masks:
    """Remove the `fraction` of the living weights with the smallest magnitude, ranked over all tensors at once.

    Exactly `round(fraction * living)` weights go; ties fall in the order of names and positions, so the result does
    not depend on the machine.

    Raises:
        ValueError: there is nothing to prune.
    """
    names = sorted(weights)
    if not names:
        raise ValueError("prune: got a network without convolution weights, expected at least one 4-D tensor")
    alive = torch.cat([masks.get(n, torch.ones_like(weights[n], dtype=torch.bool)).flatten() for n in names])
    magnitude = torch.cat([weights[n].abs().flatten().float() for n in names])
    order = torch.argsort(magnitude.masked_fill(~alive, torch.inf), stable=True)
    alive[order[: round(fraction * int(alive.sum()))]] = False
    parts = alive.split([weights[n].numel() for n in names])
    return {n: part.view(weights[n].shape).clone() for n, part in zip(names, parts, strict=True)}
