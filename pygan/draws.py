"""Counter-based random draws: every number is a function of (seed, stream, global sample index, call).

No generator is carried along, so a resumed run repeats exactly without saved state, and two ranks that each hold half
of the indices draw what one rank with all of them draws. The bits come from the SplitMix64 finalizer (Steele, Lea and
Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), applied once per key. They are made on the CPU
whatever the device, so they are the same on all of them.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

_GAMMA, _MIX1, _MIX2 = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_LOW, _HIGH = np.uint64(0xFFFFFF), np.uint64(40)  # the lowest 24 bits; a shift that leaves the highest 24


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble uint64 numbers; arrays wrap around silently."""
    x = x + _GAMMA
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def _key(*parts: object) -> np.uint64:
    """A stable 64-bit key of a few small values."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


class Draws:
    """Random numbers for the samples `index` of one stream; each call draws anew.

    Args:
        seed: the run's seed.
        stream: what the numbers are for, for example "z/D" or "augment/G"; streams are independent.
        index: int64 `[N]`, global sample indices; the numbers come on its device.
    """

    def __init__(self, seed: int, stream: str, index: Tensor) -> None:
        self._device = index.device
        self._rows = _mix(index.cpu().numpy().astype(np.uint64))
        self._name = (seed, stream)
        self._calls = 0

    def _bits(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return uint64 `[N, *shape]` of 64 random bits."""
        key = _key(*self._name, self._calls)
        self._calls += 1
        columns = np.arange(math.prod(shape), dtype=np.uint64)
        return _mix(_mix(self._rows ^ key)[:, None] + columns).reshape(-1, *shape)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 `[N, *shape]` in [0, 1), 24 bits each."""
        return self._tensor((self._bits(shape) >> _HIGH).astype(np.float32) * np.float32(2**-24))

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal float32 `[N, *shape]` (Box-Muller on one 64-bit draw each)."""
        bits = self._bits(shape)
        radius = np.sqrt(-2 * np.log(((bits >> _HIGH).astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)))
        return self._tensor(radius * np.cos((bits & _LOW).astype(np.float32) * np.float32(2 * math.pi * 2**-24)))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return int64 `[N, *shape]` in [0, high); high below 2**24."""
        return self._tensor((((self._bits(shape) >> _HIGH) * np.uint64(high)) >> np.uint64(24)).astype(np.int64))

    def order(self) -> Tensor:
        """Return a random order of the samples, int64 `[N]` of positions in `index`."""
        return self._tensor(np.argsort(self._bits(()), kind="stable"))


def permutation(seed: int, stream: str, n: int) -> Tensor:
    """Return a random order of `n` items, int64 `[n]`: the same for the same seed and stream."""
    return Draws(seed, stream, torch.arange(n)).order()
