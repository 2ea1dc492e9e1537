"""The implementations of every operator, as a fixture."""

import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable

import emulated
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from pygan.ops import extension

OPERATOR_MODULES = ("bias_act", "group_spectral_sigma", "modulated_conv2d", "spectral_norm", "upfirdn2d")
IMPLEMENTATIONS = ["reference", "native", "emulated"]
if torch.cuda.is_available() and extension.build_info().get("cuda_archs"):
    IMPLEMENTATIONS.append(pytest.param("cuda", marks=pytest.mark.gpu))


def _register_emulated() -> None:
    if emulated.library() not in torch.ops.loaded_libraries:
        torch.ops.load_library(emulated.library())
    for name in OPERATOR_MODULES:
        module = importlib.import_module(f"pygan.ops.{name}")
        for operator in vars(module).values():
            if isinstance(operator, extension.Operator) and "pygan_simt" not in operator.overloads:
                operator.register("pygan_simt")


def _moved(x: Tensor, device: str) -> Tensor:
    """The same bytes on another device, gaps, offset and strides included."""
    storage = x.untyped_storage()
    storage = storage.cuda() if device == "cuda" else storage.cpu()
    return torch.empty(0, dtype=x.dtype, device=device).set_(storage, x.storage_offset(), x.shape, x.stride())


def _on_the_gpu(operator: torch._ops.OpOverload) -> Callable:
    """The CUDA kernels of an operator for tensors on the CPU; what they leave unwritten is NaN."""

    def run(*inputs: object) -> object:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True, warn_only=True)  # which fills new tensors with NaN
        outputs = operator(*tree_map_only(Tensor, lambda x: _moved(x, "cuda"), inputs))
        torch.use_deterministic_algorithms(before)
        return tree_map_only(Tensor, lambda x: _moved(x, "cpu"), outputs)

    return run


@functools.cache
def _register_cuda() -> torch.library.Library:
    library = torch.library.Library("pygan_gpu", "FRAGMENT")
    for name in OPERATOR_MODULES:
        for operator in vars(importlib.import_module(f"pygan.ops.{name}")).values():
            if isinstance(operator, extension.Operator) and "pygan_gpu" not in operator.overloads:
                overload = operator.overloads["pygan"]
                library.define(str(overload._schema).removeprefix("pygan::"))
                library.impl(operator.name, _on_the_gpu(overload), "CPU")
                operator.register("pygan_gpu")
    return library


@pytest.fixture
def native() -> None:
    """Skip a test of the compiled operators where they were not built or are switched off."""
    if extension.MODULE is None:
        pytest.skip(extension.backend_reason())


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test once with each implementation behind the public functions.

    `reference` is plain PyTorch, `native` the CPU kernels, `emulated` the CUDA sources executed on the CPU, `cuda` the
    CUDA kernels on a GPU, to which the operands of every call are copied as they lie in memory.
    """
    if request.param != "reference":
        request.getfixturevalue("native")
    if request.param == "emulated":
        _register_emulated()
        monkeypatch.setattr(extension, "NAMESPACE", "pygan_simt")
    if request.param == "cuda":
        _register_cuda()
        monkeypatch.setattr(extension, "NAMESPACE", "pygan_gpu")

    def use_native(x: Tensor) -> bool:
        return request.param != "reference"

    monkeypatch.setattr(extension, "use_native", use_native)
    return request.param


@pytest.fixture
def namespace(implementation: str) -> str:
    """The namespace of `torch.ops` with the kernels of this implementation; the reference has none."""
    if implementation == "reference":
        pytest.skip("the reference is no registered operator")
    return extension.NAMESPACE


@pytest.fixture
def digests_by_isa(native: None) -> Callable[[str], dict[str, str]]:
    """Run a script once per instruction set, in a process of its own; return what each printed last."""

    def run(script: str) -> dict[str, str]:
        results = {}
        for wanted in ("baseline", "avx2", "avx512"):
            environment = {**os.environ, "PYGAN_ISA": wanted, "PYGAN_OPS": "native"}
            command = [sys.executable, "-c", f"{script}\nfrom pygan.ops import build_info\nprint(build_info()['isa'])"]
            printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            *_, results[wanted], used = printed.split()
            assert used == wanted or wanted == "avx512" or used == "baseline"  # no more than the processor has
        return results

    return run
