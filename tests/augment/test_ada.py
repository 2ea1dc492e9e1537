"""The pipeline as a whole, and the controller of its probability."""

import numpy as np
import pytest
import torch
from published import PUBLISHED, published

from pygan.augment.ada import ADA, Spec
from pygan.context import Context
from pygan.draws import Draws


def draws(n: int, seed: int = 0) -> Draws:
    return Draws(seed, "augment", torch.arange(n))


@pytest.mark.parametrize(("family", "size"), [("bgc", 9), ("bgcfnc", 22)])
def test_differentiable_twice_with_respect_to_the_picture(family, size):
    aug = Spec(family=family, p=0.7).build(Context(resolution=size))
    img = torch.rand(2, 1, size, size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: aug(x, draws(2)), (img,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: aug(x, draws(2)).square(), (img,), fast_mode=True)


def test_the_same_draws_give_the_same_pictures():
    aug = Spec(family="bgcfnc", p=0.5).build(Context(resolution=24))
    img = torch.randn(4, 3, 24, 24)
    once = aug(img, draws(4))
    assert torch.equal(once, aug(img, draws(4)))
    assert not torch.equal(once, aug(img, draws(4, seed=1)))


def test_half_precision_and_autocast_are_computed_in_float32():
    aug = Spec(p=1).build(Context(resolution=16))
    img = torch.randn(2, 3, 16, 16).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = aug(img, draws(2))
    assert out.dtype == torch.float32
    assert torch.equal(out, aug(img.float(), draws(2)))


@pytest.mark.parametrize(
    ("family", "ctx", "message"),
    [
        (
            "bgcf",
            {"resolution": 16},
            r"augment.family: bgcf .* more than 21 pixels a side, got 16 x 16; use",
        ),
        ("bgc", {"resolution": 32, "channels": 4}, r"augment.family: bgc .* 1 or 3 channels, got 4; use family bg"),
    ],
)
def test_a_family_that_does_not_fit_the_data_is_refused_when_built(family, ctx, message):
    with pytest.raises(ValueError, match=message):
        Spec(family=family).build(Context(**ctx))


def test_an_unknown_transform_is_refused():
    with pytest.raises(ValueError, match=r"got \['flip'\], expected transforms out of xflip, rotate90"):
        ADA({"flip": 1.0, "hue": 1.0})


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        ADA({"hue": 1.0}, p=1)(torch.zeros(1, 2, 8, 8), draws(1))
    with pytest.raises(ValueError, match="got 8 x 30"):
        ADA({"imgfilter": 1.0}, p=1)(torch.zeros(1, 3, 8, 30), draws(1))


# ---- The controller


def signs(mean: float, n: int = 1000) -> torch.Tensor:
    """Logits whose mean sign is `mean`."""
    positive = round(n * (1 + mean) / 2)
    return torch.cat([torch.full((positive,), 0.3), torch.full((n - positive,), -2.0)])


def controlled(aug: ADA, means: list[float], nimg: int = 64) -> list[float]:
    """Adjust once per mean, after `interval` steps each; return p after every adjustment."""
    result = []
    for i, mean in enumerate(means):
        for j in range(aug.interval):
            aug.observe(signs(mean))
            value = aug.adapt(i * aug.interval + j, nimg)["p"]
        result.append(value.item())
    return result


def test_p_follows_the_sign_of_the_surplus_and_stays_at_or_above_0():
    step = 64 * 4 / 500_000
    found = controlled(ADA({}), [0.9, 0.6, 0.61, 0.1, 0.0, -1.0, 1.0])
    assert found == pytest.approx([step, step, 2 * step, step, 0, 0, step])


def test_p_has_no_upper_bound():
    assert controlled(ADA({}, p=1.0, speed_kimg=0.1, interval=1), [1.0]) == pytest.approx([1.64])


def test_p_is_adjusted_on_every_interval_only():
    aug = ADA({}, interval=3)
    changed = []
    for step in range(9):
        aug.observe(torch.ones(8))
        before = aug.p.item()
        aug.adapt(step, 100)
        changed.append(aug.p.item() != before)
    assert changed == [False, False, True] * 3


def test_p_stays_without_a_target_or_without_logits():
    assert controlled(ADA({}, p=0.3, target=None), [1.0, 1.0]) == pytest.approx([0.3, 0.3])
    silent = ADA({}, p=0.3)
    silent.adapt(3, 64)
    assert silent.p.item() == pytest.approx(0.3)


def test_the_state_dict_carries_the_controller():
    aug = ADA({"xflip": 1.0})
    assert set(aug.state_dict()) == {"p", "sign_sum", "sign_count"}
    controlled(aug, [0.9])
    aug.observe(signs(-0.5))
    other = ADA({"xflip": 1.0})
    other.load_state_dict(aug.state_dict())
    for twin in (aug, other):
        twin.observe(signs(0.8, 100))
        twin.adapt(7, 64)
    assert aug.p == other.p == 0


@PUBLISHED
def test_p_has_the_published_values():
    table = published("loss_step_32")["table/ada_p"]
    found = controlled(ADA({}), table[:, 0].tolist())
    np.testing.assert_allclose(found, table[:, 1], rtol=1e-5, atol=1e-9)
