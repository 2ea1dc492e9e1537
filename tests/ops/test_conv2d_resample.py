import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published import FIXTURES
from torch import Tensor

from pygan.ops import conv2d_resample
from pygan.ops.upfirdn2d import setup_filter, upfirdn2d

OPS = FIXTURES / "ops.npz"


def by_definition(
    x: Tensor, w: Tensor, f: Tensor, up: int, down: int, padding: int, groups: int, flip_weight: bool, flip_filter: bool
) -> Tensor:
    """Zeros, padding, filter, convolution, filter, decimation: every step of its own, in float64."""
    taps = f.shape[0]
    before = after = padding
    if up > 1:
        before, after = before + (taps + up - 1) // 2, after + (taps - up) // 2
    if down > 1:
        before, after = before + (taps - down + 1) // 2, after + (taps - down) // 2
    n, c, height, width = x.shape
    y = x.new_zeros(n, c, height * up, width * up)
    y[:, :, ::up, ::up] = x
    y = F.pad(y, [before, after, before, after])
    kernel = (f if flip_filter else f.flip([0, 1])).to(x.dtype)

    def filtered(y: Tensor) -> Tensor:
        return F.conv2d(y, kernel.expand(y.shape[1], 1, -1, -1), groups=y.shape[1])

    if up > 1:
        y = filtered(y) * up**2
    y = F.conv2d(y, w if flip_weight else w.flip([2, 3]), groups=groups)
    return filtered(y)[:, :, ::down, ::down] if down > 1 else y


@pytest.mark.parametrize("flip_filter", [False, True])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_values(implementation: str, kernel: int, up: int, down: int, flip_filter: bool) -> None:
    f = setup_filter(torch.rand(4, 4) + 0.1)  # not symmetric
    for groups, flip_weight in itertools.product((1, 2), (True, False)):
        x = torch.randn(2, 4, 7, 6, dtype=torch.float64)
        w = torch.randn(6, 4 // groups, kernel, kernel, dtype=torch.float64)
        arguments = (f, up, down, kernel // 2, groups, flip_weight, flip_filter)
        torch.testing.assert_close(conv2d_resample(x, w, *arguments), by_definition(x, w, *arguments))


@pytest.mark.parametrize("padding", [2, (1, 0), (2, -1, 0, 3)])
def test_padding(implementation: str, padding: int | tuple[int, ...]) -> None:
    x, w = torch.randn(1, 2, 6, 5), torch.randn(3, 2, 3, 3)
    x0, x1, y0, y1 = {2: (2, 2, 2, 2), (1, 0): (1, 1, 0, 0)}.get(padding, padding)
    expected = F.conv2d(F.pad(x, [x0, x1, y0, y1]), w)
    torch.testing.assert_close(conv2d_resample(x, w, padding=padding), expected)


def test_no_filter_only_resamples(implementation: str) -> None:
    x, w = torch.randn(1, 2, 6, 6), torch.randn(3, 2, 1, 1)
    torch.testing.assert_close(conv2d_resample(x, w, down=2), F.conv2d(x[:, :, ::2, ::2], w))


def fixture_cases() -> list[str]:
    """Names of what the official code computed; none where the file is not there."""
    if not OPS.is_file():
        return []
    with np.load(OPS) as arrays:
        return [name.split("/")[1] for name in arrays.files if name.startswith("conv2d_resample/k") and "/out" in name]


@pytest.mark.skipif(not OPS.is_file(), reason=f"{OPS} is not there")
def test_values_and_gradients_of_the_official_code(implementation: str) -> None:
    cases = fixture_cases()
    assert len(cases) == 34
    with np.load(OPS) as arrays:
        for case in cases:
            kernel, up, down, groups, flip = (int(part[-1]) for part in case.split("_")[:5])
            f = torch.from_numpy(arrays["filters/fasym3x3" if "fasym" in case else "filters/f1331"])
            x = torch.from_numpy(arrays["conv2d_resample/x"]).requires_grad_()
            w = torch.from_numpy(arrays[f"conv2d_resample/w_k{kernel}_groups{groups}"]).requires_grad_()
            y = conv2d_resample(x, w, f, up, down, kernel // 2, groups, bool(flip))
            gradients = torch.autograd.grad(y, (x, w), torch.from_numpy(arrays[f"conv2d_resample/{case}/probe"]))
            for got, name in zip((y, *gradients), ("out", "grad_x", "grad_w"), strict=True):
                expected = torch.from_numpy(arrays[f"conv2d_resample/{case}/{name}"])
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 2)])
def test_gradients_of_first_and_second_order(implementation: str, up: int, down: int) -> None:
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    f = setup_filter([1, 3, 3, 1])

    def function(x: Tensor, w: Tensor) -> Tensor:
        return conv2d_resample(x, w, f, up, down, padding=1)

    assert torch.autograd.gradcheck(function, (x, w), fast_mode=True)
    assert torch.autograd.gradgradcheck(function, (x, w), fast_mode=True)


def test_channels_last_stays(implementation: str) -> None:
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    w, f = torch.randn(6, 4, 3, 3), setup_filter([1, 3, 3, 1])
    for up, down in ((1, 1), (2, 1), (1, 2)):
        y = conv2d_resample(x, w, f, up, down, padding=1)
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, conv2d_resample(x.contiguous(), w, f, up, down, padding=1))


def test_autocast(implementation: str) -> None:
    x, w, f = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3), setup_filter([1, 3, 3, 1])
    with torch.autocast("cpu", torch.bfloat16):
        y = conv2d_resample(x, w, f, down=2, padding=1)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), conv2d_resample(x, w, f, down=2, padding=1), rtol=0.02, atol=0.1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"x": torch.ones(4, 8, 8)}, r"x has shape \[4, 8, 8\] and w \[6, 4, 3, 3\], expected 4 dimensions of each"),
        (
            {"w": torch.ones(6, 3, 3, 3)},
            r"w has shape \[6, 3, 3, 3\], which does not fit x with 4 channels in 1 groups",
        ),
        ({"groups": 3}, r"w has shape \[6, 4, 3, 3\], which does not fit x with 4 channels in 3 groups"),
        ({"up": 0}, "up is 0, expected a whole number of at least 1"),
        ({"down": 1.5}, "down is 1.5, expected a whole number of at least 1"),
        ({"padding": (1, 2, 3)}, r"padding is \(1, 2, 3\), expected a number"),
        ({"f": torch.ones(1, 2, 2)}, r"f has shape \[1, 2, 2\], expected \[fh, fw\] or \[k\]"),
    ],
)
def test_errors_are_sentences(implementation: str, arguments: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^conv2d_resample: {sentence}"):
        conv2d_resample(**{"x": torch.ones(2, 4, 8, 8), "w": torch.ones(6, 4, 3, 3), **arguments})


def test_compiles_without_graph_break() -> None:
    x, w, f = torch.randn(2, 4, 8, 8), torch.randn(6, 4, 3, 3, requires_grad=True), setup_filter([1, 3, 3, 1])

    def loss(w: Tensor) -> Tensor:
        return conv2d_resample(x, w, f, up=2, padding=1, flip_weight=False).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(w), w), torch.autograd.grad(loss(w), w))
    assert upfirdn2d(x, f).shape == (2, 4, 5, 5)
