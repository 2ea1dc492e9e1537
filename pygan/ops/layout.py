"""What the operators agree on, as csrc/common has it: element types, the type of sums, and memory formats."""

import torch
from torch import Tensor

DTYPES = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
"""Types of elements that have kernels."""


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the type that elements of `dtype` are computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_channels_last(x: Tensor) -> bool:
    """True for `[N, C, H, W]` whose channels lie side by side; False where there is one channel."""
    return x.dim() == 4 and x.stride(1) == 1 and x.shape[1] > 1


def memory_format(channels_last: bool) -> torch.memory_format:
    """Return the memory format of outputs."""
    return torch.channels_last if channels_last else torch.contiguous_format
