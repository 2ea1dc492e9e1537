"""Masks as values: a dict from parameter name to a bool tensor, True where the weight lives."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]


def prunable(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the convolution weights (4-D tensors) of a state dict: what the lottery-ticket papers prune."""
    return {name: tensor for name, tensor in state.items() if tensor.dim() == 4}


def sparsity(masks: Masks) -> float:
    """Return the pruned fraction of the masked tensors."""
    return 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


class Masked:
    """The masked parameters of one network, kept exactly zero through training.

    Args:
        network: its parameters named by `masks` are multiplied in place.
        masks: empty leaves the network dense.

    Raises:
        ValueError: a mask names a tensor the network lacks or has another shape.
    """

    def __init__(self, network: nn.Module, masks: Masks) -> None:
        parameters = dict(network.named_parameters())
        for name, mask in masks.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                found = tuple(parameters[name].shape) if name in parameters else "no such tensor"
                raise ValueError(f"mask {name}: got shape {tuple(mask.shape)}, the network has {found}")
        self._pairs = [(parameters[name], mask) for name, mask in masks.items()]

    @torch.no_grad()
    def zero_weights(self) -> None:
        """Set every pruned weight to zero."""
        for parameter, mask in self._pairs:
            parameter.mul_(mask)

    @torch.no_grad()
    def zero_gradients(self) -> None:
        """Set the gradient of every pruned weight to zero."""
        for parameter, mask in self._pairs:
            if parameter.grad is not None:
                parameter.grad.mul_(mask)


def intersection_over_union(a: Masks, b: Masks) -> float:
    """Return |A and B| / |A or B| over the living weights of two masks of the same tensors."""
    pairs: Iterable[tuple[Tensor, Tensor]] = [(a[name], b[name]) for name in a]
    both = sum(int((x & y).sum()) for x, y in pairs)
    either = sum(int((x | y).sum()) for x, y in pairs)
    return both / either
