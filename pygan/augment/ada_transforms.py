"""ADA's 18 transforms, each a function of pictures or of their parameters, random draws and a probability.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020 (arXiv 2006.06676), appendix
B; order, strengths and rounding are those of the authors' code.
"""

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv1d, conv2d, pad

from pygan.draws import Draws
from pygan.ops import downsample2d, grid_sample, upsample2d

BLIT = ("xflip", "rotate90", "xint")
GEOM = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
FAMILIES = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": BLIT + GEOM,
    "bgc": BLIT + GEOM + COLOR,
    "bgcf": (*BLIT, *GEOM, *COLOR, "imgfilter"),
    "bgcfn": (*BLIT, *GEOM, *COLOR, "imgfilter", "noise"),
    "bgcfnc": (*BLIT, *GEOM, *COLOR, "imgfilter", "noise", "cutout"),
}
"""The published sets of transforms by name."""

# Strengths, appendix B of the paper
XINT_MAX = 0.125
"""Largest shift by whole pixels, fraction of the side."""
SCALE_STD = 0.2
"""Standard deviation of the binary logarithm of the size."""
ROTATE_MAX = 1.0
"""Largest rotation, half turns."""
ANISO_STD = 0.2
"""Standard deviation of the binary logarithm of the stretch."""
XFRAC_STD = 0.125
"""Standard deviation of the shift, fraction of the side."""
BRIGHTNESS_STD = 0.2
"""Standard deviation of the brightness added; black to white is 2."""
CONTRAST_STD = 0.5
"""Standard deviation of the binary logarithm of the contrast."""
HUE_MAX = 1.0
"""Largest rotation of the hue, half turns."""
SATURATION_STD = 1.0
"""Standard deviation of the binary logarithm of the saturation."""
IMGFILTER_STD = 1.0
"""Standard deviation of the binary logarithm of a frequency band's gain."""
NOISE_STD = 0.1
"""Standard deviation of the half-normal standard deviation of the noise; black to white is 2."""
CUTOUT_SIZE = 0.5
"""Side of the square that is cut out, fraction of the side."""

SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
"""Low-pass taps of the symlets with 2 and 6 vanishing moments (Daubechies, "Ten Lectures on Wavelets", 1992): SYM6 for
resampling, SYM2 for the filter bank."""
RESAMPLING_MARGIN = 6
"""Pixels around a picture that resampling needs: twice the reach of SYM6 at double resolution."""
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)
"""Power of natural pictures (spectrum 1/f) in the four bands of the filter bank, lowest first."""
FILTER_REACH = 21
"""Pixels that the filter bank needs on each side: half of its 43 taps."""


def check_pictures(transforms: Collection[str], channels: int, height: int, width: int) -> None:
    """Raise ValueError where one of the transforms cannot work on pictures of this size."""
    if any(name in COLOR for name in transforms) and channels not in (1, 3):
        raise ValueError(f"color transforms need 1 or 3 channels, got {channels}; use family bg")
    if "imgfilter" in transforms and min(height, width) <= FILTER_REACH:
        raise ValueError(
            f"the image-space filter needs more than {FILTER_REACH} pixels a side, got {height} x {width}; "
            "use family bgc"
        )


def _gated(value: Tensor, otherwise: float, draws: Draws, chance: float) -> Tensor:
    """Return `value`, `[N, ...]`, for the samples that a draw selects with probability `chance`."""
    gate = draws.uniform(*[1] * (value.dim() - 1))
    return torch.where(gate < chance, value, otherwise)


# ---- Geometry: G, [N, 2, 3], maps output pixels (x right, y down, from the center) to input pixels. A transform of the
# picture multiplies G from the right with its inverse.


def _scaled(G: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
    """Return G diag(x, y); factors `[N, 1]` or numbers."""
    a, b, t = G.unbind(2)
    return torch.stack([a * x, b * y, t], 2)


def _rotated(G: Tensor, angle: Tensor) -> Tensor:
    """Return G R(angle), R = [[cos, -sin], [sin, cos]]; `[N, 1]`, radians."""
    a, b, t = G.unbind(2)
    c, s = angle.cos(), angle.sin()
    return torch.stack([a * c + b * s, b * c - a * s, t], 2)


def _shifted(G: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
    """Return G times the translation by (x, y); `[N, 1]` or numbers, pixels."""
    a, b, t = G.unbind(2)
    return torch.stack([a, b, t + a * x + b * y], 2)


def xflip(G: Tensor, draws: Draws, chance: float, width: int, height: int) -> Tensor:
    """Mirror left and right in half of the cases."""
    i = _gated((2 * draws.uniform(1)).floor(), 0, draws, chance)
    return _scaled(G, 1 - 2 * i, 1)


def rotate90(G: Tensor, draws: Draws, chance: float, width: int, height: int) -> Tensor:
    """Turn by 0, 90, 180 or 270 degrees."""
    i = _gated((4 * draws.uniform(1)).floor(), 0, draws, chance)
    return _rotated(G, i * (torch.pi / 2))


def xint(G: Tensor, draws: Draws, chance: float, width: int, height: int) -> Tensor:
    """Shift by whole pixels."""
    x, y = _gated((2 * draws.uniform(2) - 1) * XINT_MAX, 0, draws, chance).split(1, 1)
    return _shifted(G, -(x * width).round(), -(y * height).round())


def scale(G: Tensor, draws: Draws, chance: float, width: int, height: int) -> Tensor:
    """Enlarge or shrink."""
    s = _gated((SCALE_STD * draws.normal(1)).exp2(), 1, draws, chance)
    return _scaled(G, 1 / s, 1 / s)


def rotate(G: Tensor, draws: Draws, chance: float, width: int, height: int) -> Tensor:
    """Rotate; the pipeline does so before and after stretching, once or twice with probability `chance`."""
    angle = (2 * draws.uniform(1) - 1) * (torch.pi * ROTATE_MAX)
    return _rotated(G, _gated(angle, 0, draws, 1 - max(1 - chance, 0) ** 0.5))


def aniso(G: Tensor, draws: Draws, chance: float, width: int, height: int) -> Tensor:
    """Stretch one axis by what the other shrinks."""
    s = _gated((ANISO_STD * draws.normal(1)).exp2(), 1, draws, chance)
    return _scaled(G, 1 / s, s)


def xfrac(G: Tensor, draws: Draws, chance: float, width: int, height: int) -> Tensor:
    """Shift by fractions of a pixel."""
    x, y = _gated(XFRAC_STD * draws.normal(2), 0, draws, chance).split(1, 1)
    return _shifted(G, -x * width, -y * height)


_GEOMETRY: tuple[tuple[str, Callable[..., Tensor]], ...] = (
    ("xflip", xflip),
    ("rotate90", rotate90),
    ("xint", xint),
    ("scale", scale),
    ("rotate", rotate),
    ("aniso", aniso),
    ("rotate", rotate),
    ("xfrac", xfrac),
)


def draw_geometry(draws: Draws, chance: Mapping[str, float], img: Tensor) -> Tensor:
    """Return G, `[N, 2, 3]`, of all geometric transforms that have a chance."""
    n, _, height, width = img.shape
    G = torch.eye(2, 3, device=img.device).expand(n, 2, 3)
    for name, transform in _GEOMETRY:
        if name in chance:
            G = transform(G, draws, chance[name], width, height)
    return G


def margins(G: Tensor, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the pixels (left, right, top, bottom) that the batch reads beyond its pictures; less than a side."""
    center = torch.tensor([[width - 1], [height - 1]], device=G.device) / 2  # [2, 1]
    corners = center * torch.tensor([[-1, 1, 1, -1], [-1, -1, 1, 1]], device=G.device)  # [2, 4]
    read = G[:, :, :2] @ corners + G[:, :, 2:]  # [N, 2, 4]
    beyond = torch.stack([(-read).amax((0, 2)), read.amax((0, 2))], 1) + (RESAMPLING_MARGIN - center)
    pixels = beyond.clamp(min=0).minimum(2 * center).ceil().int()
    (left, right), (top, bottom) = pixels.tolist()
    return left, right, top, bottom


def warp(img: Tensor, G: Tensor, taps: Tensor) -> Tensor:
    """Return pictures `[N, C, H, W]` read at G, `[N, 2, 3]`, through double resolution; beyond them they are reflected.

    Args:
        taps: low-pass filter `[12]` with sum 1 for both changes of resolution.
    """
    n, channels, height, width = img.shape
    left, right, top, bottom = margins(G, width, height)
    img = pad(img, (left, right, top, bottom), mode="reflect")
    img = upsample2d(img, taps)
    # Fine grids have two positions per pixel, of which one is its center and the other lies half a pixel further, so
    # their own center is a quarter of a pixel off. From the right: [-1, 1] -> fine output grid -> output pixels.
    width_out, height_out = 2 * (width + RESAMPLING_MARGIN), 2 * (height + RESAMPLING_MARGIN)
    G = _scaled(_shifted(_scaled(G, 0.5, 0.5), 0.5, 0.5), width_out / 2, height_out / 2)
    # From the left: input pixels -> fine input grid, whose center the margins move too -> [-1, 1].
    offset = torch.tensor([[left - right - 0.5], [top - bottom - 0.5]], device=G.device)
    half_size = torch.tensor([[img.shape[3]], [img.shape[2]]], device=G.device) / 2
    theta = torch.cat([2 * G[:, :, :2], 2 * G[:, :, 2:] + offset], 2) / half_size
    grid = affine_grid(theta.to(img), [n, channels, height_out, width_out], align_corners=False)
    return downsample2d(grid_sample(img, grid), taps, padding=-RESAMPLING_MARGIN, flip_filter=True)


# ---- Color: C, [N, 3, 4], maps (r, g, b, 1) to (r, g, b). A transform multiplies C from the left.


def _luma(C: Tensor) -> Tensor:
    """Return v v'C, v = (1, 1, 1) / sqrt 3: the part of each column along the gray axis, `[N, 1, 4]` for all rows."""
    return C.mean(1, keepdim=True)


def brightness(C: Tensor, draws: Draws, chance: float) -> Tensor:
    """Add a constant."""
    b = _gated(BRIGHTNESS_STD * draws.normal(1, 1), 0, draws, chance)
    return torch.cat([C[:, :, :3], C[:, :, 3:] + b], 2)


def contrast(C: Tensor, draws: Draws, chance: float) -> Tensor:
    """Multiply by a constant."""
    return C * _gated((CONTRAST_STD * draws.normal(1, 1)).exp2(), 1, draws, chance)


def lumaflip(C: Tensor, draws: Draws, chance: float) -> Tensor:
    """Mirror lightness and keep hue and saturation, in half of the cases."""
    i = _gated((2 * draws.uniform(1, 1)).floor(), 0, draws, chance)
    return C - 2 * i * _luma(C)


def hue(C: Tensor, draws: Draws, chance: float) -> Tensor:
    """Rotate about the gray axis v: cos C + (1 - cos) v v'C + sin v x C (Rodrigues)."""
    angle = _gated((2 * draws.uniform(1, 1) - 1) * (torch.pi * HUE_MAX), 0, draws, chance)
    c, s = angle.cos(), angle.sin()
    cross = (C.roll(1, 1) - C.roll(-1, 1)) / 3**0.5
    return c * C + (1 - c) * _luma(C) + s * cross


def saturation(C: Tensor, draws: Draws, chance: float) -> Tensor:
    """Multiply the distance from the gray axis."""
    s = _gated((SATURATION_STD * draws.normal(1, 1)).exp2(), 1, draws, chance)
    luma = _luma(C)
    return luma + s * (C - luma)


_COLOR: tuple[tuple[str, Callable[..., Tensor]], ...] = (
    ("brightness", brightness),
    ("contrast", contrast),
    ("lumaflip", lumaflip),
    ("hue", hue),
    ("saturation", saturation),
)


def draw_colors(draws: Draws, chance: Mapping[str, float], img: Tensor) -> Tensor:
    """Return C, `[N, 3, 4]`, of all color transforms that have a chance; one-channel pictures have no hue."""
    C = torch.eye(3, 4, device=img.device).expand(len(img), 3, 4)
    for name, transform in _COLOR:
        if name in chance and (img.shape[1] == 3 or name not in ("hue", "saturation")):
            C = transform(C, draws, chance[name])
    return C


def recolor(img: Tensor, C: Tensor) -> Tensor:
    """Return C, `[N, 3, 4]`, applied to each pixel; one channel counts as gray, and the result is averaged."""
    if img.shape[1] == 1:
        C = C.mean(1, keepdim=True)
        C = torch.cat([C[:, :, :3].sum(2, keepdim=True), C[:, :, 3:]], 2)  # [N, 1, 2]
    C = C.to(img)
    return torch.baddbmm(C[:, :, -1:], C[:, :, :-1], img.flatten(2)).unflatten(2, img.shape[2:])


# ---- Image-space filter


def filter_bank() -> Tensor:
    """Return four zero-phase filters, float32 `[4, 43]`, lowest band first: an octave each, together an impulse."""
    low = torch.tensor(SYM2, dtype=torch.float64)
    high = low * torch.tensor([1, -1, 1, -1])
    low, high = (conv1d(f[None, None], f[None, None], padding=3)[0] / 2 for f in (low, high))  # autocorrelation, [1, 7]
    bank = torch.tensor([[1.0], [0], [0], [0]], dtype=torch.float64)
    for band in (1, 2, 3):
        spread = bank.new_zeros(4, 2 * bank.shape[1] - 1)
        spread[:, ::2] = bank
        bank = conv1d(spread[:, None], low[None], padding=6)[:, 0]
        middle = bank.shape[1] // 2
        bank[band, middle - 3 : middle + 4] += high[0]
    return bank.float()


def draw_gains(draws: Draws, chances: list[float], img: Tensor) -> Tensor:
    """Return gains of the four bands, `[N, 4]`; amplifying one band mutes the others, so natural power stays 1."""
    gains = torch.ones(len(img), 4, device=img.device)
    power = torch.tensor(BAND_POWER, device=img.device)
    bands = torch.arange(4, device=img.device)
    for band, chance in enumerate(chances):
        amplified = _gated((IMGFILTER_STD * draws.normal(1)).exp2(), 1, draws, chance)
        t = torch.where(bands == band, amplified, 1)  # [N, 4]
        gains = gains * t / (t.square() @ power).sqrt()[:, None]
    return gains


def amplify(img: Tensor, kernel: Tensor) -> Tensor:
    """Return pictures filtered along both axes with one odd, symmetric kernel each, `[N, taps]`; borders reflect."""
    n, channels, height, width = img.shape
    reach = kernel.shape[1] // 2
    kernel = kernel.repeat_interleave(channels, 0)
    img = pad(img, [reach] * 4, mode="reflect").reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
    img = conv2d(img, kernel[:, None, None, :], groups=n * channels)
    img = conv2d(img, kernel[:, None, :, None], groups=n * channels)
    return img.reshape(n, channels, height, width)


# ---- Corruption


def noise(img: Tensor, draws: Draws, chance: float) -> Tensor:
    """Add white Gaussian noise of half-normal strength."""
    sigma = _gated(NOISE_STD * draws.normal(1, 1, 1).abs(), 0, draws, chance)
    return img + (sigma * draws.normal(*img.shape[1:])).to(img)


def cutout(img: Tensor, draws: Draws, chance: float) -> Tensor:
    """Zero a rectangle of half of each side, its center anywhere in the picture."""
    size = torch.where(draws.uniform(1) < chance, CUTOUT_SIZE, 0.0)
    inside = []
    for center, side in zip(draws.uniform(2).split(1, 1), img.shape[:1:-1], strict=True):  # x, then y
        position = (torch.arange(side, device=img.device) + 0.5) / side
        inside.append((position - center).abs() < size / 2)  # [N, side]
    hole = inside[1][:, :, None] & inside[0][:, None, :]
    return img * ~hole[:, None]
