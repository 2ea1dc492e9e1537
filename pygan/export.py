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
from pygan.sampling import Model, export_sparse, untrained_generator

Format = Literal["safetensors", "sparse", "onnx", "torchscript"]
"""`sparse`: compressed safetensors without pruned weights and dead channels; `pygan.load` reads both."""

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


def export(model: Model, path: Path, format: Format) -> Exported:
    """Write the generator of `model` to `path`, read it back and compare pictures of fixed latents.

    Raises:
        ValueError: an unknown format.
        MissingInput: a package that writes the format is not installed.
        NumericalError: the file gives other pictures than the model; it is not kept.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    if format not in get_args(Format):
        raise ValueError(f"format: got {format!r}, expected one of {', '.join(get_args(Format))}")
    inputs = _fixed_inputs(model)
    with atomic_path(path) as temporary, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the recorders warn of what the comparison below decides
        reader, read_back = _WRITERS[format](model, temporary, tuple(value[:2] for value in inputs))
        difference = max(_difference(model, read_back, tuple(value[:n] for value in inputs)) for n in (1, _CHECKED))
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


def _difference(model: Model, read_back: Generate, inputs: tuple[Tensor, ...]) -> float:
    return float((read_back(*inputs) - model.G(*inputs).clamp(-1, 1)).abs().max())


class _Pictures(nn.Module):
    """The function that an exported file computes.

    The generator is made anew: taking the parametrizations off a copy would take them off the model's class as well.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.G = untrained_generator(model.metadata)
        self.G.load_state_dict(model.G.state_dict())
        for module in list(self.G.modules()):
            for name in list(getattr(module, "parametrizations", ())):
                parametrize.remove_parametrizations(module, name)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.G(z, c).clamp(-1, 1)


def _write_safetensors(model: Model, path: Path, inputs: tuple[Tensor, ...]) -> tuple[str, Generate]:
    write_tensors(path, {f"G_ema.{name}": value for name, value in model.G.state_dict().items()}, model.metadata)
    return _reading(path)


def _reading(path: Path) -> tuple[str, Generate]:
    G = Model(path).G
    return "pygan.load", lambda *inputs: G(*inputs).clamp(-1, 1)


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
