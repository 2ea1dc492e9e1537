"""Less at a time where memory is short."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from pygan.errors import TryAgain

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def in_memory(compute: Callable[[int], _Result], batch: int) -> _Result:
    """Return `compute(batch)`; where an accelerator has not enough memory, with half the batch, and so on.

    Args:
        compute: takes how many pictures to compute at a time; starts over at each call.
        batch: of the first try.

    Raises:
        TryAgain: memory is short for a single picture too.
    """
    while True:
        try:
            return compute(batch)
        except torch.OutOfMemoryError as error:
            if batch == 1:
                raise TryAgain("out of memory with one picture at a time: free memory or use another device") from error
        batch //= 2  # outside of the handler, which holds the tensors of the failed try
        _log.warning("out of memory: trying again with %d pictures at a time", batch)


def in_batches(compute: Callable[[Tensor], Tensor], n: int, batch: int) -> Iterator[Tensor]:
    """Yield `compute(index)` for the indices 0 to `n` - 1, a batch at a time, as `in_memory` makes room for it.

    Only the batch that was yielded last is kept here. Where memory is short, what was yielded before stays as it is.

    Args:
        compute: takes int64 `[B]` and returns `[B, ...]`.
        batch: size of the first batch, and of the others while memory suffices.

    Raises:
        TryAgain: memory is short for a single picture too.
    """

    def part(start: int, size: int) -> Tensor:
        return compute(torch.arange(start, min(start + size, n)))

    start = 0
    while start < n:
        found = in_memory(partial(part, start), batch)
        start, batch = start + len(found), len(found)
        yield found
        del found  # before the next batch is computed
