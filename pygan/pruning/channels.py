"""Whole channels: which of a generator's channels can go, and the smaller generator that is left.

A channel inside a generator is written by one convolution and read by the next, with a normalization in between. When
the weights that write it, the normalization's gain and bias, and the weights that read it are zero, it is zero itself
and can be cut out: what remains is a dense network of fewer channels that computes the same pictures, up to the order
of sums.

Removable are the outputs of every convolution of dcgan but the last, and the channels between the two convolutions of
a residual block (sngan): those on the residual path are shared by all blocks. BigGAN's gains are `1 + W y`, which no
zeros in W turn off, and StyleGAN2's channels have styles, so both have none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pygan.networks.layers import ConditionalBatchNorm, UpBlock, UpsampledConv
from pygan.pruning.masks import Masks

Axis = tuple[str, int]
"""A tensor's name and the dimension that counts the channels."""


@dataclass(frozen=True)
class Channels:
    """The channels between two convolutions of a generator."""

    written: Axis
    """The weight that writes them."""
    others: tuple[Axis, ...]
    """Bias, normalization and the weight that reads them."""
    statistics: tuple[Axis, ...]
    """Buffers of the normalization."""

    @property
    def name(self) -> str:
        return self.written[0]

    @property
    def parameters(self) -> tuple[Axis, ...]:
        return (self.written, *self.others)


def channels_of(G: nn.Module, prefix: str = "") -> list[Channels]:
    """Return the removable channels of a generator, in the order of its layers; empty where it has none.

    Args:
        prefix: of all names, "G." for those of a snapshot.
    """
    found = []
    for name, block in G.named_modules(prefix=prefix.removesuffix(".")):
        removable = isinstance(block, UpBlock) and isinstance(block.norm2, ConditionalBatchNorm)
        if removable and not is_parametrized(block.conv1.conv):
            others, statistics = _normalization(f"{name}.norm2", block.norm2)
            others = ((f"{name}.conv1.bias", 0), *others, (f"{name}.conv2.conv.weight", 1))
            found.append(Channels((f"{name}.conv1.conv.weight", 0), others, statistics))
    convs = getattr(G, "convs", ())
    if convs and all(isinstance(conv, UpsampledConv) for conv in convs):  # a plain chain, as in dcgan
        readers = [*(f"{prefix}convs.{i}.weight" for i in range(1, len(convs))), f"{prefix}to_img.conv.weight"]
        for i, reader in enumerate(readers):
            others, statistics = _normalization(f"{prefix}norms.{i + 1}", G.norms[i + 1])
            found.append(Channels((f"{prefix}convs.{i}.weight", 0), (*others, (reader, 1)), statistics))
    return found


def groups_of(networks: nn.Module) -> list[Channels]:
    """Return the removable channels of `networks.G`, names as in a snapshot.

    Raises:
        ValueError: it has none.
    """
    groups = channels_of(networks.G, "G.")
    if not groups:
        base = type(networks.G).__module__.rsplit(".", 1)[-1]
        raise ValueError(f"structure: got channel, but {base} has no channels that can go, expected dcgan or sngan")
    return groups


def _normalization(name: str, norm: ConditionalBatchNorm) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """Return the parameters and the buffers of a normalization."""
    affine = ("gain.weight", "bias.weight") if norm.conditional else ("norm.weight", "norm.bias")
    axis = 1 if norm.conditional else 0
    statistics = tuple((f"{name}.norm.{buffer}", 0) for buffer in ("running_mean", "running_var"))
    return tuple((f"{name}.{parameter}", axis) for parameter in affine), statistics


def magnitudes(groups: list[Channels], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the L1 norm of the weights that write each channel, `[channels]` by the name of the group.

    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (arXiv 1608.08710), section 3.1.
    """
    return {group.name: state[group.name].double().abs().sum((1, 2, 3)) for group in groups}


def alive_in(groups: list[Channels], masks: Masks) -> Masks:
    """Return which channels masks leave alive, `[channels]` by group; a tensor without a mask is alive."""
    return {group.name: masks[group.name].any(3).any(2).any(1) for group in groups if group.name in masks}


def as_weight_masks(groups: list[Channels], alive: Masks, shapes: dict[str, torch.Size]) -> Masks:
    """Return masks of all parameters that dead channels turn off."""
    masks: Masks = {}
    for group in groups:
        for name, dim in group.parameters:
            mask = masks.setdefault(name, torch.ones(shapes[name], dtype=torch.bool))
            view = [1] * mask.dim()
            view[dim] = -1
            mask &= alive[group.name].view(view)
    return masks


def living_channels(G: nn.Module) -> dict[str, list[int]]:
    """Return the channels of every group that are not zero through and through; a group that is all alive is left out.

    A dead channel has zeros in all its parameters.
    """
    parameters = dict(G.named_parameters())
    found = {}
    for group in channels_of(G):
        alive = torch.zeros(parameters[group.name].shape[0], dtype=torch.bool)
        for name, dim in group.parameters:
            alive |= (parameters[name].detach().movedim(dim, 0) != 0).reshape(len(alive), -1).any(1)
        if not alive.all():
            found[group.name] = alive.nonzero().flatten().tolist()
    return found


def slim(G: nn.Module, living: dict[str, list[int]]) -> nn.Module:
    """Cut the other channels out of `G`, in place, and return it.

    Args:
        living: by group, as `living_channels` gives it.

    Raises:
        ValueError: no such group, or a channel that it does not have.
    """
    groups = {group.name: group for group in channels_of(G)}
    for name, kept in living.items():
        if name not in groups:
            raise ValueError(f"got channels of {name}, expected one of {', '.join(groups) or 'none'}")
        size = G.get_parameter(name).shape[0]
        if not kept or sorted(set(kept)) != list(kept) or not 0 <= kept[0] <= kept[-1] < size:
            raise ValueError(f"{name}: got channels {kept}, expected increasing numbers below {size}")
        index = torch.tensor(kept)
        for tensor_name, dim in (*groups[name].parameters, *groups[name].statistics):
            owner_name, _, leaf = tensor_name.rpartition(".")
            owner = G.get_submodule(owner_name)
            old = getattr(owner, leaf)
            new = old.detach().index_select(dim, index.to(old.device))
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            setattr(owner, leaf, new)
    return G
