"""A GPU that is not there: tensors that say they are on `cuda:0`, compute on the CPU, and refuse to meet CPU tensors.

As on a GPU, an operation takes tensors of one device alone, but for numbers (tensors without dimensions) and indices,
and NumPy reads CPU tensors alone. What a program computes with this device has the bits of the CPU, so a test finds
both a tensor that was left behind and a computation that did not move.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
_INDEXED = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}


class OnGpu(Tensor):
    """A tensor on the stand-in; `values` is the CPU tensor that holds its numbers."""

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnGpu":
        return torch.Tensor._make_wrapper_subclass(
            cls, values.size(), values.stride(), values.storage_offset(), dtype=values.dtype, device=CUDA
        )

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"OnGpu({self.values})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        _refuse_mixtures(func._schema.name.rpartition("::")[2], (args, kwargs))
        target = kwargs.get("device")
        if target is not None and torch.device(target).type == "cuda":
            kwargs["device"] = CPU
        found = func(*_on_cpu(args), **_on_cpu(kwargs))
        if target is not None and torch.device(target).type == "cpu":
            return found
        return tree_map_only(Tensor, OnGpu, found)


def _on_cpu(arguments: Any) -> Any:
    return tree_map_only(OnGpu, lambda tensor: tensor.values, arguments)


def _refuse_mixtures(name: str, arguments: Any) -> None:
    met: list[Tensor] = []
    tree_map_only(Tensor, met.append, arguments[0][:1] if name in _INDEXED else arguments)
    left_behind = [tensor for tensor in met if not isinstance(tensor, OnGpu) and tensor.dim()]
    if left_behind and name != "copy_":
        raise RuntimeError(f"{name}: a tensor {[*left_behind[0].shape]} on the CPU meets one on the GPU")


class _Redirect(TorchFunctionMode):
    """Answers every wish for a CUDA device with the stand-in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.numpy, Tensor.__array__) and isinstance(args[0], OnGpu):
            raise TypeError("can't convert a tensor on the GPU to numpy")
        if func is Tensor.cpu and isinstance(args[0], OnGpu):
            return args[0].values
        if func is Tensor.to and (wish := _wished(args[1:], kwargs)) is not None:
            return _moved(wish, func, args, kwargs)
        if func is torch.as_tensor and isinstance(args[0], OnGpu) and not kwargs:
            return args[0]
        if func is F.batch_norm and isinstance(args[0], OnGpu):  # PyTorch asks the driver before it computes
            _refuse_mixtures("batch_norm", (args, kwargs))
            return OnGpu(func(*_on_cpu(args), **_on_cpu(kwargs)))
        if _is_cuda(kwargs.get("device")):
            return OnGpu(func(*args, **kwargs | {"device": CPU}))
        return func(*args, **kwargs)


def _moved(wish: torch.device, func: Any, args: Any, kwargs: Any) -> Tensor:
    """Return what `Tensor.to` does, with a move to or from the stand-in apart."""
    source = args[0].values if isinstance(args[0], OnGpu) else args[0]
    rest = [CPU if isinstance(a, (torch.device, str)) else a.values if isinstance(a, OnGpu) else a for a in args[1:]]
    kwargs = {key: CPU if key == "device" else value for key, value in kwargs.items()}
    if wish.type == "cpu":
        return func(source, *rest, **kwargs)
    found = func(source, *rest, **kwargs)
    return args[0] if isinstance(args[0], OnGpu) and found is source else OnGpu(found)


def _wished(args: Any, kwargs: Any) -> torch.device | None:
    """Return the device that arguments of `Tensor.to` name, themselves or by another tensor; None: the same one."""
    for value in (*args, kwargs.get("device")):
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, (torch.device, str)):
            return torch.device(value)
    return None


def _is_cuda(device: Any) -> bool:
    return device is not None and not isinstance(device, int) and torch.device(device).type == "cuda"


@contextmanager
def stand_in_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let PyTorch have one GPU, the stand-in."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "stand-in")
    torch._C._ensureCUDADeviceGuardSet()  # guards of a device that does not exist do nothing
    monkeypatch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
    monkeypatch.setattr(torch.backends.cudnn, "flags", lambda **flags: nullcontext())
    with _Redirect():
        yield
