"""Resizing: equal to the code that each protocol is named after, and what every resize must keep."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pygan.metrics.resize import PROTOCOLS, resize

SIDES = [(32, 128), (32, 299), (64, 32), (37, 100), (200, 128), (256, 299), (48, 48)]


def _images(n: int, side: int) -> Tensor:
    """The second half is black and white, so that the bicubic filter overshoots."""
    images = torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    images[n // 2 :] = torch.where(images[n // 2 :] > 127, 255, 0).to(torch.uint8)
    return images


@pytest.mark.parametrize(("side_in", "side_out"), SIDES)
def test_clean_is_clean_fids(side_in: int, side_out: int) -> None:
    theirs = pytest.importorskip("cleanfid.resize").make_resizer("PIL", False, "bicubic", (side_out, side_out))
    images = _images(4, side_in)
    expected = torch.stack([torch.tensor(theirs(x.permute(1, 2, 0).numpy())).permute(2, 0, 1) for x in images])
    result = resize(images, side_out)
    assert result.dtype == torch.float32 and result.shape == (4, 3, side_out, side_out)
    assert float((result - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize(("side_in", "side_out"), SIDES)
def test_legacy_pytorch_is_pytorchs_interpolation(side_in: int, side_out: int) -> None:
    images = _images(4, side_in)
    expected = F.interpolate(images.float(), size=(side_out, side_out), mode="bilinear", align_corners=False)
    assert float((resize(images, side_out, "legacy_pytorch") - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize(("side_in", "side_out"), SIDES)
def test_legacy_tensorflow_is_torch_fidelitys(side_in: int, side_out: int) -> None:
    theirs = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = _images(4, side_in)
    expected = theirs.interpolate_bilinear_2d_like_tensorflow1x(
        images.float(), size=(side_out, side_out), align_corners=False
    )
    assert float((resize(images, side_out, "legacy_tensorflow") - expected).abs().max()) <= 1e-4


def test_two_pixels_to_four_by_hand() -> None:
    """Columns 0 and 90: half-pixel centers sample at -1/4, 1/4, 3/4, 5/4, from the corner at 0, 1/2, 1, 3/2."""
    image = torch.tensor([[0, 90], [0, 90]], dtype=torch.uint8)[None, None]
    assert resize(image, 4, "legacy_pytorch")[0, 0, 0].tolist() == pytest.approx([0, 22.5, 67.5, 90])
    assert resize(image, 4, "legacy_tensorflow")[0, 0, 0].tolist() == pytest.approx([0, 45, 90, 90])


def test_the_protocols_differ_by_far_more_than_rounding() -> None:
    results = [resize(_images(2, 32), 299, protocol) for protocol in PROTOCOLS]
    for i, first in enumerate(results):
        for second in results[:i]:
            assert float((first - second).abs().mean()) > 1


def test_pictures_need_not_be_square() -> None:
    image_module = pytest.importorskip("PIL.Image")
    image = _images(1, 40)[0, 0, :20]  # [20, 40]
    pil = image_module.fromarray(image.float().numpy()).resize((16, 16), image_module.Resampling.BICUBIC)
    expected = torch.tensor(np.asarray(pil)).clamp(0, 255)
    torch.testing.assert_close(resize(image[None, None], 16)[0, 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_flat_pictures_stay_flat_and_values_in_range(protocol: str) -> None:
    flat = resize(torch.full((1, 3, 32, 32), 200, dtype=torch.uint8), 77, protocol)
    torch.testing.assert_close(flat, torch.full_like(flat, 200))
    extremes = resize(_images(4, 32), 99, protocol)
    assert float(extremes.min()) >= 0 and float(extremes.max()) <= 255


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        resize(torch.zeros(1, 3, 8, 8), 16)
