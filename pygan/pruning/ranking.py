"""Which entries go: the lowest scores among the living, over all tensors at once or tensor by tensor."""

from typing import Literal

import torch
from torch import Tensor

from pygan.errors import DataError
from pygan.pruning.masks import Masks

Scope = Literal["global", "layer", "scale_free"]


def remove_lowest(scores: dict[str, Tensor], alive: Masks, fraction: float, scope: Scope = "global") -> Masks:
    """Remove the `fraction` of the living entries with the lowest scores.

    Exactly `round(fraction * living)` entries go, of all tensors together or (scope "layer") of each; ties fall in the
    order of names and positions, so the result does not depend on the machine.

    Args:
        scores: not negative.
        alive: of the same names and shapes; those it lacks are all alive.
        scope: "global": one threshold for all tensors; "layer": each tensor loses the same share; "scale_free": one
            threshold for scores divided by the root mean square of their tensor's living ones, so that multiplying a
            tensor by a constant changes nothing (the scale of a spectrally normalized weight is arbitrary).

    Raises:
        ValueError: there is nothing to prune.
        DataError: a tensor would lose its last entry.
    """
    if not scores:
        raise ValueError("got no weights to prune")
    names = sorted(scores)
    alive = {n: alive[n] if n in alive else torch.ones_like(scores[n], dtype=torch.bool) for n in names}
    if scope == "scale_free":
        scores = {n: scores[n].double() / scores[n][alive[n]].double().square().mean().sqrt() for n in names}
    groups = [[n] for n in names] if scope == "layer" else [names]
    for group in groups:
        living = sum(int(alive[n].sum()) for n in group)
        alive |= remove_count({n: scores[n] for n in group}, {n: alive[n] for n in group}, round(fraction * living))
    if gone := [n for n in names if not alive[n].any()]:
        raise DataError(f"pruning leaves nothing of {gone[0]}: prune less, or rank with `scope: layer`")
    return alive


def remove_count(scores: dict[str, Tensor], alive: Masks, count: int) -> Masks:
    """Remove the `count` living entries with the lowest scores over all tensors together."""
    names = sorted(scores)
    living = torch.cat([alive[n].flatten() for n in names])
    ranked = torch.cat([scores[n].flatten().double() for n in names]).masked_fill(~living, torch.inf)
    living[torch.argsort(ranked, stable=True)[:count]] = False
    parts = living.split([scores[n].numel() for n in names])
    return {n: part.view(scores[n].shape).clone() for n, part in zip(names, parts, strict=True)}
