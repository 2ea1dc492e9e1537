import math
from pathlib import Path

import numpy as np
import pytest
import torch
from published import FIXTURES
from torch import Tensor

from pygan.ops import bias_act
from pygan.ops.bias_act import _NUMBERS, ACTIVATIONS

OPS = FIXTURES / "ops.npz"

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


# Rows of one channel that are long or short, whole vectors or not, and channels that fill a vector, a block or neither.
SHAPES = [
    (2, 3, 4, 4),
    (1, 1, 1, 1),
    (3, 1, 5, 2),
    (2, 17, 1, 1),
    (19, 16, 1, 3),
    (1, 33, 3, 31),
    (2, 3, 8, 20),
    (1, 1040, 2, 1),
    (0, 3, 4, 4),
    (2, 0, 4, 4),
]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "permuted", "sliced", "expanded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_layouts_and_odd_sizes(implementation: str, layout: str, shape: tuple[int, ...]) -> None:
    x, b = pictures(shape, layout, torch.float32).requires_grad_(), torch.randn(shape[1], requires_grad=True)
    dy = torch.randn(shape)
    y = bias_act(x, b, act="lrelu", clamp=2.0)
    dx, db = torch.autograd.grad(y, (x, b), dy)
    z = x.detach().double() + b.detach().double().view(1, -1, 1, 1)
    activated = formula(z, "lrelu") * math.sqrt(2)
    slope = math.sqrt(2) * torch.where(z > 0, z.new_tensor(1.0), 0.2)
    expected_dx = torch.where(activated.abs() >= 2, 0.0, dy.double() * slope)
    torch.testing.assert_close(y.detach().double(), activated.clamp(-2, 2), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dx.double(), expected_dx, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(db.double(), expected_dx.sum([0, 2, 3]), rtol=1e-5, atol=1e-5)
    if x.numel() > 0:  # the stride of a dimension of one element means nothing
        dense = torch.empty_like(x)
        meaning = [i for i in range(4) if shape[i] > 1]
        assert [y.stride(i) for i in meaning] == [dx.stride(i) for i in meaning] == [dense.stride(i) for i in meaning]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "misaligned"])
def test_gradients_of_every_dtype(implementation: str, dtype: torch.dtype, layout: str) -> None:
    shape = (3, 24, 4, 16)
    if layout == "misaligned":  # dense, but not at a multiple of 16 bytes
        x = torch.empty(1 + math.prod(shape), dtype=dtype)[1:].view(shape)
        x.copy_(pictures(shape, "contiguous", dtype))
    else:
        x = pictures(shape, layout, dtype)
    x, b = x.requires_grad_(), torch.linspace(-1, 1, 24).to(dtype).requires_grad_()
    dy = pictures(shape, "channels_last", dtype, seed=1)
    for act in ("lrelu", "swish"):
        dx, db = torch.autograd.grad(bias_act(x, b, act=act, gain=1), (x, b), dy)
        z = (x.detach().double() + b.detach().double().view(1, -1, 1, 1)).requires_grad_()
        (expected,) = torch.autograd.grad(formula(z, act), z, dy.double())
        tolerance = TOLERANCE[dtype] * (1 if implementation != "reference" else 8)
        torch.testing.assert_close(dx.double(), expected, rtol=4 * tolerance, atol=4 * tolerance)
        # Rounded once; the reference sums rounded gradients.
        torch.testing.assert_close(db.double(), expected.sum([0, 2, 3]), rtol=4 * tolerance, atol=40 * tolerance)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_large_tensors(native: None, layout: str) -> None:
    """Outputs of 8 MB and more go past the caches; rows that begin inside a cache line too."""
    x, b = pictures((2, 21, 321, 161), layout, torch.float32).requires_grad_(), torch.randn(21, requires_grad=True)
    y = bias_act(x, b, act="lrelu", gain=1)
    dx, db = torch.autograd.grad(y, (x, b), x.detach())
    z = x.detach() + b.detach().view(1, -1, 1, 1)
    assert torch.equal(y, torch.where(z > 0, z, z * 0.2))
    assert torch.equal(dx, torch.where(z > 0, x, x * 0.2))
    torch.testing.assert_close(db.double(), dx.double().sum([0, 2, 3]), rtol=1e-5, atol=1e-2)


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


def test_autocast_leaves_the_dtype_of_x(implementation: str) -> None:
    b = torch.randn(3, requires_grad=True)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 3, 4, 4, dtype=dtype, requires_grad=True)
        with torch.autocast(x.device.type, torch.bfloat16):
            y = bias_act(x, b, act="lrelu", gain=1)
        assert y.dtype == dtype
        dx, db = torch.autograd.grad(y.sum(), (x, b))
        assert (dx.dtype, db.dtype) == (dtype, torch.float32)
        torch.testing.assert_close(y, bias_act(x, b.to(dtype), act="lrelu", gain=1), rtol=0, atol=0)


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


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("act", ["linear", "lrelu", "sigmoid", "swish"])
def test_no_gradient_at_the_clamp(implementation: str, dtype: torch.dtype, act: str) -> None:
    """The stored output decides, also where it was rounded to the clamp or the clamp was rounded itself."""
    x = torch.linspace(-3, 3, 601, dtype=torch.float64).to(dtype).requires_grad_()
    for clamp in (0.0, 0.3, 0.7, 1.0):
        y = bias_act(x, act=act, gain=1, clamp=clamp)
        (dx,) = torch.autograd.grad(y.sum(), x)
        limit = y.new_tensor(clamp)
        assert y.abs().max() <= limit
        assert not dx[y.abs() >= limit].any()
        inside = (y.abs() < limit) & (x > 0.01)
        assert dx[inside].all() and (inside.any() or clamp < 0.5)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("clamp", "layout"), [(None, "contiguous"), (0.8, "channels_last")])
def test_gradients_of_first_and_second_order(implementation: str, act: str, clamp: float | None, layout: str) -> None:
    x = pictures((2, 3, 1, 2), layout, torch.float64, seed=1).requires_grad_()
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x, b, act=act, gain=1.3, clamp=clamp)

    assert torch.autograd.gradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(function, (x, b), fast_mode=implementation == "emulated")
    assert torch.autograd.gradgradcheck(lambda x: bias_act(x, act=act, clamp=clamp), (x,), fast_mode=True)


@pytest.mark.parametrize("act", ["tanh", "sigmoid", "elu", "softplus", "swish"])
def test_gradient_of_third_order(implementation: str, act: str) -> None:
    x = torch.tensor([[-1.7, 0.4], [0.9, -0.3]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.2, -0.5], dtype=torch.float64, requires_grad=True)

    def second(x: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(bias_act(x, b, act=act).square().sum(), (x, b), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (x, b), create_graph=True)

    assert torch.autograd.gradcheck(second, (x, b))


@pytest.mark.parametrize("options", [{"gain": -1.5}, {"gain": 0.0}, {"gain": 1e-6}, {"alpha": -0.3}])
def test_odd_gains_and_slopes(implementation: str, options: dict[str, float]) -> None:
    x = torch.tensor([-1.7, 0.4, 0.9, -0.3], dtype=torch.float64, requires_grad=True)
    z = x.detach()
    gain, alpha = options.get("gain", 1.0), options.get("alpha", 0.2)
    y = bias_act(x, act="lrelu", gain=gain, alpha=alpha)
    torch.testing.assert_close(y, torch.where(z > 0, z, alpha * z) * gain)
    (dx,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(dx, torch.where(z > 0, z.new_tensor(1.0), alpha) * gain)


@pytest.mark.skipif(not OPS.is_file(), reason="the official code's outputs are not at hand")
@pytest.mark.parametrize("act", ACTS)
def test_agrees_with_the_official_code(implementation: str, act: str) -> None:
    arrays = np.load(OPS)

    def array(name: str) -> Tensor:
        return torch.tensor(arrays[f"bias_act/{name}"])

    def agrees(got: Tensor, name: str) -> None:
        torch.testing.assert_close(got, array(name), rtol=2e-6, atol=2e-6)

    x, b, probe = array("x").requires_grad_(), array("b").requires_grad_(), array("probe")
    for case, options in (("default", {}), ("gain1.5_clamp1", {"gain": 1.5, "clamp": 1.0})):
        y = bias_act(x, b, act=act, **options)
        agrees(y, f"{act}_{case}/out")
        dx, db = torch.autograd.grad((y * probe).sum(), (x, b), create_graph=True)
        agrees(dx, f"{act}_{case}/grad_x")
        agrees(db, f"{act}_{case}/grad_b")
        if case == "default" and dx.requires_grad:
            second = torch.autograd.grad((dx * array("probe2")).sum(), x, allow_unused=True, materialize_grads=True)
            agrees(second[0], f"{act}_default/grad2_x")
    if act == "lrelu":
        agrees(bias_act(x, act="lrelu", alpha=0.1), "lrelu_alpha0.1_nobias/out")
    if act == "linear":
        agrees(bias_act(x, b[:3], dim=3), "linear_dim3/out")


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


@pytest.mark.parametrize(("act", "layout"), [("tanh", "sliced"), ("swish", "channels_last")])
def test_opcheck(namespace: str, act: str, layout: str) -> None:
    operators = getattr(torch.ops, namespace)
    x, b = pictures((2, 3, 4, 5), layout, torch.float32).requires_grad_(), torch.randn(3, requires_grad=True)
    rest = (1, _NUMBERS[act], 0.2, 1.5, 0.9)
    saved_b = b if ACTIVATIONS[act].saves_input else None
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if namespace == "pygan" and act == "swish":  # slow, and about what all have in common
        checks.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(operators.bias_act.default, (x, b, *rest), test_utils=checks)
    torch.library.opcheck(
        operators.bias_act_grad.default, (torch.randn(x.shape), x, saved_b, *rest, True), test_utils=checks
    )


def test_operators_check_what_they_are_given(namespace: str) -> None:
    """Also the shapes-only version of them, for those who call them directly."""
    operators = getattr(torch.ops, namespace)
    x, rest = torch.ones(2, 3), (1, 0, 0.0, 1.0, -1.0)
    for device, error in ((x.device, RuntimeError), ("meta", ValueError)):
        x = x.to(device)
        with pytest.raises(error, match="b must be a vector"):
            operators.bias_act(x, x[0, :2], *rest)
        with pytest.raises(error, match="unknown activation number 9"):
            operators.bias_act(x, None, 1, 9, 0.0, 1.0, -1.0)
        with pytest.raises(error, match="gain above 0"):
            operators.bias_act(x, None, 1, 0, 0.0, -1.0, -1.0)
        with pytest.raises(error, match="dy must have the shape"):
            operators.bias_act_grad(x[:1], x, None, *rest, False)
        with pytest.raises(error, match="dim is out of range"):
            operators.bias_act_grad(x, x, None, 2, *rest[1:], True)


def test_meta_tensors(native: None) -> None:
    x = torch.empty(2, 3, 4, 5, device="meta", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    y = bias_act(x, torch.empty(3, device="meta"), act="swish")
    assert (y.shape, y.dtype, y.device.type, y.stride()) == (x.shape, x.dtype, "meta", x.stride())


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_compiles_without_graph_break(native: None, act: str, backend: str) -> None:
    def loss(x: Tensor, b: Tensor) -> Tensor:
        return bias_act(x * 2, b, act=act).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
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


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_same_bits_with_any_number_of_threads(native: None, layout: str) -> None:
    x, dy = pictures((5, 70, 40, 33), layout, torch.float32).requires_grad_(), torch.randn(5, 70, 40, 33)
    b = torch.randn(70, requires_grad=True)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(bias_act(x, b, act="lrelu"), (x, b), dy))
    finally:
        torch.set_num_threads(before)
    for dx, db in results:
        assert torch.equal(dx, results[0][0]) and torch.equal(db, results[0][1])


DIGEST = """
import hashlib, torch
from pygan.ops import bias_act
torch.manual_seed(0)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(3, 5, 17, 19).to(dtype).to(memory_format=layout).requires_grad_()
        b = torch.randn(5).to(dtype).requires_grad_()
        for act in ("lrelu", "elu", "softplus", "swish", "tanh") if dtype != torch.float64 else ("lrelu",):
            y = bias_act(x, b, act=act)
            for value in (y, *torch.autograd.grad(y.square().sum(), (x, b))):
                digest.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes())
x = torch.randn(2, 3, 700, 501).requires_grad_()  # large enough to go past the caches
y = bias_act(x, act="lrelu")
for value in (y, *torch.autograd.grad(y.square().sum(), x)):
    digest.update(value.detach().view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_same_bits_with_every_instruction_set(digests_by_isa) -> None:
    assert len(set(digests_by_isa(DIGEST).values())) == 1
