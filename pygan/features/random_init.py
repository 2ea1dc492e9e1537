"""Random weights for any architecture: the control that tells what a network knows from what it is.

Weights of convolutions and dense layers are drawn with the variance 2 / fan-in (He et al., ICCV 2015, arXiv
1502.01852), and every convolution is then scaled and shifted to mean 0 and variance 1 per channel on random pictures,
as the batch norms that are folded into it would. Everything else that a constructor draws (tokens, tables of positions)
has the standard deviation 0.02; what a constructor sets to a constant stays.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pygan.draws import Draws

_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@torch.no_grad()
def randomize(network: nn.Module, seed: int) -> None:
    """Draw all weights of a frozen network anew, functions of the seed and of their place.

    Args:
        network: a `pygan.features.frozen.FrozenNetwork` whose weights are parameters still.
    """
    convolutions = []
    for i, module in enumerate(network.modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_parameters()
        for j, (name, parameter) in enumerate(module.named_parameters(recurse=False)):
            weighted = isinstance(module, _WEIGHTED)
            if weighted and name == "bias":
                parameter.zero_()
            elif weighted or not bool((parameter == parameter.flatten()[0]).all()):
                rows = parameter.flatten(1) if parameter.dim() > 1 else parameter[:, None]
                std = math.sqrt(2 / rows.shape[1]) if weighted else 0.02
                draws = Draws(seed, f"features/random_init{i}.{j}", torch.arange(len(rows)))
                parameter.copy_((std * draws.normal(rows.shape[1])).view_as(parameter))
        if type(module).forward is nn.Conv2d.forward or hasattr(module, "convolve"):
            convolutions.append(module)
    hooks = [convolution.register_forward_pre_hook(_normalize) for convolution in convolutions]
    network.eval()
    n = 32 if network.resolution <= 64 else 4  # larger pictures have more positions to average over
    network.final(_smooth_pictures(seed, n, network.resolution))  # the hooks see the layers in order
    for hook in hooks:
        hook.remove()


def _normalize(convolution: nn.Module, inputs: tuple[Tensor]) -> None:
    """Scale and shift a convolution so that its output has mean 0 and variance 1 per channel."""
    convolve = getattr(convolution, "convolve", None) or (
        lambda x: convolution._conv_forward(x, convolution.weight, convolution.bias)
    )
    variance, mean = torch.var_mean(convolve(inputs[0]), (0, 2, 3))
    factor = torch.rsqrt(variance + 1e-3)
    convolution.weight *= factor.view(-1, 1, 1, 1)
    if convolution.bias is not None:
        convolution.bias.copy_(-mean * factor)


def _smooth_pictures(seed: int, n: int, side: int) -> Tensor:
    """Return float32 `[n, 3, side, side]` in [-1, 1]: random pictures with equal energy in each octave."""
    index = torch.arange(n)
    octaves = [Draws(seed, f"features/octave{size}", index).normal(3, size, size) for size in (2, 4, 8, 16, 32)]
    return torch.stack([F.interpolate(octave, size=(side, side), mode="bilinear") for octave in octaves]).mean(0).tanh()
