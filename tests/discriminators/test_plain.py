"""A player: what it shows its augmentation, and what it carries for it."""

import pytest
import torch
from torch import nn

from pygan.augment.ada import ADA
from pygan.context import Context, Step
from pygan.discriminators.plain import Plain
from pygan.draws import Draws
from pygan.losses import OBJECTIVES
from pygan.spec import load_spec


class Mean(nn.Module):
    def forward(self, img, c, paired=False):
        return img.mean((1, 2, 3))


def test_augmentation_needs_draws():
    player = Plain(Mean(), lambda img, draws: img + draws.uniform(1, 1, 1))
    img, draws = torch.zeros(4, 3, 8, 8), Draws(0, "a", torch.arange(4))
    (plain,), (augmented,) = player(img, None, None), player(img, None, draws)
    assert torch.equal(plain, torch.zeros(4))
    torch.testing.assert_close(augmented, Draws(0, "a", torch.arange(4)).uniform())


@pytest.mark.parametrize("augment", [None, lambda img, draws: img])
def test_an_augmentation_that_does_not_adapt_is_left_alone(augment):
    player = Plain(Mean(), augment)
    player.observe([torch.ones(4)])
    assert player.adapt(3, 64) == {}
    assert player.state_dict() == {}


def test_an_adaptive_augmentation_hears_every_head_and_is_part_of_the_state():
    player = Plain(Mean(), ADA({"xflip": 1.0}, interval=1, speed_kimg=1.0))
    player.observe([torch.ones(4), torch.ones(2, 4)])  # one head, and one with two outputs
    assert player.state_dict()["augment.sign_count"] == player.state_dict()["augment.sign_sum"] == 12
    assert player.adapt(0, 64)["p"].item() == pytest.approx(0.064)
    assert player.state_dict()["augment.p"].item() == pytest.approx(0.064)


def test_real_and_generated_pictures_share_a_batch_but_no_minibatch_deviation():
    """StyleGAN2's logits of the pair are those of either kind alone, whose groups are then the published ones."""
    torch.manual_seed(0)
    base = load_spec("pygan.networks", {"kind": "stylegan2", "channel_base": 64, "channel_max": 8, "mbstd_group": 2})
    player = Plain(base.discriminator(Context(resolution=16))).train()
    step = Step(
        phase="D",
        step=0,
        nimg=4,
        G=nn.Identity(),
        D=nn.ModuleList([player]),
        objective=OBJECTIVES["hinge"],
        index=torch.arange(4),
        seed=0,
        real_img=torch.randn(4, 3, 16, 16),
        gen_img=torch.randn(4, 3, 16, 16) * 3,
    )
    (logits,) = player(*player.pair(step, 0))
    for part, img in ((logits[0::2], step.real_img), (logits[1::2], step.gen_img)):
        torch.testing.assert_close(part, player(img, None, None)[0], rtol=1e-4, atol=1e-5)


def test_a_judged_batch_may_have_any_size():
    base = load_spec("pygan.networks", {"kind": "stylegan2", "channel_base": 64, "channel_max": 8, "mbstd_group": 4})
    player = Plain(base.discriminator(Context(resolution=16))).eval()
    img = torch.randn(6, 3, 16, 16)
    assert player(img, None, None)[0].shape == (6,)
    with pytest.raises(ValueError, match="got 4, expected a divisor of the 6 pictures"):
        player.train()(img, None, None)
