"""Counter-based random draws: every number is a function of (seed, stream, global sample index, call).

No generator is carried along, so a resumed run repeats exactly without saved state, and two ranks that each hold half
of the indices draw what one rank with all of them draws. The bits come from the SplitMix64 finalizer (Steele, Lea and
Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), applied once per key.
"""

import hashlib
import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """Read an unsigned 64-bit integer as the int64 with the same bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical (unsigned) right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = x + _GAMMA
    x = (x ^ _shift_right(x, 30)) * _MIX1
    x = (x ^ _shift_right(x, 27)) * _MIX2
    return x ^ _shift_right(x, 31)


def _key(*parts: object) -> int:
    """A stable 64-bit key of a few small values."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class Draws:
    """Random numbers for the samples `index` of one stream; each call draws anew.

    Args:
        seed: the run's seed.
        stream: what the numbers are for, for example "z/D" or "augment/G"; streams are independent.
        index: int64 `[N]`, global sample indices.
    """

    def __init__(self, seed: int, stream: str, index: Tensor) -> None:
        self._index = index.long()
        self._name = (seed, stream)
        self._calls = 0

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        """Return int64 `[N, *shape]` of 64 random bits."""
        key = _key(*self._name, self._calls)
        self._calls += 1
        column = torch.arange(math.prod(shape), device=self._index.device)
        return _mix(_mix(_mix(self._index) ^ key)[:, None] + column).reshape(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 `[N, *shape]` in [0, 1), 24 bits each."""
        return _shift_right(self._bits(shape), 40).float() * 2**-24

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal float32 `[N, *shape]` (Box-Muller on one 64-bit draw each)."""
        bits = self._bits(shape)
        radius = torch.sqrt(-2 * torch.log((_shift_right(bits, 40).float() + 0.5) * 2**-24))
        return radius * torch.cos((bits & 0xFFFFFF).float() * (2 * math.pi * 2**-24))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return int64 `[N, *shape]` in [0, high); high below 2**24."""
        return (_shift_right(self._bits(shape), 40) * high) >> 24


def permutation(seed: int, stream: str, n: int) -> Tensor:
    """Return a random order of `n` items, int64 `[n]`: the same for the same seed and stream."""
    return torch.argsort(Draws(seed, stream, torch.arange(n))._bits(()), stable=True)
