from typing import Any

import numpy as np
import pytest
import torch
from published import FIXTURES
from torch import Tensor

from pygan.ops import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

OPS = FIXTURES / "ops.npz"
# What one rounding of the result costs, and a few units more for sums in another order.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
SMOOTH = [[1.0, 3.0, 3.0, 1.0]]


def picture(*shape: int, dtype: torch.dtype = torch.float32, layout: str = "contiguous", seed: int = 0) -> Tensor:
    """A random batch in one of the layouts that reach the operator."""
    x = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float64).to(dtype)
    if layout == "channels_last":
        return x.to(memory_format=torch.channels_last)
    if layout == "sliced":
        wide = torch.zeros(*shape[:-1], 2 * shape[-1], dtype=dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if layout == "expanded":
        return x.new_ones(()).expand(shape)
    assert layout == "contiguous"
    return x


def taps(*shape: int) -> Tensor:
    """A filter without any symmetry; its elements are float32 numbers."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(7)).double().float()


def matrix(out: int, size: int, f: Tensor, up: int, down: int, before: int, flip: bool) -> Tensor:
    """The operator along one axis, element by element: `y = matrix @ x`."""
    f = f.double() if flip else f.double().flip(0)
    result = torch.zeros(out, size, dtype=torch.float64)
    for o in range(out):
        for k in range(len(f)):
            position = o * down + k - before  # on the upsampled axis
            if position % up == 0 and 0 <= position // up < size:
                result[o, position // up] += f[k]
    return result


def definition(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int] = (1, 1),
    down: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip: bool = False,
    gain: float = 1,
) -> Tensor:
    """The sum of the definition, in float64; a filter that is a matrix is a sum of products of its rows."""
    height, width = x.shape[2:]
    fh, fw = f.shape[0], f.shape[-1]
    out_h = (height * up[1] + padding[2] + padding[3] - fh) // down[1] + 1
    out_w = (width * up[0] + padding[0] + padding[1] - fw) // down[0] + 1
    pairs = [(f, f)] if f.dim() == 1 else [(torch.eye(fh)[i], f[i]) for i in range(fh)]
    total = torch.zeros(*x.shape[:2], out_h, out_w, dtype=torch.float64)
    for fy, fx in pairs:
        along = matrix(out_h, height, fy, up[1], down[1], padding[2], flip)
        across = matrix(out_w, width, fx, up[0], down[0], padding[0], flip)
        total += along @ x.double() @ across.T
    return total * gain


def assert_close(y: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert y.dtype == dtype and y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


SETTINGS = [
    # filter, up, down, padding, flip_filter, gain
    ((4, 4), (1, 1), (1, 1), (1, 2, 2, 1), False, 1.0),
    ((4, 4), (2, 2), (1, 1), (2, 1, 1, 2), False, 4.0),
    ((4, 4), (1, 1), (2, 2), (1, 1, 1, 1), True, 1.0),
    ((4,), (2, 2), (1, 1), (3, 3, 2, 2), True, -1.5),
    ((3, 5), (2, 2), (1, 1), (-1, 4, 3, -2), False, 1.0),
    ((2, 1), (1, 1), (2, 2), (0, 0, 1, 1), False, 2.0),
    ((5,), (1, 1), (1, 1), (9, 0, 0, 11), False, 1.0),
    ((1, 1), (2, 2), (1, 1), (1, 0, 0, 0), False, 1.0),
    ((12,), (2, 2), (1, 1), (6, 5, 6, 5), False, 4.0),
    ((3, 4), (3, 2), (2, 5), (2, 3, 4, 1), False, 0.7),
]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_values(implementation: str, setting: tuple, layout: str) -> None:
    shape, up, down, padding, flip, gain = setting
    f = taps(*shape)
    for dtype in TOLERANCE:
        x = picture(2, 5, 6, 9, dtype=dtype, layout=layout)
        y = upfirdn2d(x, f, up, down, padding, flip, gain)
        assert_close(y, definition(x, f, up, down, padding, flip, gain), dtype)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "expanded"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 1, 5, 2), (1, 33, 3, 4), (2, 4, 1, 67), (1, 2, 36, 1), (0, 3, 4, 4), (2, 0, 4, 4)]
)
def test_layouts_and_odd_sizes(implementation: str, shape: tuple[int, ...], layout: str) -> None:
    x = picture(*shape, layout=layout)
    f = setup_filter(SMOOTH[0])
    channels_last = x.stride(1) == 1 and x.shape[1] > 1
    for up, down in ((1, 1), (2, 1), (1, 2)):
        y = upfirdn2d(x, f, up, down, padding=2)
        assert_close(y, definition(x, f, (up, up), (down, down), (2, 2, 2, 2)), torch.float32)
        if y.numel() > 0:
            wanted = torch.channels_last if channels_last else torch.contiguous_format
            assert y.is_contiguous(memory_format=wanted)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_many_tiles_and_blocks(implementation: str, layout: str) -> None:
    x = picture(2, 34, 19, 70, layout=layout)
    f = taps(4, 4)
    for up, down, padding in ((1, 1, (1, 2, 1, 2)), (2, 1, (2, 1, 2, 1)), (1, 2, (1, 1, 1, 1))):
        y = upfirdn2d(x, f, up, down, padding)
        assert_close(y, definition(x, f, (up, up), (down, down), padding), torch.float32)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_too_large_for_a_cache(native: None, layout: str, dtype: torch.dtype) -> None:
    """The kernels of the CPU write them past the caches, those of its parts into the caches."""
    x = picture(1, 26, 181, 182, layout=layout).to(dtype).expand(4, -1, -1, -1)
    y = upsample2d(x, setup_filter(SMOOTH[0]))  # 27 or 55 MB
    assert torch.equal(y, upsample2d(x[:1], setup_filter(SMOOTH[0])).expand_as(y))


def test_without_filter(implementation: str) -> None:
    x = picture(2, 3, 4, 5)
    y = upfirdn2d(x, None, up=2, gain=3)
    assert torch.equal(y[:, :, ::2, ::2], 3 * x) and not y[:, :, 1::2].any() and not y[..., 1::2].any()
    assert torch.equal(
        upfirdn2d(x, None, down=2, padding=(-1, 0, 1, -1)), upfirdn2d(x, torch.ones(1, 1), 1, 2, (-1, 0, 1, -1))
    )


def test_arguments_are_x_before_y(implementation: str) -> None:
    x, f = picture(1, 2, 6, 7), taps(2, 3)
    assert torch.equal(upfirdn2d(x, f, [2, 1], (1, 2), (1, 2)), upfirdn2d(x, f, [2, 1], (1, 2), [1, 1, 2, 2]))
    assert upfirdn2d(x, f, up=(3, 1), down=(1, 2)).shape == (1, 2, (6 - 2) // 2 + 1, 7 * 3 - 3 + 1)
    assert upfirdn2d(x, f, padding=2).shape == (1, 2, 6 + 4 - 1, 7 + 4 - 2)


def test_outer_product_equals_its_vector(implementation: str) -> None:
    """A matrix of rank 1 is factored on the CPU; one that is nearly so is not."""
    x, f = picture(1, 2, 8, 9, dtype=torch.float64), taps(3)
    torch.testing.assert_close(upfirdn2d(x, torch.outer(f, f).float()), upfirdn2d(x, f), rtol=1e-6, atol=1e-6)
    nearly = torch.outer(f, f)
    nearly[0, 0] *= 1 + 1e-5
    assert_close(upfirdn2d(x, nearly), definition(x, nearly), torch.float64)
    assert not upfirdn2d(x, torch.zeros(3, 2)).any()


def test_not_a_number_stays_where_the_filter_reaches(implementation: str) -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = torch.nan
    y = filter2d(x, setup_filter(SMOOTH[0]))
    assert y.isnan().sum() == 16 and y[0, 0, 3:7, 3:7].isnan().all()


def test_linear_operator_keeps_constants_and_means(implementation: str) -> None:
    f = setup_filter(SMOOTH[0])
    inside = upsample2d(torch.ones(1, 2, 8, 8), f)[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.ones_like(inside))
    inside = downsample2d(torch.ones(1, 2, 8, 8), f)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(inside, torch.ones_like(inside))


@pytest.mark.parametrize("fh", [1, 2, 3, 4, 7])
def test_sizes_of_the_helpers(implementation: str, fh: int) -> None:
    x, f = picture(1, 1, 6, 8), taps(fh, 5)
    assert upsample2d(x, f).shape == (1, 1, 12, 16)
    assert upsample2d(x, f, up=(3, 1), padding=(1, 0)).shape == (1, 1, 6, 26)
    assert downsample2d(x, f).shape == (1, 1, 3, 4)
    assert downsample2d(x, f, down=(1, 3)).shape == (1, 1, 2, 8)
    assert filter2d(x, f).shape == x.shape
    assert filter2d(x, f, padding=1).shape == (1, 1, 8, 10)


def test_setup_filter() -> None:
    f = setup_filter([1, 3, 3, 1])
    assert torch.equal(f, torch.outer(*2 * [torch.tensor([1.0, 3.0, 3.0, 1.0])]) / 64)
    assert setup_filter(range(1, 9)).shape == (8,) and setup_filter(range(1, 9), separable=False).shape == (8, 8)
    assert torch.equal(setup_filter([1, 2], normalize=False, separable=True, gain=4), torch.tensor([2.0, 4.0]))
    assert torch.equal(
        setup_filter([[1, 2], [3, 4]], normalize=False, flip_filter=True, gain=2),
        torch.tensor([[8.0, 6.0], [4.0, 2.0]]),
    )
    assert torch.equal(setup_filter(None), torch.ones(1, 1)) and setup_filter(2.0).item() == 1
    given = torch.tensor([1.0, 1.0])
    setup_filter(given, separable=True)
    assert torch.equal(given, torch.ones(2))
    assert setup_filter([1, 1], device="meta").device.type == "meta"


def test_a_filter_can_be_planned_without_memory() -> None:
    with torch.device("meta"):
        f = setup_filter([1, 3, 3, 1])
    assert f.is_meta and f.shape == (4, 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"f": []}, r"f has shape \[0\], expected a number"),
        ({"f": torch.ones(1, 1, 1)}, r"f has shape \[1, 1, 1\], expected a number"),
        ({"f": torch.ones(2, 2), "separable": True}, "separable needs the taps of one axis"),
        ({"f": [1, -1]}, "the taps sum to 0"),
        ({"f": [1, 1], "separable": True, "gain": -1}, "gain is -1, expected at least 0"),
    ],
)
def test_setup_filter_errors(arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^setup_filter: {sentence}"):
        setup_filter(**arguments)


GRADIENT_SETTINGS = [
    ((4, 4), (2, 2), (1, 1), (2, 1, 2, 1), False, 4.0),
    ((4, 4), (1, 1), (2, 2), (1, 1, 1, 1), False, 1.0),
    ((2, 3), (3, 1), (1, 2), (2, -1, -1, 3), True, -0.5),
]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("setting", GRADIENT_SETTINGS)
def test_gradients_of_first_and_second_order(implementation: str, setting: tuple, layout: str) -> None:
    shape, up, down, padding, flip, gain = setting
    x = picture(1, 2, 3, 4, dtype=torch.float64, layout=layout).requires_grad_()
    f = taps(*shape)

    def function(x: Tensor) -> Tensor:
        return upfirdn2d(x, f, up, down, padding, flip, gain)

    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


def test_gradient_is_the_transposed_operator(implementation: str) -> None:
    """<y, A x> = <A' y, x>, for sizes that leave a rest, and dy of any strides."""
    f = taps(3, 4)
    for dtype, tolerance in TOLERANCE.items():
        for up, down in ((1, 1), (2, 1), (1, 2), (2, 3)):
            x = picture(2, 3, 7, 8, dtype=dtype, layout="channels_last").requires_grad_()
            y = upfirdn2d(x, f, up, down, padding=(3, 1, 0, 2))
            dy = picture(*y.shape, dtype=dtype, layout="sliced", seed=1)
            (dx,) = torch.autograd.grad(y, x, dy)
            expected = definition(x.detach(), f, (up, up), (down, down), (3, 1, 0, 2))
            products = (expected * dy.double()).sum(), (dx.double() * x.detach().double()).sum()
            scale = (expected * dy.double()).abs().sum()
            assert abs(products[0] - products[1]) < 8 * tolerance * scale
            assert dx.dtype == dtype


def test_penalty_on_gradients(implementation: str) -> None:
    """The gradient of |dy/dx|^2 passes through the operator and its gradient."""
    x, f = picture(1, 2, 4, 4, dtype=torch.float64).requires_grad_(), setup_filter(SMOOTH[0])
    (dx,) = torch.autograd.grad(downsample2d(x, f).pow(3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(dx.square().sum(), x)
    a = torch.stack([downsample2d(e.reshape(1, 2, 4, 4), f).flatten() for e in torch.eye(32).double()], 1)
    y = a @ x.detach().flatten()
    gradient = a.T @ (3 * y.square())
    torch.testing.assert_close(second.flatten(), 2 * a.T @ (6 * y * (a @ gradient)))


def test_autocast_keeps_the_dtype(implementation: str) -> None:
    f = setup_filter(SMOOTH[0])
    for dtype in (torch.float32, torch.bfloat16):
        x = picture(1, 2, 4, 4, dtype=dtype)
        with torch.autocast(x.device.type, torch.bfloat16):
            y = upfirdn2d(x, f)
        assert y.dtype == dtype and torch.equal(y, upfirdn2d(x, f))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"x": torch.ones(3, 4, 4)}, r"x has shape \[3, 4, 4\], expected \[N, C, H, W\]"),
        ({"x": torch.ones(1, 1, 4, 4, dtype=torch.int64)}, "x is torch.int64, expected float32"),
        ({"x": torch.ones(1, 1, 0, 4)}, r"x has shape \[1, 1, 0, 4\], expected at least one pixel"),
        ({"f": torch.ones(1, 2, 2)}, r"f has shape \[1, 2, 2\], expected \[fh, fw\] or \[k\]"),
        ({"f": torch.ones(0, 2)}, r"f has shape \[0, 2\], expected \[fh, fw\] or \[k\]"),
        ({"f": torch.ones(2, 2).double()}, "f is torch.float64, expected float32"),
        ({"f": torch.ones(2, 2, requires_grad=True)}, "f requires a gradient, but only x gets one"),
        ({"f": torch.ones(2, 2, device="meta")}, "f is on meta and x on cpu, expected one device"),
        ({"f": torch.ones(2, 5)}, "the padded picture has 4 x 4 pixels, too few for the filter of 2 x 5 taps"),
        ({"padding": (-2, -2, 0, 0)}, "the padded picture has 4 x 0 pixels"),
        ({"up": 0}, "up is 0, expected an integer of at least 1"),
        ({"up": (1, 2, 3)}, r"up is \(1, 2, 3\), expected an integer"),
        ({"down": 1.5}, "down is 1.5, expected an integer"),
        ({"padding": (1, 2, 3)}, r"padding is \(1, 2, 3\), expected an integer"),
        ({"padding": 0.5}, "padding is 0.5, expected an integer"),
    ],
)
def test_errors_are_sentences(implementation: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^upfirdn2d: {sentence}"):
        upfirdn2d(**{"x": torch.ones(1, 1, 4, 4), "f": torch.ones(2, 2), **arguments})


def test_registered_operator_checks_on_its_own(namespace: str) -> None:
    operator = getattr(torch.ops, namespace).upfirdn2d
    rest = (1, 1, 1, 1, 0, 0, 0, 0, False, 1.0)
    with pytest.raises(RuntimeError, match="padded picture must not be smaller than the filter"):
        operator(torch.ones(1, 1, 2, 2), torch.ones(3, 3), *rest)
    with pytest.raises(ValueError, match="too few for the filter"):
        operator(torch.ones(1, 1, 2, 2, device="meta"), torch.ones(3, 3, device="meta"), *rest)


def test_opcheck(namespace: str) -> None:
    operator = getattr(torch.ops, namespace).upfirdn2d.default
    for layout, f in (("contiguous", taps(4, 4)), ("channels_last", taps(3)), ("sliced", None)):
        x = picture(1, 2, 5, 4, layout=layout).requires_grad_()
        torch.library.opcheck(operator, (x, f, 2, 1, 1, 2, 2, 1, 3, 0, False, 1.5))


def test_meta_tensors(native: None) -> None:
    x = torch.empty(2, 3, 4, 5, device="meta", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    y = upsample2d(x, setup_filter([1, 3, 3, 1], device="meta"))
    assert (y.shape, y.dtype, y.device.type) == ((2, 3, 8, 10), x.dtype, "meta")
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_break(native: None, backend: str) -> None:
    f = setup_filter(SMOOTH[0])

    def loss(x: Tensor) -> Tensor:
        return downsample2d(upsample2d(x * 2, f).tanh(), f, padding=1).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for layout in ("contiguous", "channels_last"):
        x = picture(2, 3, 6, 6, layout=layout).requires_grad_()
        torch.testing.assert_close(compiled(x), loss(x))
        torch.testing.assert_close(torch.autograd.grad(compiled(x), x), torch.autograd.grad(loss(x), x))


def test_export_keeps_one_node(native: None) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor, f: Tensor) -> Tensor:
            return upsample2d(x, f)

    program = torch.export.export(Module(), (picture(1, 2, 4, 4), setup_filter(SMOOTH[0])))
    assert [node.target for node in program.graph.nodes].count(torch.ops.pygan.upfirdn2d.default) == 1


CASES = [
    # As the fixtures' README lists them.
    ("f1331", 1, 1, 0, False, 1),
    ("f1331", 2, 1, [2, 1, 2, 1], False, 4),
    ("f1331", 1, 2, 1, False, 1),
    ("fasym3x3", 2, 1, [1, 2, 0, 3], False, 2.5),
    ("fasym3x3", 1, 1, 1, True, 1),
    ("fasym3x3", [2, 1], [1, 2], [3, -1, -2, 4], False, 1),
    ("fsym6", 2, 1, [6, 5, 6, 5], False, 4),
    ("fsym6", 1, 2, [5, 5, 5, 5], True, 1),
    ("f4sep", 2, 2, 2, False, 1),
    ("f4sep", 3, 2, [0, 4, 4, 0], True, 0.7),
    (None, 2, 1, 0, False, 1),
    (None, 1, 2, [-1, 0, 1, -1], False, 3),
]


@pytest.fixture(scope="module")
def fixtures() -> dict[str, np.ndarray]:
    if not OPS.is_file():
        pytest.skip(f"{OPS} is not there: values of the official code")
    with np.load(OPS) as arrays:
        return {name: arrays[name] for name in arrays if name.startswith(("filters/", "upfirdn2d/"))}


def assert_official(fixtures: dict[str, np.ndarray], name: str, function: Any) -> None:
    x = torch.tensor(fixtures["upfirdn2d/x"], requires_grad=True)
    y = function(x)
    (dx,) = torch.autograd.grad(y, x, torch.tensor(fixtures[f"upfirdn2d/{name}/probe"]))
    for got, expected in ((y, fixtures[f"upfirdn2d/{name}/out"]), (dx, fixtures[f"upfirdn2d/{name}/grad_x"])):
        torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_values_of_the_official_code(implementation: str, fixtures: dict[str, np.ndarray], number: int) -> None:
    name, *options = CASES[number]
    f = None if name is None else torch.tensor(fixtures[f"filters/{name}"])
    assert_official(fixtures, f"case{number}", lambda x: upfirdn2d(x, f, *options))


@pytest.mark.parametrize("helper", [upsample2d, downsample2d, filter2d])
@pytest.mark.parametrize("name", ["f1331", "fasym3x3"])
def test_helpers_of_the_official_code(
    implementation: str, fixtures: dict[str, np.ndarray], helper: Any, name: str
) -> None:
    f = torch.tensor(fixtures[f"filters/{name}"])
    assert_official(fixtures, f"{helper.__name__}_{name}", lambda x: helper(x, f))


DIGEST = """
import hashlib, torch
from pygan.ops import upfirdn2d
torch.manual_seed(0)
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    for x in (torch.randn(2, 19, 11, 37), torch.randn(2, 19, 11, 37).to(memory_format=torch.channels_last)):
        for f in (torch.randn(4), torch.randn(3, 5), torch.randn(13)):
            for up, down in ((1, 1), (2, 1), (1, 2), (3, 2)):
                y = upfirdn2d(x.to(dtype), f, up, down, padding=5)
                digest.update(y.contiguous().view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_same_bits_with_every_instruction_set(digests_by_isa) -> None:
    assert len(set(digests_by_isa(DIGEST).values())) == 1


@pytest.mark.slow
def test_same_bits_with_any_number_of_threads(native: None) -> None:
    x, f = picture(3, 5, 130, 131), setup_filter(SMOOTH[0])
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results += [upsample2d(x, f), upsample2d(x.to(memory_format=torch.channels_last), f)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], result) for result in results[1:])
