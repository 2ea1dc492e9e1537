"""Margin shift: the hinge with moved margins, and AdvAug's D side on every base."""

import pytest
import torch
from game import BASES, buffers, clean_loss, gradients, make_step
from torch.nn.functional import relu

from pygan.context import Context
from pygan.errors import ConfigError
from pygan.regularizers import feature_adversary, margin_shift
from pygan.spec import load_spec

CTX = Context(resolution=32)
DIRECTIONS = ("as_released", "adversarial")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_constant_shift_is_a_hinge_with_other_margins(direction):
    """As released: 1 - c for real, 1 + c for generated pictures; adversarial: 1 + c for both."""
    step = make_step("D", BASES["sngan"])
    real_margin = 1 - 0.3 if direction == "as_released" else 1 + 0.3
    expected = relu(real_margin - step.real_logits[0]).mean() + relu(1 + 0.3 + step.gen_logits[0]).mean()
    value = margin_shift.Spec(shift=0.3, direction=direction).build(CTX)(step)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("conditional", "direction"), [(False, "as_released"), (True, "adversarial")])
@pytest.mark.parametrize("base", BASES)
def test_it_is_the_D_side_of_advaug_with_the_same_gradients(base, conditional, direction):
    """Heads of all bases are affine. Double precision, because the two sum in another order."""
    double = base != "stylegan2"  # which computes in single precision
    step = make_step("D", BASES[base], conditional=conditional, double=double, loss="non_saturating")
    before = buffers(step)
    fields = {"gamma": 0.02, "steps": 3, "direction": direction}
    shift = margin_shift.Spec(**fields).build(CTX)(step)
    adversary = feature_adversary.Spec(**fields, sides=("D",)).build(CTX)(step)
    tolerance = {"rtol": 1e-9, "atol": 1e-10} if double else {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(shift, adversary, **tolerance)
    assert not torch.isclose(shift, clean_loss(step), rtol=1e-7)
    ours, theirs = gradients(step, shift), gradients(step, adversary)
    assert max(g.abs().max() for g in ours.values()) > 0
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **tolerance, msg=name)
    after = buffers(step)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_mean_mixing_is_half_and_half():
    step = make_step("D", BASES["dcgan"])
    shifted = margin_shift.Spec(shift=0.5).build(CTX)(step)
    mean = margin_shift.Spec(shift=0.5, mixing="mean").build(CTX)(step)
    torch.testing.assert_close(clean_loss(step) + mean, (clean_loss(step) + shifted) / 2)


@pytest.mark.parametrize(("key", "value"), [("gamma", -1.0), ("steps", 0), ("shift", -0.1), ("weight", 0.0)])
def test_settings_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"regularizers.0.{key}"):
        load_spec("pygan.regularizers", {"kind": "margin_shift", key: value}, "regularizers.0")
