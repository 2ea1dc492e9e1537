"""Counter-based random draws: every number is a function of (seed, stream, global sample index, call).

No generator is carried along, so a resumed run repeats exactly without saved state, and two ranks that each hold half
of the indices draw what one rank with all of them draws. The bits come from the SplitMix64 finalizer (Steele, Lea and
Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), applied once per key. They are the same on every
device: large tensors for a GPU are made there, small ones on the CPU. Normal numbers made on a GPU differ from those of
the CPU by the rounding of logarithm and cosine.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_GAMMA, _MIX1, _MIX2 = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_LOW, _HIGH = np.uint64(0xFFFFFF), np.uint64(40)  # the lowest 24 bits; a shift that leaves the highest 24
_TURN = np.float32(2 * math.pi * 2**-24)
_FEWEST_ON_GPU = 1 << 12
"""Numbers from which on a GPU makes them faster than the CPU."""


def _mix(x: np.ndarray) -> np.ndarray:
    """Scramble uint64 numbers; arrays wrap around silently."""
    x = x + _GAMMA
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Shift int64 to the right as if it were uint64, for which PyTorch has no arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(x: Tensor) -> Tensor:
    """`_mix` with the bits of uint64 numbers in int64, whose arithmetic wraps around alike."""
    gamma, mix1, mix2 = (int(constant.astype(np.int64)) for constant in (_GAMMA, _MIX1, _MIX2))
    x = x + gamma
    x = (x ^ _shifted(x, 30)) * mix1
    x = (x ^ _shifted(x, 27)) * mix2
    return x ^ _shifted(x, 31)


_ROWS = WeakIdKeyDictionary()
"""The scrambled indices of tensors on a GPU, reading which waits for all its work: once is enough."""


def _rows_of(index: Tensor) -> np.ndarray:
    rows = _ROWS.get(index) if index.is_cuda else None
    if rows is None:
        rows = _mix(index.cpu().numpy().astype(np.uint64))
        if index.is_cuda:
            _ROWS[index] = rows
    return rows


def _key(*parts: object) -> np.uint64:
    """A stable 64-bit key of a few small values."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


class Draws:
    """Random numbers for the samples `index` of one stream; each call draws anew.

    Args:
        seed: the run's seed.
        stream: what the numbers are for, for example "z/D" or "augment/G"; streams are independent.
        index: int64 `[N]`, global sample indices, which must not change; the numbers come on its device.
    """

    def __init__(self, seed: int, stream: str, index: Tensor) -> None:
        self._device = index.device
        self._rows = _rows_of(index)
        self._name = (seed, stream)
        self._calls = 0

    def _next_rows(self) -> np.ndarray:
        """Return uint64 `[N]`, where the bits of this call start."""
        key = _key(*self._name, self._calls)
        self._calls += 1
        return _mix(self._rows ^ key)

    def _bits(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return uint64 `[N, *shape]` of 64 random bits."""
        columns = np.arange(math.prod(shape), dtype=np.uint64)
        return _mix(self._next_rows()[:, None] + columns).reshape(-1, *shape)

    def _bits_on_gpu(self, shape: tuple[int, ...]) -> Tensor:
        """Return the same bits as int64."""
        rows = self._tensor(self._next_rows().view(np.int64))
        return _mix_tensor(rows[:, None] + torch.arange(math.prod(shape), device=rows.device)).reshape(-1, *shape)

    def _on_gpu(self, shape: tuple[int, ...]) -> bool:
        return self._device.type == "cuda" and len(self._rows) * math.prod(shape) >= _FEWEST_ON_GPU

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)

    def uniform(self, *shape: int) -> Tensor:
        """Return float32 `[N, *shape]` in [0, 1), 24 bits each."""
        if self._on_gpu(shape):
            return _shifted(self._bits_on_gpu(shape), int(_HIGH)).float() * 2**-24
        return self._tensor((self._bits(shape) >> _HIGH).astype(np.float32) * np.float32(2**-24))

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal float32 `[N, *shape]` (Box-Muller on one 64-bit draw each)."""
        if self._on_gpu(shape):
            bits = self._bits_on_gpu(shape)
            radius = (((_shifted(bits, int(_HIGH)).float() + 0.5) * 2**-24).log() * -2).sqrt()
            return radius * ((bits & int(_LOW)).float() * float(_TURN)).cos()
        bits = self._bits(shape)
        radius = np.sqrt(-2 * np.log(((bits >> _HIGH).astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)))
        return self._tensor(radius * np.cos((bits & _LOW).astype(np.float32) * _TURN))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return int64 `[N, *shape]` in [0, high); high below 2**24."""
        if self._on_gpu(shape):
            return _shifted(self._bits_on_gpu(shape), int(_HIGH)) * high >> 24
        return self._tensor((((self._bits(shape) >> _HIGH) * np.uint64(high)) >> np.uint64(24)).astype(np.int64))

    def order(self) -> Tensor:
        """Return a random order of the samples, int64 `[N]` of positions in `index`."""
        return self._tensor(np.argsort(self._bits(()), kind="stable"))


def permutation(seed: int, stream: str, n: int) -> Tensor:
    """Return a random order of `n` items, int64 `[n]`: the same for the same seed and stream."""
    return Draws(seed, stream, torch.arange(n)).order()
