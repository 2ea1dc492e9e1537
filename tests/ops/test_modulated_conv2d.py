import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import FIXTURES
from torch import Tensor

from pygan.ops import modulated_conv2d
from pygan.ops.bias_act import _NUMBERS
from pygan.ops.modulated_conv2d import _demodulation
from pygan.ops.upfirdn2d import setup_filter, upsample2d

OPS = FIXTURES / "ops.npz"
# One rounding of the result, after a convolution that was rounded too.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2**-8, torch.bfloat16: 2**-5}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
LRELU = (_NUMBERS["lrelu"], 0.2, 1.5, 0.9)
"""act, alpha, gain, clamp"""


def numbers(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def arguments(
    n: int, i: int, o: int, size: int, kernel: int = 3, dtype: torch.dtype = torch.float32, layout: str = "contiguous"
) -> tuple[Tensor, ...]:
    """x, weight, styles, noise, bias."""
    return (
        numbers(n, i, size, size, dtype=dtype, seed=1).to(memory_format=FORMATS[layout]),
        numbers(o, i, kernel, kernel, dtype=dtype, seed=2),
        numbers(n, i, dtype=dtype, seed=3) + 1,
        numbers(n, 1, size, size, dtype=dtype, seed=4),
        numbers(o, dtype=dtype, seed=5),
    )


def formula(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor | None, bias: Tensor, demodulate: bool) -> Tensor:
    """The paper's equations in float64: every sample has a weight of its own; lrelu with its gain."""
    results = []
    for sample, style in zip(x.double(), styles.double(), strict=True):
        w = weight.double() * style[:, None, None]
        if demodulate:
            w = w / (w.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        results.append(F.conv2d(sample, w, padding=weight.shape[-1] // 2))
    y = torch.stack(results)
    if noise is not None:
        y = y + noise.double()
    return F.leaky_relu(y + bias.double()[:, None, None], 0.2) * 2**0.5


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values(implementation: str, dtype: torch.dtype, layout: str) -> None:
    for kernel, size, demodulate in itertools.product((1, 3), (5, 8), (True, False)):
        x, weight, styles, noise, bias = arguments(2, 5, 6, size, kernel, dtype, layout)
        y = modulated_conv2d(
            x, weight, styles, noise, padding=kernel // 2, demodulate=demodulate, bias=bias, act="lrelu"
        )
        expected = formula(x, weight, styles, noise, bias, demodulate)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=FORMATS[layout])
        scale = expected.abs().max().item()
        torch.testing.assert_close(y.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 32, 130])
def test_odd_sizes_and_every_option(implementation: str, channels: int, layout: str) -> None:
    """One channel, vectors that do not fit, more channels than a tile has; noise of its own, shared, or none."""
    for size, clamp in ((1, None), (3, 0.8), (9, None)):
        x, weight, styles, noise, bias = arguments(3, 2, channels, size, layout=layout)
        for case in (noise, noise[:1], noise[0, 0], None):
            y = modulated_conv2d(x, weight, styles, case, padding=1, bias=bias, act="lrelu", clamp=clamp)
            expected = formula(x, weight, styles, case, bias, True)
            if clamp is not None:
                expected = expected.clamp(-clamp, clamp)
            torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


def test_larger_than_one_unit_of_work(implementation: str) -> None:
    x, weight, styles, noise, bias = (t.requires_grad_() for t in arguments(1, 2, 3, 70))
    y = modulated_conv2d(x, weight, styles, noise, padding=1, bias=bias, act="lrelu")
    expected = formula(x, weight, styles, noise, bias, True)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    probe = numbers(*y.shape, seed=9)
    inputs = (x, weight, styles, noise, bias)
    got, wanted = torch.autograd.grad(y, inputs, probe), torch.autograd.grad(expected, inputs, probe.double())
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def test_strided_and_empty_inputs(implementation: str) -> None:
    x, weight, styles, noise, bias = arguments(2, 4, 3, 6)
    expected = modulated_conv2d(x[:, ::2], weight[:, ::2].contiguous(), styles[:, ::2].contiguous(), noise, padding=1)
    wide = torch.zeros(2, 2, 6, 12)
    wide[..., ::2] = x[:, ::2]
    got = modulated_conv2d(wide[..., ::2], weight[:, ::2], styles[:, ::2], noise.expand(2, 1, 6, 6), padding=1)
    torch.testing.assert_close(got, expected)
    x = torch.empty(0, 4, 6, 6, requires_grad=True)
    y = modulated_conv2d(x, weight, torch.empty(0, 4), padding=1, bias=bias)
    assert y.shape == (0, 3, 6, 6)
    y.sum().backward()


@pytest.mark.skipif(not OPS.is_file(), reason=f"{OPS} is not there")
def test_values_and_gradients_of_the_official_code(implementation: str) -> None:
    with np.load(OPS) as arrays:
        f = torch.from_numpy(arrays["filters/f1331"])
        for kernel, up, demodulate, fused in itertools.product((1, 3), (1, 2), (0, 1), (0, 1)):
            inputs = [
                torch.from_numpy(arrays[f"modconv/k{kernel}/{name}"]).requires_grad_()
                for name in ("x", "weight", "styles")
            ]
            noise = torch.from_numpy(arrays[f"modconv/k{kernel}/noise_up{up}"])
            options = {
                "up": up,
                "padding": kernel // 2,
                "resample_filter": f,
                "demodulate": bool(demodulate),
                "flip_weight": up == 1,
            }
            case = f"modconv/k{kernel}/up{up}_demod{demodulate}_fused{fused}_noise"
            y = modulated_conv2d(*inputs, **options)
            gradients = torch.autograd.grad(y, inputs, torch.from_numpy(arrays[f"{case}0/probe"]))
            expected = {"0/out": y, "1/out": modulated_conv2d(*inputs, noise=noise, **options)}
            expected |= dict(zip(("0/grad_x", "0/grad_weight", "0/grad_styles"), gradients, strict=True))
            for name, got in expected.items():
                wanted = torch.from_numpy(arrays[case + name])
                torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


def test_down_filters_after_the_modulation(implementation: str) -> None:
    x, weight, styles, *_ = arguments(2, 3, 4, 8)
    f = setup_filter([1, 3, 3, 1])
    y = modulated_conv2d(x, weight, styles, down=2, padding=1, resample_filter=f, demodulate=False)
    blurred = F.conv2d(F.pad(x * styles[:, :, None, None], [2, 2, 2, 2]), f.expand(3, 1, -1, -1), groups=3)
    torch.testing.assert_close(y, F.conv2d(blurred, weight, stride=2), rtol=1e-5, atol=1e-5)


def test_one_tap_upsamples_the_convolution(implementation: str) -> None:
    x, weight, styles, *_ = arguments(2, 3, 4, 5, kernel=1)
    f = setup_filter([1, 3, 3, 1])
    y = modulated_conv2d(x, weight, styles, up=2, resample_filter=f, demodulate=False)
    torch.testing.assert_close(y, upsample2d(F.conv2d(x * styles[:, :, None, None], weight), f), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(
    ("act", "clamp", "samples_of_noise"),
    [("linear", None, 2), ("lrelu", 1.5, 2), ("lrelu", None, 1), ("swish", 1.0, 1), ("tanh", None, 0)],
)
def test_gradients_of_first_and_second_order(
    implementation: str, act: str, clamp: float | None, samples_of_noise: int, layout: str
) -> None:
    x, weight, styles, noise, bias = arguments(2, 2, 3, 3, dtype=torch.float64, layout=layout)
    inputs = [x, weight, styles] + ([noise[:samples_of_noise], bias] if samples_of_noise else [])
    inputs = [t.clone().requires_grad_() for t in inputs]

    def function(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor | None = None, bias: Tensor | None = None):
        return modulated_conv2d(x, weight, styles, noise, padding=1, bias=bias, act=act, clamp=clamp)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("demodulate", [True, False])
def test_gradients_with_upsampling(implementation: str, demodulate: bool) -> None:
    x, weight, styles, _, bias = (t.requires_grad_() for t in arguments(1, 2, 2, 3, dtype=torch.float64))
    noise = numbers(1, 1, 6, 6, dtype=torch.float64).requires_grad_()
    f = setup_filter([1, 3, 3, 1])

    def function(x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, bias: Tensor) -> Tensor:
        return modulated_conv2d(
            x, weight, styles, noise, 2, 1, 1, f, demodulate, flip_weight=False, bias=bias, act="lrelu"
        )

    assert torch.autograd.gradcheck(function, (x, weight, styles, noise, bias), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, weight, styles, noise, bias), fast_mode=True)


@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_gradient_of_third_order(native: None, act: str) -> None:
    x, weight, styles, noise, bias = arguments(1, 1, 2, 2, dtype=torch.float64)
    styles.requires_grad_()

    def second(styles: Tensor) -> Tensor:
        y = modulated_conv2d(x, weight, styles, noise, padding=1, bias=bias, act=act)
        (first,) = torch.autograd.grad(y.square().sum(), styles, create_graph=True)
        return torch.autograd.grad(first.square().sum(), styles, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, (styles,))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("up", [1, 2])
def test_path_length_penalty_in_float32(implementation: str, up: int, layout: str) -> None:
    """Differentiates twice where the layout of the convolution is chosen for speed, which in float64 it is not."""
    f = setup_filter([1, 3, 3, 1])

    def penalty_gradients(dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = (t.to(dtype).detach().requires_grad_() for t in arguments(2, 3, 4, 8, layout=layout))
        x, weight, styles, _, bias = inputs
        y = modulated_conv2d(
            x, weight, styles, None, up, 1, 1, f if up > 1 else None, flip_weight=up == 1, bias=bias, act="lrelu"
        )
        probe = numbers(*y.shape, seed=7).to(dtype)
        (gradient,) = torch.autograd.grad((y * probe).sum(), styles, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(1).sqrt().sum(), (x, weight, styles))

    for got, expected in zip(penalty_gradients(torch.float32), penalty_gradients(torch.float64), strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_gradients_in_mixed_layouts(namespace: str) -> None:
    """The kernels read and write either layout, whatever that of their other operands."""
    operator = getattr(torch.ops, namespace)
    shape = (2, 70, 9, 8)
    x, dy = numbers(*shape, seed=1), numbers(*shape, seed=2)
    d, noise, b = numbers(*shape[:2], seed=3), numbers(2, 1, 9, 8, seed=4), numbers(70, seed=5)
    y = operator.modulated_bias_act(x, d, noise, b, *LRELU, False)
    gradients = operator.modulated_bias_act_grad(dy, x, d, noise, b, *LRELU)
    for x_layout, y_layout in itertools.product(FORMATS.values(), FORMATS.values()):
        other_x, other_dy = x.to(memory_format=x_layout), dy.to(memory_format=y_layout)
        other = operator.modulated_bias_act(other_x, d, noise, b, *LRELU, y_layout == torch.channels_last)
        assert other.is_contiguous(memory_format=y_layout)
        assert torch.equal(other, y)
        dx, *sums = operator.modulated_bias_act_grad(other_dy, other_x, d, noise, b, *LRELU)
        assert dx.is_contiguous(memory_format=x_layout)
        assert torch.equal(dx, gradients[0])
        torch.testing.assert_close(sums, list(gradients[1:]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("layout", FORMATS)
def test_kernel_energy(namespace: str, layout: str) -> None:
    operator = getattr(torch.ops, namespace).kernel_energy
    for shape in ((3, 5, 3, 3), (2, 40, 1, 1), (1, 1, 3, 2), (3, 2, 70, 70), (300, 2, 1, 3)):
        w = numbers(*shape).to(memory_format=FORMATS[layout])
        expected = w.double().square().sum([2, 3])
        torch.testing.assert_close(operator(w).double(), expected, rtol=1e-5, atol=0)
    assert operator(torch.empty(3, 2, 0, 3)).tolist() == [[0, 0]] * 3


def test_float16_does_not_overflow(implementation: str) -> None:
    x, weight, styles, *_ = arguments(2, 64, 4, 4, dtype=torch.float16)
    large = modulated_conv2d(x * 100, weight * 100, styles * 100, padding=1)
    small = modulated_conv2d(x, weight, styles, padding=1)
    assert large.isfinite().all()
    torch.testing.assert_close(large / 100, small, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("layout", FORMATS)
def test_autocast(implementation: str, layout: str) -> None:
    x, weight, styles, noise, bias = arguments(2, 8, 6, 8, layout=layout)
    weight.requires_grad_()
    expected = formula(x, weight, styles, noise, bias, True)
    with torch.autocast("cpu", torch.bfloat16):
        y = modulated_conv2d(x, weight, styles, noise, padding=1, bias=bias, act="lrelu")
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=FORMATS[layout])
    torch.testing.assert_close(y.double(), expected, rtol=2**-6, atol=0.1)
    (got,) = torch.autograd.grad(y.float().square().sum(), weight)
    (wanted,) = torch.autograd.grad(expected.square().sum(), weight)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=0.1, atol=0.05 * wanted.abs().max().item())


def test_demodulation_is_float32_under_autocast(implementation: str) -> None:
    """With bfloat16 the sum of 4096 equal squares would come out wrong by more than the tolerance."""
    x, weight, styles = torch.ones(1, 1024, 1, 1), torch.full((1, 1024, 2, 2), 0.3), torch.full((1, 1024), 0.7)
    with torch.autocast("cpu", torch.bfloat16):
        d = _demodulation(weight, styles)
    assert d.dtype == torch.float32
    torch.testing.assert_close(d, torch.full((1, 1), 1 / (0.21 * 64)), rtol=1e-5, atol=0)
    assert modulated_conv2d(x, weight[:, :, :1, :1], styles).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"act": "gelu"}, "act is 'gelu', expected one of linear, relu"),
        ({"x": torch.ones(2, 4, 5, 5, dtype=torch.int64)}, "x is torch.int64, expected float32"),
        ({"x": torch.ones(4, 5, 5)}, r"x has shape \[4, 5, 5\] and weight \[3, 4, 3, 3\], expected \[N, I, H, W\]"),
        ({"weight": torch.ones(3, 5, 3, 3)}, r"x has shape \[2, 4, 5, 5\] and weight \[3, 5, 3, 3\], expected"),
        ({"styles": torch.ones(2, 5)}, r"styles has shape \[2, 5\], expected \[2, 4\]"),
        ({"bias": torch.ones(4)}, r"bias has shape \[4\], expected \[3\]"),
        (
            {"noise": torch.ones(2, 1, 4, 5)},
            r"noise has shape \[2, 1, 4, 5\], expected one that broadcasts to \[2, 1, ",
        ),
        ({"noise": torch.ones(2, 3, 5, 5)}, r"noise has shape \[2, 3, 5, 5\], expected one that broadcasts to"),
        ({"clamp": -1.0}, "clamp is -1.0, expected None or a number of at least 0"),
        ({"styles": torch.ones(2, 4, device="meta")}, "styles is on meta and x on cpu, expected one device"),
    ],
)
def test_errors_are_sentences(implementation: str, changed: dict, sentence: str) -> None:
    x, weight, styles, *_ = arguments(2, 4, 3, 5)
    with pytest.raises(ValueError, match=f"^modulated_conv2d: {sentence}"):
        modulated_conv2d(**{"x": x, "weight": weight, "styles": styles, "padding": 1, **changed})


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operators_check_their_operands(namespace: str, device: str) -> None:
    operator = getattr(torch.ops, namespace)
    x = torch.ones(2, 3, 4, 5, device=device)
    wrong = ({"d": torch.ones(2, 4)}, {"noise": torch.ones(3, 1, 4, 5)}, {"b": torch.ones(3, dtype=torch.float64)})
    for operand in wrong:
        d, noise, b = (operand.get(name) for name in ("d", "noise", "b"))
        d, noise, b = (t if t is None else t.to(device) for t in (d, noise, b))
        with pytest.raises((ValueError, RuntimeError), match="modulated_bias_act"):
            operator.modulated_bias_act(x, d, noise, b, *LRELU, False)
        with pytest.raises((ValueError, RuntimeError), match="modulated_bias_act"):
            operator.modulated_bias_act_grad(x, x, d, noise, b, *LRELU)
    with pytest.raises((ValueError, RuntimeError), match="modulated_bias_act_grad: dy"):
        operator.modulated_bias_act_grad(x[:1], x, None, None, None, *LRELU)
    with pytest.raises((ValueError, RuntimeError), match="kernel_energy"):
        operator.kernel_energy(x[0])


@pytest.mark.parametrize("layout", FORMATS)
def test_opcheck(namespace: str, layout: str) -> None:
    operator = getattr(torch.ops, namespace)
    x = numbers(2, 3, 4, 5).to(memory_format=FORMATS[layout]).requires_grad_()
    d, noise, b = numbers(2, 3).requires_grad_(), numbers(1, 1, 4, 5).requires_grad_(), numbers(3).requires_grad_()
    dy = numbers(2, 3, 4, 5, seed=1).requires_grad_()
    torch.library.opcheck(operator.modulated_bias_act.default, (x, d, noise, b, *LRELU, layout == "contiguous"))
    torch.library.opcheck(operator.modulated_bias_act_grad.default, (dy, x, d, noise, b, *LRELU))
    if layout == "contiguous":
        torch.library.opcheck(operator.modulated_bias_act_grad.default, (dy, x, None, None, None, *LRELU))
        torch.library.opcheck(operator.kernel_energy.default, (x,))


def training_loss(*inputs: Tensor) -> Tensor:
    x, weight, styles, noise, bias = inputs
    return modulated_conv2d(x, weight, styles, noise, padding=1, bias=bias, act="lrelu", clamp=2.0).square().sum()


def assert_compiles(backend: str, loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    wanted, got = (torch.autograd.grad(function(*inputs), inputs) for function in (loss, compiled))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", FORMATS)
def test_compiles_without_graph_break(native: None, layout: str) -> None:
    inputs = tuple(t.requires_grad_() for t in arguments(2, 3, 4, 8, layout=layout))
    assert_compiles("aot_eager", training_loss, inputs)


@pytest.mark.slow
def test_compiles_with_inductor(native: None) -> None:
    assert_compiles("inductor", training_loss, tuple(t.requires_grad_() for t in arguments(2, 3, 4, 8)))


def test_export_keeps_the_operators(native: None) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
            return modulated_conv2d(x, weight, styles, padding=1, act="lrelu")

    program = torch.export.export(Module(), arguments(2, 3, 4, 8)[:3])
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.pygan.modulated_bias_act.default) == 2
    assert targets.count(torch.ops.pygan.kernel_energy.default) == 1


DIGEST = """
import hashlib, torch
from pygan.ops import build_info
digest = hashlib.sha256()
torch.manual_seed(0)
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    sums = torch.float64 if dtype == torch.float64 else torch.float32
    for layout in (torch.contiguous_format, torch.channels_last):
        x, dy = (torch.randn(2, 70, 9, 7).to(dtype).to(memory_format=layout) for _ in range(2))
        d, noise, b = torch.randn(2, 70, dtype=sums), torch.randn(2, 1, 9, 7, dtype=sums), torch.randn(70, dtype=sums)
        for act in (2, 8) if dtype != torch.float64 else (2,):
            y = torch.ops.pygan.modulated_bias_act(x, d, noise, b, act, 0.2, 1.5, 2.0, True)
            gradients = torch.ops.pygan.modulated_bias_act_grad(dy, x, d, noise, b, act, 0.2, 1.5, 2.0)
            for value in (y, *gradients, torch.ops.pygan.kernel_energy(x)):
                digest.update(value.contiguous().view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_same_bits_with_every_instruction_set(digests_by_isa: Callable[[str], dict[str, str]]) -> None:
    assert len(set(digests_by_isa(DIGEST).values())) == 1


@pytest.mark.slow
def test_same_bits_with_any_number_of_threads(native: None) -> None:
    x, dy = numbers(3, 40, 80, 80), numbers(3, 40, 80, 80, seed=1)
    d, noise, b = numbers(3, 40), numbers(3, 1, 80, 80), numbers(40)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = torch.ops.pygan.modulated_bias_act_grad(dy, x, d, noise, b, *LRELU)
        torch.set_num_threads(3)
        got = torch.ops.pygan.modulated_bias_act_grad(dy, x, d, noise, b, *LRELU)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, other)
