"""Less at a time where memory is short."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

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
