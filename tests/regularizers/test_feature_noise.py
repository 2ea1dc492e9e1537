"""Noise on features: its law, its gradient, and that no noise is the clean loss."""

import pytest
import torch
from game import BASES, buffers, clean_loss, gradients, make_step

from pygan.context import Context
from pygan.draws import Draws
from pygan.regularizers.feature_noise import Spec

CTX = Context(resolution=32)


def noise_of(**fields) -> torch.Tensor:
    draws = Draws(0, "noise", torch.arange(200))
    return Spec(**fields).build(CTX).perturbation(torch.zeros(200, 64), lambda h: h.sum(1), torch.ones(200), draws)


def test_the_noise_is_normal_with_deviation_gamma():
    noise = noise_of(gamma=0.03)
    assert noise.shape == (200, 64)
    assert abs(float(noise.mean())) < 4 * 0.03 / (200 * 64) ** 0.5
    assert float(noise.std()) == pytest.approx(0.03, rel=0.05)
    assert float(noise.abs().max()) > 2.5 * 0.03


def test_the_released_noise_is_uniform_with_a_mean():
    noise = noise_of(gamma=0.1, release=True)
    assert noise.min() >= 0 and noise.max() < 0.1
    assert float(noise.mean()) == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("phase", ["D", "G"])
def test_no_noise_is_the_clean_loss_and_some_is_another_one(phase):
    step = make_step(phase, BASES["sngan"], augment="diffaug")
    before = buffers(step)
    torch.testing.assert_close(Spec(gamma=0.0).build(CTX)(step), clean_loss(step), rtol=1e-5, atol=1e-6)
    term = Spec(gamma=0.3).build(CTX)
    once, again = term(step), term(step)
    assert torch.equal(once, again) and not torch.isclose(once, clean_loss(step))
    after = buffers(step)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("phase", "first"), [("D", "0.network.blocks.0.conv1.bias"), ("G", "linear.weight")])
def test_the_noisy_branch_trains_the_first_half_unless_released(phase, first):
    step = make_step(phase, BASES["sngan"])
    ours = gradients(step, Spec(gamma=0.1).build(CTX)(step))
    released = gradients(step, Spec(gamma=0.1, release=True).build(CTX)(step))
    assert ours[first].abs().max() > 0
    assert released[first].abs().max() == 0
    assert max(g.abs().max() for g in released.values()) > 0


def test_every_sample_has_noise_of_its_own():
    noise = noise_of(gamma=1.0)
    assert len({tuple(row.tolist()) for row in noise}) == 200
