"""Reads published StyleGAN2-ADA networks (`.pkl`) without running anything that their pickles contain.

A pickle of the public PyTorch code (Karras et al., NeurIPS 2020, arXiv 2006.06676) holds the source text of its
classes and runs it when loaded the ordinary way. Here an unpickler with a list of allowed names rebuilds tensors and
plain containers only; anything else is refused by name.
"""

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygan.checkpoint import write_tensors
from pygan.context import Context
from pygan.errors import DataError, MissingInput
from pygan.networks.stylegan2 import Spec
from pygan.sampling import describe

_NETWORKS = {"G_ema": "G_ema.", "G": "G.", "D": "D.0.network."}
"""Keys of the pickle and where a training snapshot has the same network."""


class _Refused(Exception):
    """A name that is not on the list."""


class _EasyDict(dict):
    """Stands for the release's dictionary with attribute access."""


def _persistent(fields: dict[str, Any]) -> dict[str, Any]:
    """Stands for the function that would run the stored source: keeps class name and attributes."""
    return fields


def _storage_from_bytes(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Tensor:
    return data


def _number(dtype: np.dtype, data: bytes) -> float | int:
    if dtype.kind not in "biuf":
        raise _Refused(f"a numpy scalar of type {dtype}")
    return np.frombuffer(data, dtype)[0].item()


_ALLOWED = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("dnnlib.util", "EasyDict"): _EasyDict,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
    ("numpy", "dtype"): np.dtype,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def read(path: Path) -> dict[str, Any]:
    """Return the content of a published pickle; networks are dicts with `class_name` and `state`.

    Raises:
        MissingInput: there is no such file, or it cannot be opened.
        DataError: not such a file, or one that asks for a name that is not allowed.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise MissingInput(f"{path}: cannot be opened ({error.strerror}), expected a file with a pickle") from error
    try:
        with file:
            content = _Unpickler(file).load()
    except _Refused as refused:
        legacy = "; a legacy TensorFlow pickle needs the release's own converter" if "tflib" in str(refused) else ""
        raise DataError(f"{path}: refused, because the pickle asks for {refused}{legacy}") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise DataError(f"{path}: not a readable pickle ({type(error).__name__}: {error})") from error
    if not isinstance(content, dict) or "G_ema" not in content:
        raise DataError(f"{path}: got a pickle without G_ema, expected a StyleGAN2-ADA network")
    return content


def state_dict(network: dict[str, Any]) -> dict[str, Tensor]:
    """Return parameters and buffers of a stored network by their dotted names."""
    state = network["state"]
    tensors = {**state["_parameters"], **state["_buffers"]}
    found = {name: tensor.detach().contiguous() for name, tensor in tensors.items() if tensor is not None}
    for name, module in state["_modules"].items():
        found |= {f"{name}.{key}": tensor for key, tensor in state_dict(module).items()}
    return found


def convert(path: Path, out: Path) -> dict[str, Any]:
    """Write the networks of a published pickle as a training snapshot; return the base network's settings.

    Raises:
        MissingInput: there is no such file, or it cannot be opened.
        DataError: the file is no such pickle, or its networks are of a kind that pygan does not have.
        CannotWrite: `out` cannot be written.
    """
    content = read(path)
    stored = {key: content[key] for key in _NETWORKS if content.get(key) is not None}
    try:
        base, ctx = _settings(stored)
        spec = Spec(**base)
        ours = {"G_ema": spec.generator(ctx), "G": spec.generator(ctx), "D": spec.discriminator(ctx)}
        tensors = {}
        for key, network in stored.items():
            ours[key].load_state_dict(state_dict(network))
            tensors |= {_NETWORKS[key] + name: tensor for name, tensor in ours[key].state_dict().items()}
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: its networks do not fit pygan's StyleGAN2 ({error})") from error
    write_tensors(out, tensors, describe({"kind": "stylegan2", **base}, ctx, 0))
    return base


def _settings(stored: dict[str, Any]) -> tuple[dict[str, Any], Context]:
    """Return our `Spec` fields and the context from the constructor arguments that the pickle remembers."""
    G = _arguments(stored["G_ema"])
    synthesis, mapping = G.get("synthesis_kwargs", {}), G.get("mapping_kwargs", {})
    base = {
        "z_dim": G["z_dim"],
        "w_dim": G["w_dim"],
        "channel_base": synthesis.get("channel_base", 32768),
        "channel_max": synthesis.get("channel_max", 512),
        "mapping_layers": mapping.get("num_layers", 8),
        "g_architecture": synthesis.get("architecture", "skip"),
        "half_resolutions": synthesis.get("num_fp16_res", 0),
        "conv_clamp": synthesis.get("conv_clamp"),
        "noise": synthesis.get("use_noise", True),
        "conditional": G["c_dim"] > 0,
    }
    if "D" in stored:
        D = _arguments(stored["D"])
        for name in ("channel_base", "channel_max"):
            if D.get(name, base[name]) != base[name]:
                raise ValueError(f"{name} is {base[name]} in G and {D[name]} in D, expected one value")
        epilogue = D.get("epilogue_kwargs", {})
        base["d_architecture"] = D.get("architecture", "resnet")
        base["mbstd_group"] = epilogue.get("mbstd_group_size", 4)
        base["mbstd_channels"] = epilogue.get("mbstd_num_channels", 1)
    return base, Context(resolution=G["img_resolution"], channels=G["img_channels"], num_classes=G["c_dim"])


def _arguments(network: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments with which a stored network was built."""
    return dict(network["state"]["_init_kwargs"])
