"""Random masks: the control of a ticket, as sparse as it but blind.

Chen et al., NeurIPS 2021, figure 7, compare tickets with random pruning. With `like`, tensor by tensor (or in all,
`scope: global`) as many weights live as in that run's ticket, which leaves the choice of the weights as the only
difference; with `sparsity`, no ticket has to be found first. Each of the study's seeds draws its own mask.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pygan.draws import permutation
from pygan.pruning import channels
from pygan.pruning.masks import Masks, Round, prunable
from pygan.pruning.ranking import remove_count, remove_lowest
from pygan.spec import spec


@spec
class Spec:
    kind: Literal["random"] = "random"
    found_in: str
    """Name of the dense run whose start this one shares."""
    rewind_nimg: int = Field(default=0, ge=0)
    """Images seen at that run's snapshot where training starts; 0: the initialization."""
    like: str | None = None
    """Name of the run whose ticket is imitated in networks, layers, structure and number of weights; null: see
    `sparsity`."""
    sparsity: float | None = Field(default=None, gt=0, lt=1)
    """Pruned share of the prunable weights (or channels); null: see `like`."""
    scope: Literal["layer", "global"] = "layer"
    """The number of living weights is right in every tensor, or over all tensors together."""
    draw: int = Field(default=0, ge=0)
    """Another number is another mask for the same seed."""
    networks: tuple[Literal["G", "D"], ...] = Field(default=("G",), min_length=1)
    """As in `lottery`; not with `like`."""
    layers: Literal["conv", "all"] = "conv"
    """As in `lottery`; not with `like`."""
    structure: Literal["weight", "channel"] = "weight"
    """As in `lottery`; with `like` it has to be that run's."""

    @model_validator(mode="after")
    def _one_source(self) -> "Spec":
        if (self.like is None) == (self.sparsity is None):
            raise ValueError("sparsity: expected either `sparsity` or `like`, and not both")
        if self.structure == "channel" and (self.networks != ("G",) or self.layers != "conv"):
            raise ValueError("structure: channels are those of G's convolutions, expected networks [G] and layers conv")
        return self

    def check(self, networks: nn.Module) -> None:
        """Raise ValueError where these networks have nothing to prune; see `Round.networks`."""
        if self.structure == "channel":
            channels.groups_of(networks)
        else:
            prunable(networks, self.networks, self.layers)

    def next_masks(self, last: Round, number: int = 1) -> Masks:
        """Return the masks; `number` is 1, as there is one round."""
        shapes = {name: parameter.shape for name, parameter in last.networks.named_parameters()}
        if self.structure == "weight":
            names = prunable(last.networks, self.networks, self.layers) if last.like is None else list(last.like)
            return self._draw({n: shapes[n] for n in names}, last.like, last.seed)
        groups = channels.groups_of(last.networks)
        like = None if last.like is None else channels.alive_in(groups, last.like)
        alive = self._draw({g.name: shapes[g.name][:1] for g in groups}, like, last.seed)
        return channels.as_weight_masks(groups, alive, shapes)

    def _draw(self, shapes: dict[str, torch.Size], like: Masks | None, seed: int) -> Masks:
        """Return random masks of these shapes with as many living entries as `like`, or by `sparsity`."""
        scores = _random_order(shapes, f"mask/{self.draw}", seed)
        if like is None:
            return remove_lowest(scores, {}, self.sparsity, self.scope)
        whole = {n: torch.ones(shape, dtype=torch.bool) for n, shape in shapes.items()}
        groups = [[n] for n in shapes] if self.scope == "layer" else [list(shapes)]
        result: Masks = {}
        for group in groups:
            dead = sum(int((~like[n]).sum()) for n in group)
            result |= remove_count({n: scores[n] for n in group}, {n: whole[n] for n in group}, dead)
        return result


def _random_order(shapes: dict[str, torch.Size], stream: str, seed: int) -> dict[str, Tensor]:
    """Return the place of every entry in one random order of all, tensors in the order of their names."""
    names = sorted(shapes)
    order = permutation(seed, stream, sum(shapes[n].numel() for n in names))
    parts = order.split([shapes[n].numel() for n in names])
    return {n: part.view(shapes[n]) for n, part in zip(names, parts, strict=True)}
