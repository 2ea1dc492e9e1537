"""A player: what it shows its augmentation, and what it carries for it."""

import pytest
import torch
from torch import nn

from pygan.augment.ada import ADA
from pygan.discriminators.plain import Plain
from pygan.draws import Draws


class Mean(nn.Module):
    def forward(self, img, c):
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
