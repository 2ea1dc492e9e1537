"""group_spectral_sigma on the conditional gains of a generator: 10 classes, 6 layers of 256 channels as 16x16."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from contenders.case import FORWARD, MODES, Case, nbytes, runs
from contenders.spectral_norm import dominated
from pygan import ops

CLASSES, LAYERS, SIDE = 10, 6, 16
ITERATIONS, EPS = 4, 1e-3


def cases(device: str, quick: bool) -> Iterator[Case]:
    matrices = [[dominated((SIDE, SIDE), device) for _ in range(CLASSES)] for _ in range(LAYERS)]
    Es, us, vs = ([torch.stack([matrix[i] for matrix in layer]) for layer in matrices] for i in range(3))

    def ours(*Es: Tensor) -> Tensor:
        return torch.stack(ops.group_spectral_sigma(list(Es), us, vs, ITERATIONS, EPS)[0])

    def by_matmul(*Es: Tensor) -> Tensor:
        return torch.stack([power_iteration(*layer) for layer in zip(Es, us, vs, strict=True)])

    functions = {"pygan": ours, "svdvals": by_svdvals, "batched matmul": by_matmul}
    for mode in MODES:
        inputs = [E.requires_grad_(mode != FORWARD) for E in Es]
        yield Case(
            name=f"{CLASSES} classes, {LAYERS} layers of {SIDE}x{SIDE}",
            layout="contiguous",
            mode=mode,
            contenders=runs(mode, functions, *inputs),
            # E, u, v -> sigma, u, v, and u, v -> dE
            floor_bytes=nbytes(*Es, *us, *vs, *us, *vs) + (0 if mode == FORWARD else nbytes(*us, *vs, *Es)),
            tolerance=1e-4,
            headline=True,
        )


def by_svdvals(*Es: Tensor) -> Tensor:
    """The exact value, layer by layer."""
    return torch.stack([torch.linalg.svdvals(E)[:, 0] for E in Es])


def power_iteration(E: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The estimate of gSR's code: the classes of a layer as a batch of matrices, [C, h, w] -> [C]."""
    with torch.no_grad():
        for _ in range(ITERATIONS):
            v = F.normalize(torch.bmm(E.mT, u[:, :, None])[:, :, 0], dim=1, eps=EPS)
            u = F.normalize(torch.bmm(E, v[:, :, None])[:, :, 0], dim=1, eps=EPS)
    return (u * torch.bmm(E, v[:, :, None])[:, :, 0]).sum(1)
