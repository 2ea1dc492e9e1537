import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pygan.ops import bias_act
from pygan.ops.bias_act import _NUMBERS, ACTIVATIONS

# What one rounding of the result costs, and a few units more for the float functions inside.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
ACTS = tuple(ACTIVATIONS)


def formula(z: Tensor, act: str) -> Tensor:
    """The activations as their papers define them, in float64."""
    z = z.double()
    return {
        "linear": lambda: z,
        "relu": lambda: z.clamp(min=0),
        "lrelu": lambda: torch.where(z > 0, z, 0.2 * z),
        "tanh": lambda: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
        "sigmoid": lambda: 1 / (1 + (-z).exp()),
        "elu": lambda: torch.where(z > 0, z, z.exp() - 1),
        "selu": lambda: 1.0507009873554805 * torch.where(z > 0, z, 1.6732632423543772 * (z.exp() - 1)),
        "softplus": lambda: (1 + z.exp()).log(),
        "swish": lambda: z / (1 + (-z).exp()),
    }[act]()


def pictures(shape: tuple[int, ...], layout: str, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """A random batch in one of the layouts that reach the operator."""
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    if layout == "contiguous":
        return x
    if layout == "channels_last":
        return x.to(memory_format=torch.channels_last)
    if layout == "permuted":  # dense, but neither of the two
        return x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2)
    if layout == "sliced":  # has gaps
        wide = torch.zeros(*shape[:-1], 2 * shape[-1], dtype=dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    assert layout == "expanded"
    return x[:1].expand(shape)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values(implementation: str, act: str, dtype: torch.dtype) -> None:
    x, b = pictures((2, 5, 7, 9), "contiguous", dtype), torch.linspace(-1, 1, 5).to(dtype)
    gain = math.sqrt(2) if act in ("relu", "lrelu", "swish") else 1
    expected = formula(x.double() + b.double().view(1, -1, 1, 1), act) * gain
    y = bias_act(x, b, act=act)
    assert y.dtype == dtype
    # The reference rounds after every operator; the kernel once.
    tolerance = TOLERANCE[dtype] * (1 if implementation == "native" else 4)
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance * gain)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "permuted", "sliced", "expanded"])
@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 4), (1, 1, 1, 1), (3, 1, 5, 2), (2, 17, 1, 1), (1, 33, 3, 31), (0, 3, 4, 4), (2, 0, 4, 4)]
)
def test_layouts_and_odd_sizes(implementation: str, layout: str, shape: tuple[int, ...]) -> None:
    x, b = pictures(shape, layout, torch.float32), torch.randn(shape[1])
    expected = (x + b.view(1, -1, 1, 1)).clamp(-0.7, 0.7)
    y = bias_act(x, b, clamp=0.7)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    dense = torch.empty_like(x)
    if x.numel() > 0:  # the stride of a dimension of one element means nothing
        assert [y.stride(i) for i in range(4) if shape[i] > 1] == [dense.stride(i) for i in range(4) if shape[i] > 1]


@pytest.mark.parametrize(("shape", "dim"), [((4,), 0), ((4, 6), 1), ((4, 6), 0), ((2, 3, 5), -1), ((2, 3, 4, 5, 6), 2)])
def test_bias_along_any_dimension(implementation: str, shape: tuple[int, ...], dim: int) -> None:
    x, b = torch.randn(shape), torch.randn(shape[dim])
    expected = x + b.view([-1 if i == dim % len(shape) else 1 for i in range(len(shape))])
    torch.testing.assert_close(bias_act(x, b, dim=dim), expected)


def test_scalar_without_bias(implementation: str) -> None:
    assert bias_act(torch.tensor(-2.0), act="lrelu", gain=1).item() == pytest.approx(-0.4)


def test_bias_of_another_dtype_is_cast(implementation: str) -> None:
    x, b = torch.randn(2, 3, 4, 4, dtype=torch.bfloat16), torch.randn(3)
    torch.testing.assert_close(bias_act(x, b), x + b.bfloat16().view(1, -1, 1, 1))


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_not_a_number_and_infinity(implementation: str, act: str, dtype: torch.dtype) -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0], dtype=dtype).repeat(11)
    y = bias_act(x, act=act)
    high, low = formula(torch.tensor([50.0, -50.0]), act)
    assert y[0].isnan() and y[60].isnan()
    assert not y[[1, 3, 4, 5]].isnan().any()
    assert y[1] == (math.inf if high > 10 else 1)
    if act != "swish":  # -inf * 0 is NaN in the formula itself
        assert (y[2] == -math.inf) if low < -5 else (abs(y[2].double() - low) < 1e-2)
    assert bias_act(x, act=act, clamp=1.0)[0].isnan()


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_of_first_and_second_order(implementation: str, act: str, clamp: float | None, layout: str) -> None:
    x = pictures((2, 3, 2, 3), layout, torch.float64, seed=1).requires_grad_()
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b, act=act, clamp=clamp)

    assert torch.autograd.gradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(function, (x, b))
    assert torch.autograd.gradcheck(lambda x: bias_act(x, act=act, clamp=clamp), (x,))


@pytest.mark.parametrize("act", ["tanh", "swish"])
def test_gradient_of_third_order(native: None, act: str) -> None:
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)

    def second(x: Tensor) -> Tensor:
        (first,) = torch.autograd.grad(bias_act(x, act=act).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, (x,))


def test_gradients_agree_between_dtypes_and_implementations(implementation: str) -> None:
    x64, b64 = pictures((3, 8, 5, 5), "contiguous", torch.float64), torch.randn(8, dtype=torch.float64)
    for dtype, tolerance in TOLERANCE.items():
        x, b = x64.to(dtype).requires_grad_(), b64.to(dtype).requires_grad_()
        dx, db = torch.autograd.grad(bias_act(x, b, act="lrelu").sum(), (x, b))
        z = x.detach().double() + b.detach().double().view(1, -1, 1, 1)
        slope = math.sqrt(2) * torch.where(z > 0, z.new_tensor(1.0), 0.2)
        torch.testing.assert_close(dx.double(), slope, rtol=4 * tolerance, atol=0)
        torch.testing.assert_close(db.double(), slope.sum([0, 2, 3]), rtol=8 * tolerance, atol=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"x": torch.ones(2, 3), "act": "gelu"}, "act is 'gelu', expected one of linear, relu"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, "x is torch.int64, expected float32"),
        ({"x": torch.ones(2, 3), "b": torch.ones(4)}, r"b has shape \[4\], expected \[3\]"),
        ({"x": torch.ones(2, 3), "b": torch.ones(1, 3)}, r"b has shape \[1, 3\], expected \[3\]"),
        ({"x": torch.ones(2, 3), "b": torch.ones(3), "dim": 2}, "dim is 2, but x has 2 dimensions"),
        ({"x": torch.ones(2, 3), "b": torch.ones(3, device="meta")}, "b is on meta and x on cpu"),
        ({"x": torch.ones(2, 3), "clamp": -1.0}, "clamp is -1.0, expected None or a number of at least 0"),
    ],
)
def test_errors_are_sentences(implementation: str, arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^bias_act: {sentence}"):
        bias_act(**arguments)


@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_opcheck(native: None, act: str, layout: str) -> None:
    x, b = pictures((2, 3, 4, 5), layout, torch.float32), torch.randn(3)
    rest = (1, _NUMBERS[act], 0.2, 1.5, 0.9)
    for requires_grad in (False, True):
        x, b = x.detach().requires_grad_(requires_grad), b.detach().requires_grad_(requires_grad)
        torch.library.opcheck(torch.ops.pygan.bias_act.default, (x, b, *rest))
        torch.library.opcheck(torch.ops.pygan.bias_act.default, (x, None, *rest))
        torch.library.opcheck(torch.ops.pygan.bias_act_grad.default, (torch.randn(x.shape), x, b, *rest))


def test_meta_tensors(native: None) -> None:
    x = torch.empty(2, 3, 4, 5, device="meta", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    y = bias_act(x, torch.empty(3, device="meta"), act="swish")
    assert (y.shape, y.dtype, y.device.type, y.stride()) == (x.shape, x.dtype, "meta", x.stride())


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_compiles_without_graph_break(native: None, act: str) -> None:
    def loss(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x * 2, b, act=act).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    x, b = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(3, requires_grad=True)
    for expected, got in zip(
        torch.autograd.grad(loss(x, b), (x, b)), torch.autograd.grad(compiled(x, b), (x, b)), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_export_keeps_one_node(native: None) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return bias_act(x, act="lrelu")

    program = torch.export.export(Module(), (torch.randn(2, 3),))
    assert [node.target for node in program.graph.nodes].count(torch.ops.pygan.bias_act.default) == 1


@pytest.mark.slow
def test_uses_the_threads_asked_for(native: None) -> None:
    """Counted in CPU time per thread, which other work on the machine cannot hide."""

    def ticks() -> dict[str, int]:
        stats = {task.name: (task / "stat").read_text() for task in Path("/proc/self/task").iterdir()}
        return {name: int(stat.rsplit(")", 1)[1].split()[11]) for name, stat in stats.items()}

    before_threads = torch.get_num_threads()
    x = torch.randn(1 << 22)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            before = ticks()
            for _ in range(150):
                bias_act(x, act="tanh")
            busy = [name for name, count in ticks().items() if count - before.get(name, 0) >= 10]
            assert len(busy) == threads
    finally:
        torch.set_num_threads(before_threads)


DIGEST = """
import hashlib, torch
from pygan.ops import bias_act, build_info, spectral_sigma
torch.manual_seed(0)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    x, b = torch.randn(3, 5, 7, 9).to(dtype).requires_grad_(), torch.randn(5).to(dtype)
    for act in ("lrelu", "elu", "softplus", "swish", "tanh") if dtype != torch.float64 else ("lrelu",):
        y = bias_act(x, b, act=act)
        digest.update(y.detach().view(torch.uint8).numpy().tobytes())
        digest.update(torch.autograd.grad(y.sum(), x)[0].view(torch.uint8).numpy().tobytes())
    for value in spectral_sigma(x, torch.ones(3), torch.ones(315)):
        digest.update(value.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
print(build_info()["isa"], digest.hexdigest())
"""


@pytest.mark.slow
def test_same_bits_with_every_instruction_set(native: None) -> None:
    results = {}
    for wanted in ("baseline", "avx2", "avx512"):
        command = [sys.executable, "-c", DIGEST]
        environment = {**os.environ, "PYGAN_ISA": wanted, "PYGAN_OPS": "native"}
        printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        used, results[wanted] = printed.split()
        assert used == wanted or wanted == "avx512" or used == "baseline"  # no more than the processor has
    assert len(set(results.values())) == 1
