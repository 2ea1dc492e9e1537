"""Paired measurements: the contenders of a case run in turn, so that what disturbs one disturbs its neighbor too."""

import gc
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

_SAMPLE_SECONDS = 0.005
"""Short calls are repeated until they take this long together."""
_COPY_BYTES = 1 << 27


def rounds_of(
    contenders: dict[str, Callable[[], Any]], device: str, repeats: int, fewest: int, limit: float
) -> dict[str, list[float]]:
    """Return seconds a call of every contender, round by round, each round in another order.

    There are `repeats` rounds, or as many as start within `limit` seconds where those are fewer, but at least `fewest`.
    """
    calls = {name: _calls(run, device) for name, run in contenders.items()}
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    start = time.perf_counter()
    gc.collect()
    gc.disable()
    for i in range(repeats):
        if i >= fewest and time.perf_counter() - start > limit:
            break
        shuffle(order)
        for name in order:
            rounds[name].append(seconds(contenders[name], calls[name], device))
    gc.enable()
    return rounds


def _calls(run: Callable[[], Any], device: str) -> int:
    """How many calls make a sample, judged by one of them."""
    return max(1, math.ceil(_SAMPLE_SECONDS / seconds(run, 1, device)))


def seconds(run: Callable[[], Any], calls: int, device: str) -> float:
    """Return the time of one call, averaged over `calls`."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000 / calls
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def median_and_interval(values: list[float]) -> tuple[float, float, float]:
    """Return the median and a 95 % interval around it, from the ranks alone.

    The extremes of fewer than six values enclose the median with less confidence.
    """
    values = sorted(values)
    n = len(values)
    tails = itertools.accumulate(math.comb(n, k) * 0.5**n for k in range(n))
    dropped = max(sum(tail <= 0.025 for tail in tails) - 1, 0)
    return statistics.median(values), values[dropped], values[n - 1 - dropped]


def copy_bandwidth(device: str) -> float:
    """Return bytes a second, read and written, of copying a large tensor."""
    source = torch.ones(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = [seconds(lambda: target.copy_(source), 1, device) for _ in range(9)]
    return 2 * _COPY_BYTES / statistics.median(times)
