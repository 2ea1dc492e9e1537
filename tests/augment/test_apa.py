"""Pseudo-augmentation: how many real pictures are replaced, by what, and what its players make of it."""

import math

import pytest
import torch
from torch import nn

from pygan.augment.ada import ADA, FAMILIES
from pygan.augment.apa import APA, Spec
from pygan.context import Context, Step
from pygan.discriminators.plain import Plain
from pygan.draws import Draws
from pygan.losses import OBJECTIVES
from pygan.regularizers.r1 import R1

N = 4096
REAL, GEN = torch.full((N, 1, 2, 2), 1.0), torch.full((N, 1, 2, 2), -1.0)


def draws(n: int = N, seed: int = 0) -> Draws:
    return Draws(seed, "deceive", torch.arange(n))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0, 1.7])
def test_a_share_of_p_is_replaced(p):
    img, _ = APA({}, p=p).deceive(REAL, None, GEN, None, draws())
    share = (img[:, 0, 0, 0] == -1).double().mean().item()
    chance = min(p, 1)
    assert abs(share - chance) <= 4 * math.sqrt(chance * (1 - chance) / N)


def test_pictures_are_replaced_whole_with_their_labels():
    real_c, gen_c = torch.zeros(N, dtype=torch.int64), torch.ones(N, dtype=torch.int64)
    img, c = APA({}, p=0.3).deceive(REAL, real_c, GEN, gen_c, draws())
    replaced = img.eq(-1).flatten(1)
    assert torch.equal(replaced.all(1), replaced.any(1))
    assert torch.equal(c, replaced.all(1).long()) and c.dtype == torch.int64


def test_what_is_replaced_depends_on_the_sample_alone():
    whole, _ = APA({}, p=0.5).deceive(REAL, None, GEN, None, draws())
    rest = Draws(0, "deceive", torch.arange(100, N))
    part, _ = APA({}, p=0.5).deceive(REAL[100:], None, GEN[100:], None, rest)
    assert torch.equal(whole[100:], part)
    other, _ = APA({}, p=0.5).deceive(REAL, None, GEN, None, draws(seed=1))
    assert not torch.equal(whole, other)


def test_no_gradient_reaches_the_generated_pictures():
    real, gen = torch.randn(8, 3, 4, 4, requires_grad=True), torch.randn(8, 3, 4, 4, requires_grad=True)
    img, _ = APA({}, p=0.5).deceive(real, None, gen, None, draws(8))
    img.square().sum().backward()
    assert gen.grad is None
    kept = (img == real).flatten(1).all(1)
    assert 0 < kept.sum() < 8
    assert torch.equal(real.grad, torch.where(kept[:, None, None, None], 2 * real, 0.0))


def test_p_follows_the_signs_of_the_deceived_real_logits():
    """Three of four logits are positive, r = 0.5: four steps of 50 pictures move p by 0.2, up above the target."""
    for target, expected in ((0.4, 0.5), (0.6, 0.1)):
        aug = APA({}, p=0.3, target=target, speed_kimg=1.0)
        for step in range(4):
            aug.observe(torch.tensor([3.0, 2.0, 1.0, -1.0]))
            p = aug.adapt(step, 50)["p"]
        assert p.item() == pytest.approx(expected, rel=1e-5)


def test_its_state_is_the_controller_s():
    assert set(APA({"xflip": 1.0}).state_dict()) == set(ADA({"xflip": 1.0}).state_dict())


def test_without_a_family_pictures_are_shown_as_they_are():
    aug = Spec(p=1.0).build(Context(resolution=32))
    img = torch.randn(4, 3, 32, 32)
    assert aug(img, draws(4)) is img


def test_with_a_family_the_transforms_are_ada_s_with_the_same_p():
    aug = Spec(family="bgc", p=0.8).build(Context(resolution=32))
    img = torch.rand(4, 3, 32, 32)
    ada = ADA(dict.fromkeys(FAMILIES["bgc"], 1.0), p=0.8)
    assert torch.equal(aug(img, draws(4)), ada(img, draws(4)))


def test_a_family_that_does_not_fit_the_data_is_refused():
    with pytest.raises(ValueError, match=r"^augment.family: bgcf does not fit the data"):
        Spec(family="bgcf").build(Context(resolution=16))


class Quadratic(nn.Module):
    """D(x) = |x|^2 / 2, whose gradient is x."""

    def forward(self, img, c, paired=False):
        return img.square().sum((1, 2, 3)) / 2


def make_step(aug: APA | None) -> Step:
    D = nn.ModuleList([Plain(Quadratic(), aug)])
    step = Step(
        phase="D",
        step=15,
        nimg=0,
        G=nn.Identity(),
        D=D,
        objective=OBJECTIVES["hinge"],
        index=torch.arange(64),
        seed=0,
    )
    step.real_img, step.gen_img = torch.ones(64, 1, 2, 2), torch.full((64, 1, 2, 2), 3.0)
    return step


@pytest.mark.parametrize(("p", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, None)])
def test_r1_sees_what_passes_as_real(p, share):
    """The squared gradient is 4 for a real picture and 4 x 9 for a generated one."""
    step = make_step(APA({}, p=p))
    if share is None:
        share = (step.draws("deceive/r1").uniform() < p).double().mean().item()
        assert 0 < share < 1
    value = R1(gamma=2.0, every=16)(step)
    assert value.item() == pytest.approx(4 * (1 - share) + 36 * share)


def test_a_step_without_generated_pictures_makes_them():
    """As in an optimizer step of R1's own."""
    step = make_step(APA({}, p=1.0))
    step.G = lambda z, c, draws: 5 * z
    step.gen_z, step.gen_img = torch.ones(64, 1, 2, 2, requires_grad=True), None
    img, _ = step.D[0].real(step, draws(64))
    assert torch.equal(img, torch.full((64, 1, 2, 2), 5.0)) and not img.requires_grad


def test_a_player_that_is_not_deceived_is_shown_the_real_pictures():
    for aug in (None, ADA({"xflip": 1.0}, p=1.0)):
        step = make_step(None)
        step.D[0].augment = aug
        img, c = step.D[0].real(step, draws(64))
        assert img is step.real_img and c is None
