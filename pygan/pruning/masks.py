"""Masks as values: a dict from parameter name to a bool tensor, True where the weight lives.

Names are those of a snapshot: `G.*` in the generator, `D.0.network.*` in the base discriminator.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pygan.context import Context
from pygan.errors import DataError

Masks = dict[str, Tensor]
Layers = Literal["conv", "all"]
Network = Literal["G", "D"]


@dataclass(frozen=True, kw_only=True)
class Round:
    """What a pruner sees: networks after a training, and the masks they wore."""

    networks: nn.Module
    """Children `G` and `D` as a run has them; their names, shapes and topology count, not their values."""
    state: dict[str, Tensor] = field(default_factory=dict)
    """The trained snapshot, names as in `networks`, the averaged generator as `G_ema.*`."""
    masks: Masks = field(default_factory=dict)
    """Those of the training; empty: dense."""
    like: Masks | None = None
    """Masks of another run, where the pruner asks for them."""
    seed: int = 0
    """The run's."""


def bare_networks(base: Any, ctx: Context) -> nn.Module:
    """Return the networks of a run without memory, for `Round.networks`.

    Args:
        base: `Spec` of the base network.
    """
    with torch.device("meta"):
        D = nn.ModuleDict({"network": base.discriminator(ctx)})
        return nn.ModuleDict({"G": base.generator(ctx), "D": nn.ModuleList([D])})


def prunable(networks: nn.Module, which: tuple[Network, ...] = ("G",), layers: Layers = "conv") -> list[str]:
    """Return the names of the weights that may be pruned, in the order of the networks.

    Args:
        networks: has the children `G` and `D`, or those of them that `which` names.
        which: G, D or both; of the discriminators the base network's own, the first one.
        layers: "conv": 4-D weights, those of convolutions, which the lottery-ticket paper prunes; "all": those of
            linear layers too. Biases, normalizations and embeddings are never pruned; a spectrally normalized layer is
            masked before the normalization, which then sees the sparse weight.

    Raises:
        ValueError: a network has no such weights.
    """
    found = []
    for network in which:
        prefix = "G." if network == "G" else "D.0."
        names = [n for n, p in networks.named_parameters() if n.startswith(prefix) and _is_in(layers, networks, n, p)]
        if not names:
            raise ValueError(f"networks: got {network}, which has no {_WORDS[layers]} to prune")
        found += names
    return found


_WORDS = {"conv": "convolution weights (4-D)", "all": "convolution or linear weights"}


def _is_in(layers: Layers, networks: nn.Module, name: str, parameter: Tensor) -> bool:
    if parameter.dim() == 4:
        return True
    owner, parametrized, _ = name.partition(".parametrizations.")
    layer = networks.get_submodule(owner if parametrized else name.rpartition(".")[0])
    return layers == "all" and parameter.dim() == 2 and not isinstance(layer, nn.Embedding)


def sparsity(masks: Masks) -> float:
    """Return the pruned fraction of the masked tensors."""
    return 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


def shares(networks: nn.Module, masks: Masks) -> dict[str, dict[str, float]]:
    """Return how much lives of the convolutions and of all parameters of each network, and of both together.

    "20 % sparse" in the lottery-ticket papers means `G_conv`: linear layers, biases, normalizations and D come on top.

    Returns:
        `G_conv`, `G`, `D_conv`, `D` and `all`, each with `parameters`, `living` and `sparsity`. `D` is the base
        network's own discriminator, the only one `networks` is expected to have.
    """
    counts: dict[str, list[int]] = {key: [0, 0] for key in ("G_conv", "G", "D_conv", "D", "all")}
    for name, parameter in networks.named_parameters():
        living = int(masks[name].sum()) if name in masks else parameter.numel()
        network = name.partition(".")[0]
        for key in (network, "all", *([f"{network}_conv"] if parameter.dim() == 4 else [])):
            counts[key][0] += parameter.numel()
            counts[key][1] += living
    return {
        key: {"parameters": total, "living": living, "sparsity": 1 - living / total}
        for key, (total, living) in counts.items()
        if total
    }


def check_fit(networks: nn.Module, masks: Masks, source: str) -> None:
    """Raise DataError where a mask names a parameter that the networks lack, or has another shape."""
    parameters = dict(networks.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise DataError(f"{source}: made for another architecture, {name} is no parameter of this one")
        if parameters[name].shape != mask.shape:
            got, expected = list(mask.shape), list(parameters[name].shape)
            raise DataError(f"{source}: made for another architecture, {name} has shape {got}, expected {expected}")


class Masked:
    """The masked parameters of one network, kept exactly zero through training.

    Args:
        network: its parameters named by `masks` are multiplied in place.
        masks: names as in `network`; empty leaves the network dense.

    Raises:
        DataError: a mask names a tensor the network lacks or has another shape.
    """

    def __init__(self, network: nn.Module, masks: Masks) -> None:
        check_fit(network, masks, "the mask")
        parameters = dict(network.named_parameters())
        self._pairs = [(parameters[name], mask.to(parameters[name].device)) for name, mask in masks.items()]

    @torch.no_grad()
    def zero_weights(self) -> None:
        """Set every pruned weight to zero."""
        for parameter, mask in self._pairs:
            parameter.masked_fill_(~mask, 0)

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Set the gradient of every pruned weight to zero."""
        for parameter, mask in self._pairs:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~mask, 0)


def intersection_over_union(a: Masks, b: Masks) -> float:
    """Return |A and B| / |A or B| over the living weights of two masks.

    Raises:
        DataError: they are of different tensors.
    """
    if different := sorted(a.keys() ^ b.keys()) or [n for n in a if a[n].shape != b[n].shape]:
        raise DataError(f"masks of different networks or layers: {different[0]} is not the same in both")
    both = sum(int((a[name] & b[name]).sum()) for name in a)
    either = sum(int((a[name] | b[name]).sum()) for name in a)
    return both / either


def as_masks(tensors: dict[str, Tensor], source: str = "mask") -> Masks:
    """Return the masks of a mask file's tensors, uint8, 1 where the weight lives.

    Args:
        source: the file, for the error message.

    Raises:
        DataError: a name is not that of a parameter of G or D.
    """
    if wrong := [name for name in tensors if not name.startswith(("G.", "D."))]:
        raise DataError(f"{source}: not a mask file, got {wrong[0]}, expected names that begin with G. or D.")
    return {name: tensor.bool() for name, tensor in tensors.items()}


def compare(a: Masks, b: Masks) -> dict[str, Any]:
    """Return the overlap of two masks: in all, expected of independent masks, and tensor by tensor.

    A weight lives in both of two independent masks with the product of the densities p and q of its tensor, so their
    expected intersection over union is sum n p q / sum n (p + q - p q).
    """
    total = intersection_over_union(a, b)
    chance_both = sum(m.numel() * _density(m) * _density(b[n]) for n, m in a.items())
    living = sum(int(m.sum()) + int(b[n].sum()) for n, m in a.items())
    return {
        "intersection_over_union": total,
        "expected_by_chance": chance_both / (living - chance_both),
        "tensors": {n: intersection_over_union({n: a[n]}, {n: b[n]}) for n in a},
    }


def _density(mask: Tensor) -> float:
    return int(mask.sum()) / mask.numel()
