"""A generator for use without pygan: safetensors, ONNX or TorchScript, read back and compared before the file is kept.

What is written is the averaged generator alone. ONNX and TorchScript hold the computation as well: `z` float32
`[N, z_dim]`, with classes also `c` int64 `[N]`, to pictures float32 `[N, C, H, W]` in [-1, 1], any N; the reference
operators, so that nothing but the format's own operators is needed; constant noise; no truncation; spectral
normalization as the number it ended with.
"""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pygan.checkpoint import atomic_path, write_tensors
from pygan.draws import Draws
from pygan.errors import NumericalError
from pygan.ops import plain_operators
from pygan.optional import require_packages
from pygan.sampling import Model, check_out, export_sparse, untrained_generator

Format = Literal["safetensors", "sparse", "onnx", "torchscript"]
"""`sparse`: compressed safetensors without pruned weights and dead channels; `pygan.load` reads both."""

_SUFFIXES: dict[str, tuple[Format, ...]] = {
    ".safetensors": ("safetensors", "sparse"),
    ".onnx": ("onnx",),
    ".pt": ("torchscript",),
    ".torchscript": ("torchscript",),
}
"""Suffix to the formats that such a file may have, the usual one first."""

TOLERANCE = 1e-4
"""Largest difference of a pixel in [-1, 1] between the model and what was read back."""

_CHECKED = 3
"""Pictures compared; the graphs are recorded with two and must take any number."""

Generate = Callable[..., Tensor]
"""`(z)` or `(z, c)` to pictures."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """How a written file was checked."""

    difference: float
    """Largest absolute difference of a pixel in [-1, 1]."""
    reader: str
    """What read the file back."""


def format_of(path: Path, asked: Format | None = None) -> Format:
    """Return the format in which to write a file.

    Args:
        asked: None: the usual one of the suffix, in capitals too.

    Raises:
        ValueError: no format has that suffix, or not the one that was asked for.
    """
    fitting = _SUFFIXES.get(path.suffix.lower(), ())
    if not fitting:
        raise ValueError(f"{path}: got the suffix {path.suffix!r}, expected {', '.join(_SUFFIXES)}")
    if asked is not None and asked not in fitting:
        raise ValueError(f"{path}: a file with the suffix {path.suffix} holds {' or '.join(fitting)}, not {asked}")
    return asked or fitting[0]


def export(model: Model, path: Path, format: Format | None = None) -> Exported:
    """Write the generator of `model` to `path`, read it back and compare pictures of fixed latents.

    The computation is recorded and compared on the CPU, wherever the model is; the model stays there.

    Args:
        format: None: by the suffix of `path` (see `format_of`).

    Raises:
        ValueError: an unknown format, one that does not fit the suffix of `path`, or `path` is the model's snapshot.
        MissingInput: a package that writes the format is not installed.
        NumericalError: the file gives other pictures than the model; it is not kept.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    if format is not None and format not in get_args(Format):
        raise ValueError(f"format: got {format!r}, expected one of {', '.join(get_args(Format))}")
    format = format_of(path, format)
    check_out(path, model.path)
    inputs, expected = _fixed_inputs(model), _pictures_of(_copy(model))
    with atomic_path(path) as temporary, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recorders warn of what the comparison below decides
        reader, read_back = _WRITERS[format](model, temporary, tuple(value[:2] for value in inputs))
        differences = []
        for n in (1, _CHECKED):
            some = [value[:n] for value in inputs]
            differences.append((read_back(*some) - expected(*some)).abs().max())
        difference = float(torch.stack(differences).max())  # not a number where one is none, which is refused
        if not difference <= TOLERANCE:
            raise NumericalError(
                f"{path}: not written, because its pictures differ from the model's by {difference:.2g}, "
                f"expected at most {TOLERANCE}"
            )
    return Exported(difference=difference, reader=reader)


def _fixed_inputs(model: Model) -> tuple[Tensor, ...]:
    """Return latents and, with classes, labels: what the exported function takes."""
    draws = Draws(0, "export", torch.arange(_CHECKED))
    z = draws.normal(model.G.z_dim)
    return (z, draws.integers(model.num_classes)) if model.num_classes else (z,)


def _copy(model: Model) -> nn.Module:
    """Return the generator once more, on the CPU; it is made anew, because parametrizations belong to a class."""
    G = untrained_generator(model.metadata)
    G.load_state_dict(model.G.state_dict())
    return G


def _pictures_of(G: nn.Module) -> Generate:
    return lambda *inputs: G(*inputs).clamp(-1, 1)


class _Pictures(nn.Module):
    """The function that an exported file computes."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.G = _copy(model)
        for module in list(self.G.modules()):
            for name in list(getattr(module, "parametrizations", ())):
                parametrize.remove_parametrizations(module, name)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.G(z, c).clamp(-1, 1)


def _write_safetensors(model: Model, path: Path, inputs: tuple[Tensor, ...]) -> tuple[str, Generate]:
    write_tensors(path, {f"G_ema.{name}": value.cpu() for name, value in model.G.state_dict().items()}, model.metadata)
    return _reading(path)


def _reading(path: Path) -> tuple[str, Generate]:
    return "pygan.load", _pictures_of(Model(path, "cpu").G)


def _write_sparse(model: Model, path: Path, inputs: tuple[Tensor, ...]) -> tuple[str, Generate]:
    export_sparse(model.path, path)
    return _reading(path)


def _write_torchscript(model: Model, path: Path, inputs: tuple[Tensor, ...]) -> tuple[str, Generate]:
    with plain_operators():
        torch.jit.save(torch.jit.trace(_Pictures(model).eval(), inputs, check_trace=False), path)
    return "torch.jit.load", torch.jit.load(path)


def _write_onnx(model: Model, path: Path, inputs: tuple[Tensor, ...]) -> tuple[str, Generate]:
    require_packages("the format onnx", "onnx", "onnxscript")
    names = ["z", "c"][: len(inputs)]
    any_number = torch.export.Dim("N", min=1)
    with plain_operators():
        recorded = torch.export.export(
            _Pictures(model).eval(), inputs, dynamic_shapes=tuple({0: any_number} for _ in inputs)
        )
        program = torch.onnx.export(recorded, input_names=names, output_names=["img"], verbose=False)
    program.save(path)
    reader, run = _onnx_runner(path)
    return reader, lambda *inputs: torch.from_numpy(
        run({name: value.numpy() for name, value in zip(names, inputs, strict=True)})
    )


def _onnx_runner(path: Path) -> tuple[str, Callable]:
    """Return what computes an ONNX file, by name and as a function: onnxruntime, else ONNX's own slow evaluator."""
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return "onnxruntime", lambda feeds: session.run(None, feeds)[0]
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    return "onnx.reference", lambda feeds: evaluator.run(None, feeds)[0]


_WRITERS = {
    "safetensors": _write_safetensors,
    "sparse": _write_sparse,
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
}
