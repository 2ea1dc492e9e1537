"""A case: several contenders that compute the same thing from the same tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pygan.ops import extension

FORWARD, TRAINING = "forward", "forward + backward"
MODES = (FORWARD, TRAINING)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

Run = Callable[[], Sequence[Tensor]]
"""One measured call: returns the output and, when training, the gradients of the inputs."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One line of measurements."""

    name: str
    layout: str
    mode: str
    contenders: dict[str, Run]
    """Ours first, then the public formula, then other peers; all must agree."""
    floor_bytes: int
    """Every input read once and every output written once."""
    gates: dict[str, float] = field(default_factory=dict)
    """Peer -> least ratio of its time to ours."""
    tolerance: float = 1e-5
    """Largest |ours - peer| / |peer|, in Euclidean norms of every output and gradient."""
    yardsticks: dict[str, Run] = field(default_factory=dict)
    """Measured beside the contenders, but computing something else."""
    headline: bool = False
    """Whether the README shows it."""


def forward(function: Callable[[], Tensor]) -> Run:
    """A forward pass that records nothing for a backward pass."""

    def run() -> Sequence[Tensor]:
        with torch.no_grad():
            return [function()]

    return run


def training(function: Callable[[], Tensor], wanted: Sequence[Tensor], dy: Tensor) -> Run:
    """A forward pass, and the gradients of `wanted` when `dy` is that of the output."""

    def run() -> Sequence[Tensor]:
        y = function()
        return [y, *torch.autograd.grad(y, wanted, dy)]

    return run


def runs(mode: str, functions: dict[str, Callable[..., Tensor]], *inputs: Tensor) -> dict[str, Run]:
    """Passes of several functions over the same inputs; training has gradients of those that require one."""
    bound = {name: lambda function=function: function(*inputs) for name, function in functions.items()}
    if mode == FORWARD:
        return {name: forward(function) for name, function in bound.items()}
    wanted = [x for x in inputs if x.requires_grad]
    with torch.no_grad():
        dy = torch.randn_like(next(iter(bound.values()))())
    return {name: training(function, wanted, dy) for name, function in bound.items()}


def compiled_reference(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.compile` of a function whose pygan operators run as their plain PyTorch references."""
    torch.compiler.reset()
    compiled = torch.compile(function, dynamic=False)

    def run(*inputs: Tensor) -> Tensor:
        use_native, extension.use_native = extension.use_native, _never
        try:
            return compiled(*inputs)
        finally:
            extension.use_native = use_native

    return run


def _never(x: Tensor) -> bool:
    return False


def quick_shape(n: int, channels: int, *sides: int) -> tuple[int, ...]:
    """One picture with a quarter of the channels, to see that a case runs."""
    return (1, channels // 4, *sides)


def nbytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
