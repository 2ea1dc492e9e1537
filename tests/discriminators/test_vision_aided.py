"""Vision-aided heads: shapes, what is trained, and what stays frozen."""

import pytest
import torch
from torch import nn

from pygan.context import Context
from pygan.discriminators.vision_aided import Spec
from pygan.draws import Draws
from pygan.losses import OBJECTIVES


class TwoTaps(nn.Module):
    """Stands for a frozen network: two feature maps of 5 and 7 channels."""

    name, channels = "two_taps", (5, 7)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 7, 3, 2)
        self.requires_grad_(False)

    def forward(self, img):
        a = self.a(img).relu()
        return [a, self.b(a)]


@pytest.fixture
def player():
    torch.manual_seed(0)
    return Spec(width=8).build(Context(resolution=16, frozen=(TwoTaps(),)), None, None)


def test_one_tensor_of_logits_per_network(player):
    logits = player(torch.randn(4, 3, 16, 16), None, None)
    assert [tensor.shape for tensor in logits] == [(2, 4)]
    assert player.heads == ("two_taps",)


def test_a_network_weighs_as_much_as_the_base_discriminator(player):
    """The hinge loss at logits zero is 2 for D, and 2 for a network whatever its number of taps."""
    for head in player.modules():
        if isinstance(head, nn.Conv2d) and head.out_channels == 1:
            nn.init.zeros_(head.bias)
    (logits,) = player(torch.randn(8, 3, 16, 16), None, None)
    zero = torch.zeros_like(logits[:, :4])
    assert OBJECTIVES["hinge"].D(zero, zero) == 2


def test_only_the_heads_learn(player):
    frozen = player._frozen[0]
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    assert not any("a.weight" in name for name, _ in player.named_parameters())
    img = torch.randn(4, 3, 16, 16, requires_grad=True)
    player(img, None, None)[0].sum().backward()
    assert img.grad.isfinite().all() and img.grad.abs().sum() > 0
    assert all(p.grad is not None for p in player.parameters())
    assert all(p.grad is None for p in frozen.parameters())
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())


def test_augmentation_is_drawn_for_its_samples():
    shifts = []

    def augment(img, draws):
        shifts.append(draws.uniform(1))
        return img

    player = Spec(width=8).build(Context(resolution=16, frozen=(TwoTaps(),)), None, augment)
    img = torch.randn(4, 3, 16, 16)
    player(img, None, Draws(0, "a", torch.arange(4)))
    player(img, None, None)
    assert len(shifts) == 1


def test_too_few_chosen_networks_are_named():
    with pytest.raises(ValueError, match=r"discriminators.vision_aided.count: got 2, but 1 were chosen"):
        Spec(count=2).build(Context(resolution=16, frozen=(TwoTaps(),)), None, None)
