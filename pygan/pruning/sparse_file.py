"""A ticket in few bytes: the weights that live, which of them do, and smaller layers where whole channels are dead.

A tensor becomes two streams of zlib: a bit per entry that says whether it is other than zero, and the others in order,
first bytes first (the exponents of neighbors are alike, their mantissas are noise). Reading gives the same values back,
bit by bit but for the sign of zeros. The file needs no mask: what is zero is pruned.
"""

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pygan.errors import DataError
from pygan.pruning.channels import living_channels, slim

_BITS, _VALUES = "#living", "#values"
_LEVEL = 9


def compress(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and metadata of a file that `decompress` turns into these again.

    Args:
        tensors: float32 tensors are compressed, others kept as they are.
        metadata: plain values, without the key `compressed`.
    """
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    packed = {}
    for name, tensor in tensors.items():
        if name not in shapes:
            packed[name] = tensor
            continue
        flat = tensor.detach().cpu().contiguous().numpy().ravel()
        living = flat != 0
        values = flat[living].astype("<f4").view(np.uint8).reshape(-1, 4)
        packed[name + _BITS] = _stream(np.packbits(living).tobytes())
        packed[name + _VALUES] = _stream(values.T.tobytes())
    return packed, {**metadata, "compressed": shapes}


def decompress(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `compress` was given.

    Raises:
        DataError: a stream is damaged or has another length than its tensor.
    """
    metadata = dict(metadata)
    shapes = metadata.pop("compressed")
    restored = {name: tensor for name, tensor in tensors.items() if not name.endswith((_BITS, _VALUES))}
    for name, shape in shapes.items():
        try:
            bits, values = (_bytes(tensors[name + part]) for part in (_BITS, _VALUES))
            flat = np.zeros(int(np.prod(shape, dtype=np.int64)), np.float32)
            living = np.unpackbits(bits, count=flat.size).astype(bool)
            flat[living] = np.ascontiguousarray(values.reshape(4, -1).T).view("<f4").ravel()
        except (KeyError, ValueError, zlib.error) as error:
            raise DataError(f"{name}: damaged in this compressed file ({error})") from error
        restored[name] = torch.from_numpy(flat).reshape(shape)
    return restored, metadata


def compact(G: nn.Module, metadata: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the compressed tensors and metadata of a generator alone, its dead channels cut out (in place).

    Args:
        G: as `pygan.sampling.load_generator` gives it.
        metadata: of its snapshot.
    """
    before, living = metadata.get("living_channels", {}), living_channels(G)
    slim(G, living)
    numbers = {name: [before[name][i] for i in kept] if name in before else kept for name, kept in living.items()}
    tensors = {f"G_ema.{k}": v for k, v in G.state_dict().items()}
    return compress(tensors, {**metadata, "living_channels": before | numbers})


def _stream(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(zlib.compress(data, _LEVEL), np.uint8).copy())


def _bytes(stream: Tensor) -> np.ndarray:
    return np.frombuffer(zlib.decompress(stream.numpy().tobytes()), np.uint8)
