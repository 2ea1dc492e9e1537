"""The operators on a GPU itself: with PyTorch's convolutions, streams, autocast, graphs and very large tensors.

Values, gradients and odd layouts of every kernel are in the other files of this folder, which run on a GPU too where
there is one (`implementation` in conftest.py).
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pygan.draws import Draws
from pygan.ops import (
    bias_act,
    build_info,
    group_spectral_sigma,
    modulated_conv2d,
    plain_operators,
    setup_filter,
    spectral_normalize,
    upfirdn2d,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and build_info().get("cuda_archs")), reason="no GPU, or no CUDA kernels for it"
    ),
]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
# Norm of the difference over that of the result in float64.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 5e-3, torch.bfloat16: 2e-2}


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    settings = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = False
    yield
    for setting, value in zip(settings, before, strict=True):
        setting.allow_tf32 = value


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal float64 on the GPU."""
    return torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda", dtype=torch.float64)


def filtered(x: Tensor, *rest: Tensor, up: int, down: int) -> Tensor:
    return upfirdn2d(x, rest[-1], up, down, padding=2)


def activated(x: Tensor, b: Tensor, act: str) -> Tensor:
    return bias_act(x, b, act=act)


def modulated(x: Tensor, b: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, f: Tensor, up: int) -> Tensor:
    noise = noise if up == 1 else None
    return modulated_conv2d(x, weight, styles, noise, up, 1, 1, f, bias=b, act="lrelu")


def normalized(x: Tensor, b: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, *_: Tensor) -> Tensor:
    u, v = torch.ones(weight.shape[0], device="cuda"), torch.ones(weight[0].numel(), device="cuda")
    return spectral_normalize(weight, u.to(weight.dtype), v.to(weight.dtype), 2)[0]


OPERATORS: dict[str, Callable[..., Tensor]] = {
    **{
        f"filter up {u} down {d}": lambda *inputs, u=u, d=d: filtered(*inputs, up=u, down=d)
        for u, d in ((1, 1), (2, 1), (1, 2))
    },
    **{f"activation {act}": lambda x, b, *_, act=act: activated(x, b, act) for act in ("lrelu", "swish", "tanh")},
    **{f"modulated up {up}": lambda *inputs, up=up: modulated(*inputs, up=up) for up in (1, 2)},
    "spectral norm": normalized,
}


def operands(channels: int, side: int, dtype: torch.dtype, layout: str) -> list[Tensor]:
    """x, bias, weight, styles and noise, rounded to the dtype, and a filter."""
    shapes = ((4, channels, side, side), (channels,), (channels, channels, 3, 3), (4, channels), (4, 1, side, side))
    made = [numbers(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes)]
    made = [t.contiguous(memory_format=FORMATS[layout]) if t.dim() == 4 else t for t in made]
    return [*made, setup_filter([1, 3, 3, 1]).cuda()]


def with_gradients(inputs: list[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    """Copies in a dtype that require a gradient; the filter stays what it is."""
    *inputs, f = inputs
    return [*(t.detach().to(dtype or t.dtype).requires_grad_() for t in inputs), f]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", OPERATORS)
def test_agrees_with_the_reference_in_float64(name: str, dtype: torch.dtype, layout: str) -> None:
    """Outputs and all gradients; few and many channels, sides that fill tiles and that do not."""
    function = OPERATORS[name]
    for channels, side in ((3, 17), (64, 16), (40, 33), (512, 4)):
        inputs = operands(channels, side, dtype, layout)
        ours = values(function, with_gradients(inputs))
        with plain_operators():
            formula = values(function, with_gradients(inputs))
            exact = values(function, with_gradients(inputs, torch.float64))
        assert ours[0].dtype == dtype
        for got, rounded, expected in zip(ours, formula, exact, strict=True):
            if expected is None:
                continue
            # Gradients of styles cancel: with some numbers rounded operands are far off, whoever computes.
            allowed = max(3 * TOLERANCE[dtype], 2 * distance(rounded, expected))
            assert distance(got, expected) < allowed, f"{channels} channels, {side} pixels"


def values(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor | None]:
    """The output, and the gradients of everything but the filter."""
    y = function(*inputs)
    dy = numbers(*y.shape, seed=9).to(inputs[0].dtype)
    return [y, *torch.autograd.grad(y, inputs[:-1], dy, allow_unused=True)]


def distance(a: Tensor, b: Tensor) -> float:
    return ((a.detach().double() - b.detach()).norm() / b.detach().norm()).item()


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "spectral norm"])
def test_gradients_of_first_and_second_order(name: str, layout: str) -> None:
    inputs = with_gradients(operands(2, 5, torch.float64, layout))
    assert torch.autograd.gradcheck(OPERATORS[name], inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(OPERATORS[name], inputs, fast_mode=True)


def test_group_spectral_sigma_agrees_with_the_reference() -> None:
    shapes = [(5, 7), (16, 16), (1, 3), (2, 150)]
    Es = [numbers(10, *shape, seed=i).float().requires_grad_() for i, shape in enumerate(shapes)]
    us = [numbers(10, h, seed=h).float() for h, _ in shapes]
    vs = [numbers(10, w, seed=w).float() for _, w in shapes]
    sigmas, *_ = group_spectral_sigma(Es, us, vs, 3)
    with plain_operators():
        expected, *_ = group_spectral_sigma(
            [E.double() for E in Es], [u.double() for u in us], [v.double() for v in vs], 3
        )
    torch.testing.assert_close(torch.stack(sigmas).double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(torch.stack(sigmas).sum(), Es)
    wanted = torch.autograd.grad(torch.stack(expected).sum(), Es)
    torch.testing.assert_close(gradients, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", FORMATS)
def test_autocast(dtype: torch.dtype, layout: str) -> None:
    inputs = with_gradients(operands(32, 16, torch.float32, layout))
    for up in (1, 2):
        with torch.autocast("cuda", dtype):
            y = modulated(*inputs, up=up)
        assert y.dtype == dtype and y.is_contiguous(memory_format=FORMATS[layout])
        with plain_operators():
            expected = modulated(*with_gradients(inputs, torch.float64), up=up).detach()
        assert (y.detach().double() - expected).norm() / expected.norm() < TOLERANCE[dtype]
        gradients = torch.autograd.grad(y.float().square().sum(), inputs[:-1], allow_unused=True)
        assert all(g is None or (g.dtype == torch.float32 and g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("name", OPERATORS)
def test_runs_on_the_current_stream(name: str) -> None:
    """What a stream writes late is seen by an operator behind it."""
    inputs = operands(64, 32, torch.float32, "contiguous")
    expected = OPERATORS[name](*inputs)
    late = [torch.full_like(t, torch.nan) for t in inputs]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        for to, source in zip(late, inputs, strict=True):
            to.copy_(source)
        y = OPERATORS[name](*late)
    stream.synchronize()
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["filter up 2 down 1", "activation lrelu", "spectral norm"])
def test_can_be_captured_in_a_graph(name: str) -> None:
    """Nothing waits for the device or allocates outside PyTorch's memory."""
    inputs = operands(64, 32, torch.float32, "channels_last")
    for _ in range(2):
        OPERATORS[name](*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = OPERATORS[name](*inputs)
    for t in inputs[:-1]:
        t.neg_().add_(0.5)
    graph.replay()
    torch.testing.assert_close(y, OPERATORS[name](*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", FORMATS)
def test_more_elements_than_32_bits_count(layout: str) -> None:
    if torch.cuda.mem_get_info()[0] < 20 << 30:
        pytest.skip("needs 20 GiB of GPU memory")
    shape = (33, 1024, 256, 256)  # 2.2e9 elements
    x = torch.zeros(shape, device="cuda", dtype=torch.bfloat16).to(memory_format=FORMATS[layout])
    b = torch.arange(1024, device="cuda", dtype=torch.bfloat16)
    x[-1, -1, -1, -4:] = torch.arange(1, 5, device="cuda", dtype=torch.bfloat16)
    y = bias_act(x, b, act="linear")
    assert torch.equal(y[-1, :, 0, 0], b) and torch.equal(y[0, :, 255, 255], b)
    torch.testing.assert_close(y[-1, -1, -1, -4:], x[-1, -1, -1, -4:] + b[-1])
    del y
    f = setup_filter([1, 3, 3, 1]).cuda()
    y = upfirdn2d(x, f, down=2, padding=1)
    torch.testing.assert_close(
        y[-1:, -1:, -4:, -4:], upfirdn2d(x[-1:, -1:, -10:, -10:], f, down=2, padding=1)[..., -4:, -4:]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["filter up 2 down 1", "activation lrelu", "modulated up 2", "spectral norm"])
def test_compiles(name: str) -> None:
    inputs = with_gradients(operands(16, 8, torch.float32, "contiguous"))
    compiled = torch.compile(OPERATORS[name], fullgraph=name != "spectral norm")
    values = (_value_and_gradients(function, inputs) for function in (compiled, OPERATORS[name]))
    for got, expected in zip(*values, strict=True):
        if expected is not None:
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def _value_and_gradients(function: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor | None]:
    y = function(*inputs)
    return [y, *torch.autograd.grad(y.square().sum(), inputs[:-1], allow_unused=True)]


def test_draws_are_those_of_the_cpu() -> None:
    index = torch.arange(5)
    for shape in ((7,), (3, 64, 64)):
        here, there = Draws(1, "z", index), Draws(1, "z", index.cuda())
        for make in ("uniform", "normal"):
            torch.testing.assert_close(
                getattr(there, make)(*shape).cpu(), getattr(here, make)(*shape), rtol=1e-5, atol=1e-6
            )
        assert torch.equal(there.integers(1000, *shape).cpu(), here.integers(1000, *shape))
