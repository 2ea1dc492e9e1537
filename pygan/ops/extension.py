"""Finds the compiled extension `pygan._C` and decides, once per process, which implementation the operators use.

`PYGAN_OPS=reference` forces plain PyTorch, `PYGAN_OPS=native` insists on the extension; unset, the extension is used
where it is found. Without it one warning names the command that builds it.
"""

import contextlib
import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import Tensor

from pygan.errors import ConfigError
from pygan.ops.source_hash import csrc_digest

DISTRIBUTION = "pygan-lowdata"
"""The name that pip knows; on the package index, `pygan` is another project."""
BUILD_HINT = "run `make setup` in a clone, or `pip install .` where a C++ compiler and torch are installed"
NOT_BUILT = "not_built.txt"
"""Beside this file in a package that was built without the extension: the reason, in one clause."""

_PACKAGE = Path(__file__).resolve().parents[1]


def _installed() -> Iterator[Path]:
    """Yield the package folders of the installed distribution; an editable one lies where its clone lies."""
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return
    yield Path(str(distribution.locate_file("pygan")))
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        yield Path(url2pathname(urlsplit(origin["url"]).path), "pygan")


def _candidates() -> list[Path]:
    """Files that may be the extension: beside this package first, then in the installed distribution.

    The second place counts where a clone in the working directory hides the installed package.
    """
    names = [f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    return [folder / name for folder in (_PACKAGE, *_installed()) for name in names if (folder / name).is_file()]


def _why_not_built() -> str:
    reason = _PACKAGE / "ops" / NOT_BUILT
    return "pygan._C is not built" + (f" ({reason.read_text().strip()})" if reason.is_file() else "")


def _is_of_other_sources(module: ModuleType, path: Path) -> bool:
    """True where the extension is that of another tree, and this tree's native sources differ from those it has."""
    sources = _PACKAGE.parent
    borrowed = path.parent.resolve() != _PACKAGE
    return borrowed and (sources / "CMakeLists.txt").is_file() and module.csrc_digest != csrc_digest(sources)


def _load() -> tuple[ModuleType | None, str]:
    """Load the extension, which registers its operators; return it and where it is, or None and why there is none."""
    if _WANTED == "reference":
        return None, "PYGAN_OPS=reference"
    candidates = _candidates()
    if not candidates:
        return None, _why_not_built()
    path = candidates[0]
    spec = importlib.util.spec_from_file_location("pygan._C", path)
    assert spec is not None and spec.loader is not None
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError as error:
        return None, f"{path} cannot be loaded beside torch {torch.__version__} ({error})"
    if _is_of_other_sources(module, path):
        return None, f"{path}, which is installed, was built from other sources than {_PACKAGE.parent / 'csrc'}"
    sys.modules["pygan._C"] = module
    return module, f"{path.name} is loaded"


_WANTED = os.environ.get("PYGAN_OPS", "")
# Found at import, without a word, because torch.compile cannot trace the search; what is wrong is said at first use.
MODULE, _REASON = _load()
NAMESPACE = "pygan"
"""Where `torch.ops` holds the operators in use; the tests have a second library, of emulated CUDA kernels."""


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


_plain = False


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """Run the reference operators inside, as with PYGAN_OPS=reference: a recorded graph then needs PyTorch alone."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def use_native(x: Tensor) -> bool:
    """True where the native kernels serve `x`: they are loaded, and have a kernel for its device."""
    if _plain:
        return False
    if not torch.compiler.is_compiling():
        backend()
    return MODULE is not None and (x.device.type in ("cpu", "meta") or (x.is_cuda and bool(MODULE.cuda_archs)))


class Operator:
    """An operator of the extension, `torch.ops.<namespace>.<name>`, with its derivative.

    Eager calls differentiate through a `torch.autograd.Function`, at a third of the cost of what `register_autograd`
    makes of the same parts; `torch.compile` and `torch.export` see the registered operator.

    Args:
        name: its name in the schema.
        fake: `(*inputs) -> outputs` without data: shapes, dtypes and strides as the kernels have them.
        save: `(ctx, inputs, output)` keeps on `ctx` what the derivative needs.
        backward: `(ctx, *output_gradients) -> input_gradients`, in operators that can be differentiated again.
    """

    def __init__(self, name: str, *, fake: Callable, save: Callable, backward: Callable) -> None:
        def forward(ctx: Any, *inputs: Any) -> Any:
            # The public way to call the kernel alone would look up the derivative again.
            with torch._C._AutoDispatchBelowAutograd():
                output = self.overloads[NAMESPACE](*inputs)
            save(ctx, inputs, output)
            return output

        methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        self.name, self.fake, self.save, self.backward = name, fake, save, backward
        self.function = type(name, (torch.autograd.Function,), methods)
        self.overloads: dict[str, torch._ops.OpOverload] = {}
        if MODULE is not None:
            self.register(NAMESPACE)

    def register(self, namespace: str) -> None:
        """Add shapes and derivative to the kernels that a loaded library registered under `namespace`."""
        self.overloads[namespace] = getattr(getattr(torch.ops, namespace), self.name).default
        torch.library.register_fake(f"{namespace}::{self.name}", self.fake)
        torch.library.register_autograd(f"{namespace}::{self.name}", self.backward, setup_context=self.save)

    def __call__(self, *inputs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.overloads[NAMESPACE](*inputs)
        if torch.is_grad_enabled():
            for value in inputs:
                if isinstance(value, Tensor) and value.requires_grad:
                    return self.function.apply(*inputs)
        with torch._C._AutoDispatchBelowAutograd():
            return self.overloads[NAMESPACE](*inputs)


def build_info() -> dict[str, object]:
    """Return facts about the loaded extension: path, digest, compiler, torch_target, cuda_archs, isa; {} without."""
    if backend() == "reference":
        return {}
    assert MODULE is not None
    return {
        "path": MODULE.__file__,
        "csrc_digest": MODULE.csrc_digest,
        "compiler": MODULE.compiler,
        "torch_target": MODULE.torch_target,
        "cuda_archs": MODULE.cuda_archs,
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
