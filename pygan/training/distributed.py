"""The processes of one training: torchrun starts them, each computes its share of every batch.

Gradients and buffers are averaged by collectives between the backward pass and the optimizer, as in StyleGAN3's public
code, rather than by a module wrapper: the penalties of R1 and path length differentiate a gradient, which a wrapper's
hooks do not see. Every process ends a step with the same weights, so only the first one writes.

Random numbers belong to global sample indices, so that two processes with 8 pictures each draw what one with 16 draws.
Results are the same up to the rounding of sums, except where pictures are compared or share a draw: batch
normalization, minibatch standard deviation and style mixing take the pictures that one process computes at a time.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from pygan.errors import ConfigError


class Ranks:
    """This process among those of the training.

    Args:
        rank: number of this process.
        size: how many there are.
        device: where this one computes.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, index: Tensor) -> Tensor:
        """Return this process's part of the sample indices of a batch."""
        return index.chunk(self.size)[self.rank].to(self.device)

    def check(self, key: str, batch: int) -> None:
        """Raise `ConfigError` where a batch cannot be shared equally."""
        if batch % self.size:
            raise ConfigError(f"{key}: got {batch}, expected a multiple of the {self.size} processes")

    @torch.no_grad()
    def mean_(self, tensors: Iterable[Tensor]) -> None:
        """Replace floating-point tensors by their means over the processes; equal values keep their bits."""
        if self.size == 1:
            return
        tensors = [tensor for tensor in tensors if tensor.is_floating_point()]
        flat = torch.cat([tensor.flatten().double() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, mean in zip(tensors, (flat / self.size).split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Return the means of numbers that every process has under the same names."""
        means = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        self.mean_([means])
        return dict(zip(values, means.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)


def end_with_parent() -> None:
    """Let the kernel send this process SIGTERM when the process that started it ends, however it ends.

    Only Linux can do so; elsewhere the processes of a killed training go on.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


_PR_SET_PDEATHSIG = 1
"""Of <sys/prctl.h>."""


def join(kind: str | None = None) -> Ranks:
    """Return the place of this process, which computes on a GPU of its own or on the CPU.

    Processes that torchrun started find each other through its environment variables; any other process is alone.

    Args:
        kind: `cuda` or `cpu`; None: `cuda` where there are GPUs.
    """
    rank, size, local = (int(os.environ.get(name, default)) for name, default in _TORCHRUN.items())
    gpu = torch.cuda.is_available() if kind is None else kind == "cuda"
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if size > 1:
        end_with_parent()
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if gpu else "gloo")
    return Ranks(rank, size, device)


_TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
