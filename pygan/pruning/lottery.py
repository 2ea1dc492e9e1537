"""Lottery tickets: iterative magnitude pruning with rewinding on the small data set itself.

Chen et al., "Data-Efficient GAN Training Beyond (Just) Augmentations: A Lottery Ticket Perspective", NeurIPS 2021,
Algorithm 1; Frankle and Carbin, ICLR 2019 (arXiv 1803.03635). A round is an ordinary training followed by this file,
which only makes the next mask; the next training starts again from the initialization (or from the snapshot at
`rewind_nimg`) with that mask. `rounds: 1` with a larger `fraction` is one-shot pruning.

Paper and released code disagree, and the switches below say which is which:

- networks: the algorithm prunes G and D with one threshold, the code that ships prunes G alone (D is rewound and stays
  dense): `networks: [G, D]` or `[G]`.
- layers: both prune the weights of convolutions alone, so "20 % sparse" counts neither linear layers nor D.
- ranking: global, no rescaling. The BigGAN driver ranks by the final raw weights before spectral normalization
  (`weights: raw`), the SNGAN driver prunes G and its moving average apart and trains the ticket with the average's mask
  (`weights: ema` is the nearest sound rule).

Differs from the official code in: of n living weights a round removes round(fraction n), where the BigGAN driver
removes int(fraction n) + 1, which is the same number or one more.

Not reproduced, because they are accidents: the SNGAN driver ranks by stale copies (PyTorch's pruning refreshes them in
forward only: G by the averaged weights of the last validation, the average by the weights of the previous pruning); and
its masked entries stay at their initial values behind a forward hook. Here, as in the BigGAN driver, a pruned weight
*is* zero, spectral normalization sees the sparse weight (its vectors are rewound with the rest and adapt), and the
initialization comes from the run's seed.
"""

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor, nn

from pygan.pruning import channels
from pygan.pruning.masks import Masks, Round, prunable
from pygan.pruning.ranking import remove_lowest
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
    fractions: tuple[float, ...] | None = None
    """One share for every round, in place of `fraction`; null: the same in all."""
    rewind_nimg: int = Field(default=0, ge=0)
    """Images seen at the snapshot that training rewinds to, with optimizers and average; 0: the initialization, as
    published."""
    scope: Literal["global", "layer", "scale_free"] = "global"
    """Ranking over all layers at once (as published), in each layer, or over all of them after dividing by a layer's
    root mean square."""
    weights: Literal["raw", "ema"] = "raw"
    """What is ranked in G: the trained weights or their moving average; D has no average."""
    networks: tuple[Literal["G", "D"], ...] = Field(default=("G",), min_length=1)
    """G: the released code; G and D: the paper's algorithm, one ranking for both; D: the base network's own."""
    layers: Literal["conv", "all"] = "conv"
    """Convolutions (as published) or linear layers too."""
    structure: Literal["weight", "channel"] = "weight"
    """Single weights, or whole channels of G by the L1 norm of the weights that write them (dcgan, sngan; with `scope:
    layer` or `scale_free`): sampling then runs on a smaller dense network."""

    @model_validator(mode="after")
    def _consistent(self) -> "Spec":
        if self.fractions is not None and len(self.fractions) != self.rounds:
            raise ValueError(f"fractions: got {len(self.fractions)}, expected one for each of {self.rounds} rounds")
        if bad := [f for f in self.fractions or () if not 0 < f < 1]:
            raise ValueError(f"fractions: got {bad[0]}, expected numbers between 0 and 1")
        if len(set(self.networks)) < len(self.networks):
            raise ValueError(f"networks: got {list(self.networks)}, expected each of them once")
        if self.structure == "channel" and (self.networks != ("G",) or self.layers != "conv"):
            raise ValueError("structure: channels are those of G's convolutions, expected networks [G] and layers conv")
        if self.structure == "channel" and self.scope == "global":
            raise ValueError(
                "scope: norms of channels in different layers do not compare, expected layer or scale_free"
            )
        return self

    def check(self, networks: nn.Module) -> None:
        """Raise ValueError where these networks have nothing to prune; see `Round.networks`."""
        if self.structure == "channel":
            channels.groups_of(networks)
        else:
            prunable(networks, self.networks, self.layers)

    def next_masks(self, last: Round, number: int = 1) -> Masks:
        """Return the masks of round `number`, from the networks trained with those of the round before."""
        fraction = self.fraction if self.fractions is None else self.fractions[number - 1]
        if self.structure == "channel":
            groups = channels.groups_of(last.networks)
            state = {g.name: self._ranked(last.state, g.name) for g in groups}
            scores, alive = channels.magnitudes(groups, state), channels.alive_in(groups, last.masks)
            alive = remove_lowest(scores, alive, fraction, self.scope)
            shapes = {name: p.shape for name, p in last.networks.named_parameters()}
            return channels.as_weight_masks(groups, alive, shapes)
        names = prunable(last.networks, self.networks, self.layers)
        return remove_lowest({n: self._ranked(last.state, n).abs() for n in names}, last.masks, fraction, self.scope)

    def _ranked(self, state: dict[str, Tensor], name: str) -> Tensor:
        """Return the tensor that stands for a weight in the ranking."""
        averaged = f"G_ema.{name.removeprefix('G.')}"
        return state[averaged] if self.weights == "ema" and name.startswith("G.") else state[name]
