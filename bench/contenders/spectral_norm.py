"""The parametrization spectral_norm on the weights of convolutions, one power iteration per access."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from contenders.case import FORWARD, MODES, TRAINING, Case, forward, nbytes, training
from pygan import ops

SHAPES = (
    (128, 3, 3, 3),
    (128, 128, 3, 3),
    (256, 256, 3, 3),
    (512, 512, 3, 3),
    (1024, 512, 3, 3),
    (512, 512, 1, 1),
)
GATE = 1.1
MEAN_GATES = {FORWARD: {"formula": 1.3}, TRAINING: {"formula": 1.6}}


def cases(device: str, quick: bool) -> Iterator[Case]:
    for shape in SHAPES:
        weight, u, v = dominated(shape, device)
        for mode in MODES:
            yield _case(weight, u, v, mode)


def dominated(shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """A random weight with one dominant singular value, and its singular vectors.

    Starting there, orders of updating u and v agree after one iteration, and stay there.
    """
    rows = shape[0]
    weight = torch.randn(rows, torch.Size(shape[1:]).numel(), device=device)
    u, v = (torch.nn.functional.normalize(torch.randn(size, device=device), dim=0) for size in weight.shape)
    weight += 4 * sum(size**0.5 for size in weight.shape) * torch.outer(u, v)
    for _ in range(20):
        v = torch.nn.functional.normalize(weight.T @ u, dim=0)
        u = torch.nn.functional.normalize(weight @ v, dim=0)
    return weight.reshape(shape), u, v


def _case(weight: Tensor, u: Tensor, v: Tensor, mode: str) -> Case:
    ours = ops.spectral_norm(_convolution(weight))
    ours.parametrizations.weight[0].u.copy_(u)
    ours.parametrizations.weight[0].v.copy_(v)
    peer = parametrizations.spectral_norm(_convolution(weight))
    peer.parametrizations.weight[0]._u.copy_(u)
    peer.parametrizations.weight[0]._v.copy_(v)
    modules = {"pygan": ours, "formula": peer}
    if mode == FORWARD:
        contenders = {name: forward(lambda module=module: module.weight) for name, module in modules.items()}
    else:
        dy = torch.randn_like(weight)
        contenders = {
            name: training(lambda module=module: module.weight, [module.parametrizations.weight.original], dy)
            for name, module in modules.items()
        }
    return Case(
        name="x".join(map(str, weight.shape)),
        layout="contiguous",
        mode=mode,
        contenders=contenders,
        # w -> w / sigma, and dy, w -> dw
        floor_bytes=(2 if mode == FORWARD else 5) * nbytes(weight),
        gates={"formula": GATE},
        tolerance=1e-4,
    )


def _convolution(weight: Tensor) -> nn.Module:
    out_channels, in_channels, *kernel = weight.shape
    module = nn.Conv2d(in_channels, out_channels, kernel, bias=False, device=weight.device)
    with torch.no_grad():
        module.weight.copy_(weight)
    return module
