"""ADA: every transform against its definition, and whole families against published values."""

from math import cos, radians, sin

import pytest
import torch
from published import PUBLISHED, published
from torch.nn.functional import conv1d

from pygan.augment import ada_transforms
from pygan.augment.ada import ADA, FAMILIES, Spec
from pygan.context import Context
from pygan.draws import Draws

PERCENTILES = ("0.05", "0.30", "0.50", "0.65", "0.80", "0.97")


class Given:
    """Stands for `Draws`: hands out numbers in the order in which they are asked for."""

    def __init__(self, n: int, *values: float | torch.Tensor) -> None:
        self.n = n
        self.values = [torch.as_tensor(value, dtype=torch.float32) for value in values]

    def uniform(self, *shape: int) -> torch.Tensor:
        value = self.values.pop(0)
        return value.reshape(self.n, *shape) if value.dim() else value.expand(self.n, *shape)

    normal = uniform


def draws(n: int, seed: int = 0) -> Draws:
    return Draws(seed, "augment", torch.arange(n))


def alone(name: str, img: torch.Tensor, *values: float | torch.Tensor, **options) -> torch.Tensor:
    """Apply one transform, its gate open, with the given values; nothing is left over."""
    given = Given(len(img), *values)
    out = ADA({name: 1.0}, p=1.0, **options)(img, given)
    assert not given.values
    return out


def coordinates(height: int, width: int) -> torch.Tensor:
    """Return pixels (x right, y down) from the center, `[2, height, width]`."""
    y, x = (torch.arange(side) - (side - 1) / 2 for side in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def read_at(height: int, width: int, G: list[list[float]]) -> torch.Tensor:
    """Return the coordinates that a picture warped by the matrix G shows, `[2, height, width]`.

    The center of mass of the low-pass filter is not its center, so the published pipeline turns and scales about a
    point that lies as far from the picture's center.
    """
    taps = torch.tensor(ada_transforms.SYM6) / sum(ada_transforms.SYM6)
    off_center = ((taps * torch.arange(12)).sum() - 5) / 2  # taps of half a pixel
    return torch.einsum("ij, jhw -> ihw", torch.tensor(G), coordinates(height, width) + off_center) - off_center


def rotation(degrees: float) -> list[list[float]]:
    c, s = cos(radians(degrees)), sin(radians(degrees))
    return [[c, -s], [s, c]]


def waves(at: torch.Tensor) -> torch.Tensor:
    """Return a smooth picture `[1, 3, height, width]`, an analytic function of the coordinates."""
    x, y = at
    planes = [torch.sin(0.05 * (k + 1) * x + 0.04 * y + k) * torch.cos(0.02 * x - 0.06 * y) for k in range(3)]
    return torch.stack(planes)[None]


def inner(img: torch.Tensor, border: int = 10) -> torch.Tensor:
    return img[..., border:-border, border:-border]


# ---- Published values


def at_percentile(names: tuple[str, ...], q: float, noise_unit: torch.Tensor | None, channels: int = 3) -> list:
    """Return the draws that put every transform at percentile q, as the published code's debug switch does.

    There a normal number is erfinv(2 q - 1), the half-normal one erfinv(q), and the second rotation is none.
    """
    normal = torch.erfinv(torch.tensor(2 * q - 1))
    gate = 0.0
    values = {name: [q, gate] for name in ("xflip", "rotate90", "xint", "rotate", "lumaflip", "hue")}
    values |= {name: [normal, gate] for name in ("scale", "aniso", "xfrac", "brightness", "contrast", "saturation")}
    values |= {
        "imgfilter": [normal, gate] * 4,
        "noise": [torch.erfinv(torch.tensor(q)), gate, noise_unit],
        "cutout": [gate, q],
        "second rotation": [0.5, gate],
    }
    order = [name for name in FAMILIES["bgcfnc"] if name in names]
    if "rotate" in order:
        order.insert(order.index("rotate") + 1 + ("aniso" in order), "second rotation")
    if channels == 1:
        order = [name for name in order if name not in ("hue", "saturation")]
    return [value for name in order for value in values[name]]


@pytest.fixture
def seen(monkeypatch) -> dict:
    """What the pipeline hands to the affine grid and to the padding."""
    record = {}

    def affine_grid(theta, size, align_corners):
        record.update(theta=theta, size=list(size))
        return torch.nn.functional.affine_grid(theta, size, align_corners=align_corners)

    def pad(img, margins, mode):
        record.setdefault("margins", list(margins))
        return torch.nn.functional.pad(img, margins, mode=mode)

    monkeypatch.setattr(ada_transforms, "affine_grid", affine_grid)
    monkeypatch.setattr(ada_transforms, "pad", pad)
    return record


def assert_geometry(seen: dict, arrays: dict[str, torch.Tensor], key: str) -> None:
    torch.testing.assert_close(seen["theta"], arrays[f"{key}/theta"], rtol=0, atol=1e-6)
    assert seen["margins"] == arrays[f"{key}/pad_x0x1y0y1"].tolist()
    if f"{key}/grid_size" in arrays:
        assert seen["size"] == arrays[f"{key}/grid_size"].tolist()


@PUBLISHED
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("percentile", PERCENTILES)
def test_a_family_at_a_percentile_has_the_published_values(family, percentile, seen):
    arrays, key = published(f"ada_{family}"), f"pct{percentile}"
    given = Given(2, *at_percentile(FAMILIES[family], float(percentile), arrays.get(f"{key}/noise_unit")))
    img = arrays["input"].clone().requires_grad_(True)
    out = Spec(family=family, p=1).build(Context(resolution=32))(img, given)
    assert not given.values
    torch.testing.assert_close(out, arrays[f"{key}/output"], rtol=0, atol=5e-5)
    if f"{key}/theta" in arrays:
        assert_geometry(seen, arrays, key)
    if f"{key}/probe" in arrays:
        (gradient,) = torch.autograd.grad(out, img, arrays[f"{key}/probe"])
        expected = arrays[f"{key}/grad_input"]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


SINGLE = (*FAMILIES["bgcf"], "cutout")


@PUBLISHED
@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("percentile", ("0.10", "0.75"))
def test_a_single_transform_has_the_published_values(name, percentile, seen):
    arrays, key = published("ada_single"), f"{name}/pct{percentile}"
    out = alone(name, arrays["input"], *at_percentile((name,), float(percentile), None))
    torch.testing.assert_close(out, arrays[f"{key}/output"], rtol=0, atol=5e-5)
    if f"{key}/theta" in arrays:
        assert_geometry(seen, arrays, key)


@PUBLISHED
@pytest.mark.parametrize("band", range(4))
def test_a_single_frequency_band_has_the_published_values(band):
    arrays = published("ada_single")
    bands = tuple(float(i == band) for i in range(4))
    out = alone("imgfilter", arrays["input"], *at_percentile(("imgfilter",), 0.75, None), bands=bands)
    torch.testing.assert_close(out, arrays[f"imgfilter_band{band}/pct0.75/output"], rtol=0, atol=5e-5)


RECT_065 = ("scale", "xfrac", "xflip", "xint", *FAMILIES["color"], "imgfilter", "cutout")


@PUBLISHED
@pytest.mark.parametrize(
    ("pictures", "percentile", "names"),
    [
        ("gray", "0.30", (*FAMILIES["bgcf"], "cutout")),
        ("gray", "0.65", (*FAMILIES["bgcf"], "cutout")),
        ("rect", "0.30", (*FAMILIES["bgcf"], "cutout")),
        ("rect", "0.65", RECT_065),
    ],
)
def test_gray_and_oblong_pictures_have_the_published_values(pictures, percentile, names):
    arrays = published("ada_single")
    img = arrays[f"{pictures}/input"]
    given = Given(2, *at_percentile(names, float(percentile), None, channels=img.shape[1]))
    out = ADA(dict.fromkeys(names, 1.0), p=1)(img, given)
    assert not given.values
    torch.testing.assert_close(out, arrays[f"{pictures}/pct{percentile}/output"], rtol=0, atol=5e-5)


@PUBLISHED
@pytest.mark.parametrize("run", ("bgc_p1", "bgcfnc_p1", "bgcfnc_p0.6", "bgc_p0.2"))
def test_recorded_random_runs_are_repeated(run, seen):
    arrays = published("ada_random")
    given = Given(4, *(arrays[key] for key in sorted(arrays) if key.startswith(f"{run}/draw")))
    out = Spec(family=run.split("_")[0], p=arrays[f"{run}/p"].item()).build(Context(resolution=32))(
        arrays["input"], given
    )
    assert not given.values
    torch.testing.assert_close(out, arrays[f"{run}/output"], rtol=0, atol=5e-5)
    assert_geometry(seen, arrays, run)


@PUBLISHED
def test_filters_have_the_published_taps():
    arrays, aug = published("ada_single"), ADA({})
    torch.testing.assert_close(aug.taps, arrays["Hz_geom"])
    torch.testing.assert_close(aug.bank, arrays["Hz_fbank"], rtol=0, atol=1e-7)


# ---- Geometry


def test_nothing_happens_at_p_0():
    img = torch.randn(2, 3, 32, 32)
    aug = Spec(family="bgcfnc").build(Context(resolution=32))
    assert torch.equal(aug(img, draws(2)), img)


@pytest.mark.parametrize("size", ((32, 32), (17, 20), (7, 40)))
def test_resampling_onto_itself_gives_the_picture_back(size):
    """The low-pass filter is an orthonormal wavelet's, so going up and down again with it loses nothing."""
    img = torch.randn(3, 2, *size)
    torch.testing.assert_close(alone("xint", img, 0.5, 0.0), img, rtol=0, atol=5e-5)


def test_whole_pixel_shifts_are_exact_and_reflect():
    img = torch.randn(1, 3, 24, 16)
    shift = torch.tensor([[0.75, 0.25]])  # (2 u - 1) / 8 of the side: 1 right of 16, 1.5 up of 24, rounded to even: 2
    out = alone("xint", img, shift, 0.0)
    torch.testing.assert_close(out[:, :, :-2, 1:], img[:, :, 2:, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(out[:, :, :-2, 0], img[:, :, 2:, 1], rtol=0, atol=1e-5)
    torch.testing.assert_close(out[:, :, -2:, 1:], img[:, :, [-2, -3], :-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "u", "G"),
    [
        ("xflip", 0.25, [[1.0, 0.0], [0.0, 1.0]]),
        ("xflip", 0.75, [[-1.0, 0.0], [0.0, 1.0]]),
        *(("rotate90", i / 4 + 0.1, rotation(90 * i)) for i in range(4)),
    ],
)
def test_flips_and_right_angles(name, u, G):
    out = alone(name, waves(coordinates(40, 40)), u, 0.0)
    torch.testing.assert_close(inner(out), inner(waves(read_at(40, 40, G))), rtol=0, atol=1e-3)


@pytest.mark.parametrize("degrees", (-150, -45, 10, 90))
def test_rotation_turns_an_analytic_picture(degrees):
    out = alone("rotate", waves(coordinates(40, 40)), (degrees / 180 + 1) / 2, 0.0, 0.5, 0.0)
    torch.testing.assert_close(inner(out), inner(waves(read_at(40, 40, rotation(degrees)))), rtol=0, atol=2e-3)


def test_both_rotations_add_up():
    out = alone("rotate", waves(coordinates(40, 40)), 0.55, 0.0, 0.6, 0.0)  # 18 and 36 degrees
    torch.testing.assert_close(inner(out), inner(waves(read_at(40, 40, rotation(54)))), rtol=0, atol=2e-3)


def test_either_rotation_has_the_probability_p():
    """Each has 1 - sqrt(1 - p), so that neither happens with 1 - p."""
    each = 1 - 0.36**0.5  # p = 0.64
    aug = ADA({"rotate": 1.0}, p=0.64)
    img = waves(coordinates(32, 32))
    for gate, turned in ((each - 1e-4, True), (each + 1e-4, False)):
        out = aug(img, Given(1, 0.7, 1.0, 0.7, gate))
        assert torch.allclose(out, img, atol=1e-4) != turned


@pytest.mark.parametrize(
    ("name", "value", "x_factor", "y_factor"),
    [
        ("scale", 5.0, 0.5, 0.5),  # 2^(0.2 * 5): twice as large
        ("scale", -2.0, 2**0.4, 2**0.4),
        ("aniso", 2.0, 2**-0.4, 2**0.4),
    ],
)
def test_scaling_reads_where_the_inverse_says(name, value, x_factor, y_factor):
    out = alone(name, coordinates(48, 40)[None], value, 0.0)
    expected = read_at(48, 40, [[x_factor, 0.0], [0.0, y_factor]])[None]
    torch.testing.assert_close(inner(out, 14), inner(expected, 14), rtol=0, atol=2e-3)


def test_fractional_shifts_are_fractions_of_the_side():
    out = alone("xfrac", coordinates(48, 40)[None], torch.tensor([[0.5, -0.25]]), 0.0)
    right, up = 0.125 * 0.5 * 40, 0.125 * 0.25 * 48
    expected = coordinates(48, 40)[None] + torch.tensor([-right, up])[:, None, None]
    torch.testing.assert_close(inner(out), inner(expected), rtol=0, atol=2e-3)


def test_a_closed_gate_keeps_the_picture():
    img = torch.randn(1, 3, 32, 32)
    aug = ADA(dict.fromkeys(FAMILIES["bg"], 1.0), p=0.5)
    given = Given(1, *[0.9, 0.5] * 8)
    torch.testing.assert_close(aug(img, given), img, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("size", "difference"), [(2.0, 2e-5), (1.0, 2e-5), (0.7, 2e-5), (0.5, 1e-2)])
def test_the_margin_that_the_batch_needs_changes_rounding_only(size, difference):
    """But below about two thirds the outermost pixels reach past a picture's own margin."""
    img = torch.rand(2, 3, 32, 32)
    needs = torch.tensor([size, 0.25]).log2() / 0.2  # the second picture needs the widest margin there is
    together = alone("scale", img, needs, 0.0)
    by_itself = alone("scale", img[:1], needs[:1], 0.0)
    torch.testing.assert_close(by_itself, together[:1], rtol=0, atol=difference)
    torch.testing.assert_close(inner(by_itself), inner(together[:1]), rtol=0, atol=2e-5)


def test_a_picture_is_augmented_alike_whatever_its_batch():
    img = torch.randn(8, 3, 32, 32)
    aug = Spec(family="bg", p=0.8).build(Context(resolution=32))
    together = aug(img, draws(8))
    for i in range(8):
        one = aug(img[i : i + 1], Draws(0, "augment", torch.tensor([i])))
        torch.testing.assert_close(one, together[i : i + 1], rtol=0, atol=5e-5)


# ---- Color


def pixel(*rgb: float) -> torch.Tensor:
    return torch.tensor(rgb).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("brightness", 2.0, (0.6, 1.0, -0.2)),  # + 0.2 * 2
        ("contrast", 2.0, (0.4, 1.2, -1.2)),  # * 2^(0.5 * 2)
        ("lumaflip", 0.2, (0.2, 0.6, -0.6)),
        ("lumaflip", 0.7, (0.2 - 2 / 15, 0.6 - 2 / 15, -0.6 - 2 / 15)),  # - 2 * mean, the mean is 1/15
        ("hue", 5 / 6, (-0.6, 0.2, 0.6)),  # 2/3 of a half turn: red becomes green becomes blue
        ("hue", 1 / 6, (0.6, -0.6, 0.2)),
        ("saturation", 1.0, (2 * 0.2 - 1 / 15, 2 * 0.6 - 1 / 15, -2 * 0.6 - 1 / 15)),
    ],
)
def test_color_of_a_pixel(name, value, expected):
    out = alone(name, pixel(0.2, 0.6, -0.6), value, 0.0)
    torch.testing.assert_close(out, pixel(*expected), rtol=0, atol=1e-6)


def test_colors_compose_from_the_left():
    """Brightness comes first, so contrast scales what it added."""
    aug = ADA({"brightness": 1.0, "contrast": 1.0}, p=1)
    out = aug(pixel(0.2, 0.6, -0.6), Given(1, 2.0, 0.0, 2.0, 0.0))
    torch.testing.assert_close(out, pixel(1.2, 2.0, -0.4), rtol=0, atol=1e-6)


def test_gray_pictures_have_no_hue_and_draw_none():
    img = torch.randn(1, 1, 32, 32)
    aug = Spec(family="color", p=1).build(Context(resolution=32, channels=1))
    given = Given(1, *[0.0, 0.0], *[2.0, 0.0], *[0.7, 0.0])  # brightness, contrast, lumaflip
    torch.testing.assert_close(aug(img, given), -2 * img)
    assert not given.values


# ---- Image-space filter, noise, cutout


def test_the_bands_of_the_filter_bank_add_up_to_an_impulse():
    bank = ada_transforms.filter_bank()
    impulse = torch.zeros(43)
    impulse[21] = 1
    torch.testing.assert_close(bank.sum(0), impulse, rtol=0, atol=1e-6)
    torch.testing.assert_close(bank.sum(1), torch.tensor([1.0, 0, 0, 0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(bank, bank.flip(1), rtol=0, atol=1e-7)


def test_the_bands_of_the_filter_bank_are_octaves():
    response = torch.fft.rfft(ada_transforms.filter_bank(), n=1024).abs()  # 0 ... pi in 513 steps
    for band, edges in enumerate(((0, 64), (64, 128), (128, 256), (256, 513))):
        power = response[band].square()
        assert power[slice(*edges)].sum() > 0.6 * power.sum()


@pytest.mark.parametrize("band", range(4))
def test_a_band_is_amplified_and_the_power_of_a_natural_picture_kept(band):
    given = Given(1, *(value for i in range(4) for value in (1.5 if i == band else 0.0, 0.0)))
    gains = ada_transforms.draw_gains(given, [1.0] * 4, torch.empty(1))[0]
    torch.testing.assert_close((torch.tensor(ada_transforms.BAND_POWER) * gains**2).sum(), torch.tensor(1.0))
    others = [gain for i, gain in enumerate(gains) if i != band]
    torch.testing.assert_close(gains[band] / others[0], torch.tensor(2**1.5))
    assert max(others) == min(others)


def test_the_filter_runs_along_both_axes_and_reflects():
    img = torch.randn(2, 3, 24, 30, dtype=torch.float64)
    kernel = torch.randn(2, 22, dtype=torch.float64)
    kernel = torch.cat([kernel, kernel[:, :-1].flip(1)], 1)
    out = ada_transforms.amplify(img, kernel)
    for i in range(2):
        x = torch.nn.functional.pad(img[i], [21] * 4, mode="reflect")
        x = conv1d(x.flatten(0, 1)[:, None], kernel[i][None, None])[:, 0].unflatten(0, (3, 66))
        x = conv1d(x.mT.flatten(0, 1)[:, None], kernel[i][None, None])[:, 0].unflatten(0, (3, 30)).mT
        torch.testing.assert_close(out[i], x)


def test_noise_has_the_drawn_strength():
    img = torch.zeros(400, 3, 16, 16)
    out = Spec(family="noise", p=1).build(Context(resolution=16))(img, draws(400))
    spread = out.flatten(1).std(1)
    assert spread.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.1)  # sigma = 0.1 |n|
    fixed = alone("noise", img, -2.0, 0.0, torch.randn(400, 3, 16, 16))
    assert fixed.std().item() == pytest.approx(0.2, rel=0.01)


def test_cutout_zeroes_half_of_each_side_where_it_fits():
    img = torch.ones(1, 1, 16, 32)
    hole = 1 - alone("cutout", img, 0.0, torch.tensor([[0.5, 0.25]]))[0, 0]
    expected = torch.zeros(16, 32)
    expected[:8, 8:24] = 1  # rows around 0.25, columns around 0.5
    assert torch.equal(hole, expected)
    corner = 1 - alone("cutout", img, 0.0, torch.tensor([[0.0, 0.0]]))[0, 0]
    assert corner.sum() == 4 * 8
    assert torch.equal(ADA({"cutout": 1.0}, p=0.5)(img, Given(1, 0.5, 0.5)), img)
