"""Finds the compiled extension `pygan._C` and decides, once per process, which implementation the operators use.

`PYGAN_OPS=reference` forces plain PyTorch, `PYGAN_OPS=native` insists on the extension; unset, the extension is used
where it is found. Without it one warning names the command that builds it.
"""

import contextlib
import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from pygan.errors import ConfigError
from pygan.ops.source_hash import csrc_digest

BUILD_HINT = "run `make setup` in a clone, or `pip install .` where a C++ compiler and torch are installed"


def _candidates() -> list[Path]:
    """Files that may be the extension: beside this package first, then in the installed distribution.

    The second place counts where a clone in the working directory hides the installed package.
    """
    folders = [Path(__file__).resolve().parents[1]]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        folders.append(Path(str(importlib.metadata.distribution("pygan").locate_file("pygan"))))
    names = [f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    return [folder / name for folder in folders for name in names if (folder / name).is_file()]


def _load() -> tuple[ModuleType | None, str]:
    """Load the extension, which registers its operators; return it and where it is, or None and why there is none."""
    if _WANTED == "reference":
        return None, "PYGAN_OPS=reference"
    candidates = _candidates()
    if not candidates:
        return None, "pygan._C is not built"
    path = candidates[0]
    spec = importlib.util.spec_from_file_location("pygan._C", path)
    assert spec is not None and spec.loader is not None
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        return None, f"{path} cannot be loaded beside torch {torch.__version__} ({error})"
    sys.modules["pygan._C"] = module
    return module, f"{Path(path).name} is loaded"


_WANTED = os.environ.get("PYGAN_OPS", "")
# Found at import, without a word, because torch.compile cannot trace the search; what is wrong is said at first use.
MODULE, _REASON = _load()


@functools.cache
def backend() -> Literal["native", "reference"]:
    """Return which implementation the operators use for CPU tensors; warn, once, where native was not a choice.

    Raises:
        ConfigError: PYGAN_OPS has an unknown value, or asks for an extension that is not there.
    """
    if _WANTED not in ("", "native", "reference"):
        raise ConfigError(f"PYGAN_OPS: got {_WANTED!r}, expected native, reference or nothing")
    if MODULE is not None:
        return "native"
    if _WANTED == "native":
        raise ConfigError(f"PYGAN_OPS=native, but {_REASON}; {BUILD_HINT}")
    if _WANTED == "":
        message = f"pygan runs its reference operators, because {_REASON}; {BUILD_HINT}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return "reference"


def backend_reason() -> str:
    """Return why `backend()` is what it is, in one clause."""
    return _REASON


def use_native(x: Tensor) -> bool:
    """True where the native kernels serve `x`: they are loaded, and have a kernel for its device."""
    if not torch.compiler.is_compiling():
        backend()
    return MODULE is not None and x.device.type in ("cpu", "meta")


def build_info() -> dict[str, object]:
    """Return facts about the loaded extension: path, csrc_digest, compiler, torch_target, has_cuda, isa; {} without."""
    if backend() == "reference":
        return {}
    assert MODULE is not None
    return {
        "path": MODULE.__file__,
        "csrc_digest": MODULE.csrc_digest,
        "compiler": MODULE.compiler,
        "torch_target": MODULE.torch_target,
        "has_cuda": MODULE.has_cuda,
        "isa": MODULE.isa(),
    }


def check_build(root: Path) -> None:
    """Refuse an extension that was built from other native sources than those under `root`.

    Nothing is checked where `root` holds no native sources, or the reference operators run.

    Raises:
        ConfigError: the digests differ.
    """
    built = build_info().get("csrc_digest")
    if built is None or not (root / "CMakeLists.txt").is_file():
        return
    if built != csrc_digest(root):
        raise ConfigError(f"pygan._C was built from other sources than {root / 'csrc'}; run `make setup` to rebuild it")
