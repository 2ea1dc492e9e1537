"""DiffAugment: ranges derived from the definition, gradients, and the same draws for the same samples."""

import pytest
import torch

from pygan.augment.diffaug import color, cutout, translation
from pygan.context import Context
from pygan.draws import Draws
from pygan.spec import load_spec


def draws(n: int, seed: int = 0) -> Draws:
    return Draws(seed, "augment", torch.arange(n))


def test_translation_shifts_by_whole_pixels_up_to_an_eighth():
    img = torch.zeros(400, 1, 16, 16)
    img[:, 0, 8, 8] = 1
    moved = translation(img, draws(400))
    where = moved.flatten(1).argmax(1)
    dy, dx = where // 16 - 8, where % 16 - 8
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(400))
    for shift in (dy, dx):
        assert set(shift.tolist()) == {-2, -1, 0, 1, 2}  # 16 / 8 = 2


def test_translation_fills_with_zeros():
    moved = translation(torch.ones(200, 1, 16, 16), draws(200))
    kept = moved.sum((1, 2, 3)).int().tolist()
    sides = {16 - abs(s) for s in range(-2, 3)}
    assert set(kept) <= {a * b for a in sides for b in sides}


def test_cutout_zeroes_one_square_of_half_the_side():
    hole = 1 - cutout(torch.ones(300, 1, 16, 16), draws(300))
    rows, columns = hole.amax(3).sum((1, 2)), hole.amax(2).sum((1, 2))
    assert rows.max() == columns.max() == 8
    assert rows.min() >= 4  # its center stays inside, so half of it does
    assert torch.equal(hole.sum((1, 2, 3)), rows * columns)


def test_color_keeps_within_the_published_ranges():
    gray = torch.full((2000, 3, 2, 2), 0.25)
    shift = color(gray, draws(2000)) - gray  # a flat gray picture only feels brightness
    assert shift.min() >= -0.5 and shift.max() < 0.5
    assert shift.min() < -0.49 and shift.max() > 0.49
    img = torch.zeros(2000, 3, 2, 2)
    img[:, 0] = 1.0
    spread = color(img, draws(2000)).std(1)[:, 0, 0] / img.std(1)[:, 0, 0]  # saturation times contrast
    assert spread.max() <= 2 * 1.5 and spread.min() >= 0


def test_the_order_of_the_policy_is_kept():
    aug = load_spec("pygan.augment", {"kind": "diffaug", "policy": ["cutout"]}).build(Context(resolution=8))
    img = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(aug(img, draws(4)), cutout(img, draws(4)))


@pytest.mark.parametrize("family", [color, translation, cutout])
def test_differentiable_twice_and_repeatable(family):
    img = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: family(x, draws(2)), (img,))
    assert torch.autograd.gradgradcheck(lambda x: family(x, draws(2)).square(), (img,))
    assert torch.equal(family(img, draws(2)), family(img, draws(2)))


def test_color_is_the_three_published_steps_one_after_the_other():
    img = torch.rand(5, 3, 4, 4) * 2 - 1
    brightness, saturation, contrast = draws(5).uniform(3, 1, 1, 1).unbind(1)
    x = img + (brightness - 0.5)
    x = (x - x.mean(1, keepdim=True)) * (saturation * 2) + x.mean(1, keepdim=True)
    x = (x - x.mean((1, 2, 3), keepdim=True)) * (contrast + 0.5) + x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(color(img, draws(5)), x)
